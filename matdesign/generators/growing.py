"""Which elements a half-grown crystal may take next, so that it can still be finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.wyckoff import wyckoff_table
from matdesign.generators.asking import Question, atoms_of, first_allowed
from matdesign.generators.choices import Choices
from matdesign.generators.filling import Counts
from matdesign.generators.rests import Rests, completions, finest, follows, stays
from matdesign.generators.roles import Roles, filling, tell


def growing_mask(
    choices: Choices,
    species: Tensor,
    counts: Tensor,
    new: Tensor,
    rests: Sequence[Rests],
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
        known: elements to choose from, bool, shape (104,).

    Returns:
        Bool, shape (crystals, 104), a part of `known`.
    """
    next_ = torch.full_like(new[:, None], MASK)
    with_new = torch.cat([species, next_], 1), torch.cat([counts, new[:, None]], 1)
    at, kinds, placed, among = _finished(*with_new, rests, known)
    may = choices(kinds, placed, None, among)
    whole = (may.any(-1) | (placed == 0)).all(1)
    found = torch.zeros(len(new), len(known), dtype=torch.long, device=new.device)
    found.index_add_(0, at, (may[:, counts.shape[1]] & whole[:, None]).long())
    return found > 0


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
    may = choices(kinds, placed, None, among)
    whole = (may.any(-1) | (placed == 0)).all(1)
    found = torch.zeros_like(species[:, :1].sum(1))
    return found.index_add(0, at, whole.long()) > 0


def can_begin(
    choices: Choices,
    rests: Sequence[Rests],
    wanted: Sequence[tuple[Counts, list[int]]],
    known: Tensor,
) -> Tensor:
    """Return which crystals can be made as asked, bool, shape (crystals,).

    Args:
        choices: what is asked of the elements.
        rests: for each crystal, the ways to place its atoms.
        wanted: atoms and element of each of its roles, 0 = open; where there are any,
            these decide.
        known: elements to choose from, bool, shape (104,).
    """
    keys = [(counts, tuple(kinds)) for counts, kinds in wanted]
    free = {ways for ways, (counts, _) in zip(rests, keys, strict=True) if not counts}
    told = {key for key in keys if key[0]}
    blank = torch.zeros(len(free), 0, dtype=torch.long, device=known.device)
    whole = finishable(choices, blank, blank, list(free), known).tolist()
    left = dict(zip(free, whole, strict=True))
    roles = [Roles(filling(1, counts), counts, [*kinds]) for counts, kinds in told]
    fits = dict(zip(told, tell(choices, roles, known).tolist(), strict=True))
    met = [fits[key] if key[0] else left[ways] for ways, key in zip(rests, keys)]
    return torch.tensor(met, dtype=torch.bool, device=known.device)


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

    def draw(self, letter: Tensor, ranked: Tensor, rows: Tensor) -> Tensor:
        """Return the element of the next site of some crystals, 0 where none can be.

        Args:
            letter: of that site, shape (crystals,).
            ranked: order of the elements; see `asking.first_allowed`, shape (rows, 104).
            rows: the crystals that get an element.
        """
        return first_allowed(
            self.choices,
            ranked,
            self.known,
            lambda: self.questions(letter, rows),
            lambda: self.possible(letter, rows),
        )

    def possible(self, letter: Tensor, rows: Tensor) -> Tensor:
        """Return which elements leave a way to finish some crystals, (rows, 104).

        Args:
            letter: of the next site of each crystal, shape (crystals,).
            rows: the crystals that are asked about.
        """
        parts = *self._with(letter, rows), self.known
        return growing_mask(self.choices, *parts) & self._in_order(letter, rows)

    def questions(self, letter: Tensor, rows: Tensor) -> list[Question]:
        """Return some crystals that get a site more, and what may come after it.

        Args:
            letter: of that site, shape (crystals,).
            rows: the crystals that are asked about.
        """
        kinds, counts = self._sites(rows)
        at = (one[rows].tolist() for one in (self.group, letter, self.left))
        found = []
        for kind, atoms, group, new, left in zip(kinds.tolist(), counts.tolist(), *at):
            found.append(Question(atoms_of(kind, atoms), *follows(group, new, left)))
        return found

    def _sites(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return elements and atoms so far, shape (rows, sites) each."""
        if not self.kinds:
            return rows.new_zeros(len(rows), 0), rows.new_zeros(len(rows), 0)
        counts = torch.stack(self.counts, 1)[rows]
        kinds = torch.where(counts > 0, torch.stack(self.kinds, 1)[rows], 0)
        return kinds, counts * (kinds > 0)

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
        return *self._sites(rows), size, rests

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
