"""Which sets of orbits fill what is left of a cell."""

from __future__ import annotations

from functools import cache, lru_cache

from matdesign.crystals.symmetry.wyckoff import wyckoff_table

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
    for size, free in positions_of()[group][letter:]:
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
def positions_of() -> list[list[tuple[int, bool]]]:
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
    size, _ = positions_of()[group][letter]
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


@lru_cache(maxsize=65536)
def follows(group: int, letter: int, left: int) -> tuple[int, Rests, bool]:
    """Return the atoms of a site on a letter, `finest` sets after it, and if it `stays`.

    Args:
        group: space group.
        letter: of the site.
        left: atoms to place, those of the site among them.

    Example:
        >>> follows(1, 0, 3)
        (1, ((1, 1),), True)
    """
    size, free = positions_of()[group][letter]
    ways = completions(group, letter if free else letter + 1, left - size)
    return size, finest(ways), stays(group, letter, left)
