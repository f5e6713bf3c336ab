"""Crystals as sequences of sites: one canonical order, so that one crystal is one sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.wyckoff import NONE, WyckoffTable
from matdesign.generators.control import Scales

SAME = 1e-4
"""Coordinates nearer than this to a whole cell are 0, and nearer to each other equal."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Crystals with their sites in order: by letter, then element, then coordinates.

    Args:
        spacegroup: number, shape (crystals,).
        n_atoms: atoms in the primitive cell, shape (crystals,).
        letter: index of the Wyckoff letter, `NONE` on padding, shape (crystals, sites).
        species: atomic number, 0 on padding, same shape.
        u: free coordinates, shape (crystals, sites, 3).
        free: which of them are left to the model, bool, same shape; those that only fix
            the origin are not.
        x: standardised lattice code, shape (crystals, 6).
        code_free: which of its entries are free, bool, same shape.
    """

    spacegroup: Tensor
    n_atoms: Tensor
    letter: Tensor
    species: Tensor
    u: Tensor
    free: Tensor
    x: Tensor
    code_free: Tensor

    def __len__(self) -> int:
        return len(self.spacegroup)

    @property
    def exists(self) -> Tensor:
        """True where there is a site, shape (crystals, sites)."""
        return self.species > 0

    @property
    def length(self) -> Tensor:
        """Sites of each crystal, shape (crystals,)."""
        return self.exists.sum(1)

    def left(self, table: WyckoffTable) -> Tensor:
        """Return atoms still to be placed before each site and after the last.

        Returns:
            Long, shape (crystals, sites + 1); 0 from the end of the sequence on.
        """
        count = table.count[self.spacegroup[:, None], self.letter]  # 0 on padding
        placed = torch.nn.functional.pad(count.cumsum(1), (1, 0))
        return self.n_atoms[:, None] - placed


def sequences(batch: Encoded, scales: Scales, table: WyckoffTable) -> Sequences:
    """Return crystals as sequences; the order of their orbits does not matter.

    Where a space group leaves the origin free along some axes (all three in P1), the
    origin is put on a site of the first letter and element: of several such sites, on
    that which makes the sorted coordinates smallest.

    Args:
        batch: crystals in either representation.
        scales: of the lattice code.
        table: of the Wyckoff positions.
    """
    layout = batch.layout
    letter = torch.where(layout.orbits, layout.letter, NONE)
    u = wrap(batch.u).masked_fill(~layout.free, 0.0)
    u = torch.where(u > 1 - SAME, 0.0, u)
    polar = table.polar[layout.spacegroup]  # (b, 3)
    order = _order(letter, batch.species, u)
    letter, species = letter.gather(1, order), batch.species.gather(1, order)
    u = _take(u, order)
    free = _take(layout.free, order)
    rows = polar.any(1).nonzero().squeeze(1)
    if len(rows):
        u = u.clone()
        u[rows] = _pin(letter[rows], species[rows], u[rows], polar[rows])
    free = free.clone()
    free[:, 0] &= ~polar
    return Sequences(
        layout.spacegroup,
        layout.n_atoms,
        letter,
        species,
        u,
        free,
        scales.standardize(batch.code, layout),
        layout.code_free,
    )


def _pin(letter: Tensor, species: Tensor, u: Tensor, polar: Tensor) -> Tensor:
    """Return sorted coordinates with the origin of the polar axes on one site."""
    first = (letter == letter[:, :1]) & (species == species[:, :1])  # sites to try
    exists = (species > 0)[..., None] & polar[:, None]
    best: Tensor | None = None
    for at in range(int(first.sum(1).max())):
        moved = wrap(u - u[:, at : at + 1] * exists)
        moved = torch.where(moved > 1 - SAME, 0.0, moved)
        moved = _take(moved, _order(letter, species, moved))
        if best is None:
            best = moved
            continue
        change = ((moved - best) / SAME / 10).round().flatten(1)
        differs = change != 0
        lead = change.gather(1, differs.int().argmax(1, keepdim=True)).squeeze(1)
        better = first[:, at] & (lead < 0)
        best = torch.where(better[:, None, None], moved, best)
    assert best is not None
    return best


def _order(letter: Tensor, species: Tensor, u: Tensor) -> Tensor:
    """Return the order of the sites: by letter, element, then coordinates."""
    order = torch.arange(letter.shape[1], device=letter.device).expand_as(letter)
    coarse = (u / SAME / 10).round()
    for key in (*reversed(coarse.unbind(-1)), species, letter):
        step = torch.argsort(key.gather(1, order), dim=1, stable=True)
        order = order.gather(1, step)
    return order


def _take(value: Tensor, order: Tensor) -> Tensor:
    return value.gather(1, order[..., None].expand_as(value))
