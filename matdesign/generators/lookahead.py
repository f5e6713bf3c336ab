"""Which element the next site of a crystal may have, so that it can still be finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.filling import Counts
from matdesign.generators.request import Choices
from matdesign.generators.roles import Roles, filling, tell


@dataclass
class Lookahead:
    """Crystals that are made site after site, and what is asked of all their elements.

    The atoms that are not placed yet are thought of as open orbits of as many atoms as
    the sizes of all letters to come have in common. A larger orbit is several of these
    with one element, so that this rules out too little, never too much: the last site
    is exact, in P1 all are, and elsewhere a crystal may come to a dead end and is begun
    again.

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

    def draw(self, letter: Tensor, ranked: Tensor, rows: Tensor) -> Tensor:
        """Return the element of the next site of some crystals, 0 where none can be.

        On one letter elements never go down. Where all that follows has to stand on the
        letter of this site, an element must leave heavier ones that finish the crystal.

        Args:
            letter: of that site, shape (crystals,).
            ranked: order of the elements, largest first, -inf where one cannot be, shape
                (rows, 104); see `mixtures.perturbed`.
            rows: the crystals that get an element.
        """
        table = wyckoff_table(str(rows.device))
        group, new = self.group[rows], letter[rows]
        size = table.count[group, new]
        after = self.left[rows] - size
        first = torch.where(table.freedom[group, new] > 0, new, new + 1)
        here = zip(group.tolist(), new.tolist(), after.tolist(), strict=True)
        alone = torch.tensor([stays(*one) for one in here], device=rows.device)
        asked = zip(group.tolist(), first.tolist(), after.tolist(), strict=True)
        units = [unit_of(*one) for one in asked]
        some = self._so_far(rows, size, after, units)
        ranked = ranked.masked_fill(~self._mask(*some, ranked), -torch.inf)
        found = _first(ranked)
        todo = (alone & (after > 0) & (found > 0)).nonzero().squeeze(1)
        while len(todo):
            kinds, placed = some[0][todo], some[1][todo]
            kinds[:, len(self.kinds)] = found[todo]
            heavier = torch.arange(MASK, device=rows.device) >= found[todo, None]
            among = (self.known & heavier)[:, None].expand(-1, kinds.shape[1], -1)
            bad = todo[~finishable(self.choices, kinds, placed, among)]
            ranked[bad, found[bad]] = -torch.inf
            found[bad] = _first(ranked[bad])
            todo = bad[found[bad] > 0]
        return found

    def _so_far(
        self, rows: Tensor, size: Tensor, after: Tensor, units: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Return elements and atoms of sites so far, of the next, and of what is left."""
        unit = torch.tensor(units, device=rows.device)
        many = after // unit
        rest = torch.arange(int(many.max()), device=rows.device) < many[:, None]
        before = [one[rows] for one in self.counts]
        kinds = [torch.where(n > 0, z[rows], 0) for z, n in zip(self.kinds, before)]
        new = torch.full_like(size, MASK)
        return (
            torch.cat([torch.stack([*kinds, new], 1), rest * MASK], 1),
            torch.cat([torch.stack([*before, size], 1), rest * unit[:, None]], 1),
        )

    def _mask(self, species: Tensor, counts: Tensor, ranked: Tensor) -> Tensor:
        """Return which elements the next site may have, bool, (rows, 104)."""
        among = self.known & (species > 0)[..., None]
        at = len(self.kinds)
        among[:, at] &= ranked.isfinite()
        may = self.choices(species, counts, None, among)
        whole = (may.any(-1) | (species == 0)).all(1)
        return may[:, at] & whole[:, None]


def finishable(
    choices: Choices, species: Tensor, counts: Tensor, among: Tensor
) -> Tensor:
    """Return which crystals can be finished as asked, bool, shape (crystals,).

    Args:
        choices: what is asked.
        species: 0 = padding, 104 = open, shape (crystals, orbits).
        counts: atoms of each orbit, same shape.
        among: elements to choose from, bool, shape (crystals, orbits, 104).
    """
    number = torch.arange(MASK, device=species.device)
    decided = (species[..., None] == number) & (number > 0)
    among = torch.where((species == MASK)[..., None], among, decided)
    left = choices(species, counts, None, among)
    return (left.any(-1) | (species == 0)).all(1)


def can_begin(
    choices: Choices,
    n_atoms: Tensor,
    units: Sequence[int],
    wanted: Sequence[tuple[Counts, list[int]]],
    known: Tensor,
) -> Tensor:
    """Return which crystals can perhaps be made as asked, bool, shape (crystals,).

    Args:
        choices: what is asked of the elements.
        n_atoms: atoms of each.
        units: atoms that the sizes of all their orbits have in common.
        wanted: atoms and element of each role, 0 = open; where there are any, these
            decide.
        known: elements to choose from, bool, shape (104,).
    """
    unit = torch.tensor(units, dtype=torch.long, device=known.device)
    many = n_atoms.to(known.device) // unit
    most = int(many.max()) if len(many) else 0
    orbits = torch.arange(most, device=known.device) < many[:, None]
    among = known.expand(*orbits.shape, -1)
    met = finishable(choices, orbits * MASK, orbits * unit[:, None], among)
    told = [i for i, (counts, _) in enumerate(wanted) if counts]
    roles = [
        Roles(filling(1, counts), counts, [*kinds])
        for counts, kinds in (wanted[i] for i in told)
    ]
    if told:
        met[told] = tell(choices, roles, known)
    return met


@lru_cache(maxsize=65536)
def unit_of(group: int, letter: int, atoms: int) -> int:
    """Return what the sizes of the orbits from a letter on have in common, at least 1.

    Args:
        group: space group.
        letter: the first that counts.
        atoms: larger orbits do not count.

    Example:
        >>> unit_of(221, 4, 8)  # letters from e on hold 6, 6, 8 and more atoms
        2
    """
    return math.gcd(*(n for n, _ in _letters()[group][letter:] if n <= atoms)) or 1


@lru_cache(maxsize=65536)
def stays(group: int, letter: int, atoms: int) -> bool:
    """Return whether atoms after a site on a letter can only go to this letter too.

    Example:
        >>> stays(1, 0, 3), stays(221, 0, 4)  # P1 has one letter
        (True, False)
    """
    size, _ = _letters()[group][letter]
    return not any(_fits(group, letter + 1, n) for n in range(atoms, 0, -size))


@lru_cache(maxsize=65536)
def _fits(group: int, letter: int, atoms: int) -> bool:
    """Return whether orbits on the letters from one on can hold so many atoms."""
    if not atoms or letter == NONE:
        return not atoms
    size, free = _letters()[group][letter]
    again = letter if free else letter + 1
    here = 0 < size <= atoms and _fits(group, again, atoms - size)
    return here or _fits(group, letter + 1, atoms)


@cache
def _letters() -> list[list[tuple[int, bool]]]:
    """Return atoms of each letter of each space group, and whether it may come again."""
    table = wyckoff_table()
    rows = zip(table.count.tolist(), (table.freedom > 0).tolist(), strict=True)
    return [list(zip(*row, strict=True)) for row in rows]


def _first(ranked: Tensor) -> Tensor:
    """Return the largest of each row, 0 where nothing is left."""
    best = ranked.max(1)
    return torch.where(best.values.isfinite(), best.indices, 0)
