"""Crystals as sequences of sites in one canonical order, and their log probability."""

from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.control import Scales
from matdesign.generators.filling import element_mask, letter_mask
from matdesign.generators.site_network import SiteNetwork

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

    def left(self) -> Tensor:
        """Return atoms still to be placed before each site and after the last.

        Returns:
            Long, shape (crystals, sites + 1); 0 from the end of the sequence on.
        """
        table = wyckoff_table(str(self.letter.device))
        count = table.count[self.spacegroup[:, None], self.letter]  # 0 on padding
        placed = torch.nn.functional.pad(count.cumsum(1), (1, 0))
        return self.n_atoms[:, None] - placed


def sequences(batch: Encoded, scales: Scales) -> Sequences:
    """Return crystals as sequences; the order of their orbits does not matter.

    Where a space group leaves the origin free along some axes (all three in P1), the
    origin is put on a site of the first letter and element: of several such sites, on
    that which makes the sorted coordinates smallest.

    Args:
        batch: crystals in either representation.
        scales: of the lattice code.
    """
    layout = batch.layout
    letter = torch.where(layout.orbits, layout.letter, NONE)
    u = wrap(batch.u).masked_fill(~layout.free, 0.0)
    u = torch.where(u > 1 - SAME, 0.0, u)
    polar = wyckoff_table(str(letter.device)).polar[layout.spacegroup]  # (b, 3)
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


def log_sites(
    net: SiteNetwork,
    hidden: Tensor,
    keys: Tensor,
    spacegroup: Tensor,
    sites: tuple[Tensor, Tensor, Tensor],
    fill: Tensor,
    allowed: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the log probability of letter and element of each site, (crystals, sites).

    Args:
        net: what comes next.
        hidden: vectors of the first pass, shape (crystals, sites, width).
        keys: of `SiteNetwork.keys`.
        spacegroup: of each crystal.
        sites: letter and element of each site, and atoms that are left before it.
        fill: of `fill_table`.
        allowed: elements seen in training, bool, shape (104,).
    """
    letter, species, left = sites
    last = torch.nn.functional.pad(letter, (1, 0), value=NONE)[:, :-1]
    before = torch.nn.functional.pad(species, (1, 0))[:, :-1]
    group = spacegroup[:, None].expand_as(letter)
    mask = letter_mask(fill, group, last, before, left.clamp(min=0))
    fits = element_mask(allowed, letter, last, before)
    log_letter = _log_softmax(net.letter_logits(hidden, keys), mask)
    log_species = _log_softmax(net.species_logits(hidden, keys, letter), fits)
    return at(log_letter, letter.clamp(max=NONE - 1)), at(log_species, species)


def log_coordinates(net: SiteNetwork, hidden: Tensor, seq: Sequences) -> Tensor:
    """Return the log density of the free coordinates, shape (crystals,).

    Equation:
        sum_i log p(x_i | ..) + log p(y_i | x_i, ..) + log p(z_i | x_i, y_i, ..),
        free coordinates only

    Args:
        net: what comes next.
        hidden: vectors of the second pass, shape (crystals, sites, width).
        seq: the crystals.
    """
    total = seq.x.new_zeros(len(seq))
    for axis in range(3):
        row, site = seq.free[..., axis].nonzero(as_tuple=True)
        u = seq.u[row, site]
        raw = net.axis_raw(hidden[row, site], u, axis)
        dense = net.circle.log_prob(raw, u[:, axis])
        total = total.index_add(0, row, dense)
    return total


def _log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Return log probabilities among the allowed choices; others are very unlikely."""
    return logits.masked_fill(~mask, -1e9).log_softmax(-1)


def at(log_p: Tensor, index: Tensor) -> Tensor:
    """Return the log probability of an index, shape of `index`."""
    return log_p.gather(-1, index[..., None]).squeeze(-1)


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
