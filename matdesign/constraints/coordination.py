"""The constraint on how many neighbours the atoms of an element have."""

import dataclasses
import math

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.constraints.distance import MinDistance, root
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.predictors.features import heights, neighbours

_TAIL = 10.0
"""How far beyond the cutoff undecided crystals are counted, in widths: 5e-5 of a neighbour."""

_THIN = 5.5
"""A reduced cell is too thin to be counted below this part of the cutoff."""


class Coordination(Constraint):
    """Every atom of one element has a number of neighbours within a cutoff.

    Neighbours are counted with all their periodic images, the atom's own among them. A
    finished crystal is counted exactly. On undecided crystals the count is smooth: a
    sigmoid in place of the step at the cutoff, weighed with the probability of the
    neighbour's element. A crystal without any atom of the element misses.

    Equation:
        n_i = sum over j and images of p_j sigmoid((cutoff - d_ij) / width), and a step in
        place of the sigmoid for finished crystals;
        violation = sum_i p_i |n_i - range| / sum_i p_i + max(low, 1) prod_i (1 - p_i),
        |n - range| the distance to the nearer end, p_i the probability that i is a centre.

    Args:
        center: element symbol of the atoms whose neighbours are counted.
        neighbour: element symbol of what is counted; None = every atom.
        number: how many, one number or (low, high), both included.
        cutoff: distance up to which an atom is a neighbour, in angstrom.
        width: of the smooth step, in angstrom.

    Raises:
        DataError: an unknown element; a number, cutoff or width that is not positive.
        InfeasibleTarget: low is above high.

    Accuracy:
        See `neighbours`. In a reduced cell thinner than cutoff / 5.5 not all images are
        seen: a finished crystal that thin misses.

    Source:
        Switching functions for coordination numbers: Iannuzzi, Laio, Parrinello 2003,
        Phys. Rev. Lett. 90, 238302. Changed: a logistic step in place of a rational one.

    Example:
        >>> Coordination("Ti", "O", 6, cutoff=2.4)
        every Ti has 6 O within 2.4 angstrom
    """

    unit = "neighbours"
    hard = False

    def __init__(
        self,
        center: str,
        neighbour: str | None = None,
        number: float | tuple[float, float] = 6,
        *,
        cutoff: float,
        width: float = 0.1,
    ) -> None:
        low, high = number if isinstance(number, tuple) else (number, number)
        if not (0 <= low < math.inf and high >= 0):
            raise DataError(
                f"a number of neighbours is 0 or more, or a pair (low, high); got "
                f"{number!r}."
            )
        if low > high:
            raise InfeasibleTarget(
                f"no atom has at least {low:g} and at most {high:g} neighbours; swap them."
            )
        for name, value in (("cutoff", cutoff), ("width", width)):
            if not (math.isfinite(value) and value > 0):
                raise DataError(
                    f"the {name} of Coordination is a positive distance in angstrom; got "
                    f"{value!r}."
                )
        self.center = elements.atomic_number(center)
        self.neighbour = (
            None if neighbour is None else elements.atomic_number(neighbour)
        )
        counted = () if self.neighbour is None or not low else (self.neighbour,)
        self.required = frozenset((self.center, *counted))
        self.low, self.high = float(low), float(high)
        self.cutoff, self.width = float(cutoff), float(width)

    def sentence(self) -> str:
        """Return for example "every Ti has 6 O within 2.4 angstrom"."""
        names = elements.symbols()
        what = "neighbours" if self.neighbour is None else names[self.neighbour]
        number = f"{self.low:g}"
        if self.high != self.low:
            number += f" to {self.high:g}" if self.high < math.inf else " or more"
        return f"every {names[self.center]} has {number} {what} within {self.cutoff:g} angstrom"

    def excludes(self, other: Constraint) -> bool:
        """Return whether atoms may not come so near, or a wider shell has to hold fewer."""
        if isinstance(other, MinDistance):
            return self.low > 0 and self.cutoff < other.limit
        if not isinstance(other, Coordination) or self.center != other.center:
            return False
        wider = self.cutoff <= other.cutoff
        wider &= other.neighbour in (None, self.neighbour)
        return wider and self.low > other.high

    def count(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the neighbours of every site, whatever it is, shape (crystals, sites).

        Args:
            crystals: finished crystals are counted, undecided ones smoothly; NaN where
                a number is not finite, or a finished cell too thin to be counted.
        """
        soft = isinstance(crystals, SoftCrystals)
        weight = self._weight(crystals, self.neighbour)  # (crystals, sites)
        frac, lattice = crystals.frac.double(), crystals.lattice.double()
        cells = dataclasses.replace(crystals, frac=frac, lattice=lattice)
        reach = _TAIL * self.width if soft else 1e-9
        pairs = neighbours(cells, self.cutoff + reach)
        far = root(pairs.vector.square().sum(-1))
        step = (far <= self.cutoff).to(far)
        near = torch.sigmoid((self.cutoff - far) / self.width) if soft else step
        sites = pairs.crystal * weight.shape[1] + pairs.i
        seen = near * weight[pairs.crystal, pairs.j]
        total = (
            weight.new_zeros(weight.numel()).index_add(0, sites, seen).view_as(weight)
        )
        known = (frac.isfinite().all(-1) | ~crystals.mask).all(1)
        lost = ~(known & lattice.flatten(1).isfinite().all(1))
        if not soft:
            lost |= heights(lattice).amin(1) < self.cutoff / _THIN
        return total.masked_fill(lost[:, None], torch.nan).to(crystals.frac.dtype)

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the mean distance to the range over the centres, shape (crystals,)."""
        n = self.count(crystals)
        center = self._weight(crystals, self.center).to(n)
        off = (self.low - n).clamp(min=0) + (n - self.high).clamp(min=0)
        off = torch.where(center > 0, off, torch.zeros_like(off))
        mean = (center * off).sum(1) / center.sum(1).clamp(min=1e-9)
        found = mean + max(self.low, 1.0) * (1 - center).prod(dim=1)
        return torch.where(found.isnan(), torch.inf, found)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether there are centres, all with the right number, (crystals,)."""
        return self.violation(crystals) <= 1e-6

    def _weight(self, crystals: Crystals | SoftCrystals, z: int | None) -> Tensor:
        """Return how much each site is an element, or any atom, (crystals, sites), float64."""
        if z is None:
            return crystals.mask.double()
        if isinstance(crystals, SoftCrystals):
            return crystals.species[..., z].double()
        return (crystals.species == z).double()
