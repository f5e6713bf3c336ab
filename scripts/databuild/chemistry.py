"""Charges and radii that decide which substitutions are tried."""

from functools import cache
from pathlib import Path

import yaml
from pymatgen.core import Element

TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
"""Elements, charges and compounds by what they are for, as text."""


def entries(name: str) -> list[list[str]]:
    """Return the entries of a table, each as its words."""
    return [entry.split() for entry in TABLES[name].split("|")]


CATIONS, ANIONS = (
    {symbol: tuple(map(int, states)) for symbol, *states in entries(name)}
    for name in ("cations", "anions")
)
"""Charges an element may take as a cation, and as an anion."""

RARE = frozenset(TABLES["rare"].split())
"""Drawn a third as often as the others in these roles."""


@cache
def by_charge() -> dict[int, tuple[str, ...]]:
    """Elements that may carry each charge, -4 to 6."""
    out: dict[int, list[str]] = {}
    for table in (CATIONS, ANIONS):
        for symbol, states in table.items():
            for state in states:
                out.setdefault(state, []).append(symbol)
    return {charge: tuple(symbols) for charge, symbols in out.items()}


@cache
def electronegativity(symbol: str) -> float:
    """Pauling electronegativity."""
    return float(Element(symbol).X)


@cache
def ionic_radius(symbol: str, charge: int) -> float:
    """Shannon radius for the charge, angstrom; six-fold where tabulated."""
    element = Element(symbol)
    table = element.ionic_radii
    if charge in table:
        return float(table[charge])
    if table:
        nearest = min(table, key=lambda state: abs(state - charge))
        return float(table[nearest])
    return float(element.atomic_radius or 1.5)


def balanced(charges: dict[str, int], amounts: dict[str, float]) -> bool:
    """Whether the charges cancel and every cation is less electronegative."""
    if abs(sum(charges[s] * amounts[s] for s in charges)) > 1e-6:
        return False
    positive = [electronegativity(s) for s, q in charges.items() if q > 0]
    negative = [electronegativity(s) for s, q in charges.items() if q < 0]
    return bool(positive and negative) and max(positive) < min(negative)


def tolerance_factor(a: float, b: float, x: float) -> float:
    """Goldschmidt's tolerance factor of a perovskite ABX3 from three radii.

    Equation: t = (r_A + r_X) / (sqrt(2) (r_B + r_X)).
    """
    return (a + x) / (2**0.5 * (b + x))
