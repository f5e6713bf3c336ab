"""The Wyckoff positions of all space groups as tensors that a network can read."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.sites import operations
from matdesign.crystals.wyckoff import LETTERS, positions, primitive_cell

NONE = len(LETTERS)
"""Index that stands for "no letter", after the 27 that there are."""


@dataclass(frozen=True, eq=False)
class WyckoffTable:
    """What each Wyckoff position is, indexed [space group, letter]; row 0 is empty.

    Args:
        count: sites of an orbit in the primitive cell, 0 = no such position, long, shape
            (231, 28).
        free: which coordinates are free, bool, shape (231, 28, 3).
        move: M, shape (231, 28, 3, 3): a point is `u @ M + offset`.
        offset: in the conventional cell, shape (231, 28, 3).
        polar: axes along which the group leaves the origin free, bool, shape (231, 3).
        features: numbers that describe a position, shape (231, 28, features).
    """

    count: Tensor
    free: Tensor
    move: Tensor
    offset: Tensor
    polar: Tensor
    features: Tensor

    @property
    def freedom(self) -> Tensor:
        """Number of free coordinates, shape (231, 28)."""
        return self.free.sum(-1)


@cache
def wyckoff_table(device: str = "cpu") -> WyckoffTable:
    """Return the table of all 230 space groups.

    The features say how many sites an orbit has and of how many operations, which
    coordinates are free, in which directions they move the point, and where it is when
    they are zero: enough to treat alike positions of different groups alike.

    Args:
        device: where the tensors lie.

    Example:
        >>> wyckoff_table().count[221, :4].tolist()
        [1, 1, 3, 3]
    """
    if device != "cpu":
        here = wyckoff_table()
        return WyckoffTable(
            **{f.name: getattr(here, f.name).to(device) for f in fields(WyckoffTable)}
        )
    shape = (231, NONE + 1)
    count = torch.zeros(shape, dtype=torch.long)
    free = torch.zeros(*shape, 3, dtype=torch.bool)
    move, offset = torch.zeros(*shape, 3, 3), torch.zeros(*shape, 3)
    polar = torch.zeros(231, 3, dtype=torch.bool)
    order = torch.ones(shape)  # of the group that leaves a point where it is
    for group in range(1, 231):
        rotations, _ = operations(group)
        polar[group] = torch.from_numpy(np.diag(rotations.mean(0)) > 0.99)
        share = float(np.linalg.det(primitive_cell(group)))
        for at, one in enumerate(positions(group)):
            count[group, at] = round(one.multiplicity * share)
            free[group, at, list(one.axes)] = True
            move[group, at] = torch.from_numpy(one.map)
            offset[group, at] = torch.tensor(one.offset)
            order[group, at] = len(rotations) / one.multiplicity
    angle = 2 * math.pi * offset
    features = torch.cat(
        [
            torch.nn.functional.one_hot(free.sum(-1), 4),
            free,
            count.clamp(min=1).log()[..., None],
            order.log()[..., None],
            move.flatten(-2),
            angle.sin(),
            angle.cos(),
            (2 * angle).sin(),
            (2 * angle).cos(),
        ],
        dim=-1,
    )
    return WyckoffTable(
        count, free, move, offset, polar, features * (count > 0)[..., None]
    )
