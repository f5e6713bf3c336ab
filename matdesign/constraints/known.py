"""`Known`: places and a cell that are fixed before sampling begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.lattice_code import HEXAGONAL_K1


@dataclass(frozen=True, eq=False)
class Known:
    """Sites in a plane at height 0, and the cell that they belong to.

    The rows a and b of the cell have one length and a fixed angle, and c stands upright
    on them; its length is free, and so is that of a and b unless `length` is given. A
    sampler puts these sites first in each crystal and holds them there; all other sites
    are free.

    Args:
        frac: fractional coordinates of the known sites, z = 0, shape (known, 3).
        species: element of each, 0 = open, but one for all, long, shape (known,).
        angle: angle between a and b in degrees, 90 or 120.
        length: length of a and b in angstrom; None = open.
    """

    frac: Tensor
    species: Tensor
    angle: float
    length: float | None = None

    @property
    def code_free(self) -> Tensor:
        """Which entries of the lattice code stay free, bool, shape (6,)."""
        return torch.tensor([False, False, False, False, True, True])

    @property
    def code_fixed(self) -> Tensor:
        """Values of the entries that are not free, 0 elsewhere, shape (6,)."""
        k1 = HEXAGONAL_K1 if self.angle == 120 else 0.0
        return torch.tensor([k1, 0.0, 0.0, 0.0, 0.0, 0.0])

    def project(self, code: Tensor) -> Tensor:
        """Return the lattice codes nearest to the given ones that have this cell.

        Equation:
            k1 to k4 at their fixed values; with a length a also
            k5 + k6 = ln a - 1/2 ln cosh(2 k1), met by moving k5 and k6 the shortest
            way: the metric of S is 6 dk5^2 + 3 dk6^2.

        Args:
            code: lattice codes with k6 = ln(volume) / 3, shape (..., 6).

        Returns:
            Shape of `code`.
        """
        fixed = torch.where(
            self.code_free.to(code.device), code, self.code_fixed.to(code)
        )
        if self.length is None:
            return fixed
        k1 = float(self.code_fixed[0])
        wanted = math.log(self.length) - 0.5 * math.log(math.cosh(2 * k1))
        miss = wanted - fixed[..., 4] - fixed[..., 5]
        move = torch.zeros_like(fixed)
        move[..., 4], move[..., 5] = miss / 3, 2 * miss / 3
        return fixed + move
