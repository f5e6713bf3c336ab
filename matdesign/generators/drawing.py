"""Drawing the crystals of a plan, and drawing again those whose atoms overlap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.control import Controller, State, States
from matdesign.generators.overlap import clearance
from matdesign.generators.planning import Plan

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator

COPIES = 8
"""How many skeletons are drawn at once, at most; the first whole one counts."""


def copies(attempt: int) -> int:
    """Return how many skeletons to draw at once for what failed in all attempts before.

    Most that fail once succeed the second time. Skeletons are independent of each other,
    so that only the cost depends on this number: 11 attempts are 73 skeletons.

    Args:
        attempt: 0 at first.
    """
    return min(4 * attempt - 2, COPIES) if attempt else 1


def draw(
    model: Generator,
    plan: Plan,
    *,
    steps: int,
    rng: torch.Generator,
    controller: Controller | None = None,
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
        rng: source of randomness.
        controller: looks at every state; where it takes several particles for a crystal,
            these are rows of the plan one after the other, and one of them stands.
    """
    copies = 1 if controller is None else controller.particles

    def last(some: Plan) -> Crystals:
        return finish(model.states(some, steps, rng), controller, some)

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


def finish(states: States, controller: Controller | None, plan: Plan) -> Crystals:
    """Return the crystals at the end of a sampling loop.

    Args:
        states: the loop, not begun yet.
        controller: looks at every state and chooses among particles; None lets all pass.
        plan: of the crystals.
    """
    if controller is not None:
        crystals = len(plan) // controller.particles
        controller.begin(plan.species.device, crystals)
    state = next(states)
    while True:
        try:
            sent = None if controller is None else controller.control(state)
            state = states.send(sent)
        except StopIteration as end:
            state = State(0.0, state.step, end.value)
            break
    if controller is None:
        return state.crystals
    return state.crystals[controller.choose(state)]


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


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def _put(crystals: Crystals, where: Tensor, new: Crystals) -> Crystals:
    """Return crystals of which those at `where` are replaced."""
    if not len(where):
        return crystals
    order = torch.arange(len(crystals), device=where.device)
    order[where] = len(crystals) + torch.arange(len(where), device=where.device)
    return Crystals.cat([crystals, new])[order]
