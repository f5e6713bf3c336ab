"""Making many crystals: the loop run to its end, batches of like size, what overlaps again."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from matdesign.crystals import geometry
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import ShapeError
from matdesign.generators.control import Controller, State, States
from matdesign.generators.planning import Plan, resample
from matdesign.generators.request import Request


def draw_request(
    model: Any,
    request: Request,
    *,
    seed: int | torch.Generator | None,
    steps: int,
    scale: float,
    batch_size: int | None,
    controller: Controller | None = None,
) -> Crystals:
    """Return one crystal for each condition of a request, with the record of the making.

    Crystals with about as many atoms (or orbits: `model.bucketing`) are made together, so
    that little is wasted on padding. With a controller that takes several particles,
    those of one crystal stay in one batch. All settings are those of `Generator.sample`.

    Raises:
        ShapeError: batch_size is not positive.
    """
    from matdesign import __version__

    if batch_size is None:
        batch_size = model.default_batch_size[0 if model.device.type == "cpu" else 1]
    if batch_size < 1:
        raise ShapeError(f"batch_size must be at least 1; got {batch_size}.")
    start, evaluations, redrawn = time.perf_counter(), model.evaluations, model.redrawn
    rng, n = generator(seed, model.device), len(request)
    first, copies, noise = rng.initial_seed(), 1, 0.0
    if controller is not None:
        copies = controller.particles
        noise = controller.noise if model.deterministic else 0.0
        request = request[torch.arange(n).repeat_interleave(copies)]
        request = dataclasses.replace(request, choices=controller.choices)
    plan = model.plan(request, rng, scale, steps)
    plan = dataclasses.replace(plan, scale=scale, noise=noise)
    size = plan.layout.orbits.sum(1) if model.bucketing == "orbits" else plan.n_atoms
    order = torch.argsort(size.view(-1, copies).amax(1), stable=True)
    parts = []
    with one_thread(n * copies <= 64 and model.device.type == "cpu"):
        for chunk in order.split(max(1, batch_size // copies)) if n else ():
            some = plan[_particles(chunk, copies)].to(model.device)
            parts.append(draw(model, some, steps=steps, rng=rng, controller=controller))
    none = Crystals(
        torch.zeros(0, 0).long(), torch.zeros(0, 0, 3), torch.zeros(0, 3, 3)
    )
    made = Crystals.cat(parts)[torch.argsort(order)] if parts else none
    return made.replace(
        info={
            "generator": type(model).__name__,
            "model": model.record.get("name", ""),
            "seed": first,
            "steps": steps,
            "seconds": round(time.perf_counter() - start, 3),
            "network_evaluations": model.evaluations - evaluations,
            "device": str(model.device),
            "version": __version__,
            "redrawn": model.redrawn - redrawn,
            "overlapping": int(overlap(made).sum()),
        }
    )


def draw(
    model: Any,
    plan: Plan,
    *,
    steps: int,
    rng: torch.Generator,
    controller: Controller | None = None,
) -> Crystals:
    """Return one crystal for each row of a plan, or for each group of particles.

    A crystal in which two atoms overlap is drawn again with the same plan, so that its
    size, layout and asked composition stay, at most `model.redraws` times, and counted in
    `model.redrawn`. The crystals without overlap are those that the model draws without
    this.

    Equation:
        p(x | plan, no overlap) ~ p(x | plan) 1[no overlap], by rejection

    Args:
        model: any `Generator`.
        plan: on the model's device.
        steps: sampling steps.
        rng: source of randomness.
        controller: looks at every state; where it takes several particles for a crystal,
            these are rows of the plan one after the other, and one of them stands.
    """
    copies = 1 if controller is None else controller.particles
    made = finish(model.states(plan, steps, rng), controller, plan)
    if not model.redraws:
        return made
    left = overlap(made).nonzero().squeeze(1)
    model.redrawn += len(left)
    good = torch.zeros(len(left), dtype=torch.bool, device=left.device)

    def again(rows: Tensor, attempt: int) -> None:
        nonlocal made
        at = left[rows.to(left.device)]
        some = plan[_particles(at, copies).to(model.device)]
        new = finish(model.states(some, steps, rng), controller, some)
        well = ~overlap(new)
        good[rows] = well
        order = torch.arange(len(made), device=left.device)
        order[at[well]] = len(made) + well.nonzero().squeeze(1)
        made = Crystals.cat([made, new])[order]

    resample(again, lambda rows: good[rows], len(left), model.redraws)
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

    The bound is that of `geometry.clearance`: 0.6 sums of atomic radii, at least 0.7
    angstrom.
    """
    c = crystals
    return geometry.clearance(c.frac, c.species, c.lattice, c.mask) < 1


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Let torch use one thread for a while.

    For a few crystals handing out the work costs more than it saves, and on a machine
    that is busy with other things threads that wait for each other cost very much more.
    """
    before = torch.get_num_threads()
    if wanted:
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


def normal(like: Tensor, rng: torch.Generator) -> Tensor:
    """Return standard normal noise of the same shape, type and device."""
    return torch.randn(like.shape, generator=rng, device=like.device, dtype=like.dtype)


def uniform(shape: tuple[int, ...], like: Tensor, rng: torch.Generator) -> Tensor:
    """Return uniform noise in [0, 1) with the type and device of a tensor."""
    return torch.rand(shape, generator=rng, device=like.device, dtype=like.dtype)


def choose(logits: Tensor, rng: torch.Generator, temperature: float = 1.0) -> Tensor:
    """Return one index drawn from each row of logits, shape (...).

    Args:
        logits: log probabilities up to a constant, -inf = never, shape (..., choices).
        rng: source of randomness.
        temperature: below 1 the likelier ones more often; 0 takes the most probable.
    """
    if not temperature:
        return logits.argmax(-1)
    flat = (logits / temperature).softmax(-1).flatten(0, -2)
    return torch.multinomial(flat, 1, generator=rng).view(logits.shape[:-1])


def _particles(crystals: Tensor, copies: int) -> Tensor:
    """Return the rows of a plan that are particles of some crystals."""
    return (crystals[:, None] * copies + torch.arange(copies).to(crystals)).flatten()
