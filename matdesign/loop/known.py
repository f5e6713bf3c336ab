"""What a campaign has seen already: no crystal is paid for twice."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from matdesign.crystals.matching import matcher, reduced
from matdesign.loop.store import crystal_keys

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from matdesign.crystals.batch import Crystals


class Known:
    """Finds a crystal among those seen, by exact key first and by shape next.

    Two crystals of one reduced formula are the same when pymatgen's StructureMatcher
    (its own tolerances: lengths 0.2, sites 0.3, angles 5 degrees) maps their primitive
    cells onto each other.  Both the crystal as proposed and as relaxed are remembered.
    """

    def __init__(self) -> None:
        self._matcher = matcher("mattergen")
        self._keys: dict[str, str] = {}
        self._formulas: dict[Any, list[tuple[str, Any]]] = {}

    def add(self, name: str, crystal: Crystals) -> None:
        """Remember a crystal (a batch of one) under a name."""
        self._keys.setdefault(crystal_keys(crystal)[0], name)
        [formula] = reduced(crystal.species)
        same = self._formulas.setdefault(formula, [])
        same.append((name, cache(lambda: _primitive(crystal))))  # when first needed

    def find(self, crystal: Crystals) -> str | None:
        """Return the name under which a like crystal is known, or None."""
        if exact := self._keys.get(crystal_keys(crystal)[0]):
            return exact
        [formula] = reduced(crystal.species)
        candidates = self._formulas.get(formula, [])
        structure, fit = _primitive(crystal) if candidates else None, self._matcher.fit
        for name, primitive in candidates if structure is not None else ():
            other = primitive()
            if other and fit(structure, other, skip_structure_reduction=True):
                return name
        return None


def _primitive(crystal: Crystals) -> Structure | None:
    """The primitive cell, reduced as the matcher does it; None for a broken crystal."""
    values = (crystal.frac[crystal.mask], crystal.lattice)
    whole = all(bool(value.isfinite().all()) for value in values)
    if not whole or float(crystal.volume[0]) <= 0.1 or not int(crystal.n_atoms[0]):
        return None
    structure = small = crystal[0]
    try:
        small = structure.get_reduced_structure(reduction_algo="niggli")
    except ValueError:  # a cell that cannot be reduced is compared as it stands
        pass
    return small.get_primitive_structure()
