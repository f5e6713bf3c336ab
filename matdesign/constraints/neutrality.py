"""Which elements keep a neutral completion of a crystal reachable, by dynamic programming.

The total charges that an unfinished crystal can reach are a set of whole numbers. Such a
set is kept as one integer: bit s + offset is set where the sum s can be reached, and adding
a charge to all sums is a shift. The sets grow element by element, never choice by choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import NamedTuple

Mode = tuple[int, ...]
"""Oxidation states that each atom of an element may choose from: one state for all atoms
of an element, or several in mixed valence."""

Kind = tuple[Mode, ...]
"""The modes of an element; elements of one kind are interchangeable."""

Sums = dict[int, int]
"""Code of the open orbits that are taken -> sums that can be reached, as bits."""


class Taker(NamedTuple):
    """An element that is in the crystal, or may come.

    Args:
        modes: what it may carry; it carries one of these.
        have: atoms of it that are there already.
        open: whether it may take open orbits.
        must: whether it has to take one.
    """

    modes: Kind
    have: int
    open: bool
    must: bool


class Pool(NamedTuple):
    """What elements that are not in the crystal yet can carry, whoever else takes part.

    Args:
        free: modes that every open orbit may take, each for itself.
        scarce: elements beside these, by their other modes, which must be shared out.
        needed: kinds without one of which the pool would be a smaller one.
    """

    free: frozenset[Mode]
    scarce: tuple[Kind, ...]
    needed: frozenset[Kind]


class Neutrality:
    """The elements that keep a neutral completion reachable, exactly.

    All atoms of an element carry one oxidation state; elements named in `mixed` let every
    atom choose. What counts as neutral is what `ChargeNeutral` says of the finished
    crystal: also a single element, and metals alone where these are named in `alloys`.

    Equation:
        T'(v) = union over modes m of an element of T_m(v), with T_m(v) = T(v) + union
        over orbits c in v of (T_m(v - c) + charges of m on c), where T(v) are the sums in
        which the elements so far took the open orbits v. In the end all other orbits
        take modes that find an element of their own, each for itself.

    Args:
        states: oxidation states of each atomic number, 104 tuples.
        mixed: elements whose atoms may differ in charge.
        alloys: elements that need no charges among themselves.
    """

    def __init__(
        self,
        states: Sequence[tuple[int, ...]],
        mixed: frozenset[int] = frozenset(),
        alloys: frozenset[int] = frozenset(),
    ) -> None:
        self.kinds: tuple[Kind, ...] = tuple(
            (tuple(some),) if some and z in mixed else tuple((q,) for q in some)
            for z, some in enumerate(states)
        )
        self.alloys = alloys
        self.largest = max((abs(q) for some in states for q in some), default=0)

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
            distinct: every open orbit takes an element of its own, which no other has.

        Returns:
            Atoms of an orbit -> elements; {0: elements there} where nothing is open, with
            an empty set where the crystal is not neutral.
        """
        missing = required.difference(there)
        if not missing <= vocabulary or len(missing) > len(sizes):
            return {n: frozenset() for n in sizes or (0,)}
        atoms = sum(there.values()) + sum(sizes)
        offset = 1 << (self.largest * atoms).bit_length()
        takers = {
            z: Taker(self.kinds[z], n, z in vocabulary and not distinct, False)
            for z, n in there.items()
        }
        if not sizes:
            whole = len(there) == 1 or (bool(there) and self.alloys.issuperset(there))
            whole = whole or Filling((), (), offset, distinct).meets(takers.values())
            return {0: frozenset(there) if whole else frozenset()}
        takers |= {z: Taker(self.kinds[z], 0, True, True) for z in missing}
        members: dict[Kind, list[int]] = {}
        for z in sorted(vocabulary.difference(takers)):
            members.setdefault(self.kinds[z], []).append(z)
        found: dict[int, frozenset[int]] = {}
        for n in set(sizes):
            rest = list(sizes)
            rest.remove(n)
            good = self._uncharged(there.keys(), missing, rest, vocabulary, distinct)
            # more elements of one kind than could all be of use do not count
            most = len(rest) + 1 if distinct else 0
            counted = tuple(
                (kind, min(len(some), most or len(kind) + 1))
                for kind, some in members.items()
            )
            fill = Filling(tuple(rest), counted, offset, distinct)
            for z in (missing if distinct else vocabulary.intersection(takers)) - good:
                own = Taker(self.kinds[z], takers[z].have + n, not distinct, False)
                if fill.meets((takers | {z: own}).values()):
                    good.add(z)
            alive = all(one.modes for one in takers.values())
            if alive and len(missing) <= len(rest) and not good >= vocabulary:
                for kind in _fresh(takers.values(), members, n, fill):
                    good.update(members[kind])
            found[n] = frozenset(good)
        return found

    def _uncharged(
        self,
        there: Set[int],
        missing: frozenset[int],
        rest: list[int],
        vocabulary: frozenset[int],
        distinct: bool,
    ) -> set[int]:
        """Return elements with which it can be of one element, or an alloy."""
        taken, found = missing.union(there), set[int]()
        if len(taken) > 1 and not taken <= self.alloys:
            return found
        metals = vocabulary & self.alloys
        for z in vocabulary - (there if distinct else set()):
            whole, more = taken | {z}, missing - {z}
            if len(whole) == 1 and not (distinct and rest):
                found.add(z)
            elif whole <= self.alloys and len(more) <= len(rest):
                if not distinct or len(more | (metals - whole)) >= len(rest):
                    found.add(z)
        return found


