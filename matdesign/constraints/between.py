"""The constraint that a quantity lies in a range."""

import math
from collections.abc import Callable

from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError, InfeasibleTarget, UnitError

AnyCrystals = Crystals | SoftCrystals


def _density(crystals: AnyCrystals) -> Tensor:
    return crystals.density


def _volume_per_atom(crystals: AnyCrystals) -> Tensor:
    return crystals.volume / crystals.mask.sum(dim=1)


QUANTITIES: dict[str, tuple[str, Callable[[AnyCrystals], Tensor]]] = {
    "density": ("g/cm^3", _density),
    "volume_per_atom": ("angstrom^3", _volume_per_atom),
}
"""Quantity -> its unit and how it is read from crystals."""

_SPELLINGS = {
    "g/cm3": "g/cm^3",
    "g/cm³": "g/cm^3",
    "Å^3": "angstrom^3",
    "Å³": "angstrom^3",
}


class Between(Constraint):
    """A quantity lies in a closed range.

    The violation is the distance to the nearer end, in the quantity's unit.

    Args:
        quantity: "density" (g/cm^3) or "volume_per_atom" (angstrom^3).
        low: lower end, included; -inf for none.
        high: upper end, included; inf for none.
        unit: the unit that low and high are given in. It must be named, so that a
            number in another unit is noticed; nothing is converted.

    Raises:
        DataError: the quantity is unknown, or an end is not a number.
        UnitError: the unit is not the quantity's.
        InfeasibleTarget: low is above high.

    Example:
        >>> Between("density", 2, 5, unit="g/cm^3")
        density from 2 to 5 g/cm^3
    """

    def __init__(self, quantity: str, low: float, high: float, *, unit: str) -> None:
        if quantity not in QUANTITIES:
            raise DataError(
                f"unknown quantity: got {quantity!r}; choose {' or '.join(QUANTITIES)}."
            )
        needed = QUANTITIES[quantity][0]
        if _SPELLINGS.get(unit, unit) != needed:
            raise UnitError(
                f"{quantity} is in {needed}; got unit={unit!r}. "
                f'Convert the two ends and write unit="{needed}".'
            )
        if math.isnan(low) or math.isnan(high):
            raise DataError(
                f"a range of {quantity} needs two numbers; got {low} and {high}. "
                "Use -inf or inf for an open end."
            )
        if low > high:
            raise InfeasibleTarget(
                f"no {quantity} is both above {low:g} and below {high:g} {needed}; "
                f"swap the ends: Between({quantity!r}, {high:g}, {low:g}, ...)."
            )
        self.quantity = quantity
        self.low = float(low)
        self.high = float(high)
        self.unit = needed

    def sentence(self) -> str:
        """Return for example "density from 2 to 5 g/cm^3"."""
        name = self.quantity.replace("_", " ")
        if self.high == math.inf:
            return f"{name} of at least {self.low:g} {self.unit}"
        if self.low == -math.inf:
            return f"{name} of at most {self.high:g} {self.unit}"
        return f"{name} from {self.low:g} to {self.high:g} {self.unit}"

    def value(self, crystals: AnyCrystals) -> Tensor:
        """Return the quantity itself, in `unit`, shape (crystals,)."""
        return QUANTITIES[self.quantity][1](crystals)

    def violation(self, crystals: AnyCrystals) -> Tensor:
        """Return the distance to the nearer end of the range, shape (crystals,)."""
        value = self.value(crystals)
        return (self.low - value).clamp(min=0) + (value - self.high).clamp(min=0)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the quantity lies in the range, shape (crystals,)."""
        value = self.value(crystals)
        return (value >= self.low) & (value <= self.high)
