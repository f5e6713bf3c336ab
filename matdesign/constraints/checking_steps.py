"""What `check_constraint` does to a constraint: slopes by differences, walks by masks."""

from __future__ import annotations

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.elements import MASK, MAX_Z

MASK_SITES = 8
"""Most atoms of a cell on which masks are tried."""

FIELDS = ("species", "places", "cell")
"""What a violation may depend on, in the words of a report."""


def slope_errors(
    constraint: Constraint, crystals: Crystals, rng: torch.Generator
) -> tuple[dict[str, float], list[str], int]:
    """Return how far gradients are from finite differences.

    Elements are made undecided first, so that beliefs may move. A slope is looked at
    where the differences to both sides agree; a kink has none.

    Equation:
        (v(x + h d) - v(x - h d)) / 2 h = d . grad v(x), d random, of one field at a time

    Args:
        constraint: a single one.
        crystals: where to look; the first 40 are taken.
        rng: of beliefs and directions.

    Returns:
        Largest error of each field, relative to its largest slope; fields that have a
        slope; number of slopes compared.
    """
    soft = _undecided(crystals[:40], rng)
    inputs = [soft.species, soft.frac, soft.lattice]
    leaves = [one.clone().requires_grad_() for one in inputs]
    with torch.enable_grad():
        v = _violation(constraint, leaves, soft.mask)
        grads: tuple[Tensor | None, ...] = (None, None, None)
        if v.requires_grad:
            grads = torch.autograd.grad(v.sum(), leaves, allow_unused=True)
    h = 1e-6 if v.dtype == torch.float64 else 1e-3
    worst: dict[str, float] = {}
    used, tried = [], 0
    for k, name in enumerate(FIELDS):
        way = _direction(k, inputs[k], soft.mask, rng)
        up, down = (
            _violation(
                constraint,
                [x + s * way if i == k else x for i, x in enumerate(inputs)],
                soft.mask,
            )
            for s in (h, -h)
        )
        here = v.detach()
        right, left = (up - here) / h, (here - down) / h
        grad = grads[k]
        slope = torch.zeros_like(here)
        if grad is not None:
            slope = (grad * way).flatten(1).sum(1)
            if bool(grad.any()):
                used.append(name)
        size = right.abs().maximum(left.abs()).maximum(slope.abs())
        smooth = here.isfinite() & ((right - left).abs() <= 0.01 * size + 1e-9)
        off = (slope - (right + left) / 2).abs()[smooth]
        if len(off):
            largest = float(size[smooth].max())
            worst[name] = float(off.max()) / largest if largest > 1e-6 else 0.0
            tried += len(off)
    return worst, used, tried


def walks(
    constraint: Constraint, crystals: Crystals, rng: torch.Generator
) -> tuple[Crystals, int, int]:
    """Return crystals whose elements were drawn one by one among what a mask allows.

    All sites are hidden first; elements come from those of the given crystals.

    Args:
        constraint: one with a mask.
        crystals: give sizes, places and cells.
        rng: of the draws.

    Returns:
        The finished crystals; how many had no element left on the way; how many had
        none at the start.
    """
    there = crystals.mask
    within = torch.zeros(MAX_Z + 1, dtype=torch.bool)
    within[crystals.species[there]] = True
    species = torch.where(there, MASK, 0)
    lost = torch.zeros(len(crystals), dtype=torch.bool)
    refused = lost.clone()
    for site in range(there.shape[1]):
        found = constraint.allowed(species, there.long(), None, within)
        assert found is not None
        may = found[:, site]
        stuck = there[:, site] & ~may.any(1) & ~lost & ~refused
        refused |= stuck & (site == 0)
        lost |= stuck & (site > 0)
        rows = (there[:, site] & ~lost & ~refused).nonzero().squeeze(1)
        if len(rows):
            drawn = torch.multinomial(may[rows].double(), 1, generator=rng)
            species[rows, site] = drawn.squeeze(1)
    done = ~lost & ~refused
    made = Crystals(species[done], crystals.frac[done], crystals.lattice[done])
    return made, int(lost.sum()), int(refused.sum())


def _undecided(crystals: Crystals, rng: torch.Generator) -> SoftCrystals:
    """Return crystals in float64 with beliefs spread over the elements of all of them."""
    soft = crystals.soft()
    known = soft.species.flatten(0, 1).any(0)
    other = torch.rand(soft.species.shape, generator=rng, dtype=torch.float64) * known
    belief = 0.7 * soft.species.double() + 0.3 * other / other.sum(-1, keepdim=True)
    belief = belief * soft.mask[..., None]
    return SoftCrystals(belief, soft.frac.double(), soft.lattice.double(), soft.mask)


def _direction(k: int, like: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
    """Return a random direction of one field; beliefs keep their sum."""
    way = torch.randn(like.shape, generator=rng, dtype=like.dtype)
    if k == 0:
        way = way * (like > 0)
        way = way - like * way.sum(-1, keepdim=True)
    return way * mask[..., None] if k < 2 else way


def _violation(constraint: Constraint, parts: list[Tensor], mask: Tensor) -> Tensor:
    return constraint.violation(SoftCrystals(parts[0], parts[1], parts[2], mask))
