"""Drawing the crystals of a plan, and drawing again those whose atoms overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.layout import Layout
from matdesign.generators.overlap import clearance
from matdesign.generators.planning import Plan

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator


def draw(
    model: Generator, plan: Plan, *, steps: int, scale: float, rng: torch.Generator
) -> Crystals:
    """Return one crystal for each row of a plan.

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
    """
    made = _last(model, plan, steps, scale, rng)
    if not model.redraws:
        return made
    left = overlap(made).nonzero().squeeze(1)
    model.redrawn += len(left)
    for _ in range(model.redraws):
        if not len(left):
            break
        again = _last(model, plan[left.to(model.device)], steps, scale, rng)
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


def _last(
    model: Generator, plan: Plan, steps: int, scale: float, rng: torch.Generator
) -> Crystals:
    """Return the last preview of one sampling."""
    states = model._states(plan, steps=steps, scale=scale, rng=rng)
    return deque(states, maxlen=1)[0].preview


def _put(crystals: Crystals, where: Tensor, new: Crystals) -> Crystals:
    """Return crystals of which those at `where` are replaced."""
    if not len(where):
        return crystals
    order = torch.arange(len(crystals), device=where.device)
    order[where] = len(crystals) + torch.arange(len(where), device=where.device)
    return Crystals.cat([crystals, new])[order]
