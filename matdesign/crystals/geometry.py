"""Periodic geometry: wrap, torus differences, minimum images, distances.

Rows of a lattice are a, b, c, so Cartesian = fractional @ lattice. In a skewed cell the
nearest image of a site need not be among the 27 cells around it; every function here
first goes to a Minkowski-reduced cell of the same lattice, in which it always is.
"""

from __future__ import annotations

import itertools
import math
from typing import Protocol

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.errors import ShapeError

_NEIGHBOURS = [n for n in itertools.product((-1, 0, 1), repeat=3) if n > (0, 0, 0)]
"""One of each pair +n, -n of the 26 cells around the home cell."""

OVERLAP_SHARE = 0.6
"""Least distance of two atoms, in sums of their atomic radii."""

OVERLAP_LEAST = 0.7
"""Least distance of any two atoms, angstrom."""

_CHUNK_NUMBERS = 12_000_000
"""Most numbers that one block of pair distances may hold at once (about 100 MB)."""

_SWEEPS = 200
"""Bound on the reduction loops; a proper cell needs fewer than ten."""

_TOLERANCE = 1e-9


class Sites(Protocol):
    """Crystals, or what has their coordinates: `Crystals` and `SoftCrystals`."""

    @property
    def frac(self) -> Tensor:
        """Fractional coordinates, shape (crystals, sites, 3)."""

    @property
    def lattice(self) -> Tensor:
        """Rows in angstrom, shape (crystals, 3, 3)."""

    @property
    def mask(self) -> Tensor:
        """Which sites exist, shape (crystals, sites)."""


def wrap(frac: Tensor) -> Tensor:
    """Return fractional coordinates moved into [0, 1).

    `x - floor(x)` alone is not enough: in float32 a small negative number such as -1e-9
    gives exactly 1.0, outside the interval; that value becomes 0.

    Example:
        >>> wrap(torch.tensor([-1e-9, 1.0, 2.25, -0.25])).tolist()
        [0.0, 0.0, 0.25, 0.75]
    """
    moved = frac - torch.floor(frac)
    return torch.where(moved >= 1.0, torch.zeros_like(moved), moved)


def torus_difference(start: Tensor, end: Tensor) -> Tensor:
    """Return the shortest way from start to end, each coordinate on its own circle.

    This is the difference of the torus [0, 1)^3, the space a coordinate sampler moves
    in. It is not the minimum image: in a skewed cell another image may lie nearer in
    angstrom; for that use `displacement`.

    Equation:
        log(x, y) = y - x - round(y - x), in [-1/2, 1/2]

    Example:
        >>> torus_difference(torch.tensor(0.9), torch.tensor(0.1)).item() > 0
        True
    """
    moved = end - start
    return moved - torch.round(moved)


def displacement(start: Tensor, end: Tensor, lattice: Tensor) -> Tensor:
    """Return the Cartesian vector from each start to the nearest image of its end.

    The integer shift is found without gradient; the vector itself is differentiable in
    all three arguments. Exact for any cell, however skewed.

    Args:
        start: fractional coordinates, shape (crystals, ..., 3).
        end: fractional coordinates, broadcastable with `start`.
        lattice: rows in angstrom, shape (crystals, 3, 3).

    Returns:
        Vectors in angstrom, shape (crystals, ..., 3), dtype of the inputs.

    Raises:
        ShapeError: `lattice` is not one 3 x 3 matrix per leading entry.

    Accuracy:
        The search runs in float64. In a Minkowski-reduced cell, with the difference
        rounded to [-1/2, 1/2], the nearest image is among 27 cells; tested against a
        wide brute-force search in test_geometry.py.

    Example:
        >>> cell = 4.0 * torch.eye(3)[None]
        >>> displacement(torch.tensor([[0.1, 0, 0]]), torch.tensor([[0.9, 0, 0]]), cell)
        tensor([[-0.8000,  0.0000,  0.0000]])
    """
    moved = end - start
    if lattice.ndim != 3 or lattice.shape[1:] != (3, 3) or moved.ndim < 2:
        raise ShapeError(
            f"lattice must be (crystals, 3, 3) and sites (crystals, ..., 3); got "
            f"{tuple(lattice.shape)} and {tuple(moved.shape)}. Add a leading axis."
        )
    flat = moved.reshape(moved.shape[0], math.prod(moved.shape[1:-1]), 3)
    if lattice.shape[0] not in (1, flat.shape[0]):
        raise ShapeError(
            f"need one lattice per crystal: got {lattice.shape[0]} lattices for "
            f"{flat.shape[0]} crystals. Pass the lattices of the same batch."
        )
    near = _nearest(flat, lattice.expand(flat.shape[0], 3, 3), reduce_lattice(lattice))
    return near.reshape(moved.shape).to(moved.dtype)


