"""Which elements may still be chosen so that some completion of a crystal is neutral.

A state of a half-decided crystal is the set of total charges that it can reach. Such a
set is one integer: bit s + offset is set where the sum s can be reached, and adding a
charge to every sum is a shift. The sets grow element by element, never choice by choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matdesign.constraints.offer import Decided, Kind, Offer
from matdesign.constraints.sums import (
    Items,
    Table,
    charge_bits,
    charges,
    grid_of,
    grow,
    items_of,
    moved,
    placed,
    reached,
    steps_between,
    without,
    without_state,
)
from matdesign.crystals import elements


class Completions:
    """The elements that keep a neutral completion reachable, exactly.

    All atoms of an element carry one oxidation state; elements named in `each` let every
    atom choose. What counts as neutral is what `ChargeNeutral` says of the finished
    crystal.

    Equation:
        F(v) = sums that the open orbits v can reach with elements not there yet: element
        after element, F'(v) = union over its states q of T_q(v), where T_q(v) = F(v) +
        union over the kinds c of orbits in v of (T_q(v - c) + n_c q);
        D(v) = the same, grown from the elements that are there, each with its atoms.
        The crystal can be completed if some v' <= v has a sum s in D(v') with -s in
        F(v - v'). Elements of equal states are interchangeable, and as many of them as
        they have states reach all that any number does.

    The cost is linear in elements, states and atoms, and in the number of sub-multisets
    of the open orbits (n + 1 for n orbits of one size); nothing is enumerated. Most
    answers are proved before that, from states that find elements of their own.

    Args:
        states: oxidation states of each atomic number, 104 tuples.
        each: elements whose atoms may differ in charge.
        alloys: elements that need no charges among themselves.
    """

    def __init__(
        self,
        states: Sequence[tuple[int, ...]],
        each: frozenset[int] = frozenset(),
        alloys: frozenset[int] = frozenset(),
    ) -> None:
        self.states = tuple(tuple(row) for row in states)
        self.each = each
        self.alloys = alloys
        self._largest = max((abs(q) for row in self.states for q in row), default=0)
        self._answers: dict[tuple[object, ...], dict[int, frozenset[int]]] = {}
        self._fresh: dict[tuple[object, ...], Table] = {}
        self._charges: dict[tuple[int, int], tuple[int, ...]] = {}
        self._offers: dict[frozenset[int], Offer] = {}

    def completable(
        self,
        there: Mapping[int, int],
        sizes: tuple[int, ...],
        vocabulary: frozenset[int],
    ) -> bool:
        """Return whether orbits can be added; see `Constraint.completable`."""
        offset = self._offset(sum(there.values()) + sum(sizes))
        reach = self._sums_of(there, offset)
        if not sizes:
            alone = len(there) == 1 or self.alloys.issuperset(there)
            return alone or bool(reach >> offset & 1)
        items = items_of(sizes)
        spare = self._offer(vocabulary).spare(len(there))
        if reach & reached(items, spare, offset, False):
            return True  # whoever is there, each of these states finds another element
        if len(sizes) == 1:
            return bool(self.closing(there, sizes[0], vocabulary))
        return self._completes(dict(there), items, vocabulary, frozenset(), False)

    def elements(
        self,
        decided: Decided,
        items: Items,
        vocabulary: frozenset[int],
        required: frozenset[int] = frozenset(),
        distinct: bool = False,
    ) -> dict[int, frozenset[int]]:
        """Return the elements that an open orbit of each size may become.

        Args:
            decided: (atomic number, atoms) of what is there, by atomic number.
            items: the open orbits.
            vocabulary: elements that the open orbits may become.
            required: elements that must be there in the end.
            distinct: every open orbit takes an element of its own, which no other has.

        Returns:
            Atoms of an orbit -> elements; {0: elements there} where nothing is open, with
            an empty set where the crystal cannot be completed.
        """
        key = (decided, items, vocabulary, required, distinct)
        if key not in self._answers:
            _make_room(self._answers, 200_000)
            self._answers[key] = self._solve(*key)
        return self._answers[key]

    def _solve(
        self,
        decided: Decided,
        items: Items,
        vocabulary: frozenset[int],
        required: frozenset[int],
        distinct: bool,
    ) -> dict[int, frozenset[int]]:
        there = dict(decided)
        if not items:
            whole = self._completes(there, items, vocabulary, required, distinct)
            return {0: frozenset(there) if whole else frozenset()}
        if (
            not there
            and not required
            and (not distinct or sum(k for _, k in items) == 1)
        ):
            return {atoms: vocabulary for atoms, _ in items}  # of one element
        if sum(k for _, k in items) == 1 and not required and there:
            atoms = items[0][0]
            last = self.closing(there, atoms, vocabulary)
            return {atoms: last.difference(there if distinct else ())}
        special = required | frozenset(there)
        if self.alloys.issuperset(there):
            special |= self.alloys
        special &= vocabulary
        others = self._offer(vocabulary).kinds(special)
        found: dict[int, frozenset[int]] = {}
        for atoms, _ in items:
            rest = without(items, atoms)
            good: set[int] = set()
            for z in special:
                grown = {**there, z: there.get(z, 0) + atoms}
                if distinct and z in there:
                    continue
                if self._completes(grown, rest, vocabulary, required, distinct):
                    good.add(z)
            kinds = self._fresh_kinds(
                there, atoms, rest, vocabulary, required, distinct, others
            )
            good.update(*(others[kind] for kind in kinds))
            found[atoms] = frozenset(good)
        return found

    def closing(
        self, there: Mapping[int, int], size: int, vocabulary: frozenset[int]
    ) -> frozenset[int]:
        """Return the elements that the last orbit may have.

        Args:
            there: atoms of each element so far; one element at least.
            size: atoms of the orbit.
            vocabulary: elements to choose from.
        """
        offset = self._offset(sum(there.values()) + size)
        steps = steps_between(self._sums_of(there, offset), 1 << offset, offset)
        found: set[int] = set()
        for bits, members in self._offer(vocabulary).charges(size, offset):
            if bits & steps:
                found.update(members)
        found.difference_update(there)
        if self.alloys.issuperset(there):
            found |= self.alloys & vocabulary
        for z in vocabulary.intersection(there):
            if self.completable({**there, z: there[z] + size}, (), vocabulary):
                found.add(z)
        return frozenset(found)

    def _fresh_kinds(
        self,
        there: dict[int, int],
        atoms: int,
        rest: Items,
        vocabulary: frozenset[int],
        required: frozenset[int],
        distinct: bool,
        others: dict[Kind, list[int]],
    ) -> list[Kind]:
        """Return the kinds of elements not there yet that an orbit may become.

        What all kinds have in common, the sums of what is there and of what may follow, is
        reckoned once; see `_quickly` for the two proofs.
        """
        missing = required - set(there)
        if len(missing) > sum(k for _, k in rest) or not missing <= vocabulary:
            return []
        total = sum(there.values()) + atoms + sum(c * k for c, k in rest)
        offset = self._offset(total)
        base = self._sums_of(there, offset)
        lacking = tuple(sorted(missing))
        most, own, held = self._ends(
            frozenset(there), lacking, rest, vocabulary, offset, distinct, 1
        )
        with_missing, left = placed(base, rest, [self.states[z] for z in lacking])
        may = steps_between(base, most, offset)

        def sure(taken: int | None) -> int:
            ends = reached(left, without_state(own, taken), offset, False)
            return steps_between(with_missing, ends, offset)

        surely = sure(None)
        found = []
        for kind, members in others.items():
            steps = charge_bits(*kind, atoms, offset)
            if not steps & may:
                continue
            z = next((z for z in members if z not in held), members[0])
            if steps & surely and (z not in held or steps & sure(held[z])):
                found.append(kind)
                continue
            grown = {**there, members[0]: atoms}
            if self._completes(grown, rest, vocabulary, required, distinct):
                found.append(kind)
        return found

    def _completes(
        self,
        there: dict[int, int],
        items: Items,
        vocabulary: frozenset[int],
        required: frozenset[int],
        distinct: bool,
    ) -> bool:
        """Return whether the open orbits can be filled so that the crystal is neutral."""
        missing = required - set(there)
        left = sum(count for _, count in items)
        if len(missing) > left or not missing <= vocabulary:
            return False
        fresh = vocabulary - set(there) - missing
        if not missing and len(there) == 1:
            if not left or (not distinct and set(there) <= vocabulary):
                return True  # a crystal of one element
        metals = self.alloys
        if metals and set(there) <= metals and missing <= metals:
            rest = left - len(missing)
            more = fresh & metals if distinct else (vocabulary & metals)
            if not rest or (len(more) >= rest if distinct else bool(more)):
                return True
        atoms = sum(there.values()) + sum(c * k for c, k in items)
        offset = self._offset(atoms)
        if not items:
            return bool(self._sums_of(there, offset) >> offset & 1)
        sure = self._quickly(
            there, items, vocabulary, sorted(missing), offset, distinct
        )
        if sure is not None:
            return sure
        grid = grid_of(items)
        table = [0] * grid.size
        done = there.keys() - vocabulary  # no open orbit becomes one of these
        table[0] = self._sums_of({z: there[z] for z in done}, offset)
        for z in sorted(there.keys() - done):
            table = grow(table, *self._kind(z), there[z], grid, distinct)
        for z in sorted(missing):
            table = grow(table, *self._kind(z), 0, grid, distinct, must=True)
        others = self._others(fresh, items, offset, distinct)
        full = grid.size - 1
        return any(table[full - k] & others[k] for k in range(grid.size))

    def _quickly(
        self,
        there: dict[int, int],
        items: Items,
        vocabulary: frozenset[int],
        missing: list[int],
        offset: int,
        distinct: bool,
    ) -> bool | None:
        """Return the answer where it is easy to prove, None where it is not.

        Yes, if it can be done with states that each find an element of their own, one
        after the other, with the missing elements on the smallest orbits. No, if it
        cannot be done even with every atom in any state of any element.
        """
        reach = self._sums_of(there, offset)
        about = frozenset(there), tuple(missing), items, vocabulary
        most, own, _ = self._ends(*about, offset, distinct, 0)
        if not reach & most:
            return False
        reach, left = placed(reach, items, [self.states[z] for z in missing])
        return True if reach & reached(left, own, offset, False) else None

    def _ends(
        self,
        there: frozenset[int],
        missing: tuple[int, ...],
        items: Items,
        vocabulary: frozenset[int],
        offset: int,
        distinct: bool,
        more: int,
    ) -> tuple[int, tuple[int, ...], dict[int, int]]:
        """Return the negated sums that open orbits may reach at most, and `own_states`."""
        offer = self._offer(vocabulary)
        most = reached(items, offer.every(there), offset, bool(self.each))
        used_up = there.union(missing)
        left = sum(count for _, count in items) - len(missing)
        need = left + len(used_up) + more if distinct else 0
        return most, *offer.own(used_up, need)

    def _offset(self, atoms: int) -> int:
        """Return the bit of the sum zero, for crystals of so many atoms."""
        return 1 << (self._largest * atoms).bit_length()

    def _sums_of(self, there: Mapping[int, int], offset: int) -> int:
        """Return the sums that elements with their atoms reach, as bits."""
        reach = 1 << offset
        for pair in there.items():
            if pair not in self._charges:
                z, n = pair
                self._charges[pair] = charges(self.states[z], z in self.each, n)
            reach = moved(reach, self._charges[pair])
        return reach

    def _offer(self, vocabulary: frozenset[int]) -> Offer:
        """Return what a vocabulary offers, made once."""
        if vocabulary not in self._offers:
            _make_room(self._offers, 5_000)
            self._offers[vocabulary] = Offer(vocabulary, self.states, self.each)
        return self._offers[vocabulary]

    def _others(
        self, fresh: frozenset[int], items: Items, offset: int, distinct: bool
    ) -> Table:
        """Return the negated sums that elements not there yet reach, by items taken."""
        number = Counter(self._kind(z) for z in fresh if self.states[z])
        total = sum(count for _, count in items)
        kinds = []
        for (states, each), many in sorted(number.items()):
            enough = total if distinct else 1 if each else len(states)
            kinds.append((states, each, min(many, enough)))
        key = (tuple(kinds), items, offset, distinct)
        if key not in self._fresh:
            _make_room(self._fresh, 5_000)
            grid = grid_of(items)
            table = [0] * grid.size
            table[0] = 1 << offset
            for states, each, many in kinds:
                negated = tuple(-q for q in states)
                for _ in range(many):
                    table = grow(table, negated, each, 0, grid, distinct)
            self._fresh[key] = table
        return self._fresh[key]

    def _kind(self, z: int) -> Kind:
        return self.states[z], z in self.each


def metals() -> frozenset[int]:
    """Return the atomic numbers of metals."""
    return frozenset(elements.table("metal").nonzero().squeeze(1).tolist())


def _make_room(table: dict[Any, Any], most: int) -> None:
    """Forget everything when a table has become too long."""
    if len(table) > most:
        table.clear()
