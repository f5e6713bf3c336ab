"""Operations, Wyckoff positions and the primitive cell of all space groups.

`positions` describes those of one group; `wyckoff_table` holds all of them as tensors,
which a network reads and a generator chooses from.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.lattice_code import checked_group

Array = np.ndarray[Any, Any]

LETTERS = "abcdefghijklmnopqrstuvwxyzA"
"""Wyckoff letters in order; only group 47 reaches the last."""

NONE = len(LETTERS)
"""Index that stands for "no letter", after the 27 that there are."""

_PRIMITIVE: dict[str, Array] = {
    "P": np.eye(3),
    "A": np.array([[2, 0, 0], [0, 1, -1], [0, 1, 1]]) / 2,
    "C": np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 2]]) / 2,
    "I": np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2,
    "F": np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
    "R": np.array([[2, 1, 1], [-1, 1, 1], [-1, -2, 1]]) / 3,  # obverse
}
"""Rows of a primitive cell for each centring."""


@cache
def operations(spacegroup: int) -> tuple[Array, Array]:
    """Return the operations of a space group in its conventional standard cell.

    Unique axis b, hexagonal axes for rhombohedral groups, origin choice 2. Centring
    translations are included; the identity comes first.

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

    found = moyopy.operations_from_number(
        checked_group(spacegroup), setting=moyopy.Setting.standard()
    )
    translations = unit(np.round(np.array(found.translations) * 24) / 24)
    return np.array(found.rotations, dtype=float), translations


def images(point: Array, spacegroup: int) -> Array:
    """Return the images of a point under all operations, in [0, 1), shape (ops, 3)."""
    rotations, translations = operations(spacegroup)
    return unit(rotations @ point + translations)


def unit(frac: Array) -> Array:
    """Return coordinates in [0, 1); what is within 1e-12 of 1 becomes 0."""
    moved = frac - np.floor(frac)
    return np.where(moved > 1 - 1e-12, 0.0, moved)


def torus_distances(these: Array, those: Array, cell: Array) -> Array:
    """Return distances of coordinates, each wrapped by itself, angstrom, (these, those)."""
    apart = those[None] - these[:, None]
    return np.asarray(np.linalg.norm((apart - np.round(apart)) @ cell, axis=-1))


@dataclass(frozen=True, eq=False)
class Position:
    """One Wyckoff position: a family of equivalent places in a space group.

    The free coordinates of a point are its own fractional coordinates on `axes`, and each
    has period 1.

    Args:
        letter: a, b, c, ... as in the International Tables, standard setting.
        multiplicity: atoms of an orbit in the conventional cell.
        site_symmetry: oriented symbol of what leaves a point where it is.
        map: M, whole numbers, shape (3, 3): a point is `u @ M + offset` for u with zeros
            where not free.
        offset: the point at zero free coordinates, shape (3,).
        axes: which coordinates of the point are the free ones (0, 1, 2).
        text: coordinates of the first point, such as `x, 2x, 1/4`.
    """

    letter: str
    multiplicity: int
    site_symmetry: str
    map: Array
    offset: Array
    axes: tuple[int, ...]
    text: str

    @property
    def index(self) -> int:
        """Place of the letter: a is 0."""
        return LETTERS.index(self.letter)

    @property
    def free(self) -> int:
        """Number of free coordinates, 0 to 3."""
        return len(self.axes)


@cache
def positions(spacegroup: int) -> tuple[Position, ...]:
    """Return the Wyckoff positions of a space group in the order of their letters.

    Args:
        spacegroup: 1 to 230, standard setting: unique axis b, hexagonal axes, origin
            choice 2.

    Raises:
        DataError: the number is not a space group.

    Source:
        International Tables for Crystallography A, as moyopy holds them;
        scripts/build_wyckoff.py writes the table.

    Example:
        >>> [f"{p.multiplicity}{p.letter}" for p in positions(221)][:4]
        ['1a', '1b', '3c', '3d']
        >>> positions(164)[8].text
        'x, -x, z'
    """
    rows = _table()[str(checked_group(spacegroup))]
    return tuple(_read(letter, row) for letter, row in zip(LETTERS, rows))


