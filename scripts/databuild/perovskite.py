"""Perovskites ABX3: the cubic aristotype, its children and which to try."""

import itertools

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from databuild.chemistry import (
    ANIONS,
    by_charge,
    electronegativity,
    ionic_radius,
    tolerance_factor,
)

TILTS: dict[str, tuple[tuple[float, ...], tuple[int, ...]]] = {
    "I4mcm": ((0.0, 0.0, 8.0), (-1, -1, -1)),  # a0a0c-
    "P4mbm": ((0.0, 0.0, 8.0), (1, 1, 1)),  # a0a0c+
    "R-3c": ((6.0, 6.0, 6.0), (-1, -1, -1)),  # a-a-a-
    "Imma": ((7.0, 7.0, 0.0), (-1, -1, -1)),  # a-a-c0
    "Pnma": ((7.0, 7.0, 7.0), (-1, -1, 1)),  # a-a-c+
}
"""Children by tilting: degrees about x, y, z and whether layers along the axis turn
in phase (1) or out of phase (-1), in Glazer's notation."""

POLAR: dict[str, tuple[float, float, float]] = {
    "P4mm": (0.0, 0.0, 1.0),
    "R3m": (1.0, 1.0, 1.0),
}
"""Children by moving B off its centre along a direction."""

A_SITE = frozenset(
    "Li Na K Rb Cs Ag Tl Ca Sr Ba Pb Cd Eu Yb Y La Ce Pr Nd Sm Gd Dy Ho Er Lu "
    "Bi".split()
)
"""Elements large and soft enough for the twelve-fold site."""

NOT_B_SITE = frozenset("C H Si P S Se As B Be K Rb Cs Au U Te".split())
"""Elements left out of the octahedral site."""

X_SITE = "O F Cl Br I S Se N H".split()
"""The anions."""


def compositions() -> list[tuple[str, str, str]]:
    """Every (A, B, X) that charge, size and electronegativity allow.

    The list is complete within its rules, so the best member of the enumerated
    universe is known: charges sum to zero, A is larger than B, tolerance factor in
    [0.78, 1.10], octahedral factor r_B / r_X at least 0.35 (0.30 for nitrides).
    """
    found: dict[tuple[str, str, str], None] = {}
    for x in X_SITE:
        charge_x, radius_x = ANIONS[x][0], _anion_radius(x)
        for charge_a in (1, 2, 3):
            charge_b = -3 * charge_x - charge_a
            for a, b in itertools.product(
                by_charge().get(charge_a, ()), by_charge().get(charge_b, ())
            ):
                if a == b or a not in A_SITE or b in NOT_B_SITE:
                    continue
                if x in ("S", "Se") and charge_a != 2:
                    continue
                if max(map(electronegativity, (a, b))) >= electronegativity(x):
                    continue
                # Shannon's six-fold radius of A, enlarged to twelve-fold
                radius_a = 1.17 * ionic_radius(a, charge_a)
                radius_b = ionic_radius(b, charge_b)
                factor = tolerance_factor(radius_a, radius_b, radius_x)
                octahedral = radius_b / radius_x
                lowest = 0.30 if x == "N" else 0.35
                tilts = radius_a > radius_b and 0.78 <= factor <= 1.10
                if tilts and lowest <= octahedral <= 0.85:
                    found[(a, b, x)] = None
    return list(found)


def _anion_radius(x: str) -> float:
    return 1.40 if x == "H" else ionic_radius(x, ANIONS[x][0])


def build(kind: str, elements: dict[str, str]) -> Structure:
    """The primitive cell of a perovskite at a guessed volume (5, 10 or 20 atoms).

    Its kind is "cubic", a key of `TILTS` or one of `POLAR`; elements are by role A, B, X.
    """
    cubic = _cubic(elements)
    if kind == "cubic":
        return cubic
    if kind in POLAR:
        return _polar(cubic, np.array(POLAR[kind]))
    angles, phases = TILTS[kind]
    return _tilted(cubic, angles, phases)


def _cubic(elements: dict[str, str]) -> Structure:
    a, b, x = (elements[role] for role in "ABX")
    radius_x = _anion_radius(x)
    charges_b = [q for q, names in by_charge().items() if b in names and q > 0]
    radius_b = float(np.mean([ionic_radius(b, q) for q in charges_b] or [0.7]))
    edge = 2 * (radius_b + radius_x)
    h = 0.5
    sites = np.array([[0, 0, 0], [h, h, h], [h, h, 0], [h, 0, h], [0, h, h]])
    return Structure(Lattice.cubic(edge), [a, b, x, x, x], sites)


def _polar(cubic: Structure, direction: NDArray[np.float64]) -> Structure:
    unit = direction / np.linalg.norm(direction)
    strain = np.eye(3) + 0.04 * (np.outer(unit, unit) - np.eye(3) / 3)
    frac = cubic.frac_coords.copy()
    frac[1] += 0.035 * unit
    frac[2:] -= 0.025 * unit
    return Structure(Lattice(cubic.lattice.matrix @ strain), cubic.species, frac)


def _tilted(
    cubic: Structure, angles: tuple[float, ...], phases: tuple[int, ...]
) -> Structure:
    """Turn the octahedra of a 2 x 2 x 2 cell, then find the primitive cell.

    Each octahedron turns against its neighbours across the axis; along the axis it
    turns with them (phase 1) or against them (phase -1).
    """
    edge = cubic.lattice.a
    species: list[str] = []
    cart: list[NDArray[np.float64]] = []
    names = [site.specie.symbol for site in cubic]
    for cell in itertools.product(range(2), repeat=3):
        origin = np.array(cell, dtype=float) * edge
        turn = np.zeros(3)
        for axis in range(3):
            others = sum(cell) - cell[axis]
            along = cell[axis] if phases[axis] < 0 else 0
            turn[axis] = np.tan(np.radians(angles[axis])) * (-1) ** (others + along)
        species += names[:2]
        cart += [origin, origin + edge / 2]
        for axis in range(3):  # the X atom half an edge beyond B along each axis
            arm = np.eye(3)[axis] * edge / 2
            species.append(names[2])
            cart.append(origin + edge / 2 + arm + np.cross(turn, arm))
    big = Structure(
        Lattice.cubic(2 * edge), species, np.array(cart), coords_are_cartesian=True
    )
    return big.get_primitive_structure(tolerance=0.05)
