"""Charges and radii that decide which substitutions are tried."""

from __future__ import annotations

from functools import cache

_CATIONS = """
Li 1|Na 1|K 1|Rb 1|Cs 1|Cu 1 2|Ag 1|Au 1 3|Tl 1 3|Be 2|Mg 2|Ca 2|Sr 2|Ba 2
Zn 2|Cd 2|Hg 2|B 3|Al 3|Ga 3|In 3|Sc 3|Y 3|La 3|Ce 3 4|Pr 3|Nd 3|Sm 3|Eu 2 3|Gd 3
Tb 3|Dy 3|Ho 3|Er 3|Tm 3|Yb 2 3|Lu 3|Ti 2 3 4|Zr 4|Hf 4|V 2 3 4 5|Nb 2 3 4 5|Ta 3 4 5
Cr 2 3 4 6|Mo 2 3 4 6|W 4 6|Mn 2 3 4|Re 4 6|Fe 2 3|Ru 3 4|Os 4|Co 2 3|Rh 3|Ir 3 4
Ni 2 3|Pd 2|Pt 2 4|Si 4|Ge 2 4|Sn 2 4|Pb 2 4|P 3 5|As 3 5|Sb 3 5|Bi 3|S 4 6|Se 4|Te 4
C 4|Th 4|U 4
"""
_ANIONS = """
F -1|Cl -1|Br -1|I -1|H -1|O -2|S -2|Se -2|Te -2|N -3|P -3|As -3|Sb -3|C -4|Si -4|Ge -4
"""
RARE = frozenset({"H", "C", "Si", "Ge", "Sb", "Th", "U", "Hg", "Tl"})
"""Drawn a third as often as the others in these roles."""

METALS = tuple(
    "Li Na K Mg Ca Sr Ba Al Ga In Sn Pb Sc Y La Ce Nd Gd Er Lu Ti Zr Hf V Nb Ta Cr "
    "Mo W Mn Re Fe Ru Os Co Rh Ir Ni Pd Pt Cu Ag Au Zn Cd Be Si Ge Sb Bi".split()
)
"""Partners in crystals that no charge balance rules."""

ELEMENTS = tuple(
    "H Li Be B C N O F Na Mg Al Si P S Cl K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As "
    "Se Br Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Cs Ba La Ce Pr Nd Sm Eu Gd "
    "Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Th U".split()
)
"""Elements with a reference energy: hydrogen to bismuth without the noble gases, Th,
U."""


def _parse(text: str) -> dict[str, tuple[int, ...]]:
    out: dict[str, tuple[int, ...]] = {}
    for entry in text.replace("\n", "|").split("|"):
        if entry.strip():
            symbol, *states = entry.split()
            out[symbol] = tuple(int(state) for state in states)
    return out


CATIONS = _parse(_CATIONS)
"""Charges an element may take as a cation."""

ANIONS = _parse(_ANIONS)
"""Charges an element may take as an anion."""


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
    from pymatgen.core import Element

    return float(Element(symbol).X)


@cache
def ionic_radius(symbol: str, charge: int) -> float:
    """Shannon radius for the charge, angstrom; six-fold where tabulated."""
    from pymatgen.core import Element

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
