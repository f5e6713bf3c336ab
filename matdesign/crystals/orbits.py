"""The representation "symmetric": layouts of space groups, and crystals put into them.

A template is a space group and a Wyckoff letter per orbit. Its layout says how the
atoms of the primitive cell follow the free coordinates; nothing of it is learnt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals import sites
from matdesign.crystals.batch import Crystals
from matdesign.crystals.cached import cached
from matdesign.crystals.encoded import Encoded
from matdesign.crystals.lattice_code import (
    HEXAGONAL_K1,
    family,
    free_entries,
    from_code,
    to_code,
)
from matdesign.crystals.layout import Layout
from matdesign.crystals.sites import SAME, Array, operations
from matdesign.crystals.symmetric_form import (
    SYMPREC,
    SymmetricForm,
    are_cells,
    find_symmetry,
    quiet_moyo,
)
from matdesign.crystals.wyckoff import LETTERS, Position, positions, primitive_cell
from matdesign.errors import DataError, ShapeError

VERSION = 1
"""Raise this when `encode_symmetric` would read crystals differently."""

_NEAR_ONE = 1e-6


def symmetric_layout(spacegroup: int, letters: Sequence[int]) -> Layout:
    """Return the layout of one template, a batch of one.

    Equation:
        f_i = u M_i + c_i with M_i = B R_i^T T^-1, where the point u B + offset is the
        first of the position, R_i takes it to its i-th image, and T is the primitive
        cell; pull_i = G M_i^T (M_i G M_i^T)^+ with the metric G of the family's
        simplest cell, which is the least squares fit in angstrom for every cell of it.

    Args:
        spacegroup: 1 to 230, standard setting.
        letters: index of the Wyckoff letter of each orbit (0 = a), any order.

    Returns:
        One atom per image that no lattice translation takes to another; orbit by orbit,
        the first atom of an orbit at its position's own coordinates.

    Raises:
        DataError: the group has no such letter, or there is no orbit.

    Source:
        Jiao et al. 2024, arXiv:2402.03992 (anchors and operations).

    Example:
        >>> salt = symmetric_layout(225, [0, 1])
        >>> salt.n_atoms.tolist(), salt.free.sum().item()
        ([2], 0)
    """
    return _layout(spacegroup, tuple(int(letter) for letter in letters))


def symmetric_layouts(
    spacegroups: Sequence[int], letters: Sequence[Sequence[int]]
) -> Layout:
    """Return the layouts of several templates as one batch.

    Args:
        spacegroups: number of each template.
        letters: letters of each template; see `symmetric_layout`.

    Raises:
        ShapeError: not as many groups as lists of letters, or none at all.
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


def encode_symmetric(crystals: Crystals, labels: dict[str, Tensor]) -> Encoded:
    """Return crystals as space group, orbits, free coordinates and lattice code.

    Of all equivalent settings the one with the first letters and species is taken. Orbits
    stand in the order of letter, species and coordinates. Where an orbit has
    several atoms on the position's own coordinates, the smallest coordinates are kept.
    A crystal whose symmetry cannot be rebuilt within `SYMPREC`, or a hundredth of it,
    keeps its own cell and counts as P1; none is dropped. A large set is read once and
    kept; see `cached`.

    Args:
        crystals: primitive, reduced cells.
        labels: what `Encoded.labels` holds.

    Returns:
        The batch on the device of `crystals`; atoms have moved by less than `SYMPREC`.
    """
    if not len(crystals):
        return Encoded(
            Layout.whole_cell(crystals.n_atoms),
            crystals.species[:, :0],
            crystals.frac[:, :0],
            crystals.lattice.new_zeros(0, 6),
            labels,
        )
    given = {
        name: getattr(crystals, name).detach().cpu()
        for name in ("species", "frac", "lattice")
    }
    method = f"symmetric-{VERSION}-moyopy-{version('moyopy')}-{SYMPREC}"
    read = cached(method, given, lambda: _read_all(Crystals(**given)))
    layout = symmetric_layouts(
        read["spacegroup"].tolist(),
        [[x for x in row if x >= 0] for row in read["letters"].tolist()],
    )
    code = layout.project(to_code(read["lattice"], layout.conventional_atoms))
    made = Encoded(
        layout,
        read["species"],
        read["u"].to(crystals.frac.dtype),
        code.to(crystals.lattice.dtype),
        labels,
    )
    return made.to(crystals.device)


