"""`Known`: coordinates and a cell that are fixed before sampling begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Known:
    """Sites in a plane at height 0, and the cell that they belong to.

    The rows a and b of the cell have a fixed ratio and angle, and c stands upright on
    them; its length is free, and so is the size of a and b unless `sized`. A sampler
    puts these sites first in each crystal and holds them there; all others are free.

    Args:
        frac: fractional coordinates of the known sites, z = 0, shape (known, 3).
        species: element of each, long, shape (known,); all 0 = open, but one for all.
        plane: rows a and b in the plane, shape (2, 2); in angstrom if `sized`, else of
            any size.
        sized: whether the size of the plane is fixed too.
    """

    frac: Tensor
    species: Tensor
    plane: Tensor
    sized: bool = False

    @property
    def shape(self) -> Tensor:
        """The first four entries of the lattice code, which are fixed, shape (4,)."""
        log = self._log()
        return torch.tensor([log[0, 1], 0.0, 0.0, (log[0, 0] - log[1, 1]) / 2])

    def project(self, code: Tensor) -> Tensor:
        """Return the lattice codes nearest to the given ones that have this cell.

        Equation:
            k1 to k4 at their fixed values; if sized also k5 + k6 = 1/2 ln(area of a, b),
            met by moving k5 and k6 the shortest way: the metric of S is 6 dk5^2 + 3 dk6^2.

        Args:
            code: lattice codes with k6 = ln(volume) / 3, shape (..., 6).

        Returns:
            Shape of `code`.
        """
        shape = self.shape.to(code).expand(*code.shape[:-1], 4)
        fixed = torch.cat([shape, code[..., 4:]], dim=-1)
        if not self.sized:
            return fixed
        miss = float(self._log().trace()) / 2 - fixed[..., 4] - fixed[..., 5]
        move = torch.zeros_like(fixed)
        move[..., 4], move[..., 5] = miss / 3, 2 * miss / 3
        return fixed + move

    def fits(self, other: Known | None) -> bool:
        """Return whether one cell can be that of both.

        Args:
            other: what else is known; None fits anything.
        """
        if other is None:
            return True
        shape = torch.allclose(self.shape, other.shape, atol=1e-4)
        areas = torch.stack([self._log().trace(), other._log().trace()])
        both = self.sized and other.sized
        return shape and not (both and bool(areas.diff().abs() > 1e-3))

    def _log(self) -> Tensor:
        """Return the logarithm of the plane with its rotation removed, (2, 2)."""
        rows = self.plane.double()
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        return vectors @ torch.diag(values.log() / 2) @ vectors.T
