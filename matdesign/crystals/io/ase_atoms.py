"""ASE atoms and extended XYZ, to structures and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.checks import check_cell, too_many, unknown_element
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import ase
    from pymatgen.core import Structure


def from_ase(atoms: Iterable[ase.Atoms], names: Sequence[str] = ()) -> Crystals:
    """Return a batch from ASE atoms.

    Raises:
        DataError: atoms that are not periodic in all three directions, or that are not
            a crystal for another reason; named by `names` or by number.

    Example:
        >>> from ase.build import bulk
        >>> from_ase([bulk("Cu")]).formulas
        ('Cu',)
    """
    rows = list(atoms)
    label = [names[i] if i < len(names) else f"atoms {i}" for i in range(len(rows))]
    structures = [_from_atoms(one, name) for one, name in zip(rows, label)]
    return Crystals.from_structures(structures, ids=tuple(names))


def to_ase(crystals: Crystals) -> list[ase.Atoms]:
    """Return every crystal as ASE atoms; properties and labels go to `atoms.info`."""
    import ase

    made = []
    for one in crystals:
        atoms = ase.Atoms(
            numbers=[site.specie.Z for site in one],
            scaled_positions=one.frac_coords,
            cell=one.lattice.matrix,
            pbc=True,
        )
        atoms.info.update(one.properties)
        made.append(atoms)
    return made


def parse_xyz(text: str, path: Path, max_atoms: int) -> list[tuple[str, Structure]]:
    """Return (id, structure) for all frames of an extended XYZ file, by ASE.

    Raises:
        DataError: the text is malformed or cut short, or a frame is no crystal.
    """
    import io

    import ase.io

    lines, at, frames = text.splitlines(), 0, 0
    while at < len(lines) and lines[at].strip():
        word = lines[at].strip()
        if not word.isdigit():
            raise DataError(
                f"{path}: line {at + 1} must be a number of atoms; got {word[:40]!r}. "
                "The file is malformed or cut short; export it again."
            )
        if int(word) > max_atoms:
            raise DataError(too_many(str(path), int(word), max_atoms))
        at, frames = at + int(word) + 2, frames + 1
    if at > len(lines):
        raise DataError(
            f"{path} is cut short: frame {frames} announces more atoms than the file "
            "lists. Fetch or export it again."
        )
    try:
        atoms = ase.io.read(io.StringIO(text), format="extxyz", index=":")
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as extended XYZ ({error!r}). Export it again with "
            "ase.io.write(..., format='extxyz')."
        ) from error
    many = len(atoms) > 1
    return [
        (
            f"{path.stem}-{i}" if many else path.stem,
            _from_atoms(one, f"{path} (frame {i})"),
        )
        for i, one in enumerate(atoms)
    ]


def _from_atoms(atoms: ase.Atoms, name: str) -> Structure:
    """Return ASE atoms as a structure."""
    from pymatgen.core import Structure

    if not atoms.pbc.all():
        raise DataError(
            f"{name} is periodic in {int(atoms.pbc.sum())} of 3 directions, so it is "
            "no crystal. Set atoms.pbc = True with a full cell, or leave it out."
        )
    check_cell(atoms.cell.array, name)
    numbers = atoms.numbers.tolist()
    symbols = elements.symbols()
    for number in numbers:
        if not 0 < number < len(symbols):
            raise DataError(unknown_element(name, f"Z = {number}"))
    species = [symbols[number] for number in numbers]
    return Structure(
        atoms.cell.array, species, atoms.positions, coords_are_cartesian=True
    )
