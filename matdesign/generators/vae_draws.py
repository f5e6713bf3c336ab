"""New crystals of a VAE before their geometry: latents, layouts and elements.

Whether their atoms will stand apart is seen here, before batches are made, so that what
fails in any of them is drawn again together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from matdesign.crystals.geometry import min_distance
from matdesign.generators.drawing import copies
from matdesign.generators.planning import Plan, plan_cells
from matdesign.generators.request import Request
from matdesign.generators.vae_latent import Latent
from matdesign.generators.vae_plan import (
    LatentPlan,
    draw_skeletons,
    layout_of,
    with_latent,
)

if TYPE_CHECKING:
    from matdesign.generators.vae import VAE

REDRAWS = 20
"""How often a crystal whose atoms come too near is drawn again."""


def drawn(
    model: VAE, request: Request, rng: torch.Generator, scale: float, steps: int
) -> Plan:
    """Return latents, and layouts and elements that meet the wishes, on the CPU.

    Where the model has a smallest distance, crystals that break it are drawn again, up to
    `REDRAWS` times: latent, layout, elements, and the size where none was asked for.

    Equation:
        p(x | asked, apart) = p(x | asked) 1[apart] / P(apart | asked), by rejection

    Args:
        model: the autoencoder.
        request: what is asked for.
        rng: source of randomness, on the model's device.
        scale: of classifier-free guidance.
        steps: passes that mend the decoder's guess.
    """
    left = torch.arange(len(request))
    if not len(left):
        return plan_cells(request, request.n_atoms, len(model.properties), rng)
    done: list[tuple[Tensor, LatentPlan]] = []
    for attempt in range(REDRAWS + 1):
        # what failed is drawn several times at once, and the first that stands apart counts
        rows = left.repeat_interleave(copies(attempt))
        made = _once(model, request[rows], rng, scale)
        good = torch.ones(len(rows), dtype=torch.bool)
        if model.apart > 0 and attempt < REDRAWS:
            good = nearest(model, made, steps, rng) >= model.apart
        good = good.view(len(left), -1)
        found = good.any(1)
        first = good.int().argmax(1) + good.shape[1] * torch.arange(len(left))
        if found.any():
            done.append((left[found], made[first[found]]))
        left = left[~found]
        if not len(left):
            break
        model.redrawn += len(left) * (attempt == 0)
    order = torch.cat([rows for rows, _ in done]).argsort()
    whole = Plan.cat([part for _, part in done])
    latent = Latent(
        torch.cat([part.latent.whole for _, part in done]),
        _joined([part.latent.orbits for _, part in done]),
    )
    return with_latent(whole, latent)[order]


def _joined(parts: list[Tensor]) -> Tensor:
    """Return what belongs to orbits as one, padded with zeros to the widest."""
    wide = max(part.shape[1] for part in parts)
    pad = nn.functional.pad
    return torch.cat([pad(one, (0, 0, 0, wide - one.shape[1])) for one in parts])


def _once(
    model: VAE, request: Request, rng: torch.Generator, scale: float
) -> LatentPlan:
    """Return crystals that meet the wishes, whether or not atoms will stand apart."""
    asked = model.embedding(request.condition, scale)
    z, made = draw_skeletons(
        model.skeleton,
        model.prior,
        asked,
        model.wishes(request, rng),
        model.scales.allowed,
        rng,
        scale=scale,
        temperature=model.temperature,
        choices=request.choices,
    )
    layout, species = layout_of(made, cells=model.representation == "cell")
    shape = (*species.shape, model.geometry.own.in_features)
    own = torch.randn(shape, generator=rng, device=z.device) * layout.orbits[..., None]
    role = torch.full_like(species, -1)
    plan = Plan(layout, species, role, request.condition, request.choices, scale)
    return with_latent(plan, Latent(z, own)).to("cpu")


def nearest(model: VAE, plan: LatentPlan, steps: int, rng: torch.Generator) -> Tensor:
    """Return how near two atoms of each crystal come, angstrom, (crystals,), on the CPU.

    Args:
        model: the autoencoder.
        plan: latents, layouts and elements.
        steps: passes that mend the decoder's guess.
        rng: source of the decoder's own noise.
    """
    near = torch.zeros(len(plan), dtype=model.scales.mean.dtype)
    order = torch.argsort(plan.n_atoms, stable=True)
    size = model.default_batch_size[0 if model.device.type == "cpu" else 1]
    for rows in order.split(size):
        *_, last = model.states(plan[rows].to(model.device), steps, rng)
        near[rows] = min_distance(last.soft).cpu()
    return near
