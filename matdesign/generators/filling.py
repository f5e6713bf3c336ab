"""Which choices of sites still lead to a whole crystal: exact masks by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table

Counts = tuple[int, ...]


def fill_table(count: Tensor, freedom: Tensor, largest: int) -> Tensor:
    """Return whether a number of atoms can be made from the letters from l on.

    A position without free coordinates holds one orbit; the others hold any number.

    Equation:
        F(l, r) = F(l + 1, r) or F(l if free else l + 1, r - count_l);  F(., 0) = True

    Args:
        count: sites of each position in the primitive cell, 0 = no such letter, long,
            shape (groups, letters).
        freedom: free coordinates of each position, same shape.
        largest: most atoms to make.

    Returns:
        Bool, shape (groups, letters + 1, largest + 1).

    Example:
        >>> fill_table(torch.tensor([[1, 2]]), torch.tensor([[0, 1]]), 3)[0, 1].tolist()
        [True, False, True, False]
    """
    groups, letters = count.shape
    table = torch.zeros(groups, letters + 1, largest + 1, dtype=torch.bool)
    table[:, :, 0] = True
    row = torch.arange(groups)
    for at in range(letters - 1, -1, -1):
        size = count[:, at]
        table[:, at] = table[:, at + 1]
        for atoms in range(1, largest + 1):
            left = atoms - size
            here = torch.where(freedom[:, at] > 0, at, at + 1)
            fits = (size > 0) & (left >= 0) & table[row, here, left.clamp(min=0)]
            table[:, at, atoms] |= fits
    return table


class Filling:
    """Whether given numbers of atoms of several roles can be placed in one space group.

    The exact version of `fill_table` for structure prediction, where each element (or
    each role of a pattern) needs its own number of atoms.

    Args:
        count: sites of each position in the primitive cell, letter by letter.
        freedom: free coordinates of each.
        wanted: atoms of each role; states that it asks about are never larger.

    Example:
        >>> rock_salt = Filling([1, 1, 2], [0, 0, 0], (1, 1))
        >>> rock_salt.possible(0, (1, 1)), rock_salt.possible(1, (1, 1))
        (True, False)
    """

    def __init__(
        self, count: Sequence[int], freedom: Sequence[int], wanted: Counts
    ) -> None:
        self.count, self.freedom = tuple(count), tuple(freedom)
        none = (0,) * len(wanted)
        # what the letters from l on can hold, the last letter first
        self.reach: list[set[Counts]] = [{none}]
        for size, free in zip(reversed(self.count), reversed(self.freedom)):
            held = set(self.reach[-1])
            if size:
                edge = held
                while edge:
                    more = {
                        (*one[:k], one[k] + size, *one[k + 1 :])
                        for one in edge
                        for k in range(len(wanted))
                        if one[k] + size <= wanted[k]
                    }
                    edge = more - held if free else set()
                    held |= more
            self.reach.append(held)
        self.reach.reverse()

        self._known: dict[tuple[int, Counts, frozenset[int]], bool] = {}
        self._roles: dict[tuple[int, Counts], tuple[int, ...]] = {}

    def possible(
        self, letter: int, left: Counts, roles: frozenset[int] | None = None
    ) -> bool:
        """Return whether what is left can be placed on the letters from `letter` on.

        Args:
            letter: first letter that may still be used.
            left: atoms of each role.
            roles: those that may still use this very letter; None = all. (Sites on one
                letter come in the order of their elements.)
        """
        if roles is None or left in self.reach[letter + 1]:
            return left in self.reach[letter]
        if left not in self.reach[letter]:
            return False
        key = (letter, left, roles)
        if key not in self._known:
            size = self.count[letter]
            self._known[key] = any(
                left[k] >= size
                and self.possible(
                    letter, (*left[:k], left[k] - size, *left[k + 1 :]), roles
                )
                for k in roles
            )
        return self._known[key]

    def roles(self, letter: int, left: Counts) -> tuple[int, ...]:
        """Return the roles of which an orbit may stand on a letter, in any order.

        Args:
            letter: position of the orbit.
            left: atoms of each role before.
        """
        key = letter, left
        if key not in self._roles:
            fits = (self.after(letter, k, left) is not None for k in range(len(left)))
            self._roles[key] = tuple(k for k, fit in enumerate(fits) if fit)
        return self._roles[key]

    def after(
        self, letter: int, role: int, left: Counts, roles: frozenset[int] | None = None
    ) -> Counts | None:
        """Return what is left after an orbit, or None where that leads nowhere.

        Args:
            letter: position of the orbit.
            role: whose atoms it holds.
            left: atoms of each role before.
            roles: those that may use this letter once more, where it can hold more.
        """
        size = self.count[letter]
        if not size or size > left[role]:
            return None
        rest = (*left[:role], left[role] - size, *left[role + 1 :])
        if self.freedom[letter]:
            return rest if self.possible(letter, rest, roles) else None
        return rest if self.possible(letter + 1, rest) else None


def letter_mask(
    fill: Tensor, group: Tensor, last: Tensor, species: Tensor, left: Tensor
) -> Tensor:
    """Return which letters may come next, bool, shape (..., 27).

    Letters never go down; one without free coordinates comes once; and what is left must
    be fillable.

    Args:
        fill: of `fill_table`.
        group: space group, shape (...).
        last: letter of the site before, `NONE` at the start, shape (...).
        species: its element, 0 at the start, shape (...).
        left: atoms still to be placed, shape (...).
    """
    table = wyckoff_table(str(group.device))
    letters = torch.arange(NONE, device=group.device)
    count = table.count[group][..., :NONE]
    free = table.freedom[group][..., :NONE] > 0
    start = species == 0
    before = torch.where(start, -1, last)[..., None]
    order = (letters > before) | ((letters == before) & free)
    rest = left[..., None] - count
    then = torch.where(free, letters, letters + 1)
    possible = fill[group[..., None], then, rest.clamp(min=0)]
    return order & (count > 0) & (rest >= 0) & possible


def element_mask(
    allowed: Tensor, letter: Tensor, last: Tensor, species: Tensor
) -> Tensor:
    """Return which elements may stand on a letter, bool, shape (..., 104).

    On one letter elements never go down in atomic number.

    Args:
        allowed: elements seen in training, shape (104,).
        letter: chosen letter, shape (...).
        last: letter of the site before.
        species: its element, 0 at the start.
    """
    z = torch.arange(len(allowed), device=letter.device)
    lowest = torch.where(letter == last, species, 0)[..., None]
    return allowed & (z >= lowest)
