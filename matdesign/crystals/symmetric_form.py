"""`SymmetricForm`: a crystal as its space group and one anchor atom per orbit."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals import elements, sites
from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import min_distance, shortest_vector
from matdesign.crystals.io.checks import MIN_VOLUME
from matdesign.crystals.lattice_code import family, free_entries
from matdesign.crystals.sites import Array, Site, operations
from matdesign.errors import DataError, ShapeError

if TYPE_CHECKING:
    from pymatgen.core import Structure

SYMPREC = 0.01
"""How far an atom may be from its symmetric position when a crystal is read, angstrom."""


@dataclass(frozen=True)
class SymmetricForm:
    """A crystal as its space group, its lattice and one anchor atom per orbit.

    Args:
        spacegroup: number, 1 to 230.
        lattice: conventional cell in the standard setting, rows in angstrom.
        sites: the orbits; see `Site`.
        symprec: tolerance with which the symmetry was found, angstrom.

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> salt = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0] * 3, [0.5] * 3])
        >>> form = to_symmetric(salt)
        >>> form.spacegroup, [(s.letter, s.multiplicity) for s in form.sites]
        (221, [('a', 1), ('b', 1)])
    """

    spacegroup: int
    lattice: tuple[tuple[float, float, float], ...]
    sites: tuple[Site, ...]
    symprec: float = 0.01

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic number of every atom of the conventional cell, orbit by orbit."""
        return tuple(z for s in self.sites for z in (s.species,) * s.multiplicity)

    @property
    def letters(self) -> tuple[str, ...]:
        """Wyckoff letter of every orbit."""
        return tuple(site.letter for site in self.sites)

    @property
    def free(self) -> Tensor:
        """Free coordinates of all anchors in one row, shape (free,)."""
        values = [value for site in self.sites for value in site.free]
        return torch.tensor(values, dtype=torch.float64)

    @property
    def degrees_of_freedom(self) -> int:
        """Free coordinates plus free lattice parameters."""
        lattice = int(free_entries(family(self.spacegroup)).sum())
        return lattice + sum(len(site.axes) for site in self.sites)

    @property
    def frac(self) -> Tensor:
        """Fractional coordinates of all atoms, orbit by orbit, shape (atoms, 3)."""
        rows = [self._orbit(np.array(s.anchor), s) for s in self.sites]
        return torch.from_numpy(np.concatenate(rows))

    def with_free(self, values: Tensor) -> SymmetricForm:
        """Return the form with other free coordinates, in the order of `free`.

        Raises:
            ShapeError: not as many values as there are free coordinates.
        """
        need = len(self.free)
        if values.shape != (need,):
            raise ShapeError(
                f"this form has {need} free coordinates; got {tuple(values.shape)}. "
                "Give one value for each, in the order of `free`."
            )
        left = values.detach().double().tolist()
        moved = []
        for site in self.sites:
            count = len(site.axes)
            moved.append(site.moved(tuple(left[:count])))
            left = left[count:]
        return dataclasses.replace(self, sites=tuple(moved))

    def to_dict(self) -> dict[str, Any]:
        """Return the form as plain JSON values."""
        names = elements.symbols()
        return {
            "spacegroup": self.spacegroup,
            "setting": "standard: unique axis b, hexagonal axes, origin choice 2",
            "symprec": self.symprec,
            "lattice": [list(row) for row in self.lattice],
            "sites": [
                {
                    "element": names[site.species],
                    "wyckoff": f"{site.multiplicity}{site.letter}",
                    "position": site.coordinates,
                    "anchor": list(site.anchor),
                }
                for site in self.sites
            ],
        }

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> SymmetricForm:
        """Return the form that `to_dict` stored.

        Raises:
            DataError: the values are not those of a form.
        """
        try:
            number, rows = int(given["spacegroup"]), given["lattice"]
            lattice = np.array(rows, dtype=float).reshape(3, 3)
            found = tuple(
                sites.make_site(
                    elements.atomic_number(one["element"]),
                    str(one["wyckoff"])[-1],
                    np.array(one["anchor"], dtype=float).reshape(3),
                    number,
                    lattice,
                )
                for one in given["sites"]
            )
            symprec = float(given.get("symprec", 0.01))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"these values are not a symmetric form ({error!r}). Use what "
                "SymmetricForm.to_dict gives."
            ) from error
        triples = tuple(sites.as_triple(row) for row in lattice)
        return cls(number, triples, found, symprec)

    def _orbit(self, anchor: Array, site: Site) -> Array:
        rotations, translations = operations(self.spacegroup)
        at = list(site.members)
        return sites.unit(rotations[at] @ anchor + translations[at])


def to_symmetric(structure: Structure, symprec: float = 0.01) -> SymmetricForm:
    """Return a structure as space group, Wyckoff positions and free parameters.

    Atoms and cell are moved onto their symmetric places, by less than `symprec`. Where
    a symmetry does not hold exactly enough to be rebuilt, a tighter tolerance is tried;
    the last resort is P1 in the structure's own cell, which always holds.

    Args:
        structure: an ordered structure.
        symprec: how far an atom may be from its symmetric position, angstrom.

    Returns:
        The form, in the standard setting of its space group.

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> rutile = Structure.from_spacegroup(
        ...     "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"],
        ...     [[0, 0, 0], [0.3053, 0.3053, 0]],
        ... )
        >>> [(site.letter, site.coordinates) for site in to_symmetric(rutile).sites]
        [('a', '0, 0, 0'), ('f', 'x, x, 0')]
    """
    cell = np.array(structure.lattice.matrix)
    frac = np.array(structure.frac_coords)
    species = np.array([site.specie.Z for site in structure])
    for tolerance in (symprec, symprec / 10, symprec / 100):
        form = _form(cell, frac, species, tolerance)
        if form is not None:
            return form
    rows = tuple(sites.as_triple(row) for row in cell)
    found = tuple(
        sites.make_site(int(z), "a", x, 1, cell)
        for z, x in zip(species, frac, strict=True)
    )
    return SymmetricForm(1, rows, found, 0.0)


