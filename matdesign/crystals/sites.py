"""Wyckoff positions from symmetry operations: orbits, stabilisers, free coordinates.

No table of positions is needed. The operations that leave a point where it is say on
which affine subspace it may move; one operation per image gives its orbit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from matdesign.errors import DataError

Array = np.ndarray[Any, Any]

SAME = 1e-3
"""Two refined positions nearer than this, in angstrom, are one."""

_SHIFTS = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=float)


@dataclass(frozen=True)
class Site:
    """One orbit of a crystal: a species on a Wyckoff position.

    Args:
        species: atomic number.
        letter: Wyckoff letter in the standard setting.
        anchor: fractional coordinates of one atom of the orbit, in [0, 1).
        members: for each atom of the orbit, the number of an operation that takes the
            anchor to it; the first is the identity.
        basis: directions in which the anchor may move, rows, shape (free, 3); each free
            coordinate moves by 1 along its own row.
        offset: the position at zero free coordinates, shape (3,).
        axes: which coordinates of the anchor are the free ones (0, 1, 2).
    """

    species: int
    letter: str
    anchor: tuple[float, float, float]
    members: tuple[int, ...]
    basis: tuple[tuple[float, float, float], ...]
    offset: tuple[float, float, float]
    axes: tuple[int, ...]

    @property
    def multiplicity(self) -> int:
        """Atoms of the orbit in the conventional cell."""
        return len(self.members)

    @property
    def free(self) -> tuple[float, ...]:
        """Values of the free coordinates."""
        return tuple(self.anchor[axis] for axis in self.axes)

    @property
    def coordinates(self) -> str:
        """The position as crystallographers write it, such as `x, 2x, 1/4`."""
        rows = np.array(self.basis).reshape(-1, 3)
        return ", ".join(
            _term(rows[:, k], ["xyz"[axis] for axis in self.axes], self.offset[k])
            for k in range(3)
        )

    def moved(self, free: tuple[float, ...]) -> Site:
        """Return the same position with other values of its free coordinates."""
        from dataclasses import replace

        if len(free) != len(self.axes):
            raise DataError(
                f"position {self.multiplicity}{self.letter} has {len(self.axes)} free "
                f"coordinates ({self.coordinates}); got {len(free)} values."
            )
        basis = np.array(self.basis).reshape(-1, 3)
        point = unit(np.array(self.offset) + np.array(free, dtype=float) @ basis)
        return replace(self, anchor=as_triple(point))


@cache
def operations(spacegroup: int) -> tuple[Array, Array]:
    """Return the operations of a space group in its conventional standard cell.

    Unique axis b, hexagonal axes for rhombohedral groups, origin choice 2. Centring
    translations are included.

    Args:
        spacegroup: 1 to 230.

    Returns:
        Rotations, shape (operations, 3, 3), and translations, shape (operations, 3);
        they act on columns of fractional coordinates, x -> R x + t.

    Raises:
        DataError: the number is not a space group.

    Example:
        >>> rotations, translations = operations(225)
        >>> len(rotations)  # 48 rotations x 4 lattice points
        192
    """
    import moyopy

    if not 1 <= spacegroup <= 230:
        raise DataError(
            f"a space group number lies between 1 and 230; got {spacegroup}. Find one "
            "with matdesign.crystals.symmetry.spacegroup."
        )
    found = moyopy.operations_from_number(spacegroup, setting=moyopy.Setting.standard())
    rotations = np.array(found.rotations, dtype=float)
    translations = unit(np.round(np.array(found.translations) * 24) / 24)
    first = int(
        np.argmin(
            np.abs(rotations - np.eye(3)).sum((1, 2)) + np.abs(translations).sum(1)
        )
    )
    order = [first, *(i for i in range(len(rotations)) if i != first)]
    return rotations[order], translations[order]


def images(point: Array, spacegroup: int) -> Array:
    """Return the images of a point under all operations, in [0, 1), shape (ops, 3)."""
    rotations, translations = operations(spacegroup)
    return unit(rotations @ point + translations)


def make_site(
    species: int, letter: str, point: Array, spacegroup: int, lattice: Array
) -> Site:
    """Return the orbit of a point, with the point moved exactly onto its position.

    Of all atoms of the orbit the anchor is the one whose position reads simplest: free
    coordinates first, then small numbers.

    Args:
        species: atomic number.
        letter: Wyckoff letter.
        point: fractional coordinates in the conventional cell, within `SAME` of the
            position.
        spacegroup: 1 to 230.
        lattice: conventional cell, rows in angstrom.
    """
    everywhere = images(point, spacegroup)
    orbit = _distinct(everywhere, lattice)[1]
    if len(orbit) == len(everywhere):  # a general position: all atoms read x, y, z
        orbit = orbit[np.lexsort(np.round(orbit, 6).T[::-1])[:1]]
    candidates = []
    for start in orbit:
        basis, offset, axes = subspace(start, spacegroup, lattice)
        free = start[list(axes)]
        anchor = unit(offset + free @ basis)
        candidates.append((_rank(basis, offset, anchor), anchor, basis, offset, axes))
    _, anchor, basis, offset, axes = min(candidates, key=lambda one: one[0])
    members, _ = _distinct(images(anchor, spacegroup), lattice)
    return Site(
        species,
        letter,
        as_triple(anchor),
        tuple(members),
        tuple(as_triple(row) for row in basis),
        as_triple(offset),
        axes,
    )


def subspace(
    point: Array, spacegroup: int, lattice: Array
) -> tuple[Array, Array, tuple[int, ...]]:
    """Return where a point may move without leaving its Wyckoff position.

    Equation:
        the mean of x -> R x + t + n over all operations that fix the point projects
        onto its position; its rows span the free directions.

    Returns:
        basis (free, 3), offset (3,) and the free axes, so that a point of the position
        is `offset + free @ basis` with `free = point[axes]`.
    """
    rotations, translations = operations(spacegroup)
    mapped = rotations @ point + translations
    apart = mapped - point
    whole = np.round(apart)
    fixed = np.linalg.norm((apart - whole) @ lattice, axis=1) < SAME
    projector = rotations[fixed].mean(0)
    shift = (translations - whole)[fixed].mean(0)
    basis, axes = _echelon(projector.T)
    onto = projector @ point + shift
    offset = onto - onto[list(axes)] @ basis
    return basis, np.round(offset * 24) / 24, axes


def nearest_on(site: Site, points: Array) -> Array:
    """Return points moved onto a site's position, by the shortest way on the torus.

    Args:
        site: the position.
        points: fractional coordinates of anchors, shape (..., 3).
    """
    basis, offset = np.array(site.basis).reshape(-1, 3), np.array(site.offset)
    lifted = points[..., None, :] + _SHIFTS - offset  # (..., 27, 3)
    onto = np.zeros((3, 3))
    if len(basis):
        onto = np.linalg.pinv(basis) @ basis
    moved = lifted @ onto
    miss = ((moved - lifted) ** 2).sum(-1)
    best = miss.argmin(-1)
    found = np.take_along_axis(moved, best[..., None, None], axis=-2)[..., 0, :]
    return unit(found + offset)


def unit(frac: Array) -> Array:
    """Return coordinates in [0, 1); what is within 1e-12 of 1 becomes 0."""
    moved = frac - np.floor(frac)
    return np.where(moved > 1 - 1e-12, 0.0, moved)


def as_triple(row: Array) -> tuple[float, float, float]:
    """Return three plain numbers; -0 becomes 0."""
    x, y, z = (float(value) + 0.0 for value in row)
    return (x, y, z)


def _distinct(points: Array, lattice: Array) -> tuple[list[int], Array]:
    """Return the first index and the coordinates of every distinct point."""
    apart = points[:, None] - points[None]
    apart = (apart - np.round(apart)) @ lattice
    first = ((apart**2).sum(-1) < SAME**2).argmax(1)
    kept = np.flatnonzero(first == np.arange(len(points)))
    return kept.tolist(), points[kept]


def _echelon(rows: Array) -> tuple[Array, tuple[int, ...]]:
    """Return the reduced row echelon form and its pivot columns."""
    work, axes, at = np.array(rows, dtype=float), [], 0
    for column in range(3):
        pivot = at + int(np.abs(work[at:, column]).argmax()) if at < 3 else 0
        if at == 3 or abs(work[pivot, column]) < 1e-8:
            continue
        work[[at, pivot]] = work[[pivot, at]]
        work[at] /= work[at, column]
        for other in range(3):
            if other != at:
                work[other] -= work[other, column] * work[at]
        axes.append(column)
        at += 1
    return np.round(work[:at] * 24) / 24, tuple(axes)


def _rank(basis: Array, offset: Array, anchor: Array) -> tuple[float, ...]:
    """Return a key that sorts simple positions first."""
    signs = -np.sign(basis.sum(0)) if len(basis) else np.zeros(3)
    flat = np.abs(basis).sum(0) if len(basis) else np.zeros(3)
    return tuple(np.round([*signs, *(flat > 1.5), *unit(offset), *anchor], 6).tolist())


def _term(weights: Array, names: list[str], constant: float) -> str:
    """Return one coordinate as text."""
    from fractions import Fraction

    words = []
    for weight, name in zip(weights, names):
        size = Fraction(float(weight)).limit_denominator(24)
        if size:
            sign = "-" if size < 0 else "+"
            words.append(f"{sign}{'' if abs(size) == 1 else abs(size)}{name}")
    rest = Fraction(float(constant)).limit_denominator(24)
    if rest or not words:
        words.append(f"{'-' if rest < 0 else '+'}{abs(rest)}")
    return "".join(words).lstrip("+")
