"""What a crystal must be before it enters a batch; each refusal names the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from matdesign.crystals import elements
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

MAX_ATOMS = 1000
"""Most atoms in one cell that `read` and `Crystals.from_structures` accept.

A batch is padded to its largest crystal, so one huge cell makes all others as large.
Pass `max_atoms=...` to raise the limit for one call.
"""

MIN_VOLUME = 0.1
"""Smallest cell volume in cubic angstrom that counts as a volume."""

MAX_LENGTH = 1e4
"""Longest cell edge in angstrom; a longer one is a wrong unit or a broken file."""


def check_structure(one: Structure, name: str, max_atoms: int = MAX_ATOMS) -> None:
    """Refuse a structure that no crystal generator could have meant.

    Args:
        one: the structure.
        name: what to call it in the message: a file, an id, or `structure 3`.
        max_atoms: most atoms in the cell.

    Raises:
        DataError: no sites, partial occupancy, an unknown element, too many atoms, a
            number that is not finite, or a cell without volume.

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> rows = [[1, 0, 0], [2, 0, 0], [0, 0, 1]]
        >>> flat = Structure(Lattice(rows), ["H"], [[0, 0, 0]])
        >>> check_structure(flat, "flat.cif")
        Traceback (most recent call last):
        ...
        matdesign.errors.DataError: flat.cif: lattice rows must span a volume; got 0 ...
    """
    if not len(one):
        raise DataError(f"{name} has no sites. Drop it, or mend its list of atoms.")
    if len(one) > max_atoms:
        raise DataError(too_many(name, len(one), max_atoms))
    if not one.is_ordered:
        raise DataError(
            f"{name} has partial occupancy: got {one.composition.formula}, one site "
            "shared by several elements or not full. Choose an ordered model first, "
            "for example with pymatgen's OrderDisorderedStructureTransformation."
        )
    check_cell(np.asarray(one.lattice.matrix), name)
    check_coordinates(np.asarray(one.frac_coords), name)
    for site in one:
        number = getattr(site.specie, "Z", 0)  # of a dummy species: any integer
        if not 0 < number <= elements.MAX_Z:
            raise DataError(unknown_element(name, str(site.specie)))


def check_cell(rows: np.ndarray[Any, Any], name: str) -> None:
    """Refuse a cell that is not finite, has no volume, or is absurdly long.

    Args:
        rows: a, b, c in angstrom, shape (3, 3).
        name: what to call it in the message.

    Raises:
        DataError: as above.
    """
    if not np.isfinite(rows).all():
        raise DataError(
            f"{name} has a cell length or angle that is not a number: got rows "
            f"{rows.tolist()}. Mend the cell, or drop the crystal."
        )
    volume = abs(float(np.linalg.det(rows)))
    if volume < MIN_VOLUME:
        raise DataError(
            f"{name}: lattice rows must span a volume; got {volume:.3g} angstrom^3. "
            "Check the cell's units, angles and rows."
        )
    longest = float(np.linalg.norm(rows, axis=-1).max())
    if longest > MAX_LENGTH:
        raise DataError(
            f"{name}: a cell edge is {longest:.3g} angstrom long, over {MAX_LENGTH:g}. "
            "Check its unit: lengths are in angstrom."
        )


def check_coordinates(frac: np.ndarray[Any, Any], name: str) -> None:
    """Refuse coordinates that are not finite.

    Raises:
        DataError: names the first such site.
    """
    bad = ~np.isfinite(frac).all(axis=-1)
    if bad.any():
        at = int(bad.argmax())
        raise DataError(
            f"{name}: site {at} has a coordinate that is not a number: got "
            f"{frac[at].tolist()}. Mend that site, or drop the crystal."
        )


def too_many(name: str, atoms: int, limit: int) -> str:
    """Return the message for a cell over the limit."""
    return (
        f"{name} has {atoms:,} atoms in its cell, over the limit of {limit:,}. Reduce "
        "it to its primitive cell (pymatgen's get_primitive_structure), or raise the "
        f"limit with read(..., max_atoms={atoms}) if you mean it."
    )


def unknown_element(name: str, symbol: str) -> str:
    """Return the message for a species that is no element up to Lr."""
    return (
        f"{name} has an unknown element: got {symbol!r}, which is none from H to Lr "
        f"(Z = 1 to {elements.MAX_Z}). Correct the symbol, or drop the crystal."
    )
