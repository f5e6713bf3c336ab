"""Which constraints exclude each other: found before anything is sampled."""

from itertools import combinations, permutations

from matdesign.constraints.base import Constraint, listing
from matdesign.crystals import elements


def contradictions(wanted: Constraint) -> list[str]:
    """Return why no crystal can meet all constraints; empty where none is found.

    Only proofs are listed, never guesses: an empty list does not promise that a crystal
    exists. Constraints are compared in pairs, by the elements that one requires and the
    other leaves out and by what each says of the other; volumes per atom all together.

    Args:
        wanted: one constraint, or several joined with `&`.

    Returns:
        One sentence per contradiction, naming the constraints that clash.
    """
    parts, names, found = wanted.parts, elements.symbols(), []
    for a, b in permutations(parts, 2):
        outside = a.required - (a.required if b.only is None else b.only)
        if outside:
            some = listing(sorted(names[z] for z in outside))
            found.append(f"{some} is required by: {a}, but excluded by: {b}")
    for a, b in combinations(parts, 2):
        if a.excludes(b) or b.excludes(a):
            found.append(f"{a} and {b} exclude each other")
    return found or _volumes(wanted)


def _volumes(wanted: Constraint) -> list[str]:
    """Return whether one constraint needs more room for an atom than another leaves."""
    masses, left = elements.table("mass"), set(range(1, elements.MAX_Z + 1))
    for one in wanted.parts:
        left &= left if one.only is None else one.only
    each = [float(masses[z]) for z in left]
    ends = [one.volumes(min(each), max(each)) for one in wanted.parts] if each else []
    for (low, _), a in zip(ends, wanted.parts, strict=False):
        for (_, high), b in zip(ends, wanted.parts, strict=False):
            if low > high * (1 + 1e-6):
                return [
                    f"{a} needs at least {low:.3g} angstrom^3 per atom, but {b} allows at "
                    f"most {high:.3g} with these elements"
                ]
    return []
