"""Moving a preview: along gradients, by projection, to coordinates that are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals import elements
from matdesign.crystals.batch import SoftCrystals
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.crystals.lattice_code import to_code
from matdesign.errors import DataError
from matdesign.generators.control import Preview

FARTHEST = 3.0
"""Largest move of one step, in preview stds."""

STRONGEST = 20.0
"""Largest change of the log-probability of an element, nats."""


def proximal_step(
    preview: Preview,
    parts: Sequence[Constraint],
    strength: float,
    iterations: int = 1,
    seen: dict[Constraint, Tensor] | None = None,
    least: float = 1.0,
) -> tuple[Preview, Tensor | None]:
    """Return a preview moved to where model and constraints agree best.

    The finished crystal is taken to be normally distributed around the preview; the mode
    of this density times exp(strength x reward) is found by linear steps. No gradient
    runs through the network. Real data are narrower than the noise says and forget small
    moves before the next step; so a preview is moved by at least `strength` preview stds,
    unless the constraint is met before. That makes strength 1 mean the same in every unit
    and family.

    Equation:
        x* = argmax  -lambda v(x) / scale - 1/2 (x - x_0)^T V^-1 (x - x_0), linearised:
        x <- x - eta V g,  g = dv/dx,  |g|^2 = g^T V g,
        eta = min(max(lambda / scale, lambda least / |g|), v / |g|^2);
        log p(e) <- log p(e) - lambda / scale (max(0, v + d_e) - v) for undecided
        elements, d_e = dv/dp_e - sum_e' p_e' dv/dp_e'.

    Args:
        preview: of any family.
        parts: constraints with differentiable violations; each is served in order.
        strength: lambda; 0 moves nothing.
        iterations: how often all are served.
        seen: takes note of the violation of each constraint before it is served first.
        least: preview stds, for strength 1, by which a preview is moved at least; 0
            leaves the size of the step to the reward alone.

    Returns:
        The moved preview, and what to add to the log-probabilities of the elements, shape
        (crystals, orbits, 104), or None where all are decided.

    Accuracy:
        With `least` = 0 exact for normal data (tests/teach/test_toys.py);
        otherwise strength is a dial and not the exponent of the reward.

    Source:
        Universal guidance, Bansal et al., arXiv 2302.07121, backward part. Changed: a
        proximal step in the metric of the preview std instead of many plain ones. A step of one
        preview std, whatever the size of the gradient: Yang et al., arXiv
        2402.03201.
    """
    u, code, logits = preview.u, preview.code, None
    open_ = preview.species == MASK
    for number in range(iterations if strength else 0):
        for part in parts:
            weigh = number == 0 and bool(open_.any())
            v, (gu, gc, gb) = _gradients(preview, u, code, part, weigh)
            if seen is not None:
                seen.setdefault(part, v)
            su, sc = preview.std
            gu = gu * preview.layout.free * su
            gc = gc * preview.layout.code_free * sc
            square = gu.square().sum((1, 2)) + gc.square().sum(1)
            root = square.sqrt().clamp(min=1e-12)
            eta = (strength * least / root).clamp(min=strength / part.scale)
            eta = torch.minimum(eta, v / square.clamp(min=1e-12))
            eta = torch.minimum(eta, FARTHEST / root)
            u = wrap(u - eta[:, None, None] * su * gu) * preview.layout.free
            code = code - eta[:, None] * sc * gc
            if weigh:
                change = gb - (preview.probabilities * gb).sum(-1, keepdim=True)
                left = (v[:, None, None] + change).clamp(min=0) - v[:, None, None]
                added = (-strength / part.scale * left).clamp(-STRONGEST, STRONGEST)
                added = added * open_[..., None]
                logits = added if logits is None else logits + added
    return dataclasses.replace(preview, u=u, code=code), logits


def project(preview: Preview, parts: Sequence[Constraint]) -> Preview:
    """Return a preview projected onto constraints that have an exact projection.

    Args:
        preview: of any family.
        parts: constraints; those without a projection leave it as it is.
    """
    for part in parts:
        soft = preview.soft()
        moved = part.project(soft)
        if moved is not None:
            preview = _taken_over(preview, soft, moved)
    return preview


class Replacement:
    """Holds the first sites and the cell of each crystal to what a constraint knows.

    The preview of known numbers is replaced by the known numbers themselves. A sampler
    that goes on from there follows the path, or the exact bridge, from its own noise to
    them, so that at every time they are a forward-noised copy of what is known, and the
    other sites are denoised in their company.

    Equation:
        x_s[known] ~ q(x_s | x_t, x_0 = known);  x_s[free] ~ p(x_s | x_t)

    Only orbits of a layout in which all coordinates are free can be fixed: crystals in P1.
    Known sites that are not the first ones keep their distances to each other; the
    sampler chooses their height and origin.

    Args:
        constraint: with `known()`.
        first: the site at which its coordinates begin.

    Source:
        SCIGEN, Okabe et al., arXiv 2407.04557; inpainting by replacement: Lugmayr et al.,
        arXiv 2201.09865. Changed: the bridge from the sampler's own noise instead of
        fresh noise at every step, so that consecutive copies fit each other.
    """

    def __init__(self, constraint: Constraint, first: int = 0) -> None:
        known = constraint.known()
        if known is None:
            raise DataError(
                f"replacement needs known coordinates; got a constraint without: {constraint}."
            )
        self.constraint, self.known = constraint, known
        self.first, self.end = first, first + len(known.frac)

    def put_back(self, preview: Preview) -> tuple[Preview, Tensor]:
        """Return a preview with the known numbers in place, and which coordinates they are.

        Args:
            preview: of crystals in P1.

        Raises:
            DataError: a crystal has fewer free sites than are known.
        """
        lay, known = preview.layout, self.known
        sites = slice(self.first, self.end)
        free = lay.free.all(-1)[:, : self.end]
        if free.shape[1] < self.end or not bool(free.all()):
            raise DataError(
                f"{self.constraint} fixes sites up to the {self.end}th, but a crystal has "
                "fewer whose coordinates are all free. Ask for more atoms (n_atoms), and "
                'use a model in the representation "cell".'
            )
        u = preview.u.clone()
        u[:, sites] = known.frac.to(u)
        if self.first:
            shift = torus_difference(known.frac.to(u), preview.u[:, sites])
            near = shift[:, :1]
            mean = near + torus_difference(near, shift).mean(1, keepdim=True)
            u[:, sites] = wrap(u[:, sites] + mean)
        fixed = torch.zeros_like(lay.free)
        fixed[:, sites] = True
        raw = preview.scales.restore(preview.code)
        size = lay.conventional_atoms.to(raw).log()[:, None] / 3
        six = torch.tensor([0.0, 0, 0, 0, 0, 1], device=raw.device).to(raw)
        wanted = known.project(raw + size * six) - size * six
        code = preview.scales.standardize(wanted, lay)
        return dataclasses.replace(preview, u=u, code=code), fixed


def gradients_by(constraint: Constraint) -> set[str]:
    """Return by which parts of undecided crystals a violation has gradients.

    Args:
        constraint: a single one; it is tried on a crystal of two atoms.

    Returns:
        Some of "species", "frac" and "lattice".
    """
    species = torch.full((1, 2, elements.MAX_Z + 1), 1 / elements.MAX_Z)
    species[..., 0] = 0
    frac, mask = torch.tensor([[[0.0, 0, 0], [0.5, 0.4, 0.3]]]), species[..., 1] > 0
    leaves = [one.requires_grad_() for one in (species, frac, 4 * torch.eye(3)[None])]
    with torch.enable_grad():
        v = constraint.violation(SoftCrystals(leaves[0], leaves[1], leaves[2], mask))
        if not v.requires_grad:
            return set()
        found = torch.autograd.grad(v.sum(), leaves, allow_unused=True)
    names = ("species", "frac", "lattice")
    return {name for name, g in zip(names, found, strict=True) if g is not None}


def _gradients(
    preview: Preview, u: Tensor, code: Tensor, part: Constraint, weigh: bool
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return a violation and its gradients by u, code and probabilities; zero where not finite."""
    with torch.enable_grad():
        inputs = [one.detach().clone().requires_grad_() for one in (u, code)]
        inputs.append(preview.probabilities.detach().clone().requires_grad_(weigh))
        v = part.violation(preview.soft(*inputs))
        wanted = inputs if weigh else inputs[:2]
        found: Sequence[Tensor | None] = [None] * 3
        if v.requires_grad:
            found = torch.autograd.grad(v.sum(), wanted, allow_unused=True)
    made = [
        torch.zeros_like(one) if g is None else g.nan_to_num(0.0, 0.0, 0.0)
        for one, g in zip(inputs, [*found, None], strict=False)
    ]
    return v.detach().nan_to_num(0.0, 0.0, 0.0), (made[0], made[1], made[2])


