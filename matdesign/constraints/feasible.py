"""Which elements may still be chosen so that some completion of a crystal is neutral.

A state of a half-decided crystal is the set of total charges that it can reach. Such a
set is one integer: bit s + offset is set where the sum s can be reached, and adding a
charge to every sum is a shift. The sets grow element by element, never choice by choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from matdesign.constraints.elements import possible
from matdesign.constraints.places import Place, places, row_of
from matdesign.constraints.sums import (
    Items,
    Table,
    charges,
    grid_of,
    grow,
    moved,
    own_states,
    placed,
    reached,
    without,
    without_state,
)
from matdesign.crystals import elements

Kind = tuple[tuple[int, ...], bool]
"""Oxidation states of an element, and whether its atoms may differ."""

Ends = tuple[int, tuple[int, ...], dict[int, int]]
"""Sums that can be reached at most, states sure to find an element, who has each."""


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
        self._numbers: dict[frozenset[int], dict[int, list[int]]] = {}
        self._limits: dict[tuple[object, ...], Ends] = {}
        self._kinds: dict[frozenset[int], dict[Kind, list[int]]] = {}

    def mask(
        self,
        species: Tensor,
        counts: Tensor,
        roles: Tensor | None = None,
        within: Tensor | None = None,
        required: frozenset[int] = frozenset(),
    ) -> Tensor:
        """Return which elements each orbit may become; see `Constraint.allowed`.

        An open orbit with one element left within counts as decided. The others are
        judged with all that any of them may be: exact when that is the same for all of
        them, and else a mask that rules out too little, never too much.

        Args:
            species: 0 = padding, 104 = undecided, shape (crystals, orbits).
            counts: atoms of each orbit, same shape.
            roles: role of each orbit, -1 = none; either all open orbits of a crystal
                have one or none.
            within: what else allows, bool, shape (104,) or (crystals, orbits, 104).
            required: elements that must be there.

        Raises:
            DataError: open orbits with and without a role in one crystal.
        """
        found = possible(species, within)
        answer = torch.zeros_like(found, device="cpu")
        for b, place in enumerate(places(species, counts, roles, found)):
            if place is not None:
                self._fill(answer[b], place, required)
        return found & answer.to(found.device)

    def _fill(self, out: Tensor, place: Place, required: frozenset[int]) -> None:
        allowed = self.elements(
            place.decided, place.items, place.vocabulary, required, place.distinct
        )
        if not any(allowed.values()):
            return
        out[list(place.settled)] = True
        for atoms, found in allowed.items():
            orbits = [orbit for orbit, size in place.open if size == atoms]
            if orbits:
                out[orbits] = row_of(found)

    def elements(
        self,
        decided: tuple[tuple[int, int], ...],
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
            if len(self._answers) > 200_000:
                self._answers.clear()
            self._answers[key] = self._solve(*key)
        return self._answers[key]

    def _solve(
        self,
        decided: tuple[tuple[int, int], ...],
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
        special = required | frozenset(there)
        if self.alloys.issuperset(there):
            special |= self.alloys
        special &= vocabulary
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
            others = self._by_kind(vocabulary - special)
            kinds = self._fresh_kinds(
                there, atoms, rest, vocabulary, required, distinct, others
            )
            good.update(*(others[kind] for kind in kinds))
            found[atoms] = frozenset(good)
        return found

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
        about = frozenset(there), lacking, rest, vocabulary
        most, own, held = self._ends(*about, offset, distinct, 1)
        with_missing, left = placed(base, rest, [self.states[z] for z in lacking])
        found = []
        for kind, members in others.items():
            states, each = kind
            steps = charges(states, each, atoms)
            if not moved(base, steps) & most:
                continue
            z = next((z for z in members if z not in held), members[0])
            sure = reached(left, without_state(own, held.get(z)), offset, False)
            if moved(with_missing, steps) & sure:
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
        sure = self._quickly(
            there, items, vocabulary, sorted(missing), offset, distinct
        )
        if sure is not None:
            return sure
        grid = grid_of(items)
        table = [0] * grid.size
        table[0] = 1 << offset
        for z in sorted(there):
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
    ) -> Ends:
        """Return the negated sums that open orbits may reach at most, and `own_states`."""
        key = (there, missing, items, vocabulary, offset, distinct, more)
        if key not in self._limits:
            if len(self._limits) > 50_000:
                self._limits.clear()
            number = self._number(vocabulary)
            used = {q for z in there for q in self.states[z]}
            every = tuple(sorted(used.union(number)))
            most = reached(items, every, offset, bool(self.each))
            rest = items
            for _ in missing:
                rest = without(rest, rest[0][0])
            own = own_states(number, there.union(missing), rest, distinct, more)
            self._limits[key] = most, *own
        return self._limits[key]

    def _offset(self, atoms: int) -> int:
        """Return the bit of the sum zero, for crystals of so many atoms."""
        return 1 << (self._largest * atoms).bit_length()

    def _sums_of(self, there: dict[int, int], offset: int) -> int:
        """Return the sums that elements with their atoms reach, as bits."""
        reach = 1 << offset
        for z, n in there.items():
            reach = moved(reach, charges(self.states[z], z in self.each, n))
        return reach

    def _by_kind(self, vocabulary: frozenset[int]) -> dict[Kind, list[int]]:
        """Return the elements of a vocabulary by kind; those of one are interchangeable."""
        if vocabulary not in self._kinds:
            if len(self._kinds) > 5_000:
                self._kinds.clear()
            found: dict[Kind, list[int]] = {}
            for z in sorted(vocabulary):
                found.setdefault(self._kind(z), []).append(z)
            self._kinds[vocabulary] = found
        return self._kinds[vocabulary]

    def _number(self, vocabulary: frozenset[int]) -> dict[int, list[int]]:
        """Return the elements of a vocabulary that have each state, few of them first.

        Elements with few states stand first in each list.
        """
        if vocabulary not in self._numbers:
            if len(self._numbers) > 5_000:
                self._numbers.clear()
            found: dict[int, list[int]] = {}
            for z in sorted(vocabulary, key=lambda z: (len(self.states[z]), z)):
                for q in self.states[z]:
                    found.setdefault(q, []).append(z)
            order = sorted(found, key=lambda q: (len(found[q]), q))
            self._numbers[vocabulary] = {q: found[q] for q in order}
        return self._numbers[vocabulary]

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
            if len(self._fresh) > 5_000:
                self._fresh.clear()
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
