"""Measured enthalpies of formation, a check on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

KJ_PER_MOL = 96.485  # kJ/mol in one eV

ENTHALPIES = {
    "NaCl": -411.2,
    "LiF": -616.0,
    "MgO": -601.6,
    "CaO": -634.9,
    "SrO": -592.0,
    "BaO": -548.0,
    "ZnO": -350.5,
    "CdO": -258.4,
    "NiO": -239.7,
    "FeO": -272.0,
    "MnO": -385.2,
    "ZnS": -206.0,
    "CdS": -161.9,
    "CdTe": -92.5,
    "GaAs": -71.0,
    "GaN": -110.5,
    "AlN": -318.0,
    "InP": -88.7,
    "CsCl": -443.0,
    "KBr": -393.8,
    "CaF2": -1228.0,
    "MgF2": -1124.2,
    "Li2O": -597.9,
    "Na2O": -414.2,
    "Cu2O": -168.6,
    "TiO2": -944.0,
    "ZrO2": -1100.6,
    "SiO2": -910.7,
    "SnO2": -577.6,
    "Al2O3": -1675.7,
    "Fe2O3": -824.2,
    "Cr2O3": -1139.7,
    "SrTiO3": -1672.4,
    "BaTiO3": -1659.8,
    "CaTiO3": -1660.6,
    "MgAl2O4": -2299.9,
    "LiCoO2": -679.4,
    "ZrSiO4": -2033.4,
}
"""Standard enthalpies at 298 K, kJ/mol of formula unit, from common thermochemical
tables (CRC Handbook, NIST-JANAF); rounded values, good to a few kJ/mol for most."""


def compare(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Formation energy of the lowest crystal of each known formula, against experiment.

    Args:
        rows: Usable crystals with formula and formation_energy_per_atom (eV/atom).

    Returns:
        formula, label, experiment and difference, all eV/atom, where both are known.
        The label is an energy at rest, the experiment an enthalpy at 298 K.
    """
    from pymatgen.core import Composition

    lowest: dict[str, float] = {}
    for row in rows:
        energy = float(row["formation_energy_per_atom"])
        formula = str(row["formula"])
        lowest[formula] = min(energy, lowest.get(formula, energy))
    out = []
    for name, enthalpy in ENTHALPIES.items():
        composition = Composition(name)
        label = lowest.get(str(composition.reduced_formula))
        if label is None:
            continue
        experiment = enthalpy / KJ_PER_MOL / composition.num_atoms
        out.append(
            {
                "formula": name,
                "label": round(label, 3),
                "experiment": round(experiment, 3),
                "difference": round(label - experiment, 3),
            }
        )
    return out