def distances(crystals: Sites, *, include_self: bool = False) -> Tensor:
    """Return minimum-image distances between all sites of each crystal.

    Differentiable in `frac` and `lattice` (zero gradient where two sites coincide).

    Args:
        crystals: anything with `frac`, `lattice` and `mask`.
        include_self: put the distance from a site to its own nearest image, which is
            the shortest lattice vector, on the diagonal; otherwise the diagonal is 0.

    Returns:
        Distances in angstrom, shape (crystals, sites, sites); infinite where either
        site is padding.

    Example:
        >>> from matdesign.crystals.batch import Crystals
        >>> frac = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
        >>> one = Crystals(torch.tensor([[55, 17]]), frac, 4.0 * torch.eye(3)[None])
        >>> distances(one)[0, 0].tolist()
        [0.0, 3.464101552963257]
    """
    frac, lattice, mask = crystals.frac, crystals.lattice, crystals.mask
    b, s = mask.shape
    i, j = torch.triu_indices(s, s, 1, device=frac.device).unbind(0)
    apart = _pair_distances(frac, lattice, i, j)
    out = torch.zeros(b, s, s, dtype=frac.dtype, device=frac.device)
    out[:, i, j] = apart
    out[:, j, i] = apart
    if include_self:
        diagonal = torch.arange(s, device=frac.device)
        out[:, diagonal, diagonal] = shortest_vector(lattice)[:, None].to(out.dtype)
    both = mask[:, :, None] & mask[:, None, :]
    return torch.where(both, out, torch.full_like(out, math.inf))


def min_distance(crystals: Sites, *, include_self: bool = False) -> Tensor:
    """Return the shortest distance between two sites of each crystal.

    Self images are excluded by default, as in the published validity check: a crystal
    of one site then has no pair, and an infinite distance.

    Args:
        crystals: anything with `frac`, `lattice` and `mask`.
        include_self: also count the distance from a site to its own images, which is
            the length of the shortest lattice vector.

    Returns:
        Distances in angstrom, shape (crystals,); NaN where a coordinate or the cell is.

    Example:
        >>> from matdesign.crystals.batch import Crystals
        >>> frac = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
        >>> one = Crystals(torch.tensor([[55, 17]]), frac, 4.0 * torch.eye(3)[None])
        >>> round(min_distance(one).item(), 3)
        3.464
    """
    apart = distances(crystals, include_self=include_self)
    if not include_self:
        own = torch.eye(apart.shape[1], dtype=torch.bool, device=apart.device)
        apart = apart.masked_fill(own, math.inf)
    none = apart.new_full((len(apart), 1), math.inf)
    return torch.cat([apart.flatten(1), none], dim=1).amin(dim=1)