def symmetric_form_of(encoded: Encoded, index: int) -> SymmetricForm:
    """Return one crystal of a batch as a `SymmetricForm`, to look at or to write.

    Args:
        encoded: the batch; a crystal of the representation "cell" comes out as P1.
        index: which crystal.
    """
    layout = encoded.layout
    number = int(layout.spacegroup[index])
    code = layout.project(encoded.code)[index].double()
    cell = from_code(code, layout.conventional_atoms[index]).cpu().numpy()
    found = []
    for at in torch.nonzero(layout.orbits[index]).flatten().tolist():
        place = positions(number)[int(layout.letter[index, at])]
        free = encoded.u[index, at].double().cpu().numpy()
        point = sites.unit(free @ place.map + np.array(place.offset))
        z = int(encoded.species[index, at])
        found.append(sites.make_site(z, place.letter, point, number, cell))
    rows = tuple(sites.as_triple(row) for row in cell)
    return SymmetricForm(number, rows, tuple(found), SYMPREC)


@dataclasses.dataclass(frozen=True)
class _Read:
    """A crystal as numbers: its orbits are (letter, species, free coordinates)."""

    spacegroup: int
    lattice: Array
    orbits: list[tuple[int, int, tuple[float, ...]]]


def _read_all(crystals: Crystals) -> dict[str, Tensor]:
    """Return what is read of a batch: letters are -1 and all else 0 on padding."""
    cells = crystals.lattice.double().numpy()
    rows = crystals.frac.double().numpy()
    there = are_cells(crystals).tolist()
    read = []
    with quiet_moyo():
        for row, kinds in enumerate(crystals.species.numpy()):
            real = kinds > 0
            read.append(_read(cells[row], rows[row][real], kinds[real], there[row]))
    shape = len(read), max(len(one.orbits) for one in read)
    letters, species = np.full(shape, -1), np.zeros(shape, dtype=int)
    u = np.zeros((*shape, 3))
    for row, one in enumerate(read):
        for at, (letter, z, coordinates) in enumerate(one.orbits):
            letters[row, at], species[row, at], u[row, at] = letter, z, coordinates
    return {
        "spacegroup": torch.tensor([one.spacegroup for one in read]),
        "lattice": torch.from_numpy(np.stack([one.lattice for one in read])),
        "letters": torch.from_numpy(letters),
        "species": torch.from_numpy(species),
        "u": torch.from_numpy(u),
    }


def _read(cell: Array, frac: Array, species: Array, sound: bool) -> _Read:
    """Return a crystal in its space group; in P1 where that cannot be rebuilt."""
    for tolerance in (SYMPREC, SYMPREC / 10, SYMPREC / 100) if sound else ():
        found = _read_at(cell, frac, species, tolerance)
        if found is not None:
            return found
    rows = zip(species.tolist(), sites.unit(frac).tolist())
    return _Read(1, cell, sorted((0, z, tuple(x)) for z, x in rows))


