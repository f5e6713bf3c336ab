"""Making many crystals: batches of like size, particles, and the record that goes along."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import ShapeError
from matdesign.generators.control import Controller
from matdesign.generators.drawing import draw, one_thread, overlap
from matdesign.generators.request import Request

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator
    from matdesign.generators.planning import Plan


def draw_request(
    model: Generator,
    request: Request,
    *,
    seed: int | torch.Generator | None,
    steps: int,
    scale: float,
    batch_size: int | None,
    controller: Controller | None = None,
) -> Crystals:
    """Return one crystal for each wish of a request.

    Crystals with about as many atoms (or orbits: `model.bucketing`) are made together, so
    that little is wasted on padding. With a controller that takes several particles,
    those of one crystal stay in one batch.

    Args:
        model: any generator.
        request: checked wishes.
        seed: of all randomness.
        steps: sampling steps.
        scale: of classifier-free guidance.
        batch_size: crystals (or particles) made at once; None takes the model's own.
        controller: looks at every state and may change it.

    Raises:
        ShapeError: batch_size is not positive.
    """
    if batch_size is None:
        batch_size = model.default_batch_size[0 if model.device.type == "cpu" else 1]
    if batch_size < 1:
        raise ShapeError(f"batch_size must be at least 1; got {batch_size}.")
    start, before, n = time.perf_counter(), model.evaluations, len(request)
    redrawn = model.redrawn
    rng = generator(seed, model.device)
    first, copies, noise = rng.initial_seed(), 1, 0.0
    if controller is not None:
        copies = controller.particles
        noise = controller.noise if model.deterministic else 0.0
        request = request[torch.arange(n).repeat_interleave(copies)]
        request = dataclasses.replace(request, choices=controller.choices)
    plan = model.plan(request, rng, scale, steps)
    plan = dataclasses.replace(plan, scale=scale, noise=noise)
    order = _order_made(model, plan, copies)
    parts = []
    with one_thread(n * copies <= 64 and model.device.type == "cpu"):
        for chunk in order.split(max(1, batch_size // copies)) if n else ():
            rows = (chunk[:, None] * copies + torch.arange(copies)).flatten()
            some = plan[rows].to(model.device)
            parts.append(draw(model, some, steps=steps, rng=rng, controller=controller))
    made = Crystals.cat(parts)[torch.argsort(order)] if parts else _nothing()
    info = provenance(model, first, steps, start, before)
    info["redrawn"] = model.redrawn - redrawn
    info["overlapping"] = int(overlap(made).sum()) if parts else 0
    return made.replace(info=info)


def _order_made(model: Generator, plan: Plan, copies: int = 1) -> Tensor:
    """Return the crystals of a plan in the order in which they are made, small ones first.

    Args:
        model: what makes them; its `bucketing` says what is counted.
        plan: of all crystals, particles of one after the other.
        copies: particles of each crystal, of which the largest counts.

    Returns:
        Long, shape (crystals,).
    """
    size = plan.layout.orbits.sum(1) if model.bucketing == "orbits" else plan.n_atoms
    return torch.argsort(size.view(-1, copies).amax(1), stable=True)


def provenance(
    model: Generator, seed: int, steps: int, start: float, before: int
) -> dict[str, Any]:
    """Return the record that travels with a batch of samples.

    Args:
        model: what made them.
        seed: of all randomness.
        steps: sampling steps.
        start: when it began, by the performance counter.
        before: evaluations of the network before.
    """
    from matdesign import __version__

    return {
        "generator": type(model).__name__,
        "model": model.record.get("name", ""),
        "seed": seed,
        "steps": steps,
        "seconds": round(time.perf_counter() - start, 3),
        "network_evaluations": model.evaluations - before,
        "device": str(model.device),
        "version": __version__,
    }


def _nothing() -> Crystals:
    return Crystals(
        torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, 0, 3), torch.zeros(0, 3, 3)
    )