@cache
def primitive_cell(spacegroup: int) -> Array:
    """Return the rows of a primitive cell in the conventional one, shape (3, 3).

    Equation:
        L_primitive = T L_conventional, f_primitive = f_conventional T^-1

    Args:
        spacegroup: 1 to 230, standard setting.

    Returns:
        T; its determinant is 1 / (lattice points of the conventional cell).

    Raises:
        DataError: the number is not a space group.

    Example:
        >>> primitive_cell(225).tolist()
        [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    """
    group = gemmi.get_spacegroup_reference_setting(checked_group(spacegroup))
    return _PRIMITIVE[group.centring_type()]


@dataclass(frozen=True, eq=False)
class WyckoffTable:
    """What each Wyckoff position is, indexed [space group, letter]; row 0 is empty.

    Args:
        count: sites of an orbit in the primitive cell, 0 = no such position, long, shape
            (231, 28).
        free: which coordinates are free, bool, shape (231, 28, 3).
        move: M, shape (231, 28, 3, 3): a point is `u @ M + offset`.
        offset: in the conventional cell, shape (231, 28, 3).
        polar: axes along which the group leaves the origin free, bool, shape (231, 3).
        features: numbers that describe a position, shape (231, 28, features).
    """

    count: Tensor
    free: Tensor
    move: Tensor
    offset: Tensor
    polar: Tensor
    features: Tensor

    @property
    def freedom(self) -> Tensor:
        """Number of free coordinates, shape (231, 28)."""
        return self.free.sum(-1)


@cache
def wyckoff_table(device: str = "cpu") -> WyckoffTable:
    """Return the table of all 230 space groups.

    The features say how many sites an orbit has and of how many operations, which
    coordinates are free, in which directions they move the point, and where it is when
    they are zero: enough to treat alike positions of different groups alike.

    Args:
        device: where the tensors lie.

    Example:
        >>> wyckoff_table().count[221, :4].tolist()
        [1, 1, 3, 3]
    """
    if device != "cpu":
        here = wyckoff_table()
        return WyckoffTable(
            **{f.name: getattr(here, f.name).to(device) for f in fields(WyckoffTable)}
        )
    shape = (231, NONE + 1)
    count = torch.zeros(shape, dtype=torch.long)
    free = torch.zeros(*shape, 3, dtype=torch.bool)
    move, offset = torch.zeros(*shape, 3, 3), torch.zeros(*shape, 3)
    polar = torch.zeros(231, 3, dtype=torch.bool)
    order = torch.ones(shape)  # of the group that leaves a point where it is
    for group in range(1, 231):
        rotations, _ = operations(group)
        polar[group] = torch.from_numpy(np.diag(rotations.mean(0)) > 0.99)
        share = float(np.linalg.det(primitive_cell(group)))
        for at, one in enumerate(positions(group)):
            count[group, at] = round(one.multiplicity * share)
            free[group, at, list(one.axes)] = True
            move[group, at] = torch.from_numpy(one.map)
            offset[group, at] = torch.from_numpy(one.offset)
            order[group, at] = len(rotations) / one.multiplicity
    angle = 2 * math.pi * offset
    features = torch.cat(
        [
            torch.nn.functional.one_hot(free.sum(-1), 4),
            free,
            count.clamp(min=1).log()[..., None],
            order.log()[..., None],
            move.flatten(-2),
            angle.sin(),
            angle.cos(),
            (2 * angle).sin(),
            (2 * angle).cos(),
        ],
        dim=-1,
    )
    return WyckoffTable(
        count, free, move, offset, polar, features * (count > 0)[..., None]
    )


@cache
def _table() -> dict[str, list[str]]:
    path = Path(__file__).resolve().parents[2] / "assets" / "wyckoff.json"
    read: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return read


def _read(letter: str, row: str) -> Position:
    """Return a position from its row: multiplicity, site symmetry, coordinates."""
    count, symmetry, text = row.split(" ", 2)
    op = gemmi.Op(text.replace("2x", "2*x"))
    rows, offset = np.array(op.rot).T / op.DEN, np.array(op.tran) / op.DEN
    axes = tuple(np.flatnonzero(np.abs(rows).sum(1)).tolist())
    return Position(
        letter, int(count), symmetry, rows, offset, axes, ", ".join(text.split(","))
    )