@lru_cache(maxsize=20_000)
def pool_of(counted: tuple[tuple[Kind, int], ...], orbits: int, distinct: bool) -> Pool:
    """Return what elements can carry.

    A mode is free when an element can be set aside for it that has no other mode which
    is not free already. Where every orbit takes another element, a mode is free when at
    least as many elements have it as there are orbits.

    Args:
        counted: how many elements of each kind there are.
        orbits: open orbits.
        distinct: every orbit takes an element of its own.
    """
    left = dict(sorted(counted, key=lambda one: -one[1]))
    free, needed = set[Mode](), set[Kind]()
    if distinct:
        having = Counter(mode for kind, many in counted for mode in kind * many)
        free = {mode for mode, many in having.items() if many >= orbits}
        needed = set(left)
    before = -1
    while not distinct and len(free) > before:
        before = len(free)
        for kind, many in left.items():
            rest = [mode for mode in kind if mode not in free]
            if many and len(rest) == 1:
                free.add(rest[0])
                left[kind] -= 1
                if many == 1:
                    needed.add(kind)
    scarce: Counter[Kind] = Counter()
    for kind, many in left.items():
        other = tuple(mode for mode in kind if mode not in free)
        if other and many:
            scarce[other] += many
            needed.add(kind)
    shared: list[Kind] = []
    for kind, many in sorted(scarce.items()):
        shared += [kind] * min(many, orbits if distinct else len(kind))
    return Pool(frozenset(free), tuple(shared), frozenset(needed))


