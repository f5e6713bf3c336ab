"""What a crystal must be before it enters a batch; each refusal names the remedy.

All that is read goes through `packed`; a reader checks earlier only what it cannot go on
without. `name` says what to call crystal i in a message: a file, an id, or `structure 3`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from matdesign.crystals import elements
from matdesign.crystals.geometry import wrap
from matdesign.errors import DataError

Array = np.ndarray[Any, Any]
Name = Callable[[int], str]

MAX_ATOMS = 1000
"""Most atoms in one cell that `read` and `Crystals.from_structures` accept.

A batch is padded to its largest crystal, so one huge cell makes all others as large.
Pass `max_atoms=...` to raise the limit for one call.
"""

MIN_VOLUME = 0.1
"""Smallest cell volume in cubic angstrom that counts as a volume."""

MAX_LENGTH = 1e4
"""Longest cell edge in angstrom; a longer one is a wrong unit or a broken file."""


def packed(
    n_atoms: ArrayLike,
    species: ArrayLike,
    frac: Sequence[ArrayLike],
    lattice: ArrayLike,
    name: Name,
    max_atoms: int,
) -> dict[str, Any]:
    """Return the tensors of a batch from the atoms of all crystals, one after the other.

    Args:
        n_atoms: of each crystal, shape (crystals,).
        species: atomic numbers, shape (atoms,).
        frac: coordinates, wrapped into [0, 1) here; arrays of shape (..., 3).
        lattice: rows a, b, c in angstrom, nine numbers per crystal.
        name: of crystal i.
        max_atoms: most atoms in one cell.

    Returns:
        `species`, `frac` and `lattice`, padded.

    Raises:
        DataError: a crystal has no atoms or too many, an unknown element, a coordinate
            that is not a number, or no cell.
    """
    counts, cells = np.asarray(n_atoms, int), np.array(lattice, float)
    cells = cells.reshape(-1, 3, 3)
    check_size(counts, name, max_atoms)
    check_cells(cells, name)
    filled = np.arange(counts.max(initial=0)) < counts[:, None]
    padded, points = np.zeros(filled.shape, int), np.zeros((*filled.shape, 3))
    padded[filled] = species
    points[filled] = np.concatenate([np.zeros((0, 3)), *frac])
    for i, at in np.argwhere(filled & ((padded < 1) | (padded > elements.MAX_Z))):
        raise unknown_element(name(i), f"Z = {padded[i, at]}")
    check_coordinates(points, name)
    return {
        "species": torch.from_numpy(padded),
        "frac": wrap(wrap(torch.from_numpy(points)).float()),
        "lattice": torch.from_numpy(cells).float(),
    }


def check_size(n_atoms: Array, name: Name, max_atoms: int) -> None:
    """Refuse cells without atoms, or with too many; `n_atoms` has shape (crystals,).

    Raises:
        DataError: names the first such crystal.
    """
    for i in np.flatnonzero(n_atoms < 1):
        raise DataError(f"{name(i)} has no sites. Drop it, or mend its list of atoms.")
    for i in np.flatnonzero(n_atoms > max_atoms):
        raise DataError(
            f"{name(i)} has {n_atoms[i]:,} atoms in its cell, over the limit of "
            f"{max_atoms:,}. Reduce it to its primitive cell (pymatgen's "
            "get_primitive_structure), or raise the limit with read(..., "
            f"max_atoms={n_atoms[i]}) if you mean it."
        )


def check_cells(lattice: Array, name: Name) -> None:
    """Refuse a cell that is not finite, has no volume, or is absurdly long.

    Args:
        lattice: rows a, b, c in angstrom, shape (crystals, 3, 3).
        name: of crystal i.

    Raises:
        DataError: names the first such crystal.
    """
    for i in np.flatnonzero(~np.isfinite(lattice).all((1, 2))):
        raise DataError(
            f"{name(i)} has a cell length or angle that is not a number: got rows "
            f"{lattice[i].tolist()}. Mend the cell, or drop the crystal."
        )
    volume = np.abs(np.linalg.det(lattice))
    for i in np.flatnonzero(volume < MIN_VOLUME):
        raise DataError(
            f"{name(i)}: lattice rows must span a volume; got {volume[i]:.3g} angstrom^3. "
            "Check the cell's units, angles and rows."
        )
    longest = np.linalg.norm(lattice, axis=-1).max(1, initial=0)
    for i in np.flatnonzero(longest > MAX_LENGTH):
        raise DataError(
            f"{name(i)}: a cell edge is {longest[i]:.3g} angstrom long, over "
            f"{MAX_LENGTH:g}. Check its unit: lengths are in angstrom."
        )


def check_coordinates(frac: Array, name: Name) -> None:
    """Refuse coordinates that are not finite; `frac` has shape (crystals, sites, 3).

    Raises:
        DataError: names the first such crystal and site.
    """
    for i, site in np.argwhere(~np.isfinite(frac).all(-1)):
        raise DataError(
            f"{name(i)}: site {site} has a coordinate that is not a number: got "
            f"{frac[i, site].tolist()}. Mend that site, or drop the crystal."
        )


def unknown_element(name: str, symbol: str) -> DataError:
    """Return the error for a species that is no element up to Lr."""
    return DataError(
        f"{name} has an unknown element: got {symbol!r}, which is none from H to Lr "
        f"(Z = 1 to {elements.MAX_Z}). Correct the symbol, or drop the crystal."
    )