def from_symmetric(form: SymmetricForm, *, primitive: bool = False) -> Structure:
    """Return the structure of a symmetric form.

    Args:
        form: the form.
        primitive: return the Niggli-reduced primitive cell instead of the conventional.
    """
    from pymatgen.core import Structure

    names = elements.symbols()
    made = Structure(form.lattice, [names[z] for z in form.species], form.frac.numpy())
    if not primitive:
        return made
    from matdesign.crystals.primitive import standardize

    return standardize(made, symprec=1e-3)


def find_symmetry(
    cell: Array, frac: Array, species: list[int], symprec: float, checked: bool = False
) -> Any | None:
    """Return moyopy's dataset of a crystal in the standard setting, or None.

    None where it finds nothing, for whatever reason: a generated crystal may be
    anything, and one that cannot be analysed is an answer, not an error. `checked` says
    that `is_cell` holds, which a batch can know for all its crystals at once.
    """
    import moyopy

    if not (checked or is_cell(cell, frac, symprec)):
        return None
    with quiet_moyo():
        try:
            return moyopy.MoyoDataset(
                moyopy.Cell(cell.tolist(), frac.tolist(), species),
                symprec=symprec,
                setting=moyopy.Setting.standard(),
            )
        except Exception:
            return None
        except BaseException as error:
            # a panic inside moyo is no Exception; anything else is not ours to stop
            if type(error).__name__ != "PanicException":
                raise
            return None


def is_cell(cell: Array, frac: Array, symprec: float) -> bool:
    """Return `are_cells` of one crystal."""
    sites = torch.ones(1, len(frac), dtype=torch.long)
    points, rows = (torch.from_numpy(np.array(x, dtype=float)) for x in (frac, cell))
    return bool(are_cells(Crystals(sites, points[None], rows[None]), symprec))


def are_cells(crystals: Crystals, symprec: float = SYMPREC) -> Tensor:
    """Return in which crystals symmetry can be looked for, bool, shape (crystals,).

    They are finite and well above symprec. In a cell as small as the tolerance, or with
    atoms on top of each other, every atom could be every other one, and the search would
    not end.
    """
    exact = Crystals(
        crystals.species, crystals.frac.double(), crystals.lattice.double()
    )
    finite = exact.frac.isfinite().all(-1).all(-1)
    finite &= exact.lattice.isfinite().all(-1).all(-1)
    large = torch.linalg.det(exact.lattice).abs() >= MIN_VOLUME
    large &= shortest_vector(exact.lattice) >= 5 * symprec
    return finite & large & (min_distance(exact) > 2 * symprec)


@contextmanager
def quiet_moyo() -> Iterator[None]:
    """Hold back moyo's notes on operations of the input cell, unused here.

    A change of level is slow: whoever reads a batch puts one around the whole of it.
    """
    log = logging.getLogger("moyo")
    before = log.level
    if before != logging.ERROR:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        if before != logging.ERROR:
            log.setLevel(before)


def _form(
    cell: Array, frac: Array, species: Array, symprec: float
) -> SymmetricForm | None:
    """Return the form found with one tolerance; None where it cannot be rebuilt."""
    found = find_symmetry(cell, frac, species.tolist(), symprec)
    if found is None:
        return None
    basis = np.array(found.std_cell.basis)
    points = sites.unit(np.array(found.std_cell.positions))
    kinds = np.array(found.std_cell.numbers)
    # where the atoms of the input lie in the standard cell, to read off their letters
    linear = np.linalg.inv(np.array(found.std_linear))
    placed = (frac - np.array(found.std_origin_shift)) @ linear.T
    left = np.ones(len(points), dtype=bool)
    orbits = []
    while left.any():
        first = int(left.argmax())
        site = sites.make_site(
            int(kinds[first]), "", points[first], found.number, basis
        )
        orbit = sites.images(np.array(site.anchor), found.number)[list(site.members)]
        which = _match(orbit, points, basis, np.where(kinds == kinds[first], 0.0, 1e9))
        if which is None or len(set(which)) != len(which) or not left[which].all():
            return None
        left[which] = False
        near = _distances(orbit, placed, basis) + 1e9 * (species != kinds[first])
        letter = found.wyckoffs[int(near.min(0).argmin())]
        orbits.append(dataclasses.replace(site, letter=letter))
    orbits.sort(key=lambda one: (one.letter, one.species, one.anchor))
    rows = tuple(sites.as_triple(row) for row in basis)
    return SymmetricForm(int(found.number), rows, tuple(orbits), symprec)


def _distances(these: Array, those: Array, cell: Array) -> Array:
    """Return torus distances in angstrom, shape (these, those)."""
    apart = those[None] - these[:, None]
    return np.asarray(np.linalg.norm((apart - np.round(apart)) @ cell, axis=-1))


def _match(
    orbit: Array, points: Array, cell: Array, penalty: Array
) -> list[int] | None:
    """Return the point that each atom of an orbit coincides with; None if one has none."""
    apart = _distances(orbit, points, cell) + penalty
    if (apart.min(1) > sites.SAME).any():
        return None
    found: list[int] = apart.argmin(1).tolist()
    return found
