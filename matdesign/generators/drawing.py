"""Drawing the crystals of a plan, and drawing again those whose atoms overlap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.frames import Steering
from matdesign.generators.overlap import clearance
from matdesign.generators.planning import Plan
from matdesign.generators.steering import run

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator

COPIES = 8
"""How many skeletons are drawn at once, at most; the first whole one counts."""


def copies(turn: int) -> int:
    """Return how many skeletons to draw at once for what failed in all turns before.

    Most that fail once succeed the second time. Skeletons are independent of each other,
    so that only the cost depends on this number: 11 turns are 73 skeletons.

    Args:
        turn: 0 at first.
    """
    return min(4 * turn - 2, COPIES) if turn else 1


def draw(
    model: Generator,
    plan: Plan,
    *,
    steps: int,
    scale: float,
    rng: torch.Generator,
    steering: Steering | None = None,
) -> Crystals:
    """Return one crystal for each row of a plan, or for each group of particles.

    A crystal in which two atoms overlap is drawn again with the same plan, so that its
    size, layout and asked composition stay, at most `model.redraws` times, and counted in
    `model.redrawn`. The crystals that stand apart at once are those that the model draws
    without this.

    Equation:
        p(x | plan, apart) = p(x | plan) 1[apart] / P(apart | plan), by rejection

    Args:
        model: any generator.
        plan: on the model's device.
        steps: sampling steps.
        scale: of classifier-free guidance.
        rng: source of randomness.
        steering: looks at every state; where it takes several particles for a crystal,
            these are rows of the plan one after the other, and one of them stands.
    """
    copies = 1 if steering is None else steering.particles

    def last(some: Plan) -> Crystals:
        states = model._states(some, steps=steps, scale=scale, rng=rng)
        if steering is not None:
            steering.begin(model, len(some) // copies)
        state, chosen = run(states, steering)
        return state.preview if chosen is None else state.preview[chosen]

    made = last(plan)
    if not model.redraws:
        return made
    left = overlap(made).nonzero().squeeze(1)
    model.redrawn += len(left)
    for _ in range(model.redraws):
        if not len(left):
            break
        rows = (left[:, None] * copies + torch.arange(copies).to(left)).flatten()
        again = last(plan[rows.to(model.device)])
        bad = overlap(again)
        good = (~bad).nonzero().squeeze(1)
        made = _put(made, left[good.to(left.device)], again[good])
        left = left[bad.to(left.device)]
    return made


def overlap(crystals: Crystals) -> Tensor:
    """Return where two atoms are nearer than any two may be, bool, shape (crystals,).

    The bound is that of `overlap.clearance`: 0.6 sums of atomic radii, at least 0.7 angstrom.
    """
    layout = Layout.whole_cell(crystals.n_atoms.cpu()).to(crystals.device)
    room = clearance(
        layout, crystals.species, crystals.frac, crystals.lattice, layout.orbits
    )
    return room < 1


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Let torch use one thread for a while.

    For a few crystals handing out the work costs more than it saves, and on a machine
    that is busy with other things threads that wait for each other cost very much more.
    """
    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _put(crystals: Crystals, where: Tensor, new: Crystals) -> Crystals:
    """Return crystals of which those at `where` are replaced."""
    if not len(where):
        return crystals
    order = torch.arange(len(crystals), device=where.device)
    order[where] = len(crystals) + torch.arange(len(where), device=where.device)
    return Crystals.cat([crystals, new])[order]
