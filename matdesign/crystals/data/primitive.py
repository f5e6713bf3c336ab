"""Primitive cells, the form that generators train on."""

from __future__ import annotations

import warnings
from importlib.metadata import version

import numpy as np
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.cached import cached
from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.find import (
    ENCODING_SYMPREC,
    as_arrays,
    find_symmetry,
)
from matdesign.crystals.symmetry.wyckoff import Array

TOLERANCE = 1e-5
"""Lengths and angles of a cell that agree within this count as equal, relative."""

VERSION = 1
"""Raise this when `primitive_cells` would come out differently."""


def primitive_cells(crystals: Crystals) -> Crystals:
    """Return the same crystals in Niggli-reduced primitive cells.

    Atoms are not moved, turned or shifted: symmetry is used to find the smaller cell, not
    to idealise. Of atoms that a translation of the lattice takes to each other, within
    0.01 angstrom, the first is kept. Translations that hold only to nearly this much may
    be found or missed (moyopy and spglib tighten the tolerance in different cases): either
    cell is then that of the same crystal within the tolerance. A crystal that symmetry
    finds no primitive cell for is Niggli-reduced as it stands.

    Args:
        crystals: any cells.

    Returns:
        The same rows, with properties, labels and ids, on the CPU. Found once: a second
        call with the same crystals reads what the first kept on disk.

    Source:
        moyopy (Shinohara) for the translations; spglib for the reduction (Krivy and
        Gruber 1976, doi:10.1107/S0567739476000636), which takes a tolerance.

    Example:
        >>> frac = torch.tensor([[[0.0, 0, 0], [0, 0, 0.5]]])
        >>> double = Crystals(torch.tensor([[84, 84]]), frac, torch.eye(3)[None] * 3)
        >>> primitive_cells(double).n_atoms.tolist()
        [1]
    """
    crystals = crystals.to("cpu")
    given = {x: getattr(crystals, x) for x in ("species", "frac", "lattice")}
    tools = "-".join(f"{name}-{version(name)}" for name in ("moyopy", "spglib"))
    method = f"primitive-{VERSION}-{tools}-{ENCODING_SYMPREC}-{TOLERANCE}"
    cells = cached(method, given, lambda: _find(crystals))
    return crystals.replace(**cells)


def _find(crystals: Crystals) -> dict[str, torch.Tensor]:
    """Return species, coordinates and cells of a batch."""
    species = torch.zeros_like(crystals.species)
    frac = torch.zeros_like(crystals.frac)
    lattice = torch.empty_like(crystals.lattice)
    for row, (sound, *one) in enumerate(as_arrays(crystals)):
        made = _primitive(*one) if sound else None
        cell, at, names = made or _reduced(*one)
        species[row, : len(names)] = torch.from_numpy(names)
        frac[row, : len(names)] = wrap(torch.from_numpy(at).to(frac))
        lattice[row] = torch.from_numpy(cell)
    width = int((species > 0).sum(1).max()) if len(species) else 0
    return {
        "species": species[:, :width].contiguous(),
        "frac": frac[:, :width].contiguous(),
        "lattice": lattice,
    }


def _primitive(
    cell: Array, frac: Array, species: Array
) -> tuple[Array, Array, Array] | None:
    """Return cell, coordinates and species; None where symmetry finds nothing."""
    found = find_symmetry(cell, frac, species, ENCODING_SYMPREC)
    if found is None:
        return None
    first = np.unique(found.mapping_std_prim, return_index=True)[1]
    first.sort()
    change = np.array(found.prim_std_linear)
    return _reduced(
        change.T @ cell, frac[first] @ np.linalg.inv(change).T, species[first]
    )


def _reduced(cell: Array, frac: Array, species: Array) -> tuple[Array, Array, Array]:
    """Return a crystal in its Niggli-reduced cell; as it stands where that fails."""
    import spglib

    with warnings.catch_warnings():
        # spglib announces a change of how it reports errors; None is handled here
        warnings.simplefilter("ignore", DeprecationWarning)
        rows = spglib.niggli_reduce(cell, eps=TOLERANCE)
    if rows is None:
        return cell, frac, species
    points = frac @ cell @ np.linalg.inv(rows)
    return rows, points - np.floor(points), species
