"""What a CIF states about its atoms, held against the atoms that were read."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import gemmi
import numpy as np

from matdesign.crystals import elements
from matdesign.crystals.batch import ANGSTROM3_G
from matdesign.crystals.io.expand import Array

if TYPE_CHECKING:
    from pymatgen.core import Composition

_MULTIPLICITIES = (
    "_atom_site_symmetry_multiplicity",
    "_atom_site_site_symmetry_multiplicity",
    "_atom_site_site_symmetry_order",
)


def contradiction(
    tags: dict[str, list[str]], kinds: list[str], site: Array, order: int, volume: float
) -> str:
    """Return how the atoms contradict what the file states, or "".

    Held against them are the formula, the number Z of formula units, both together,
    the multiplicities of the sites, the calculated density and the volume; the last two
    within 5 %.

    Args:
        tags: data name -> values, as `cif` collects them.
        kinds: element of every atom.
        site: listed site of every atom.
        order: of the group, centring included.
        volume: of the cell, cubic angstrom.
    """
    from pymatgen.core import Composition

    atoms = Composition(Counter(kinds))
    got = f"its atoms make {atoms.formula}"
    stated = tags.get("_chemical_formula_sum", [""])[0]
    formula, units = _formula(stated), _value(tags, "_cell_formula_units_z")
    if formula is not None:
        times = atoms.num_atoms / formula.num_atoms
        if not _same(atoms, formula * times):
            return f"{got}, but its formula is {stated}"
        # pymatgen writes its own Z beside the formula of the whole cell
        factor = int(atoms.get_reduced_composition_and_factor()[1])
        as_pymatgen = times == 1 and units == factor
        if units is not None and not (
            as_pymatgen or _same(atoms, formula * max(units, 0))
        ):
            return f"{got}, but its formula is {stated} and Z = {units:g}"
    elif units is not None and (units < 1 or any(n % units for n in atoms.values())):
        return f"{got}, which are not Z = {units:g} equal units"
    multiplicity = np.bincount(site)
    # older programs write the order of the site symmetry under the name of the other
    for tag in _MULTIPLICITIES:
        said = np.array([gemmi.cif.as_number(value) for value in tags.get(tag, [])])
        if len(said) and not any(
            len(said) == len(row) and (np.isnan(said) | (said == row)).all()
            for row in (multiplicity, order // multiplicity)
        ):
            return (
                f"its sites have multiplicities {multiplicity.tolist()}, but it "
                f"says {said.tolist()}"
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


def _formula(text: str) -> Composition | None:
    """Return the amounts of a formula such as `Na Cl` or `Zn(CuO2)2`, or None."""
    from pymatgen.core import Composition

    try:
        found = Composition("".join(text.split())).get_el_amt_dict()
    except (ValueError, KeyError):
        return None
    amounts: Counter[str] = Counter()
    for symbol, amount in found.items():
        amounts[elements.element(symbol)] += amount  # type: ignore[assignment]
    return Composition(amounts) if amounts else None


def _same(atoms: Composition, formula: Composition) -> bool:
    near = atoms.almost_equals(formula, rtol=0, atol=0.1)
    return near and set(atoms) == set(formula)


def _value(tags: dict[str, list[str]], tag: str) -> float | None:
    """Return a number that the file states, or None."""
    value = gemmi.cif.as_number(tags[tag][0]) if tag in tags else np.nan
    return None if np.isnan(value) else value
