"""`Layout`: where the atoms of a batch of crystals may be, in either representation.

In the symmetric one a template, a space group and a Wyckoff letter per orbit, says how
the atoms of the primitive cell follow the free coordinates; nothing of it is learnt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.batch import joined
from matdesign.crystals.geometry import wrap
from matdesign.crystals.lattice_code import (
    HEXAGONAL_K1,
    family,
    free_entries,
    from_code,
)
from matdesign.crystals.symmetry.wyckoff import (
    Array,
    operations,
    positions,
    primitive_cell,
    unit,
)
from matdesign.errors import DataError, ShapeError


@dataclass(frozen=True, eq=False)
class Layout:
    """Orbits of atoms, how each atom follows its anchor, and what of the cell is free.

    A crystal is its layout plus three things a generator fills in: one species per orbit,
    free coordinates u of the anchors, and the free entries of the lattice code. Atoms and
    cell follow from them, so the symmetry holds by construction. In the representation
    "cell" every atom is an orbit of its own and everything is free: space group P1.

    Equation:
        f_i = wrap(u_o(i) M_i + c_i) in the primitive cell; L = T exp(S(k)).

    Args:
        orbit: orbit of each site, 0 on padding, long, shape (crystals, sites).
        mask: site exists, shape (crystals, sites).
        move: M, how a site follows the free coordinates of its anchor; rows of
            coordinates that are not free are zero, shape (crystals, sites, 3, 3).
        shift: c, shape (crystals, sites, 3).
        pull: takes a displacement of a site back to free coordinates, shape
            (crystals, sites, 3, 3): the mean over an orbit of `v_i @ pull_i` is the
            displacement of u that fits the displacements v best; zero on padding.
        free: which coordinates of each orbit's anchor are free, bool, zero on padding,
            shape (crystals, orbits, 3).
        count: sites of each orbit in the primitive cell, 0 on padding, long, shape
            (crystals, orbits).
        cell: T, rows of the primitive cell in the conventional one, (crystals, 3, 3).
        code_free: which entries of the lattice code are free, bool, (crystals, 6).
        code_fixed: value of the entries that are not, 0 elsewhere, (crystals, 6).
        spacegroup: number, 1 to 230, shape (crystals,).
        letter: index of each orbit's Wyckoff letter (0 = a), shape (crystals, orbits).
    """

    orbit: Tensor
    mask: Tensor
    move: Tensor
    shift: Tensor
    pull: Tensor
    free: Tensor
    count: Tensor
    cell: Tensor
    code_free: Tensor
    code_fixed: Tensor
    spacegroup: Tensor
    letter: Tensor

    @classmethod
    def whole_cell(cls, n_atoms: Tensor) -> Layout:
        """Return the layout of the representation "cell": every atom free, P1.

        Args:
            n_atoms: atoms per crystal, long, shape (crystals,).
        """
        b, at = len(n_atoms), n_atoms.device
        sites = torch.arange(int(n_atoms.max()) if b else 0, device=at)
        mask = sites < n_atoms[:, None]
        eye = torch.eye(3, device=at)
        follow = eye * mask[..., None, None]
        return cls(
            orbit=sites * mask,
            mask=mask,
            move=follow,
            shift=torch.zeros(*mask.shape, 3, device=at),
            pull=follow,
            free=mask[..., None].expand(-1, -1, 3),
            count=mask.long(),
            cell=eye.expand(b, 3, 3),
            code_free=torch.ones(b, 6, dtype=torch.bool, device=at),
            code_fixed=torch.zeros(b, 6, device=at),
            spacegroup=torch.ones(b, dtype=torch.long, device=at),
            letter=torch.zeros(mask.shape, dtype=torch.long, device=at),
        )

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def n_atoms(self) -> Tensor:
        """Atoms in the primitive cell, shape (crystals,)."""
        return self.mask.sum(1)

    @property
    def orbits(self) -> Tensor:
        """True where an orbit exists, shape (crystals, orbits)."""
        return self.count > 0

    @property
    def degrees_of_freedom(self) -> Tensor:
        """Free coordinates plus free entries of the lattice code, shape (crystals,)."""
        return self.free.flatten(1).sum(1) + self.code_free.sum(1)

    def expand(self, u: Tensor) -> Tensor:
        """Return the coordinates of all sites, in [0, 1), (crystals, sites, 3).

        Args:
            u: free coordinates of the anchors, shape (crystals, orbits, 3); entries that
                are not free are ignored.
        """
        anchor = u.gather(1, self.orbit[..., None].expand(-1, -1, 3))
        moved = torch.einsum("bsi,bsij->bsj", anchor, self.move.to(u)) + self.shift.to(
            u
        )
        return wrap(moved) * self.mask[..., None]

    def expand_species(self, species: Tensor) -> Tensor:
        """Return the species of all sites from one per orbit, (crystals, sites)."""
        return species.gather(1, self.orbit) * self.mask

    def pull_back(self, v: Tensor) -> Tensor:
        """Return the displacement of u that fits displacements of the sites best.

        Args:
            v: one vector per site in fractional coordinates, (crystals, sites, 3).

        Returns:
            Shape (crystals, orbits, 3), zero where a coordinate is not free.
        """
        each = torch.einsum("bsi,bsij->bsj", v, self.pull.to(v))
        return self.mean_over_orbit(each) * self.free

    def mean_over_orbit(self, value: Tensor) -> Tensor:
        """Return the mean of per-site values over each orbit.

        Args:
            value: shape (crystals, sites, channels).

        Returns:
            Shape (crystals, orbits, channels), zero on padding.
        """
        b, orbits = self.count.shape
        total = value.new_zeros(b, orbits, value.shape[-1])
        index = self.orbit[..., None].expand_as(value)
        total.scatter_add_(1, index, value * self.mask[..., None])
        return total / self.count.clamp(min=1)[..., None]

    def project(self, code: Tensor) -> Tensor:
        """Return a lattice code with its fixed entries set, (crystals, 6).

        Args:
            code: code of the conventional cell, not standardised.
        """
        return torch.where(self.code_free, code, self.code_fixed.to(code))

    def lattice(self, code: Tensor) -> Tensor:
        """Return the primitive cells, rows in angstrom, (crystals, 3, 3).

        Args:
            code: code of the conventional cell whose last entry is that of the volume
                per atom, k6 - ln(atoms in the conventional cell) / 3.
        """
        conventional = from_code(self.project(code), self.conventional_atoms)
        return self.cell.to(code) @ conventional

    @property
    def conventional_atoms(self) -> Tensor:
        """Atoms in the conventional cell, shape (crystals,)."""
        points = 1.0 / torch.linalg.det(self.cell.float()).abs()
        return self.n_atoms * points.round().long()

    def __getitem__(self, index: Tensor) -> Layout:
        """Return some crystals, padded no wider than the largest of them."""
        some = self._each(lambda tensor: tensor[index])
        sites = int(some.n_atoms.max()) if len(index) else 0
        orbits = int(some.orbits.sum(1).max()) if len(index) else 0
        width = dict.fromkeys(("orbit", "mask", "move", "shift", "pull"), sites)
        width |= dict.fromkeys(("free", "count", "letter"), orbits)
        part = {name: getattr(some, name)[:, :n] for name, n in width.items()}
        return dataclasses.replace(some, **part)

    def to(self, device: torch.device | str) -> Layout:
        """Return the layout on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Layout:
        names = [field.name for field in dataclasses.fields(self)]
        return Layout(**{name: change(getattr(self, name)) for name in names})

    @staticmethod
    def cat(parts: list[Layout]) -> Layout:
        """Return one layout of all crystals, padded to the widest."""
        names = [field.name for field in dataclasses.fields(Layout)]
        return Layout(
            **{name: joined([getattr(part, name) for part in parts]) for name in names}
        )


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