def _taken_over(preview: Preview, soft: SoftCrystals, moved: SoftCrystals) -> Preview:
    """Return the preview whose crystals are the moved ones, as far as its layout allows."""
    lay, u, code = preview.layout, preview.u, preview.code
    away = torus_difference(soft.frac, moved.frac) * soft.mask[..., None]
    if bool(away.any()):
        u = wrap(u + lay.pull_back(away)) * lay.free
    rows = ((moved.lattice - soft.lattice).abs() > 0).flatten(1).any(1)
    rows &= moved.lattice.isfinite().all(-1).all(-1)
    if bool(rows.any()):
        cell = torch.linalg.solve(lay.cell.to(moved.lattice), moved.lattice)
        fresh = preview.scales.standardize(
            to_code(
                torch.where(rows[:, None, None], cell, torch.eye(3).to(cell)),
                lay.conventional_atoms,
            ),
            lay,
        )
        code = torch.where(rows[:, None], fresh, code)
    each = preview.probabilities
    if not torch.equal(moved.species, soft.species):  # atoms of an orbit vote
        atoms = moved.species * moved.mask[..., None]
        index = lay.orbit[..., None].expand_as(atoms)
        votes = torch.zeros_like(each).scatter_add(1, index, atoms)
        each = votes / votes.sum(-1, keepdim=True).clamp(min=1e-12)
    return dataclasses.replace(preview, u=u, code=code, probabilities=each)
