"""`Encoded`: a batch of crystals in a representation, the tensors a generator trains on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.lattice_code import to_code
from matdesign.crystals.layout import Layout
from matdesign.errors import DataError

Representation = Literal["cell", "symmetric"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Layout plus what a generator fills in: species, free coordinates, lattice code.

    Args:
        layout: orbits and what of them is free.
        species: atomic number of each orbit, 0 on padding, shape (crystals, orbits).
        u: free coordinates of the anchors in [0, 1), 0 where not free, shape
            (crystals, orbits, 3).
        code: lattice code of the conventional cell, its last entry that of the volume per
            atom, shape (crystals, 6).
        labels: name -> number per crystal that a generator may be conditioned on, NaN
            where unknown, shape (crystals,).
        representation: the one that `encode` was asked for.
    """

    layout: Layout
    species: Tensor
    u: Tensor
    code: Tensor
    labels: dict[str, Tensor] = field(default_factory=dict)
    representation: Representation = "cell"

    def __len__(self) -> int:
        return len(self.code)

    @property
    def n_atoms(self) -> Tensor:
        """Atoms in the primitive cell, shape (crystals,)."""
        return self.layout.n_atoms

    def __getitem__(self, index: Tensor) -> Encoded:
        """Return some crystals, padded no wider than the largest of them."""
        layout = self.layout[index]
        orbits = layout.count.shape[1]
        return Encoded(
            layout,
            self.species[index, :orbits],
            self.u[index, :orbits],
            self.code[index],
            {k: v[index] for k, v in self.labels.items()},
            self.representation,
        )

    def to(self, device: torch.device | str) -> Encoded:
        """Return the batch on a device."""
        return Encoded(
            self.layout.to(device),
            self.species.to(device),
            self.u.to(device),
            self.code.to(device),
            {k: v.to(device) for k, v in self.labels.items()},
            self.representation,
        )

    def crystals(self) -> Crystals:
        """Return the crystals in their primitive cells."""
        lay = self.layout
        return Crystals(
            lay.expand_species(self.species), lay.expand(self.u), lay.lattice(self.code)
        )


def encode(crystals: Crystals, representation: Representation = "cell") -> Encoded:
    """Return crystals in a representation; `Encoded.crystals` is the way back.

    Args:
        crystals: primitive, reduced cells; their `properties` become labels.
        representation: "cell" takes every atom for itself; "symmetric" finds the space
            group (symprec 0.01 angstrom) and keeps one anchor per orbit.

    Raises:
        DataError: an unknown representation, or a crystal without a cell.
    """
    if representation not in get_args(Representation):
        raise DataError(
            f"unknown representation {representation!r}; choose "
            f"{' or '.join(get_args(Representation))}."
        )
    labels = dict(crystals.properties)
    if representation == "symmetric":
        from matdesign.crystals.orbits import encode_symmetric

        return dataclasses.replace(
            encode_symmetric(crystals, labels), representation="symmetric"
        )
    mask = crystals.mask
    return Encoded(
        Layout.whole_cell(crystals.n_atoms),
        crystals.species[:, : int(mask.sum(1).max()) if len(mask) else 0],
        crystals.frac[:, : int(mask.sum(1).max()) if len(mask) else 0],
        to_code(crystals.lattice, crystals.n_atoms),
        labels,
    )
