"""How much room the atoms of half-finished crystals have."""

from __future__ import annotations

from torch import Tensor

from matdesign.crystals import geometry
from matdesign.crystals.symmetry.layout import Layout


def clearance(
    layout: Layout,
    species: Tensor,
    u: Tensor,
    cell: Tensor,
    orbits: Tensor,
    new: Tensor | None = None,
) -> Tensor:
    """Return `geometry.clearance` of crystals that are given by their orbits.

    Args:
        layout: where atoms may be.
        species: element of each orbit, shape (crystals, orbits).
        u: free coordinates, shape (crystals, orbits, 3).
        cell: primitive cells, rows in angstrom, shape (crystals, 3, 3).
        orbits: those that count, bool, shape (crystals, orbits).
        new: orbits of which one atom at least is in each pair, same shape; None = any.
    """
    return geometry.clearance(
        layout.expand(u),
        layout.expand_species(species),
        cell,
        layout.mask & orbits.gather(1, layout.orbit),
        None if new is None else new.gather(1, layout.orbit),
    )
