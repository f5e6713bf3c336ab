"""Nets of points in a plane (kagome, honeycomb, ...) and where they are in a crystal."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.predictors.features import neighbours

Array = np.ndarray[Any, Any]

_HEXAGONAL = ((1.0, 0.0), (-0.5, 0.75**0.5))
_SQUARE = ((1.0, 0.0), (0.0, 1.0))

LONGEST = 6.0
"""Longest bond of a net of open size that is looked for, angstrom."""

SHORTEST = 1.0
"""And the shortest."""


@dataclass(frozen=True)
class Net:
    """Points in a plane that repeat in two directions.

    Args:
        name: what it is called.
        plane: rows a and b of its cell, any size.
        sites: fractional coordinates of its points, shape (points, 2).
    """

    name: str
    plane: tuple[tuple[float, float], ...]
    sites: tuple[tuple[float, float], ...]

    @cached_property
    def cell(self) -> Array:
        """Rows a and b with the shortest distance between two points as unit, (2, 2)."""
        rows = np.array(self.plane)
        return rows / self._vectors(rows)[0][0]

    @cached_property
    def neighbours(self) -> tuple[tuple[tuple[Array, int], ...], ...]:
        """For each point: vectors to those around it, and which point of the cell it is.

        As far out as is needed for the net to hang together and for the first point to
        have neighbours in two directions; in units of the shortest distance.
        """
        return tuple(
            tuple((v, t) for r, s, t, v in self._all if s == k and r < self.reach)
            for k in range(len(self.sites))
        )

    @cached_property
    def reach(self) -> float:
        """Distance up to which `neighbours` looks, a little more than the last."""
        for radius in sorted({round(r, 6) for r, _, _, _ in self._all}):
            near = [one for one in self._all if one[0] < radius + 1e-3]
            joined = {0}
            for _ in self.sites:
                joined |= {t for _, s, t, _ in near if s in joined}
            rays = np.array([v for _, s, _, v in near if s == 0])
            spans = len(rays) > 1 and np.linalg.matrix_rank(rays, tol=1e-3) == 2
            if len(joined) == len(self.sites) and spans:
                return float(radius) * 1.05
        raise DataError(f"the points of {self.name} do not make a net in a plane.")

    @cached_property
    def _all(self) -> list[tuple[float, int, int, Array]]:
        return self._vectors(self.cell)

    def _vectors(self, rows: Array) -> list[tuple[float, int, int, Array]]:
        """Return (distance, from, to, vector) between points, shortest first."""
        points = np.array(self.sites)
        found = []
        for n in itertools.product(range(-4, 5), repeat=2):
            for s, t in itertools.product(range(len(points)), repeat=2):
                vector = (points[t] - points[s] + n) @ rows
                if s != t or any(n):
                    found.append((float(np.linalg.norm(vector)), s, t, vector))
        return sorted(found, key=lambda one: one[0])


NETS = {
    "triangular": Net("triangular", _HEXAGONAL, ((0, 0),)),
    "honeycomb": Net("honeycomb", _HEXAGONAL, ((1 / 3, 2 / 3), (2 / 3, 1 / 3))),
    "kagome": Net("kagome", _HEXAGONAL, ((0.5, 0), (0, 0.5), (0.5, 0.5))),
    "square": Net("square", _SQUARE, ((0, 0),)),
    "lieb": Net("lieb", _SQUARE, ((0, 0), (0.5, 0), (0, 0.5))),
}
"""The nets that have a name."""


def holds(
    net: Net, points: Array, lattice: Array, tolerance: float, bond: float | None = None
) -> bool:
    """Return whether a net lies in some plane of a periodic set of points.

    Every point of the net must be there, each at most `tolerance` from where its
    neighbour says that it is, and no other point of the set may lie in that plane as
    near as the net's own neighbours do. The orientation of the plane, the origin and the
    choice of cell do not matter; the net may repeat at other steps than the cell.

    Args:
        net: what to look for.
        points: fractional coordinates, shape (points, 3).
        lattice: rows in angstrom.
        tolerance: in angstrom.
        bond: shortest distance between points of the net in angstrom; None = any from 1
            to 6.
    """
    longest = (LONGEST if bond is None else bond + tolerance) * net.reach + tolerance
    alike = torch.ones(1, len(points), dtype=torch.long)
    cell = Crystals(
        alike, torch.from_numpy(points)[None], torch.from_numpy(lattice)[None]
    )
    pairs = neighbours(cell, longest)
    vector, first, second = (x.numpy() for x in (pairs.vector, pairs.i, pairs.j))
    apart = np.linalg.norm(vector, axis=1) > 1e-6
    each = (apart & (first == i) for i in range(len(points)))
    around = [(vector[some], second[some]) for some in each]
    rays = net.neighbours[0]
    first = rays[0][0]
    second = next(v for v, _ in rays if abs(np.linalg.det([first, v])) > 1e-3)
    for i, (vectors, _) in enumerate(around):
        lengths = np.linalg.norm(vectors, axis=1)
        for v, length in zip(vectors, lengths, strict=True):
            unit = length / np.linalg.norm(first)
            if bond is not None and abs(unit - bond) > tolerance:
                continue
            if bond is None and not SHORTEST <= unit <= LONGEST:
                continue
            fits = np.abs(lengths - unit * np.linalg.norm(second)) < 2 * tolerance
            span = np.linalg.norm(vectors - v, axis=1)
            fits &= np.abs(span - unit * np.linalg.norm(second - first)) < 2 * tolerance
            for w in vectors[fits]:
                frame = _frame(np.array([first, second]), np.array([v, w]), unit)
                if _follows(net, around, i, frame, tolerance, unit):
                    return True
    return False


def _frame(plane: Array, space: Array, unit: float) -> Array:
    """Return the map from the plane into space that fits two vectors, (2, 3)."""
    loose = np.linalg.solve(plane, space)
    left, _, right = np.linalg.svd(loose, full_matrices=False)
    return np.asarray(unit * left @ right)


def _follows(
    net: Net,
    around: list[tuple[Array, Array]],
    start: int,
    frame: Array,
    tolerance: float,
    unit: float,
) -> bool:
    """Walk from point to point of the net; return whether every step finds its end."""
    normal = np.cross(frame[0], frame[1])
    normal = normal / np.linalg.norm(normal)
    todo, seen = [(start, 0)], {(start, 0)}
    while todo:
        i, site = todo.pop()
        vectors, which = around[i]
        flat = np.abs(vectors @ normal) <= tolerance
        flat &= np.linalg.norm(vectors, axis=1) <= unit * net.reach
        others = set(np.flatnonzero(flat).tolist())
        for ray, kind in net.neighbours[site]:
            miss = np.linalg.norm(vectors - ray @ frame, axis=1)
            at = int(miss.argmin()) if len(miss) else 0
            if not len(miss) or miss[at] > tolerance:
                return False
            others.discard(at)
            step = (int(which[at]), kind)
            if step not in seen:
                seen.add(step)
                todo.append(step)
        if others:
            return False
    return True