def _read_at(cell: Array, frac: Array, species: Array, symprec: float) -> _Read | None:
    """Return a crystal in the space group of one tolerance, or None."""
    found = find_symmetry(cell, frac, species.tolist(), symprec, checked=True)
    if found is None:
        return None
    basis = np.array(found.std_cell.basis)
    points = sites.unit(np.array(found.std_cell.positions))
    kinds = np.array(found.std_cell.numbers)
    try:
        points, basis, letters = _canonical(found, points, basis, kinds)
    except ValueError:  # moyopy cannot classify the setting of a rare cell
        return None
    orbits = []
    for letter, z in sorted(set(zip(letters.tolist(), kinds.tolist()))):
        left = points[(letters == letter) & (kinds == z)]
        while len(left):
            anchor = _anchor(positions(found.number)[letter], left, basis)
            if anchor is None:
                return None
            move, shift = _maps(found.number, letter)
            near = _distances(anchor @ move + shift, left, basis)
            which = near.argmin(1)
            if near.min(1).max() > SAME or len(set(which.tolist())) < len(move):
                return None
            left = np.delete(left, which, axis=0)
            orbits.append((letter, z, tuple(anchor.tolist())))
    return _Read(int(found.number), basis, sorted(orbits))


def _canonical(
    found: Any, points: Array, basis: Array, kinds: Array
) -> tuple[Array, Array, Array]:
    """Return atoms, cell and letters in one of all equivalent settings.

    The symmetry elements of a group are themselves arranged symmetrically, so that one
    crystal can be written with its atoms on different letters (rock salt: a b or b a).
    Of all ways the one whose sorted (letter, species) come first is taken.

    Source:
        Euclidean normalizers of space groups (International Tables A, 3.5), as moyopy
        gives them.
    """
    # a mirror image is another crystal where the group itself holds no mirror
    found_ways = found.normalizer_wyckoff_positions(preserve_chirality=True)
    ways = found_ways.coset_representatives
    read = [np.array([LETTERS.index(p.letter) for p in letters]) for _, letters in ways]
    keys = [sorted(zip(row.tolist(), kinds.tolist())) for row in read]
    best = min(range(len(ways)), key=keys.__getitem__)
    linear = np.array(ways[best][0].linear, dtype=float)
    shift = np.array(ways[best][0].origin_shift)
    return (
        sites.unit(points @ linear.T + shift),
        np.linalg.inv(linear).T @ basis,
        read[best],
    )


def _anchor(place: Position, points: Array, cell: Array) -> Array | None:
    """Return the smallest free coordinates of points on a position's own coordinates."""
    axes = list(place.axes)
    u: Array = np.zeros(points.shape)
    u[:, axes] = points[:, axes]
    u = np.where(u > 1 - _NEAR_ONE, 0.0, u)
    miss = points - (u @ place.map + place.offset)
    here = np.linalg.norm((miss - np.round(miss)) @ cell, axis=1) < SAME
    if not here.any():
        return None
    u = u[here]
    first: Array = u[np.lexsort(np.round(u, 6).T[::-1])[0]]
    return first


def _distances(these: Array, those: Array, cell: Array) -> Array:
    """Return torus distances in angstrom, shape (these, those)."""
    apart = those[None] - these[:, None]
    return np.asarray(np.linalg.norm((apart - np.round(apart)) @ cell, axis=-1))


@cache
def _maps(spacegroup: int, letter: int) -> tuple[Array, Array]:
    """Return M and c of every atom of an orbit in the conventional cell."""
    place = positions(spacegroup)[letter]
    rotations, translations = operations(spacegroup)
    move = place.map @ rotations.transpose(0, 2, 1)
    shift = np.array(place.offset) @ rotations.transpose(0, 2, 1) + translations
    return _different(move, shift)


@cache
def _primitive_maps(spacegroup: int, letter: int) -> tuple[Array, Array, Array]:
    """Return M, c and pull of every atom of an orbit in the primitive cell."""
    move, shift = _maps(spacegroup, letter)
    into = np.linalg.inv(primitive_cell(spacegroup))
    move, shift = _different(np.round(move @ into), shift @ into)
    back = _metric(spacegroup) @ move.transpose(0, 2, 1)
    return move, shift, back @ np.linalg.pinv(move @ back, rcond=1e-9)


def _different(move: Array, shift: Array) -> tuple[Array, Array]:
    """Return the maps that are not the same but for a lattice translation."""
    shift = sites.unit(np.round(shift * 24) / 24)
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
