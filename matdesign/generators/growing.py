"""Which elements a half-grown crystal may take next, so that it can still be finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor

from matdesign.generators.features import MASK
from matdesign.generators.frames import Choices
from matdesign.generators.wyckoff_table import wyckoff_table

MOST = 12
"""More ways than this to go on are not written out; single atoms stand for the rest."""

Rests = tuple[tuple[int, ...], ...]


@lru_cache(maxsize=65536)
def completions(spacegroup: int, letter: int, left: int) -> Rests:
    """Return the sets of orbits that fill what is left of a cell.

    Args:
        spacegroup: 1 to 230.
        letter: first letter that may still be used.
        left: atoms to place.

    Returns:
        Each set as the atoms of its orbits, largest first. Where there are more than
        `MOST` sets, one set of single atoms: it leaves at least as much possible, for
        an orbit of m atoms can always be thought of as m orbits of one element.

    Example:
        >>> completions(221, 0, 4)  # letters a to d hold 1, 1, 3 and 3 atoms
        ((3, 1),)
    """
    found = _sets(_rooms(spacegroup, letter, left), left)
    if found is None:
        return ((1,) * left,)
    return tuple(sorted(found, key=lambda one: (len(one), one)))


Rooms = tuple[tuple[int, int], ...]
"""Sizes of orbits, largest first, and how many of each there may be."""


def _rooms(group: int, letter: int, left: int) -> Rooms:
    """Return the orbits that letters from one on have room for, within so many atoms."""
    room: dict[int, int] = {}
    for size, free in _positions()[group][letter:]:
        if 0 < size <= left:
            most = left // size
            room[size] = most if free else min(most, room.get(size, 0) + 1)
    return tuple(sorted(room.items(), reverse=True))


@lru_cache(maxsize=65536)
def _sets(rooms: Rooms, left: int) -> frozenset[tuple[int, ...]] | None:
    """Return all sets of orbits of so many atoms; None where there are too many.

    Letters of equal size are interchangeable, so that space groups share the answers.
    """
    if not left:
        return frozenset([()])
    if not rooms:
        return frozenset()
    found: set[tuple[int, ...]] = set()
    (size, most), *others = rooms
    for taken in range(min(most, left // size) + 1):
        rest = left - taken * size
        smaller = tuple((k, min(n, rest // k)) for k, n in others if k <= rest)
        more = _sets(smaller, rest)
        if more is None:
            return None
        found |= {(size,) * taken + one for one in more}
        if len(found) > MOST:
            return None
    return frozenset(found)


@cache
def _positions() -> list[list[tuple[int, bool]]]:
    """Return atoms of each letter of each space group, and whether it may come again."""
    table = wyckoff_table()
    free = table.free.any(-1)
    return [
        list(zip(*row, strict=True))
        for row in zip(table.count.tolist(), free.tolist(), strict=True)
    ]


@lru_cache(maxsize=65536)
def stays(group: int, letter: int, left: int) -> bool:
    """Return whether all atoms after a site on a letter can only go to this letter too.

    Args:
        group: space group.
        letter: of the site.
        left: atoms to place, those of the site among them.

    Example:
        >>> stays(1, 0, 3), stays(221, 0, 4)  # P1 has one letter
        (True, False)
    """
    size, _ = _positions()[group][letter]
    after = range(left - size, 0, -size)
    return not any(completions(group, letter + 1, atoms) for atoms in after)


@lru_cache(maxsize=65536)
def finest(ways: Rests) -> Rests:
    """Return the sets that are not made from another one by joining its orbits.

    They decide alone what is possible: whatever elements joined orbits may have, the
    orbits by themselves may have too.

    Args:
        ways: sets of orbits, each as the atoms of its orbits, largest first.

    Example:
        >>> finest(((4,), (2, 2), (3, 1), (2, 1, 1)))
        ((2, 1, 1),)
    """
    kept: list[tuple[int, ...]] = []
    for way in sorted(ways, key=len, reverse=True):
        if not any(_joins(way, other) for other in kept):
            kept.append(way)
    return tuple(kept)


@lru_cache(maxsize=65536)
def _joins(whole: tuple[int, ...], parts: tuple[int, ...]) -> bool:
    """Return whether orbits come out when some of the others are joined."""
    if not parts:
        return not any(whole)
    return any(
        _joins((*whole[:k], room - parts[0], *whole[k + 1 :]), parts[1:])
        for k, room in enumerate(whole)
        if room >= parts[0]
    )


def growing_mask(
    choices: Choices,
    species: Tensor,
    counts: Tensor,
    new: Tensor,
    rests: Sequence[Rests],
    within: Tensor,
    known: Tensor,
) -> Tensor:
    """Return which elements the next orbit of each crystal may have.

    An element is allowed when for some way to place the remaining atoms there is a
    choice of all elements that meets what is asked.

    Args:
        choices: what is asked.
        species: elements so far, 0 on padding, shape (crystals, orbits).
        counts: atoms of these orbits, same shape.
        new: atoms of the next orbit, shape (crystals,).
        rests: for each crystal, the ways to place what is left after it.
        within: elements to choose from for it, bool, shape (crystals, 104).
        known: elements to choose from for what follows, bool, shape (104,).

    Returns:
        Bool, shape (crystals, 104), a part of `within`.
    """
    next_ = torch.full_like(new[:, None], MASK)
    with_new = torch.cat([species, next_], 1), torch.cat([counts, new[:, None]], 1)
    at, kinds, placed, among = _finished(*with_new, rests, known)
    may = choices(kinds, placed, None, among)
    whole = (may.any(-1) | (placed == 0)).all(1)
    found = torch.zeros_like(within, dtype=torch.long)
    found.index_add_(0, at, (may[:, counts.shape[1]] & whole[:, None]).long())
    return (found > 0) & within


def finishable(
    choices: Choices,
    species: Tensor,
    counts: Tensor,
    rests: Sequence[Rests],
    known: Tensor,
) -> Tensor:
    """Return which crystals can be finished as asked, bool, shape (crystals,).

    Args:
        choices: what is asked.
        species: elements so far, 0 on padding, shape (crystals, orbits).
        counts: atoms of these orbits, same shape.
        rests: for each crystal, the ways to place what is left.
        known: elements to choose from for what follows, bool, shape (104,).
    """
    at, kinds, placed, among = _finished(species, counts, rests, known)
    if choices.quick:
        whole = choices.completable(kinds, placed, among)
    else:
        may = choices(kinds, placed, None, among)
        whole = (may.any(-1) | (placed == 0)).all(1)
    found = torch.zeros_like(species[:, :1].sum(1))
    return found.index_add(0, at, whole.long()) > 0


def _finished(
    species: Tensor, counts: Tensor, rests: Sequence[Rests], known: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return all ways to place what is left: whose they are, and what to ask about them.

    Returns:
        Row of the crystal of each way; its species, those of what is left open; its
        counts; and what its orbits may be.
    """
    rests = [finest(ways) for ways in rests]
    rows = [i for i, ways in enumerate(rests) for _ in ways]
    longest = max((len(way) for ways in rests for way in ways), default=0)
    grown = torch.tensor(
        [[*way, *[0] * (longest - len(way))] for ways in rests for way in ways],
        dtype=torch.long,
        device=species.device,
    ).view(len(rows), longest)
    at = torch.tensor(rows, dtype=torch.long, device=species.device)
    placed = torch.cat([counts[at], grown], dim=1)
    kinds = torch.cat([species[at], torch.where(grown > 0, MASK, 0)], dim=1)
    return at, kinds, placed, known & (placed > 0)[..., None]


