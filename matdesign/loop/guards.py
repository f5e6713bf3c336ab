"""Guards on a relaxed crystal: where a learned potential must not be believed.

A potential fitted to sensible crystals has holes: spurious dense minima, fused atoms,
energies far below anything real.  Every result of the oracle passes these guards, and
a result that does not is kept with the name of the guard that caught it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Guards:
    """Bounds that a relaxed crystal must respect.

    Attributes:
        shortest_bond: Lowest allowed bond length over the sum of atomic radii.
        volume_factor: Largest change of volume up or down while relaxing, after
            the volume scan; the potential's relaxation ends at 2 in any case.
        formation_energy: Lowest and highest formation energy, eV/atom.
        alloy_volume: Lowest and highest volume of a crystal of metals over the sum of
            the volumes of its elements; the potential's spurious dense minima of
            the transition metals (Ti at 10 instead of 17 angstrom^3) fall outside.
    """

    shortest_bond: float = 0.6
    volume_factor: float = 2.0
    formation_energy: tuple[float, float] = (-5.5, 1.5)
    alloy_volume: tuple[float, float] = (0.7, 1.6)

    def check(
        self,
        structure: Structure,
        *,
        volume_ratio: float = 1.0,
        formation_energy: float | None = None,
        element_volumes: dict[str, float] | None = None,
    ) -> str:
        """Name the first guard that a relaxed crystal breaks.

        Args:
            structure: The relaxed crystal.
            volume_ratio: Volume over the volume at which relaxation began.
            formation_energy: eV/atom; None where no reference is known.
            element_volumes: angstrom^3/atom of the elements, for crystals of metals.

        Returns:
            The reason, such as "short bond 0.52", or "" when all is well.
        """
        ratio = bond_ratio(structure)
        if not ratio > self.shortest_bond:
            return f"short bond {ratio:.2f}"
        if not 1 / self.volume_factor < volume_ratio < self.volume_factor:
            return f"volume change {volume_ratio:.2f}"
        if formation_energy is not None:
            low, high = self.formation_energy
            if not low < formation_energy < high:
                return f"formation energy {formation_energy:.2f}"
        if element_volumes and all(e.is_metal for e in structure.elements):
            if all(e.symbol in element_volumes for e in structure.elements):
                ideal = sum(element_volumes[s.specie.symbol] for s in structure)
                packing = structure.volume / ideal
                low, high = self.alloy_volume
                if not low < packing < high:
                    return f"alloy volume {packing:.2f}"
        return ""


def bond_ratio(structure: Structure) -> float:
    """Shortest bond over the sum of the two atomic radii, periodic images included.

    Returns:
        The lowest ratio; infinity when no two atoms are within 4 angstrom.
    """
    from matdesign.crystals.elements import table

    first, second, _, length = structure.get_neighbor_list(4.0)
    if len(length) == 0:
        return float("inf")
    radius = table("radius").numpy()[[site.specie.Z for site in structure]]
    return float(np.min(length / (radius[first] + radius[second])))
