"""Which wanted constraints exclude each other: found before anything is sampled."""

import math
from itertools import combinations

from matdesign.constraints.base import Constraint, listing
from matdesign.constraints.between import Between
from matdesign.constraints.charge import (
    ChargeNeutral,
    ElectronegativityOrder,
    oxidation_states,
)
from matdesign.constraints.composition import Composition
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements
from matdesign.constraints.predicted import Property
from matdesign.crystals import elements
from matdesign.crystals.batch import ANGSTROM3_G
from matdesign.guidance.clashes import distances, sizes, symmetries


def contradictions(wanted: Constraint) -> list[str]:
    """Return why no crystal can meet all constraints; empty where none is found.

    Only proofs are listed, never guesses: an empty list does not promise that a crystal
    exists. Unknown kinds of constraint are passed over.

    Args:
        wanted: one constraint, or several joined with `&`.

    Returns:
        One sentence per contradiction, naming the constraints that clash.
    """
    parts = wanted.parts
    allowed = _allowed(parts)
    names = elements.symbols()
    required = {
        names[z]
        for one in parts
        if not isinstance(one, Composition)
        for z in one.required
    }
    found = _elements(parts, allowed, required)
    found += _formulas(parts, allowed, required)
    found += _ranges(parts)
    found += sizes(parts, required) + symmetries(parts) + distances(parts)
    if not found:  # element sets are sound: densities can be judged with them
        found += _charges(parts, allowed, required) + _volumes(parts, allowed)
    return found


def _allowed(parts: tuple[Constraint, ...]) -> set[str]:
    """Return the elements that every OnlyElements and formula leaves."""
    left = set(elements.symbols()[1:])
    for part in parts:
        if isinstance(part, OnlyElements):
            left &= part.symbols
        elif isinstance(part, Composition) and part.amounts:
            left &= set(part.amounts)
    return left


def _elements(
    parts: tuple[Constraint, ...], allowed: set[str], required: set[str]
) -> list[str]:
    only = [one for one in parts if isinstance(one, OnlyElements)]
    if only and not frozenset.intersection(*(one.symbols for one in only)):
        return [f"no element is left by: {'; '.join(map(str, only))}"]
    found = []
    for symbol in sorted(required):
        for one in only:
            if symbol not in one.symbols:
                found.append(f"{symbol} is required, but excluded by: {one}")
    for part in parts:
        if isinstance(part, Composition) and not part.amounts:
            room = len(part.counts)
            if len(required) > room:
                found.append(
                    f"{listing(sorted(required))} are required, but {part} has "
                    f"room for {room} elements"
                )
            if only and len(allowed) < room:
                found.append(
                    f"{part} needs {room} different elements, but only "
                    f"{listing(sorted(allowed)) or 'none'} may be used"
                )
    return found


def _formulas(
    parts: tuple[Constraint, ...], allowed: set[str], required: set[str]
) -> list[str]:
    found = []
    wanted = [one for one in parts if isinstance(one, Composition)]
    for one in wanted:
        if not one.amounts:
            continue
        for other in parts:
            if isinstance(other, OnlyElements):
                outside = sorted(set(one.amounts) - other.symbols)
                if outside:
                    found.append(f"{one} has {listing(outside)}, excluded by: {other}")
        missing = sorted(required - set(one.amounts))
        if missing:
            found.append(f"{listing(missing)} is required, but {one} has none")
    for a, b in combinations(wanted, 2):
        both = bool(a.amounts) and bool(b.amounts)
        if (both and a.amounts != b.amounts) or a.counts != b.counts:
            found.append(f"{a} and {b} exclude each other")
    return found


def _ranges(parts: tuple[Constraint, ...]) -> list[str]:
    ranges = [one for one in parts if isinstance(one, Between | Property)]
    return [
        f"{a} and {b} do not overlap"
        for a, b in combinations(ranges, 2)
        if _measured(a) == _measured(b) and (a.high < b.low or b.high < a.low)
    ]


def _measured(one: Between | Property) -> object:
    """Return what a range is a range of."""
    if isinstance(one, Between):
        return one.quantity
    return id(one.predictor), one.name


def _charges(
    parts: tuple[Constraint, ...], allowed: set[str], required: set[str]
) -> list[str]:
    found = []
    for one in parts:
        if not isinstance(one, ChargeNeutral | ElectronegativityOrder):
            continue
        free = isinstance(one, ChargeNeutral) and one.mixed_valence
        formula = next(
            (p for p in parts if isinstance(p, Composition) and p.amounts), None
        )
        if formula is not None and not free:
            amounts = {elements.atomic_number(s): k for s, k in formula.amounts.items()}
            left = one.residual(amounts)
            if left:
                found.append(f"{formula} is never {one}: at best {left:g} e remain")
            continue
        several = len(required) > 1 or any(
            isinstance(p, Composition) and len(p.counts) > 1 for p in parts
        )
        states = oxidation_states(one.states)
        charges = {q for s in allowed for q in states[elements.atomic_number(s)]}
        one_sided = all(q > 0 for q in charges) or all(q < 0 for q in charges)
        alloys = isinstance(one, ChargeNeutral) and one.alloys
        if several and not alloys and one_sided:
            found.append(
                f"{listing(sorted(allowed))} have no opposite charges, so no "
                f"compound of them is {one}"
            )
    return found


def _volumes(parts: tuple[Constraint, ...], allowed: set[str]) -> list[str]:
    """Bound the volume per atom from every side and compare.

    Equation:
        volume per atom = mean mass / density, and >= d^3 / sqrt(2), the densest packing
        of spheres of diameter d (Kepler).
    """
    masses = elements.table("mass")
    formula = next((p for p in parts if isinstance(p, Composition) and p.amounts), None)
    if formula is not None:
        numbers = {elements.atomic_number(s): k for s, k in formula.amounts.items()}
        total = sum(float(masses[z]) * k for z, k in numbers.items())
        light = heavy = total / sum(numbers.values())
    else:
        each = [float(masses[elements.atomic_number(s)]) for s in allowed]
        light, heavy = min(each), max(each)
    low, high = 0.0, math.inf
    why_low, why_high = "", ""
    for one in parts:
        least, most = 0.0, math.inf
        if isinstance(one, MinDistance):
            least = one.limit**3 / math.sqrt(2)
        elif isinstance(one, Between) and one.quantity == "volume_per_atom":
            least, most = one.low, one.high
        elif isinstance(one, Between) and one.quantity == "density":
            least = light * ANGSTROM3_G / one.high if one.high > 0 else math.inf
            most = heavy * ANGSTROM3_G / one.low if one.low > 0 else math.inf
        if least > low:
            low, why_low = least, str(one)
        if most < high:
            high, why_high = most, str(one)
    if low <= high * (1 + 1e-6):
        return []
    if not why_high or not why_low or why_low == why_high:
        return [f"{why_low or why_high} leaves no volume per atom"]
    return [
        f"{why_low} needs at least {low:.3g} angstrom^3 per atom, but {why_high} "
        f"allows at most {high:.3g} with these elements"
    ]
