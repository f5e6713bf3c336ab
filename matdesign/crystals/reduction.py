"""Lattice reduction for a whole batch: the shortest three vectors of a lattice."""

from __future__ import annotations

import torch
from torch import Tensor

_SWEEPS = 200
"""Bound on the reduction loops; a proper cell needs fewer than ten."""

_TOLERANCE = 1e-9


@torch.no_grad()
def reduce_lattice(lattice: Tensor) -> Tensor:
    """Return whole-number changes of basis to Minkowski-reduced cells.

    The reduced rows are the three successive minima of the lattice, shortest first.
    First every row is shortened against every other (fast for long, skewed cells), then
    Selling reduction gives an obtuse superbase v0..v3; the shortest independent three
    of its seven vectors v0, v1, v2, v3, v0+v1, v0+v2, v1+v2 are Minkowski reduced.

    Args:
        lattice: rows in angstrom, shape (crystals, 3, 3).

    Returns:
        Whole numbers in a float64 tensor H, so that `H @ lattice` is reduced;
        determinant +1 or -1. For a cell with NaN or no volume some such H, without an
        error.

    Source:
        Nguyen and Stehle 2009, doi:10.1145/1597036.1597050 (minima form a basis in
        three dimensions); Conway and Sloane 1992 (obtuse superbases). We run both on a
        batch.

    Example:
        >>> skewed = torch.tensor([[[4.0, 0, 0], [40.0, 3.0, 0], [0, 0, 5.0]]])
        >>> reduce_lattice(skewed) @ skewed.double()
        tensor([[[0., 3., 0.],
                 [4., 0., 0.],
                 [0., 0., 5.]]], dtype=torch.float64)
    """
    rows = torch.nan_to_num(lattice.detach().double(), 0.0, 0.0, 0.0)
    change = torch.eye(3).to(rows).repeat(len(rows), 1, 1)
    if not len(rows):
        return change
    change = _shorten(rows, change)
    superbase = _selling(rows, change)
    return _shortest_basis(rows, superbase)


def _shorten(lattice: Tensor, change: Tensor) -> Tensor:
    """Subtract whole multiples of one row from another while that shortens it."""
    rows = change @ lattice
    for _ in range(_SWEEPS):
        moved = False
        for i, j in ((2, 1), (2, 0), (1, 0), (1, 2), (0, 1), (0, 2)):
            square = rows[:, j].square().sum(-1).clamp_min(1e-12)
            ratio = (rows[:, i] * rows[:, j]).sum(-1) / square
            times = torch.where(
                ratio.abs() > 0.5 + _TOLERANCE, ratio.round(), torch.zeros_like(ratio)
            )
            if bool((times != 0).any()):
                moved = True
                change[:, i] -= times[:, None] * change[:, j]
                rows = change @ lattice
        if not moved:
            break
    return change


def _selling(lattice: Tensor, change: Tensor) -> Tensor:
    """Return an obtuse superbase in whole numbers, shape (crystals, 4, 3)."""
    base = torch.cat([change, -change.sum(1, keepdim=True)], dim=1)
    i, j = torch.triu_indices(4, 4, 1, device=lattice.device)
    crystal = torch.arange(len(base), device=lattice.device)
    scale = lattice.square().sum((1, 2))
    for _ in range(_SWEEPS):
        rows = base @ lattice
        dots = (rows[:, i] * rows[:, j]).sum(-1)  # (crystals, 6)
        worst, pair = dots.max(dim=1)
        acute = worst > _TOLERANCE * scale.clamp_max(1e6)
        if not bool(acute.any()):
            break
        at = crystal[acute]
        k, m = i[pair[at]], j[pair[at]]
        old = base[at, k]
        fresh = base[at] + old[:, None]  # the two others each gain v_k
        row = torch.arange(len(at), device=at.device)
        fresh[row, m] = base[at, m]
        fresh[row, k] = -old
        base[at] = fresh
    return base


def _shortest_basis(lattice: Tensor, base: Tensor) -> Tensor:
    """Return the shortest three independent vectors, shortest first."""
    v0, v1, v2, v3 = base.unbind(1)
    seven = torch.stack([v0, v1, v2, v3, v0 + v1, v0 + v2, v1 + v2], dim=1)
    order = (seven @ lattice).square().sum(-1).argsort(dim=1, stable=True)
    seven = seven.gather(1, order[..., None].expand_as(seven))
    normal = torch.linalg.cross(seven[:, 0], seven[:, 1], dim=-1)
    independent = (seven @ normal[..., None]).squeeze(-1).abs() > 0.5
    third = independent.to(torch.uint8).argmax(dim=1)  # the first that leaves the plane
    crystal = torch.arange(len(base), device=base.device)
    return torch.stack([seven[:, 0], seven[:, 1], seven[crystal, third]], dim=1)
