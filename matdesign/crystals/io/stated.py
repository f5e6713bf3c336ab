"""What a CIF states about its atoms, held against the atoms that were read."""

from __future__ import annotations

from collections import Counter

import gemmi
import numpy as np

from matdesign.crystals import elements
from matdesign.crystals.batch import ANGSTROM3_G
from matdesign.crystals.io.expand import Orbits

_MULTIPLICITIES = (
    "_atom_site_symmetry_multiplicity",
    "_atom_site_site_symmetry_multiplicity",
    "_atom_site_site_symmetry_order",
)


def contradiction(
    tags: dict[str, list[str]], kinds: list[str], orbits: Orbits, volume: float
) -> str:
    """Return how the atoms contradict what the file states, or "".

    Held against them are the formula, the number Z of formula units, both together,
    the multiplicities of the sites, the calculated density and the volume; the last two
    within 5 %.

    Args:
        tags: data name -> values, as `cif` collects them.
        kinds: element of every atom.
        orbits: the atoms.
        volume: of the cell, cubic angstrom.
    """
    atoms = Counter(kinds)
    got = "".join(f"{symbol}{count}" for symbol, count in atoms.items())
    formula = _formula(tags.get("_chemical_formula_sum", ["?"])[0])
    units = _value(tags, "_cell_formula_units_z")
    if formula is not None:
        stated = tags["_chemical_formula_sum"][0]
        times = sum(atoms.values()) / sum(formula.values())
        if not _same(atoms, formula, times):
            return f"its atoms make {got}, but its formula is {stated}"
        as_pymatgen = times == 1 and units == _units(atoms)
        if units is not None and not (as_pymatgen or _same(atoms, formula, units)):
            return (
                f"its atoms make {got}, but its formula is {stated} and Z = {units:g}"
            )
    elif units is not None and (units < 1 or any(n % units for n in atoms.values())):
        return f"its atoms make {got}, which are not Z = {units:g} equal units"
    for tag in _MULTIPLICITIES:
        said = [gemmi.cif.as_number(value) for value in tags.get(tag, [])]
        # older programs write the order of the site symmetry under the same name
        rows = (orbits.multiplicity, orbits.order)
        if said and not any(_agree(said, row.tolist()) for row in rows):
            return (
                f"its sites have multiplicities {rows[0].tolist()}, but it says {said}"
            )
    mass = sum(float(elements.table("mass")[elements.atomic_number(k)]) for k in kinds)
    for tag, value, unit in (
        ("_exptl_crystal_density_diffrn", mass / volume * ANGSTROM3_G, "g/cm^3"),
        ("_cell_volume", volume, "angstrom^3"),
    ):
        wanted = _value(tags, tag)
        if wanted is not None and abs(value - wanted) > 0.05 * wanted:
            return f"`{tag}` is {wanted:g}, but the cell has {value:.4g} {unit}"
    return ""


def _units(atoms: Counter[str]) -> int:
    """Return Z as pymatgen writes it, beside the formula of the whole cell.

    Its units of peroxides and of elements such as O2 may be halves; Z is then cut.
    """
    from pymatgen.core import Composition

    return int(Composition(atoms).get_reduced_composition_and_factor()[1])


def _formula(text: str) -> dict[str, float] | None:
    """Return the amounts of a formula such as `Na Cl` or `Zn(CuO2)2`, or None."""
    from pymatgen.core import Composition

    try:
        found = Composition("".join(text.split())).get_el_amt_dict()
    except (ValueError, KeyError):
        return None
    amounts: dict[str, float] = {}
    for symbol, amount in found.items():
        key = elements.element(symbol)
        amounts[key] = amounts.get(key, 0.0) + amount
    return amounts or None


def _same(atoms: Counter[str], formula: dict[str, float], times: float) -> bool:
    return set(atoms) == set(formula) and all(
        abs(atoms[symbol] - times * amount) < 0.1 for symbol, amount in formula.items()
    )


def _value(tags: dict[str, list[str]], tag: str) -> float | None:
    """Return a number that the file states, or None."""
    value = gemmi.cif.as_number(tags[tag][0]) if tag in tags else np.nan
    return None if np.isnan(value) else value


def _agree(said: list[float], got: list[int]) -> bool:
    """Return whether two lists are equal where the first has numbers."""
    return len(said) == len(got) and all(
        np.isnan(a) or a == b for a, b in zip(said, got)
    )
