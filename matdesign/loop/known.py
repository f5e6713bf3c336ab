"""What a campaign has seen already: no crystal is paid for twice."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from matdesign.loop.store import crystal_keys

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from matdesign.crystals.batch import Crystals


class Known:
    """Finds a crystal among those seen, by exact key first and by shape next.

    Two crystals of one reduced formula are the same when pymatgen's StructureMatcher
    (its own tolerances: lengths 0.2, sites 0.3, angles 5 degrees) maps their primitive
    cells onto each other.  Both the crystal as proposed and as relaxed are remembered.

    Args:
        matcher: another StructureMatcher, where its tolerances shall be others.
    """

    def __init__(self, matcher: Any = None) -> None:
        if matcher is None:
            from pymatgen.analysis.structure_matcher import StructureMatcher

            matcher = StructureMatcher()
        self._matcher = matcher
        self._keys: dict[str, str] = {}
        self._formulas: dict[str, list[tuple[str, Any]]] = {}

    def __len__(self) -> int:
        return len(set(self._keys.values()))

    def add(self, name: str, crystal: Crystals) -> None:
        """Remember a crystal (a batch of one) under a name."""
        self._keys.setdefault(crystal_keys(crystal)[0], name)
        if _finite(crystal):
            same = self._formulas.setdefault(crystal.formulas[0], [])
            same.append(
                (name, cache(lambda: _reduced(crystal[0])))
            )  # when first needed

    def find(self, crystal: Crystals) -> str | None:
        """Return the name under which a like crystal is known, or None."""
        exact = self._keys.get(crystal_keys(crystal)[0])
        if exact is not None:
            return exact
        if not _finite(crystal):
            return None
        candidates = self._formulas.get(crystal.formulas[0], [])
        if not candidates:
            return None
        structure = _reduced(crystal[0])
        for name, other in candidates:
            if self._matcher.fit(structure, other(), skip_structure_reduction=True):
                return name
        return None


def _reduced(structure: Structure) -> Structure:
    """The primitive cell, reduced as the matcher does it, but once per crystal."""
    try:
        small = structure.get_reduced_structure(reduction_algo="niggli")
    except ValueError:  # a cell that cannot be reduced is compared as it stands
        small = structure
    primitive: Structure = small.get_primitive_structure()
    return primitive


def _finite(crystal: Crystals) -> bool:
    values = (crystal.frac[crystal.mask], crystal.lattice)
    whole = all(bool(value.isfinite().all()) for value in values)
    return whole and float(crystal.volume[0]) > 0.1 and int(crystal.n_atoms[0]) > 0
