"""The constraint that no two atoms sit on top of each other."""

import math

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals import geometry
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError


class MinDistance(Constraint):
    """No two atoms are closer than a limit, periodic images of one atom included.

    The violation is by how much the shortest distance falls short, in angstrom.

    Args:
        limit: shortest allowed distance in angstrom, > 0.

    Raises:
        DataError: the limit is not a positive number.

    Example:
        >>> MinDistance(1.4)
        no two atoms closer than 1.4 angstrom
    """

    unit = "angstrom"

    def __init__(self, limit: float) -> None:
        if not (math.isfinite(limit) and limit > 0):
            raise DataError(
                f"MinDistance needs a positive distance in angstrom; got {limit!r}. "
                "1.4 keeps every bond but those of hydrogen."
            )
        self.limit = float(limit)

    def sentence(self) -> str:
        """Return for example "no two atoms closer than 1.4 angstrom"."""
        return f"no two atoms closer than {self.limit:g} angstrom"

    def volumes(self, light: float, heavy: float) -> tuple[float, float]:
        """Return the volumes per atom that are left: spheres pack no denser (Kepler)."""
        return self.limit**3 / math.sqrt(2), math.inf

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the shortfall of the shortest distance in angstrom, (crystals,)."""
        return (self.limit - _shortest(crystals)).clamp(min=0)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the shortest distance reaches the limit, shape (crystals,)."""
        return _shortest(crystals) >= self.limit


def _shortest(crystals: Crystals | SoftCrystals) -> Tensor:
    hard = crystals
    if isinstance(hard, SoftCrystals):
        hard = Crystals(hard.mask.long(), hard.frac, hard.lattice)
    return geometry.min_distance(hard, include_self=True)


def nearest_like(points: Tensor, soft: SoftCrystals, unlike: Tensor) -> Tensor:
    """Return how far a like site is from a point for each site, angstrom, (crystals, sites).

    Args:
        points: fractional coordinates, shape (crystals, sites, 3).
        soft: undecided crystals.
        unlike: how little a site (third) is like the one of the point (second), 0 to 1;
            1 counts as 1 angstrom more, at right angles.
    """
    way = geometry.displacement(points[:, :, None], soft.frac[:, None], soft.lattice)
    square = way.square().sum(-1) + unlike.square()
    nearest = square.masked_fill(~soft.mask[:, None], torch.inf).amin(-1)
    return root(torch.where(soft.mask, nearest, torch.zeros_like(nearest)))


def root(square: Tensor) -> Tensor:
    """Return the square root, with a gradient of zero at zero."""
    zero = square <= 0
    found = torch.where(zero, torch.ones_like(square), square).sqrt()
    return torch.where(zero, torch.zeros_like(found), found)
