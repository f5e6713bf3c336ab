"""What the VAE's decoder knows of space groups, and what may come next because of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.generators.vae_latent import LETTERS

STOP = LETTERS
"""What stands in the place of a letter when the crystal has all its orbits."""

REACH = 80
"""Largest cell of which the tables know whether letters can fill it."""


class WyckoffTables(NamedTuple):
    """What the decoder must know of all space groups; row 0 is empty.

    Args:
        sites: atoms of each letter in the primitive cell, 0 = no such letter, (231, 27).
        fixed: letters without free coordinates, usable once, bool, (231, 27).
        fills: whether letters from l on can make exactly r atoms, (231, 28, 81).
        origin: axes on which the origin is a free choice, bool, (231, 3).
    """

    sites: Tensor
    fixed: Tensor
    fills: Tensor
    origin: Tensor

    def to(self, device: torch.device) -> WyckoffTables:
        """Return the tables on a device."""
        return WyckoffTables(*(table.to(device) for table in self))


@cache
def wyckoff_tables() -> WyckoffTables:
    """Return the tables of all 230 space groups."""
    from matdesign.crystals.symmetry.wyckoff import (
        operations,
        positions,
        primitive_cell,
    )

    sites = torch.zeros(231, LETTERS, dtype=torch.long)
    fixed = torch.zeros(231, LETTERS, dtype=torch.bool)
    origin = torch.zeros(231, 3, dtype=torch.bool)
    for group in range(1, 231):
        share = float(torch.linalg.det(torch.from_numpy(primitive_cell(group))))
        for i, one in enumerate(positions(group)):
            sites[group, i] = round(one.multiplicity * abs(share))
            fixed[group, i] = one.free == 0
        turns = torch.from_numpy(operations(group)[0])
        origin[group] = (turns == torch.eye(3, dtype=turns.dtype)).all(1).all(0)
    fills = torch.zeros(231, LETTERS + 1, REACH + 1, dtype=torch.bool)
    fills[:, LETTERS, 0] = True
    group_ = torch.arange(231)
    for letter in range(LETTERS - 1, -1, -1):
        fills[:, letter] = fills[:, letter + 1]
        more = sites[:, letter]
        for r in range(1, REACH + 1):
            before = (r - more).clamp(min=0)
            once, again = (fills[group_, k, before] for k in (letter + 1, letter))
            fits = (more > 0) & (more <= r) & torch.where(fixed[:, letter], once, again)
            fills[:, letter, r] |= fits
    fills[0] = False
    return WyckoffTables(sites, fixed, fills, origin)


@dataclass
class Wishes:
    """Hard wishes for the discrete part; the decoder never breaks them.

    Args:
        n_atoms: exact number of atoms, 0 = open, shape (crystals,).
        groups: space groups that are allowed, bool, shape (crystals, 231).
        formula: atoms of each element in the cell, all 0 = open, (crystals, 104).
        pattern: atoms of each role in the cell, all 0 = open, (crystals, roles).
    """

    n_atoms: Tensor
    groups: Tensor
    formula: Tensor
    pattern: Tensor

    def __getitem__(self, index: Tensor) -> Wishes:
        """Return the wishes for some crystals."""
        parts = (self.n_atoms, self.groups, self.formula, self.pattern)
        return Wishes(*(part[index] for part in parts))

    def to(self, device: torch.device | str) -> Wishes:
        """Return the wishes on a device."""
        parts = (self.n_atoms, self.groups, self.formula, self.pattern)
        return Wishes(*(part.to(device) for part in parts))


class Skeleton(NamedTuple):
    """Space groups with letters and species of all orbits.

    Args:
        spacegroup: shape (crystals,).
        letter: index of each orbit's letter, `STOP` on padding, (crystals, orbits).
        species: element of each orbit, 0 on padding, (crystals, orbits).
        met: whether the wishes could be met, bool, (crystals,).
    """

    spacegroup: Tensor
    letter: Tensor
    species: Tensor
    met: Tensor


def letter_mask(
    tables: WyckoffTables, group: Tensor, last: Tensor, left: Tensor, *, exact: Tensor
) -> Tensor:
    """Return which letters may come next, and whether the crystal may end, (n, 28).

    Args:
        tables: of the space groups.
        group: space groups, shape (n,).
        last: letter before, `STOP` at the start, shape (n,).
        left: atoms for which there is room, shape (n,).
        exact: the room must be filled exactly, bool, shape (n,).
    """
    letters = torch.arange(LETTERS, device=group.device)
    sites, fixed = tables.sites[group], tables.fixed[group]
    start = last == STOP
    used_up = fixed.gather(1, last.clamp(max=LETTERS - 1)[:, None])
    first = torch.where(start[:, None], 0, last[:, None] + used_up)
    may = (sites > 0) & (sites <= left[:, None]) & (letters >= first)
    rest = (left[:, None] - sites).clamp(0, REACH)
    filled = tables.fills[group[:, None], letters + fixed.long(), rest]
    may &= filled | ~exact[:, None]
    end = ~start & (~exact | (left == 0))
    return torch.cat([may, end[:, None]], 1)


def species_mask(
    allowed: Tensor, last: Tensor, species: Tensor, letter: Tensor
) -> Tensor:
    """Return which elements may stand on an orbit, shape (..., 104).

    Args:
        allowed: elements that the model knows, shape (104,).
        last: letter of the orbit before, shape (...).
        species: its element.
        letter: letter of this orbit.
    """
    floor = torch.where(letter == last, species, 0)
    z = torch.arange(elements.MAX_Z + 1, device=letter.device)
    return allowed & (z >= floor[..., None]) & (z > 0)