class Filling:
    """The ways in which elements take the open orbits, and what they add up to.

    Args:
        sizes: atoms of each open orbit.
        counted: how many elements of each kind may come, beside those that are told.
        offset: bit of the sum zero.
        distinct: every open orbit takes an element of its own.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        counted: tuple[tuple[Kind, int], ...],
        offset: int,
        distinct: bool,
    ) -> None:
        self.sizes, self.counted, self.offset = sizes, counted, offset
        self.distinct, self.pool = distinct, pool_of(counted, len(sizes), distinct)
        self.orbits: list[tuple[int, int, int]] = []
        """Code, number and atoms of the open orbits of each size."""
        code = 1
        for atoms in sorted(set(sizes)):
            self.orbits.append((code, sizes.count(atoms), atoms))
            code *= sizes.count(atoms) + 1
        self.codes = code
        """Number of choices of open orbits, orbits of one size being the same."""

    def without(self, kind: Kind) -> Filling:
        """Return the ways without one of the elements of a kind."""
        if kind not in self.pool.needed:
            return self
        less = tuple((k, many - (k == kind)) for k, many in self.counted)
        return Filling(self.sizes, less, self.offset, self.distinct)

    def sums(self, takers: Iterable[Taker]) -> Sums:
        """Return the sums that some elements, and those that are scarce, can reach."""
        scarce = (Taker(kind, 0, True, False) for kind in self.pool.scarce)
        found = {0: 1 << self.offset}
        for taker in (*takers, *scarce):
            found = self.grow(found, taker)
        return found

    def grow(self, sums: Sums, taker: Taker) -> Sums:
        """Return the sums after one element took any of the open orbits.

        Of a free mode it takes no more than it must: others can take the rest.

        Args:
            sums: those before.
            taker: the element.
        """
        idle = taker.have == 0 and not taker.must
        found = dict(sums) if idle else {}
        for mode in taker.modes:
            start = {v: shifted(b, charges(mode, taker.have)) for v, b in sums.items()}
            free = mode in self.pool.free
            once, more = self.distinct or free, Sums()
            for code, many, atoms in self.orbits:
                if not taker.open or (free and not taker.must):
                    break
                step = charges(mode, atoms)
                for v in range(self.codes - code):
                    before = start.get(v, 0) | (0 if once else more.get(v, 0))
                    if before and v // code % (many + 1) < many:
                        more[v + code] = more.get(v + code, 0) | shifted(before, step)
            for part in (more,) if taker.must else (start, more):
                for v, bits in part.items():
                    found[v] = found.get(v, 0) | bits
        return found

    def balances(self, sums: Sums, steps: tuple[int, ...] = (0,)) -> bool:
        """Return whether free modes on all other orbits, and a step, make a sum zero."""
        return any(
            shifted(bits, steps)
            & _balanced(self._others(v), self.pool.free, self.offset)
            for v, bits in sums.items()
        )

    def meets(self, takers: Iterable[Taker]) -> bool:
        """Return whether there is a neutral completion with some elements."""
        return self.balances(self.sums(takers))

    def _others(self, taken: int) -> tuple[tuple[int, int], ...]:
        """Return atoms and number of the orbits that are not taken, by their code."""
        return tuple((n, k - taken // code % (k + 1)) for code, k, n in self.orbits)


def _fresh(
    takers: Collection[Taker], members: Iterable[Kind], size: int, fill: Filling
) -> list[Kind]:
    """Return the kinds of elements not there yet that an orbit may become."""
    sums: dict[Pool, Sums] = {}
    known: dict[tuple[Pool, Mode], bool] = {}
    found = []
    for kind in members:
        others = fill.without(kind)
        pool = others.pool
        if pool not in sums:
            sums[pool] = others.sums(takers)
        for mode in kind:
            if (pool, mode) not in known:
                met = others.balances(sums[pool], charges(mode, size))
                if not met and mode not in pool.free and not fill.distinct:
                    own = Taker(
                        (mode,), size, True, False
                    )  # and more orbits of its own
                    met = others.balances(others.grow(sums[pool], own))
                known[pool, mode] = met
        if any(known[pool, mode] for mode in kind):
            found.append(kind)
    return found


@lru_cache(maxsize=50_000)
def _balanced(
    orbits: tuple[tuple[int, int], ...], free: frozenset[Mode], offset: int
) -> int:
    """Return the sums that orbits of free modes can balance, as bits.

    Args:
        orbits: (atoms, how many such orbits).
        free: modes.
        offset: bit of the sum zero.
    """
    found = 1 << offset
    for atoms, many in orbits:
        steps = tuple({-s for mode in free for s in charges(mode, atoms)})
        for _ in range(many):
            found = shifted(found, steps)
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


def shifted(bits: int, steps: tuple[int, ...]) -> int:
    """Return the sums in `bits`, each with each of the steps added."""
    found = 0
    for s in steps:
        found |= bits << s if s >= 0 else bits >> -s
    return found
