"""Which elements keep a neutral completion of a crystal reachable, by sets of sums.

The total charges that an unfinished crystal can reach are a set of whole numbers. Such a
set is kept as one integer: bit s + offset is set where the sum s can be reached, and adding
a charge to all sums is a shift. The sets grow element by element, never choice by choice.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise

Mode = tuple[int, ...]
"""Oxidation states that each atom of an element may choose from: one state for all atoms
of an element, or several in mixed valence."""

Kind = tuple[Mode, ...]
"""The modes of an element, of which it carries one."""

Cut = tuple[float, float]
"""Between two electronegativities: elements up to the first are no anions, elements from
the second on no cations."""


class Neutrality:
    """The elements that keep a neutral completion reachable, as far as sums can tell.

    All atoms of an element that is there, and of the one that is asked about, carry one
    oxidation state. Every other open orbit takes any state of any element that may come,
    each for itself, and each missing required element takes one of them. So the mask is
    exact for the last orbit, and rules out too little before, never too much: an element
    that is to come may be counted with two states. What counts as neutral is what
    `residual` says of the finished crystal: also a single element, and metals alone
    where these are named in `alloys`.

    Equation:
        z may come on an orbit of n atoms where T_z and C meet, with T_z the sums of what
        is there and of n atoms of z, and C those that all other open orbits can cancel.

    Args:
        states: oxidation states of each atomic number, 104 tuples.
        mixed: elements whose atoms may differ in charge.
        alloys: elements that need no charges among themselves.
        order: electronegativities, if anions must have larger ones than cations.
    """

    def __init__(
        self,
        states: Sequence[tuple[int, ...]],
        mixed: frozenset[int] = frozenset(),
        alloys: frozenset[int] = frozenset(),
        order: Sequence[float] = (),
    ) -> None:
        self.kinds: tuple[Kind, ...] = tuple(
            (tuple(some),) if some and z in mixed else tuple((q,) for q in some)
            for z, some in enumerate(states)
        )
        self.alloys, self.order = alloys, tuple(order)
        self.largest = max((abs(q) for some in states for q in some), default=0)
        self.kind = cache(self._kind)
        self.free = lru_cache(10_000)(self._free)

    def cuts(self, present: Iterable[int]) -> list[Cut]:
        """Return the cuts that differ for some elements; one without an order."""
        scale = {self.order[z] for z in present if self.kinds[z]} if self.order else ()
        return list(pairwise([-float("inf"), *sorted(scale), float("inf")]))

    def _kind(self, z: int, cut: Cut) -> Kind:
        """Return the modes of an element that a cut leaves it."""
        if not self.order:
            return self.kinds[z]
        may = {0: True, 1: self.order[z] < cut[1], -1: self.order[z] > cut[0]}
        return tuple((q,) for (q,) in self.kinds[z] if may[(q > 0) - (q < 0)])

    def _free(self, vocabulary: frozenset[int], cut: Cut) -> frozenset[Mode]:
        """Return the modes of all elements that may come."""
        return frozenset(mode for z in vocabulary for mode in self.kind(z, cut))

    def residual(self, amounts: Mapping[int, int]) -> float:
        """Return the smallest total charge that the atoms can have, in e.

        Args:
            amounts: number of atoms by atomic number.

        Returns:
            Zero when a neutral choice exists; inf when an element has no state.
        """
        if self._uncharged(frozenset(amounts)):
            return 0.0
        best = float("inf")
        for cut in self.cuts(amounts):
            sums = {0}
            for z, n in amounts.items():
                steps = [q for mode in self.kind(z, cut) for q in charges(mode, n)]
                sums = {s + q for s in sums for q in steps}
            best = min([best, *map(abs, sums)])
        return best

    def elements(
        self,
        there: Mapping[int, int],
        sizes: tuple[int, ...],
        vocabulary: frozenset[int],
        required: frozenset[int] = frozenset(),
        distinct: bool = False,
    ) -> dict[int, frozenset[int]]:
        """Return the elements that an open orbit of each size may become.

        Args:
            there: atoms of each element that is decided.
            sizes: atoms of each open orbit.
            vocabulary: elements that the open orbits may become.
            required: elements that must be there in the end.
            distinct: every open orbit takes an element that no other has.

        Returns:
            Atoms of an orbit -> elements; {0: elements there} where nothing is open, with
            an empty set where the crystal is not neutral.
        """
        missing = required.difference(there)
        if not missing <= vocabulary or len(missing) > len(sizes):
            return {n: frozenset() for n in sizes or (0,)}
        if not sizes:
            return {0: frozenset(() if self.residual(there) else there)}
        offset = 1 << (self.largest * (sum(there.values()) + sum(sizes))).bit_length()
        left = vocabulary.difference(there if distinct else ())
        taken = missing.union(there)
        found = {}
        for n in set(sizes):
            rest = list(sizes)
            rest.remove(n)
            one = not (distinct and rest)
            good = {z for z in left if self._uncharged(taken | {z}, one)}
            for cut in self.cuts(taken):
                free = self.free(left, cut)
                known: dict[tuple[Kind, int], bool] = {}
                for z in left - good:
                    key = self.kind(z, cut), z if z in taken else 0
                    if key not in known:
                        sums = self._reached(
                            {**there, z: there.get(z, 0) + n}, cut, offset
                        )
                        must = tuple(self.kind(m, cut) for m in sorted(missing - {z}))
                        rests = cancelled(tuple(rest), must, free, offset)
                        known[key] = bool(sums & rests)
                    if known[key]:
                        good.add(z)
            if len(missing) > len(rest):  # one of them has to come here
                good &= missing
            found[n] = frozenset(good)
        return found

    def _uncharged(self, whole: frozenset[int], one: bool = True) -> bool:
        """Return whether elements need no charges: one alone, or an alloy."""
        return (one and len(whole) == 1) or whole <= self.alloys

    def _reached(self, atoms: Mapping[int, int], cut: Cut, offset: int) -> int:
        """Return the sums that some atoms can have, as bits."""
        sums = 1 << offset
        for z, n in atoms.items():
            sums = shifted(sums, [q for m in self.kind(z, cut) for q in charges(m, n)])
        return sums


@lru_cache(maxsize=50_000)
def cancelled(
    sizes: tuple[int, ...], must: tuple[Kind, ...], free: frozenset[Mode], offset: int
) -> int:
    """Return the sums that open orbits can cancel, as bits.

    Args:
        sizes: atoms of each open orbit.
        must: kinds of elements that each take one of them at least.
        free: modes that all others may take, each for itself.
        offset: bit of the sum zero.
    """
    found = 0
    if must:
        for n in set(sizes):
            rest = list(sizes)
            rest.remove(n)
            left = cancelled(tuple(rest), must[1:], free, offset)
            steps = [-q for mode in must[0] for q in charges(mode, n)]
            found |= shifted(left, steps)
        return found
    found = 1 << offset
    for n in sizes:
        found = shifted(found, {-q for mode in free for q in charges(mode, n)})
    return found


@lru_cache(maxsize=50_000)
def charges(mode: Mode, atoms: int) -> tuple[int, ...]:
    """Return the total charges of some atoms, each of any of the states of a mode."""
    if len(mode) == 1:
        return (mode[0] * atoms,)
    found = {0}
    for _ in range(atoms):
        found = {s + q for s in found for q in mode}
    return tuple(found)


def shifted(bits: int, steps: Iterable[int]) -> int:
    """Return the sums in `bits`, each with each of the steps added."""
    found = 0
    for s in steps:
        found |= bits << s if s >= 0 else bits >> -s
    return found
