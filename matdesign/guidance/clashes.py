"""Contradictions of number of atoms, symmetry and distances: proofs, never guesses."""

from collections.abc import Sequence
from itertools import permutations

from matdesign.constraints.base import Constraint
from matdesign.constraints.composition import Composition
from matdesign.constraints.coordination import Coordination
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.motif import Motif
from matdesign.constraints.size import NumberOfAtoms
from matdesign.constraints.spacegroups import CrystalSystem, SpaceGroup


def sizes(parts: Sequence[Constraint], required: set[str]) -> list[str]:
    """Return clashes between numbers of atoms and compositions, elements or motifs.

    Args:
        parts: the single constraints.
        required: symbols that every crystal must hold.
    """
    bounds = [one for one in parts if isinstance(one, NumberOfAtoms)]
    if not bounds:
        return []
    low, high = max(one.low for one in bounds), min(one.high for one in bounds)
    words = " and ".join(map(str, bounds))
    if low > high:
        return [f"{words} exclude each other"]
    found = []
    for one in parts:
        if isinstance(one, Composition):
            unit = sum(one.counts)
            if high // unit * unit < low:
                found.append(f"{one} comes in multiples of {unit} atoms, not: {words}")
        elif isinstance(one, Motif) and len(one.net.sites) > high:
            found.append(f"{one} needs {len(one.net.sites)} atoms, but: {words}")
    if len(required) > high:
        found.append(f"{len(required)} elements are required, but: {words}")
    return found


def symmetries(parts: Sequence[Constraint]) -> list[str]:
    """Return clashes between space groups and crystal systems.

    Motifs are not among them: a kagome net lies in the (111) planes of cubic crystals,
    and a net may be decorated down to any symmetry.

    Args:
        parts: the single constraints.
    """
    wanted = [one for one in parts if isinstance(one, SpaceGroup | CrystalSystem)]
    if not wanted or set.intersection(*(set(one.numbers) for one in wanted)):
        return []
    return [f"no space group is left by: {'; '.join(map(str, wanted))}"]


def distances(parts: Sequence[Constraint]) -> list[str]:
    """Return clashes between shortest distances, bonds and coordination.

    Args:
        parts: the single constraints.
    """
    found = []
    for limit in (one for one in parts if isinstance(one, MinDistance)):
        for one in parts:
            close = False
            if isinstance(one, Coordination) and one.low > 0:
                close = one.cutoff < limit.limit
            if isinstance(one, Motif) and one.bond is not None:
                close = one.bond + one.tolerance < limit.limit
            if close:
                found.append(f"{one} and {limit} exclude each other")
    counted = [one for one in parts if isinstance(one, Coordination)]
    for inner, outer in permutations(counted, 2):
        same = inner.center == outer.center
        wider = outer.neighbour in (None, inner.neighbour)
        if same and wider and inner.cutoff <= outer.cutoff and inner.low > outer.high:
            found.append(f"{inner} and {outer} exclude each other")
    return found
