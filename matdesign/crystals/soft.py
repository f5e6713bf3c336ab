"""`SoftCrystals`: crystals whose species are still probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matdesign.crystals import elements

if TYPE_CHECKING:
    from matdesign.crystals.batch import Crystals

ANGSTROM3_G = 1.66053906660
"""Mass of one u in one cubic angstrom, in g/cm^3."""


@dataclass(frozen=True, eq=False)
class SoftCrystals:
    """Crystals whose species are still undecided: what a sampler previews.

    Args:
        species: probability of each atomic number, shape (crystals, sites, 104);
            entry 0 and padded sites are zero.
        frac: fractional coordinates, shape (crystals, sites, 3).
        lattice: rows in angstrom, shape (crystals, 3, 3).
        mask: site exists, shape (crystals, sites).
        t: time of the state that previews them, from 1 (noise) to 0 (finished).
    """

    species: Tensor
    frac: Tensor
    lattice: Tensor
    mask: Tensor
    t: float = 0.0

    def __len__(self) -> int:
        return self.mask.shape[0]

    @property
    def volume(self) -> Tensor:
        """Cell volume in cubic angstrom, shape (crystals,)."""
        return torch.linalg.det(self.lattice).abs()

    @property
    def mass(self) -> Tensor:
        """Expected cell mass in u, shape (crystals,)."""
        return (self.species @ elements.table("mass").to(self.species)).sum(dim=1)

    @property
    def density(self) -> Tensor:
        """Expected mass density in g/cm^3, shape (crystals,)."""
        return self.mass / self.volume * ANGSTROM3_G

    def harden(self) -> Crystals:
        """Return crystals with the most probable element on every site."""
        from matdesign.crystals.batch import Crystals

        return Crystals(self.species.argmax(-1) * self.mask, self.frac, self.lattice)