@dataclass
class Grown:
    """Half-grown crystals, site after site, and what is asked of all their elements.

    Args:
        choices: what is asked.
        group: space groups, shape (crystals,).
        kinds: elements of each site so far, 0 = none, each (crystals,).
        counts: atoms of each site so far, likewise.
        left: atoms that are not placed yet, shape (crystals,).
        known: elements that the model knows, bool, shape (104,).
    """

    choices: Choices
    group: Tensor
    kinds: list[Tensor]
    counts: list[Tensor]
    left: Tensor
    known: Tensor

    def possible(self, letter: Tensor, within: Tensor, rows: Tensor) -> Tensor:
        """Return which elements leave a way to finish some crystals, (rows, 104).

        Args:
            letter: of the next site of each crystal, shape (crystals,).
            within: elements to choose from, bool, shape (rows, 104).
            rows: the crystals that are asked about.
        """
        kind, counts, size, rests = self._with(letter, rows)
        parts = kind, counts, size, rests, within, self.known
        return growing_mask(self.choices, *parts) & self._in_order(letter, rows)

    def finishable(self, letter: Tensor, species: Tensor, rows: Tensor) -> Tensor:
        """Return which crystals can be finished with a site more, bool, (rows,).

        Args:
            letter: of that site, shape (crystals,).
            species: its element, same shape.
            rows: the crystals that are asked about.
        """
        kind, counts, size, rests = self._with(letter, rows)
        kind = torch.cat([kind, species[rows, None]], 1)
        counts = torch.cat([counts, size[:, None]], 1)
        whole = finishable(self.choices, kind, counts, rests, self.known)
        order = self._in_order(letter, rows).gather(1, species[rows, None])
        return whole & order.squeeze(1)

    def _with(
        self, letter: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, list[Rests]]:
        """Return elements and atoms so far, atoms of the next site, and what may follow."""
        table = wyckoff_table(str(self.group.device))
        group, new = self.group[rows], letter[rows]
        size, free = table.count[group, new], table.freedom[group, new] > 0
        after = (self.left[rows] - size).tolist()
        first = torch.where(free, new, new + 1).tolist()
        rests = [completions(*at) for at in zip(group.tolist(), first, after)]
        none = torch.zeros((len(rows), 0), dtype=torch.long, device=rows.device)
        kind = torch.stack(self.kinds, 1)[rows] if self.kinds else none
        counts = torch.stack(self.counts, 1)[rows] if self.counts else none
        counts = counts * (kind > 0)
        return torch.where(counts > 0, kind, 0), counts, size, rests

    def _in_order(self, letter: Tensor, rows: Tensor) -> Tensor:
        """Return which elements pass over no required one for good, (rows, 104).

        Sites on one letter come in the order of their elements. Where what is left can
        only go to this very letter, no element may come before a missing lighter one.
        """
        number = torch.arange(self.known.shape[0], device=rows.device)
        if not self.choices.required:
            return torch.ones_like(number, dtype=torch.bool).expand(len(rows), -1)
        lightest = torch.full_like(rows, len(number))
        for z in sorted(self.choices.required, reverse=True):
            found = torch.zeros_like(rows, dtype=torch.bool)
            for kind in self.kinds:
                found |= kind[rows] == z
            lightest = torch.where(found, lightest, z)
        at = (one[rows].tolist() for one in (self.group, letter, self.left))
        stay = [stays(*one) for one in zip(*at, strict=True)]
        free = ~torch.tensor(stay, dtype=torch.bool, device=rows.device)
        return (number <= lightest[:, None]) | free[:, None]
