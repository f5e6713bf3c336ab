"""Which elements a half-grown crystal may take next, so that it can still be finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor

from matdesign.generators.features import MASK
from matdesign.generators.frames import Choices
from matdesign.generators.wyckoff_table import NONE, wyckoff_table

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
    found = _sets(spacegroup, letter, left)
    if found is None:
        return ((1,) * left,)
    return tuple(sorted(found, key=lambda one: (len(one), one)))


@lru_cache(maxsize=65536)
def _sets(group: int, letter: int, left: int) -> frozenset[tuple[int, ...]] | None:
    if not left:
        return frozenset([()])
    if letter >= NONE:
        return frozenset()
    size, free = _positions()[group][letter]
    found = _sets(group, letter + 1, left)
    if found is None:
        return None
    if size and size <= left:
        more = _sets(group, letter if free else letter + 1, left - size)
        if more is None:
            return None
        found |= {tuple(sorted((*rest, size), reverse=True)) for rest in more}
    return found if len(found) <= MOST else None


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
        new: atoms of the next orbit, 0 = there is none, shape (crystals,).
        rests: for each crystal, the ways to place what is left after it.
        within: elements to choose from for it, bool, shape (crystals, 104).
        known: elements to choose from for what follows, bool, shape (104,).

    Returns:
        Bool, shape (crystals, 104), a part of `within`. Without a next orbit, a crystal
        has a row of all True where it can be finished and of all False elsewhere.
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
    placed = torch.cat([counts[at], new[at, None], grown], dim=1)
    open_ = torch.cat([torch.zeros_like(counts[at]), new[at, None], grown], dim=1) > 0
    padded = torch.nn.functional.pad(species[at], (0, 1 + longest))
    kinds = torch.where(open_, MASK, padded)
    may = choices(kinds, placed, None, known & (placed > 0)[..., None])
    whole = (may.any(-1) | (placed == 0)).all(1)
    here = torch.where((new[at] > 0)[:, None], may[:, counts.shape[1]], whole[:, None])
    found = torch.zeros_like(within, dtype=torch.long)
    found.index_add_(0, at, (here & whole[:, None]).long())
    return (found > 0) & within


@dataclass
class Grown:
    """The sites so far, and what is asked of all elements together."""

    choices: Choices | None
    group: Tensor
    letters: list[Tensor]
    kinds: list[Tensor]
    left: Tensor
    known: Tensor
    fill: Tensor

    def possible(self, mask: Tensor, letter: Tensor, active: Tensor) -> Tensor:
        """Return which elements leave a way to finish the crystal, (crystals, 104)."""
        if self.choices is None or not bool(active.any()):
            return mask
        table = wyckoff_table(str(self.group.device))
        rows = active.nonzero().squeeze(1)
        group, new = self.group[rows], letter[rows]
        size, free = table.count[group, new], table.freedom[group, new] > 0
        after = (self.left[rows] - size).tolist()
        first = torch.where(free, new, new + 1).tolist()
        rests = [completions(*at) for at in zip(group.tolist(), first, after)]
        none = torch.zeros((len(rows), 0), dtype=torch.long, device=rows.device)
        before = torch.stack(self.letters, 1)[rows] if self.letters else none
        kind = torch.stack(self.kinds, 1)[rows] if self.kinds else none
        counts = table.count[group[:, None], before] * (kind > 0)
        kind = torch.where(counts > 0, kind, 0)
        parts = kind, counts, size, rests, mask[rows], self.known
        left = growing_mask(self.choices, *parts)
        left &= self._in_order(kind, group, new, size, self.left[rows] - size)
        return mask.index_copy(0, rows, left)

    def _in_order(
        self, kind: Tensor, group: Tensor, new: Tensor, size: Tensor, after: Tensor
    ) -> Tensor:
        """Return which elements pass over no required one for good, (crystals, 104).

        Sites on one letter come in the order of their elements. Where what is left can
        only go to this very letter, no element may come before a missing lighter one.

        Args:
            kind: elements so far, shape (crystals, sites).
            group: space groups, shape (crystals,).
            new: chosen letters, same shape.
            size: atoms of these, same shape.
            after: atoms that are left then, same shape.
        """
        assert self.choices is not None
        number = torch.arange(self.known.shape[0], device=kind.device)
        lightest = torch.full_like(new, len(number))
        for z in sorted(self.choices.required, reverse=True):
            lightest = torch.where((kind == z).any(1), lightest, z)
        later = torch.zeros_like(new, dtype=torch.bool)
        for _ in range(self.fill.shape[2]):
            later |= (after > 0) & self.fill[group, new + 1, after.clamp(min=0)]
            after = after - size
        return (number <= lightest[:, None]) | later[:, None]