def clearance(
    frac: Tensor,
    species: Tensor,
    lattice: Tensor,
    mask: Tensor,
    new: Tensor | None = None,
) -> Tensor:
    """Return the smallest distance of two atoms over the smallest that they may have.

    Equation:
        min_ij d_ij / max(OVERLAP_SHARE (r_i + r_j), OVERLAP_LEAST)

    Args:
        frac: fractional coordinates, shape (crystals, sites, 3).
        species: atomic numbers, shape (crystals, sites).
        lattice: rows in angstrom, shape (crystals, 3, 3).
        mask: atoms that count, bool, shape (crystals, sites).
        new: atoms of which each pair has one at least, same shape; None = all.

    Returns:
        Shape (crystals,); below 1 two atoms overlap; infinite for fewer than two atoms.
    """
    b, s = mask.shape
    if not s:
        return lattice.new_full((b,), math.inf)
    atom = torch.arange(s, device=mask.device)
    mine, one = mask, atom.expand_as(mask)
    if new is not None:  # those atoms first, no more of the others than there must be
        mine = mask & new
        mine, one = mine.byte().topk(max(int(mine.sum(1).amax()), 1), dim=1)
    moved = frac[:, None] - frac.gather(1, one[..., None].expand(-1, -1, 3))[:, :, None]
    near = _nearest(moved.flatten(1, 2), lattice, reduce_lattice(lattice))
    distance = near.norm(dim=-1).to(lattice.dtype).reshape(moved.shape[:-1])
    radius = elements.table("radius").to(lattice)[species]
    sums = radius[:, None] + radius.gather(1, one)[:, :, None]
    both = mine.bool()[:, :, None] & mask[:, None] & (one[:, :, None] != atom)
    ratio = distance / (OVERLAP_SHARE * sums).clamp(min=OVERLAP_LEAST)
    return ratio.masked_fill(~both, math.inf).flatten(1).amin(1)


def shortest_vector(lattice: Tensor) -> Tensor:
    """Return the length of the shortest non-zero lattice vector, shape (crystals,).

    Example:
        >>> skewed = torch.tensor([[[3.0, 0, 0], [30.0, 1.0, 0], [0, 0, 5.0]]])
        >>> shortest_vector(skewed).tolist()
        [1.0]
    """
    change = reduce_lattice(lattice).to(torch.float64)
    rows = change @ lattice.double()
    return rows[:, 0].norm(dim=-1).to(lattice.dtype)


def _nearest(moved: Tensor, lattice: Tensor, change: Tensor) -> Tensor:
    """Return minimum-image vectors in float64.

    Args:
        moved: fractional differences, shape (crystals, pairs, 3).
        lattice: rows in angstrom, shape (crystals, 3, 3).
        change: integer rows that reduce each lattice, shape (crystals or 1, 3, 3).
    """
    reduced = change.double() @ lattice.double()  # rows of the reduced cell
    x = moved.double() @ torch.linalg.inv(change.double()).round()
    x = x - x.detach().round()  # (crystals, pairs, 3), each in [-1/2, 1/2]
    cart = x @ reduced
    with torch.no_grad():
        steps = torch.tensor(_NEIGHBOURS, dtype=torch.float64, device=moved.device)
        images = steps @ reduced.detach()  # (crystals, 13, 3)
        along = cart.detach() @ images.transpose(1, 2)  # (crystals, pairs, 13)
        # |x -+ v|^2 - |x|^2 is smallest with the sign that opposes x
        gain = images.square().sum(-1)[:, None, :] - 2 * along.abs()
        best, which = gain.min(dim=-1)
        sign = along.gather(-1, which[..., None]).sign() * (best < 0)[..., None]
        shift = sign * steps[which]
    return cart - shift @ reduced


def _pair_distances(frac: Tensor, lattice: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Return distances of the site pairs (i, j), shape (crystals, pairs), in blocks."""
    pairs = max(1, i.numel())
    block = max(1, _CHUNK_NUMBERS // (len(_NEIGHBOURS) * pairs))
    change = reduce_lattice(lattice)
    parts = []
    for at in range(0, len(frac), block):
        some = slice(at, at + block)
        moved = frac[some][:, j] - frac[some][:, i]
        near = _nearest(moved, lattice[some], change[some])
        square = near.square().sum(-1)
        zero = square == 0
        root = torch.where(zero, torch.ones_like(square), square).sqrt()
        parts.append(torch.where(zero, torch.zeros_like(root), root).to(frac.dtype))
    return torch.cat(parts) if parts else frac.new_zeros(0, i.numel())


# ---- reduction of lattices -----------------------------------------------------------


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
