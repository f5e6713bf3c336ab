"""Layouts of space groups: how atoms follow the free coordinates of their anchors.

A template is a space group and a Wyckoff letter per orbit. Its layout says how the
atoms of the primitive cell follow the free coordinates; nothing of it is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.lattice_code import HEXAGONAL_K1, family, free_entries
from matdesign.crystals.symmetry.layout import Layout
from matdesign.crystals.symmetry.wyckoff import (
    Array,
    operations,
    positions,
    primitive_cell,
    unit,
)
from matdesign.errors import DataError, ShapeError


def symmetric_layouts(
    spacegroups: Sequence[int], letters: Sequence[Sequence[int]]
) -> Layout:
    """Return the layouts of several templates as one batch.

    Equation:
        f_i = u M_i + c_i with M_i = B R_i^T T^-1, where the point u B + offset is the
        first of the position, R_i takes it to its i-th image, and T is the primitive
        cell; pull_i = G M_i^T (M_i G M_i^T)^+ with the metric G of the family's
        simplest cell, which is the least squares fit in angstrom for every cell of it.

    Args:
        spacegroups: 1 to 230, standard setting, one for each template.
        letters: of each template the index of the Wyckoff letter of each orbit (0 = a),
            any order.

    Returns:
        One atom per image that no lattice translation takes to another; orbit by orbit,
        the first atom of an orbit at its position's own coordinates.

    Raises:
        DataError: a group has no such letter, or there is no orbit.
        ShapeError: not as many groups as lists of letters, or none at all.

    Source:
        Jiao et al. 2024, arXiv:2402.03992 (anchors and operations).

    Example:
        >>> salt = symmetric_layouts([225], [[0, 1]])
        >>> salt.n_atoms.tolist(), salt.free.sum().item()
        ([2], 0)
    """
    if len(spacegroups) != len(letters) or not len(letters):
        raise ShapeError(
            f"a template is a space group and a list of letters; got "
            f"{len(spacegroups)} groups and {len(letters)} lists. Give one of each."
        )
    place: dict[tuple[int, tuple[int, ...]], int] = {}
    index = [
        place.setdefault((int(number), tuple(map(int, row))), len(place))
        for number, row in zip(spacegroups, letters)
    ]
    each = Layout.cat([_layout(*key) for key in place])
    return each[torch.tensor(index)]


@cache
def conventional_maps(spacegroup: int, letter: int) -> tuple[Array, Array]:
    """Return M and c of every atom of an orbit in the conventional cell."""
    place = positions(spacegroup)[letter]
    rotations, translations = operations(spacegroup)
    move = place.map @ rotations.transpose(0, 2, 1)
    shift = np.array(place.offset) @ rotations.transpose(0, 2, 1) + translations
    return _different(move, shift)


@cache
def _primitive_maps(spacegroup: int, letter: int) -> tuple[Array, Array, Array]:
    """Return M, c and pull of every atom of an orbit in the primitive cell."""
    move, shift = conventional_maps(spacegroup, letter)
    into = np.linalg.inv(primitive_cell(spacegroup))
    move, shift = _different(np.round(move @ into), shift @ into)
    back = _metric(spacegroup) @ move.transpose(0, 2, 1)
    return move, shift, back @ np.linalg.pinv(move @ back, rcond=1e-9)


def _different(move: Array, shift: Array) -> tuple[Array, Array]:
    """Return the maps that are not the same but for a lattice translation."""
    shift = unit(np.round(shift * 24) / 24)
    rows = np.concatenate([move.reshape(-1, 9), shift * 24], axis=1)
    _, first = np.unique(np.round(rows).astype(int), axis=0, return_index=True)
    first.sort()
    return move[first], shift[first]


@lru_cache(maxsize=20_000)
def _layout(spacegroup: int, letters: tuple[int, ...]) -> Layout:
    table = positions(spacegroup)
    if not letters or not all(0 <= letter < len(table) for letter in letters):
        raise DataError(
            f"space group {spacegroup} has positions 0 ({table[0].letter}) to "
            f"{len(table) - 1} ({table[-1].letter}); got {list(letters)}. Give the index "
            "of one letter per orbit."
        )
    maps = [_primitive_maps(spacegroup, letter) for letter in letters]
    moves, shifts, pulls = zip(*maps, strict=True)
    orbit = [at for at, move in enumerate(moves) for _ in move]
    free = np.zeros((len(letters), 3), dtype=bool)
    for at, letter in enumerate(letters):
        free[at, list(table[letter].axes)] = True
    name = family(spacegroup)
    fixed = torch.zeros(1, 6)
    fixed[0, 0] = HEXAGONAL_K1 if name == "hexagonal" else 0.0
    return Layout(
        orbit=torch.tensor([orbit]),
        mask=torch.ones(1, len(orbit), dtype=torch.bool),
        move=_float(np.concatenate(moves)),
        shift=_float(np.concatenate(shifts)),
        pull=_float(np.concatenate(pulls)),
        free=torch.from_numpy(free)[None],
        count=torch.tensor([[len(move) for move in moves]]),
        cell=_float(primitive_cell(spacegroup)),
        code_free=free_entries(name)[None],
        code_fixed=fixed,
        spacegroup=torch.tensor([spacegroup]),
        letter=torch.tensor([letters]),
    )


def _metric(spacegroup: int) -> Array:
    """Return the metric of the primitive cell for a simple cell of the family."""
    rows = np.eye(3)
    if family(spacegroup) == "hexagonal":
        rows[1, :2] = -0.5, 3**0.5 / 2
    primitive = primitive_cell(spacegroup) @ rows
    return np.asarray(primitive @ primitive.T)


def _float(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()[None]
