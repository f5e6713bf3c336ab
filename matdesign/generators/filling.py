"""Which letters and elements can follow, so that a cell can still be filled: exact masks."""

import math
from functools import cache, lru_cache

import torch
from torch import Tensor

from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table

Counts = tuple[int, ...]
"""Atoms of each role of a composition."""


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


@cache
def fills(largest: int, device: str = "cpu") -> Tensor:
    """Return `fill_table` of all space groups, shape (231, 28, largest + 1)."""
    table = wyckoff_table()
    count, freedom = table.count[:, :NONE], table.freedom[:, :NONE]
    return fill_table(count, freedom, largest).to(device)


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


@lru_cache(maxsize=300_000)
def fillable(
    group: int, letter: int, left: Counts, roles: frozenset[int] | None = None
) -> bool:
    """Return whether the letters from one on can hold given numbers of atoms.

    The exact version of `fill_table` for structure prediction, where each element (or
    each role of a pattern) needs its own number of atoms.

    Args:
        group: space group.
        letter: first letter that may be used.
        left: atoms of each role.
        roles: those that may use this very letter; None = all. (Sites on one letter come
            in the order of their elements.)

    Example:
        >>> fillable(225, 0, (1, 1)), fillable(225, 1, (1, 1))  # rock salt: a and b
        (True, False)
    """
    if not any(left) or letter == NONE:
        return not any(left)
    size, free = orbit_sizes()[group][letter]
    for role in range(len(left)) if roles is None else roles:
        if 0 < size <= left[role]:
            rest = taken(left, role, size)
            if (
                fillable(group, letter, rest, roles)
                if free
                else fillable(group, letter + 1, rest)
            ):
                return True
    return fillable(group, letter + 1, left)


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
    return math.gcd(*(n for n, _ in orbit_sizes()[group][letter:] if n <= atoms)) or 1


@cache
def orbit_sizes() -> list[list[tuple[int, bool]]]:
    """Return atoms of each letter of each space group, and whether it may come again."""
    table = wyckoff_table()
    rows = zip(table.count.tolist(), (table.freedom > 0).tolist(), strict=True)
    return [list(zip(*row, strict=True)) for row in rows]


def taken(left: Counts, role: int, size: int) -> Counts:
    """Return what is left after a role took some atoms."""
    return (*left[:role], left[role] - size, *left[role + 1 :])
