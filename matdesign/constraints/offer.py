"""What a set of elements offers to a crystal that must become neutral: states and kinds."""

from __future__ import annotations

from collections.abc import Sequence

from matdesign.constraints.sums import charge_bits

Kind = tuple[tuple[int, ...], bool]
"""Oxidation states of an element, and whether its atoms may differ."""

Decided = tuple[tuple[int, int], ...]
"""(Atomic number, atoms) of what is there, by atomic number."""

Own = tuple[tuple[int, ...], dict[int, int]]
"""States sure to find an element, and who has each."""

REMEMBERED = 20_000
"""Answers that are remembered."""


class Offer:
    """The elements that may still come, seen by their oxidation states.

    Args:
        vocabulary: elements.
        states: oxidation states of each atomic number.
        each: elements whose atoms may differ in charge.
    """

    def __init__(
        self,
        vocabulary: frozenset[int],
        states: Sequence[tuple[int, ...]],
        each: frozenset[int],
    ) -> None:
        self.states, self.each = states, each
        self.by_kind: dict[Kind, list[int]] = {}
        """Elements of each kind; those of one kind are interchangeable."""
        self.having: dict[int, list[int]] = {}
        """Elements that have each state, states that few have and such elements first."""
        for z in sorted(vocabulary):
            self.by_kind.setdefault(self.kind(z), []).append(z)
        found: dict[int, list[int]] = {}
        for z in sorted(vocabulary, key=lambda z: (len(states[z]), z)):
            for q in states[z]:
                found.setdefault(q, []).append(z)
        for q in sorted(found, key=lambda q: (len(found[q]), q)):
            self.having[q] = found[q]
        self._charges: dict[tuple[int, int], list[tuple[int, list[int]]]] = {}
        self._every: dict[frozenset[int], tuple[int, ...]] = {}
        self._spare: dict[int, tuple[int, ...]] = {}
        self._own: dict[tuple[frozenset[int], int], Own] = {}

    def kind(self, z: int) -> Kind:
        """Return the kind of an element."""
        return self.states[z], z in self.each

    def kinds(self, special: frozenset[int]) -> dict[Kind, list[int]]:
        """Return elements by kind, less some of them.

        Args:
            special: elements of the vocabulary that are left out.
        """
        found = dict(self.by_kind)
        for kind in {self.kind(z) for z in special}:
            found[kind] = [z for z in found[kind] if z not in special]
        return {kind: members for kind, members in found.items() if members}

    def charges(self, atoms: int, offset: int) -> list[tuple[int, list[int]]]:
        """Return the charges of an orbit of each kind as bits, and who are of the kind.

        Args:
            atoms: of the orbit.
            offset: bit of the sum zero.
        """
        key = atoms, offset
        if key not in self._charges:
            self._charges[key] = [
                (charge_bits(*kind, atoms, offset), members)
                for kind, members in self.by_kind.items()
            ]
        return self._charges[key]

    def every(self, there: frozenset[int]) -> tuple[int, ...]:
        """Return all states of these elements and of those that are there, in order."""
        if there not in self._every:
            if len(self._every) > REMEMBERED:
                self._every.clear()
            used = {q for z in there for q in self.states[z]}
            self._every[there] = tuple(sorted(used.union(self.having)))
        return self._every[there]

    def spare(self, gone: int) -> tuple[int, ...]:
        """Return states that each find an element of their own, whoever is gone.

        Args:
            gone: how many elements may not be taken, whichever they are.
        """
        if gone not in self._spare:
            taken: set[int] = set()
            found = []
            for q, having in self.having.items():
                free = [z for z in having if z not in taken]
                if len(free) > gone:
                    taken.update(free[: gone + 1])
                    found.append(q)
            self._spare[gone] = tuple(sorted(found))
        return self._spare[gone]

    def own(self, used_up: frozenset[int], need: int) -> Own:
        """Return states that each find an element of their own, and element -> state.

        Args:
            used_up: elements that may not be taken.
            need: where every orbit takes another element, how many there must be of each
                state, for all open orbits and for what is used up; else 0.
        """
        key = used_up, need
        if key not in self._own:
            if len(self._own) > REMEMBERED:
                self._own.clear()
            self._own[key] = self._find_own(used_up, need)
        return self._own[key]

    def _find_own(self, used_up: frozenset[int], need: int) -> Own:
        if need:
            enough = (q for q, having in self.having.items() if len(having) >= need)
            return tuple(sorted(enough)), {}
        held: dict[int, int] = {}
        for q, having in self.having.items():
            free = next((z for z in having if z not in used_up and z not in held), None)
            if free is not None:
                held[free] = q
        return tuple(sorted(held.values())), held
