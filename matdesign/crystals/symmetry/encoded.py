"""`Encoded`: a batch of crystals in a representation, the tensors a generator trains on."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.cached import cached
from matdesign.crystals.lattice_code import to_code
from matdesign.crystals.symmetry.find import (
    ENCODING_SYMPREC,
    as_arrays,
    find_symmetry,
)
from matdesign.crystals.symmetry.layout import (
    Layout,
    conventional_maps,
    symmetric_layouts,
)
from matdesign.crystals.symmetry.wyckoff import (
    LETTERS,
    Array,
    Position,
    positions,
    torus_distances,
    unit,
)
from matdesign.errors import DataError

Representation = Literal["cell", "symmetric"]

VERSION = 1
"""Raise this when crystals would be encoded differently."""

SAME = 1e-3
"""Two refined positions nearer than this, in angstrom, are one."""

_NEAR_ONE = 1e-6

_Read = tuple[int, Array, list[tuple[int, int, tuple[float, ...]]]]
"""A crystal as numbers: space group, conventional cell, and its orbits as letter, species
and free coordinates."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Layout plus what a generator fills in: species, free coordinates, lattice code.

    Args:
        layout: orbits and what of them is free.
        species: atomic number of each orbit, 0 on padding, shape (crystals, orbits).
        u: free coordinates of the anchors in [0, 1), 0 where not free, shape
            (crystals, orbits, 3).
        code: lattice code of the conventional cell, its last entry that of the volume per
            atom, shape (crystals, 6).
        labels: name -> number per crystal that a generator may be conditioned on, NaN
            where unknown, shape (crystals,).
        representation: the one that `encode` was asked for.
    """

    layout: Layout
    species: Tensor
    u: Tensor
    code: Tensor
    labels: dict[str, Tensor] = field(default_factory=dict)
    representation: Representation = "cell"

    def __len__(self) -> int:
        return len(self.code)

    @property
    def n_atoms(self) -> Tensor:
        """Atoms in the primitive cell, shape (crystals,)."""
        return self.layout.n_atoms

    def __getitem__(self, index: Tensor) -> Encoded:
        """Return some crystals, padded no wider than the largest of them."""
        layout = self.layout[index]
        orbits = layout.count.shape[1]
        return Encoded(
            layout,
            self.species[index, :orbits],
            self.u[index, :orbits],
            self.code[index],
            {k: v[index] for k, v in self.labels.items()},
            self.representation,
        )

    def to(self, device: torch.device | str) -> Encoded:
        """Return the batch on a device."""
        return Encoded(
            self.layout.to(device),
            self.species.to(device),
            self.u.to(device),
            self.code.to(device),
            {k: v.to(device) for k, v in self.labels.items()},
            self.representation,
        )

    def crystals(self) -> Crystals:
        """Return the crystals in their primitive cells."""
        lay = self.layout
        return Crystals(
            lay.expand_species(self.species), lay.expand(self.u), lay.lattice(self.code)
        )


def encode(crystals: Crystals, representation: Representation = "cell") -> Encoded:
    """Return crystals in a representation; `Encoded.crystals` is the way back.

    "cell" takes every atom for itself. "symmetric" finds the space group and keeps one
    anchor per orbit. Of all equivalent settings the one with the first letters and species
    is taken; orbits stand in the order of letter, species and coordinates. Where an orbit
    has several atoms on the position's own coordinates, the smallest coordinates are kept.
    A crystal whose symmetry cannot be rebuilt within `ENCODING_SYMPREC`, or a hundredth of
    it, keeps its own cell and counts as P1; none is dropped. A large set is read once and
    kept; see `cached`.

    Args:
        crystals: primitive, reduced cells; their `properties` become labels.
        representation: "cell" or "symmetric".

    Returns:
        The batch on the device of `crystals`; atoms have moved by less than the tolerance.

    Raises:
        DataError: an unknown representation, or a crystal without a cell.
    """
    if representation not in get_args(Representation):
        raise DataError(
            f"unknown representation {representation!r}; choose "
            f"{' or '.join(get_args(Representation))}."
        )
    if representation == "symmetric" and len(crystals):
        return _symmetric(crystals)
    width = int(crystals.n_atoms.max()) if len(crystals) else 0
    return Encoded(
        Layout.whole_cell(crystals.n_atoms),
        crystals.species[:, :width],
        crystals.frac[:, :width],
        to_code(crystals.lattice, crystals.n_atoms),
        dict(crystals.properties),
        representation,
    )


def _symmetric(crystals: Crystals) -> Encoded:
    """Return crystals as space group, orbits, free coordinates and lattice code."""
    given = {
        name: getattr(crystals, name).detach().cpu()
        for name in ("species", "frac", "lattice")
    }
    method = f"symmetric-{VERSION}-moyopy-{version('moyopy')}-{ENCODING_SYMPREC}"
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
        dict(crystals.properties),
        "symmetric",
    )
    return made.to(crystals.device)


def _read_all(crystals: Crystals) -> dict[str, Tensor]:
    """Return what is read of a batch: letters are -1 and all else 0 on padding."""
    read = [_read(*one) for one in as_arrays(crystals)]
    shape = len(read), max(len(orbits) for *_, orbits in read)
    letters, species = np.full(shape, -1), np.zeros(shape, dtype=int)
    u = np.zeros((*shape, 3))
    for row, (*_, orbits) in enumerate(read):
        for at, (letter, z, coordinates) in enumerate(orbits):
            letters[row, at], species[row, at], u[row, at] = letter, z, coordinates
    return {
        "spacegroup": torch.tensor([group for group, *_ in read]),
        "lattice": torch.from_numpy(np.stack([cell for _, cell, _ in read])),
        "letters": torch.from_numpy(letters),
        "species": torch.from_numpy(species),
        "u": torch.from_numpy(u),
    }


def _read(sound: bool, cell: Array, frac: Array, species: Array) -> _Read:
    """Return a crystal in its space group; in P1 where that cannot be rebuilt."""
    for tighter in (1, 10, 100) if sound else ():
        found = _read_at(cell, frac, species, ENCODING_SYMPREC / tighter)
        if found is not None:
            return found
    rows = zip(species.tolist(), unit(frac).tolist())
    return 1, cell, sorted((0, z, tuple(x)) for z, x in rows)


def _read_at(cell: Array, frac: Array, species: Array, symprec: float) -> _Read | None:
    """Return a crystal in the space group of one tolerance, or None."""
    found = find_symmetry(cell, frac, species, symprec)
    if found is None:
        return None
    basis = np.array(found.std_cell.basis)
    points = unit(np.array(found.std_cell.positions))
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
            move, shift = conventional_maps(found.number, letter)
            near = torus_distances(anchor @ move + shift, left, basis)
            which = near.argmin(1)
            if near.min(1).max() > SAME or len(set(which.tolist())) < len(move):
                return None
            left = np.delete(left, which, axis=0)
            orbits.append((letter, z, tuple(anchor.tolist())))
    return int(found.number), basis, sorted(orbits)


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
        unit(points @ linear.T + shift),
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
