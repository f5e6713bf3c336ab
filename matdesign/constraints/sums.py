"""Sets of reachable charges as bits of whole numbers: shifts in place of lists.

Bit s + offset is set where the sum s can be reached; adding a charge is a shift.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

Items = tuple[tuple[int, int], ...]
"""Open orbits as (atoms of an orbit, how many such orbits), by atoms."""

Table = list[int]
"""For each choice of items already taken: the reachable sums, as bits."""


class Grid:
    """The sub-multisets of some items, numbered so that those within others come first.

    The complement of number k is `size - 1 - k`.
    """

    def __init__(self, items: Items) -> None:
        self.size = 1
        strides = []
        for atoms, many in items:
            strides.append((self.size, many + 1, atoms))
            self.size *= many + 1
        self.previous = [
            [
                (k - stride, atoms)
                for stride, radix, atoms in strides
                if k // stride % radix
            ]
            for k in range(self.size)
        ]
        """For each sub-multiset: those with one item less, and the atoms of the item."""


@lru_cache(maxsize=4096)
def grid_of(items: Items) -> Grid:
    """Return the grid of some items, made once."""
    return Grid(items)


def grow(
    table: Table,
    states: tuple[int, ...],
    each: bool,
    have: int,
    grid: Grid,
    distinct: bool,
    must: bool = False,
) -> Table:
    """Return the sums after one element took any of the open orbits.

    Args:
        table: sums before.
        states: what the element may carry; none = it cannot be there.
        each: every atom chooses for itself.
        have: atoms of it that are there already.
        grid: the open orbits.
        distinct: it takes one orbit at most, and none where it is there already.
        must: it takes at least one.
    """
    skip = have == 0 and not must
    result = list(table) if skip and not states else [0] * grid.size
    for mode in (states,) if each and states else [(q,) for q in states]:
        start = [moved(bits, sums(mode, have)) for bits in table]
        taken = list(start)
        for k in range(grid.size):
            more = 0
            if not (distinct and have):
                for before, atoms in grid.previous[k]:
                    source = start[before] if distinct else taken[before]
                    more |= moved(source, sums(mode, atoms))
            taken[k] |= more
            result[k] |= more if must else taken[k]
    return result


@lru_cache(maxsize=65536)
def reached(items: Items, states: tuple[int, ...], offset: int, each: bool) -> int:
    """Return the negated sums of orbits that take any state (or each atom does)."""
    bits = 1 << offset
    for atoms, many in items:
        totals = sums(states, atoms) if each else tuple(atoms * q for q in states)
        negated = tuple(-s for s in totals)
        for _ in range(many):
            bits = moved(bits, negated)
    return bits


@lru_cache(maxsize=65536)
def items_of(sizes: tuple[int, ...]) -> Items:
    """Return orbits, each by its atoms, as items."""
    return tuple(sorted((atoms, sizes.count(atoms)) for atoms in set(sizes)))


def union(sets: Iterable[int]) -> int:
    """Return the sums that any of the sets holds."""
    found = 0
    for bits in sets:
        found |= bits
    return found


@lru_cache(maxsize=65536)
def sums(states: tuple[int, ...], atoms: int) -> tuple[int, ...]:
    """Return the total charges that some atoms reach when each takes any state."""
    found = {0}
    for _ in range(atoms):
        found = {s + q for s in found for q in states}
    return tuple(found)


@lru_cache(maxsize=65536)
def charges(states: tuple[int, ...], each: bool, atoms: int) -> tuple[int, ...]:
    """Return the total charges of some atoms of one element.

    Args:
        states: what it may carry; none = it cannot be there.
        each: every atom chooses for itself.
        atoms: how many.
    """
    modes = (states,) if each and states else [(q,) for q in states]
    return tuple(s for mode in modes for s in sums(mode, atoms))


@lru_cache(maxsize=65536)
def charge_bits(states: tuple[int, ...], each: bool, atoms: int, offset: int) -> int:
    """Return `charges` as bits."""
    return moved(1 << offset, charges(states, each, atoms))


def steps_between(starts: int, ends: int, offset: int) -> int:
    """Return the charges that lead from one of some sums to one of others, as bits.

    Args:
        starts: sums before, as bits.
        ends: sums after.
        offset: bit of the sum zero, in all of them.
    """
    found = 0
    while starts:
        lowest = starts & -starts
        start = lowest.bit_length() - 1 - offset
        found |= ends >> start if start >= 0 else ends << -start
        starts ^= lowest
    return found


def moved(bits: int, steps: tuple[int, ...]) -> int:
    """Return the union of the sums in `bits`, each with each of the steps added."""
    found = 0
    for s in steps:
        found |= bits << s if s >= 0 else bits >> -s
    return found


def nearest(bits: int, offset: int) -> float:
    """Return how far the sum next to zero is from it; inf where there is none."""
    below, above = bits & (1 << offset) - 1, bits >> offset
    low = offset + 1 - below.bit_length() if below else float("inf")
    high = (above & -above).bit_length() - 1 if above else float("inf")
    return float(min(low, high))


def without(items: Items, atoms: int) -> Items:
    """Return the items less one of the given size."""
    return tuple((c, k - (c == atoms)) for c, k in items if k > (c == atoms))


def placed(
    bits: int, items: Items, elements: Iterable[tuple[int, ...]]
) -> tuple[int, Items]:
    """Return sums and open orbits after some elements took the smallest orbits.

    Args:
        bits: sums before.
        items: open orbits, at least as many as elements.
        elements: the states of each of these elements.
    """
    for states in elements:
        atoms = items[0][0]
        bits = union(moved(bits, (atoms * q,)) for q in states)
        items = without(items, atoms)
    return bits, items


def without_state(states: tuple[int, ...], one: int | None) -> tuple[int, ...]:
    """Return states less one of them; None takes none away."""
    return tuple(q for q in states if q != one) if one is not None else states
