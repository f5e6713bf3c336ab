"""The constraint that a quantity lies in a range."""

import dataclasses
import math
from collections.abc import Callable

import torch
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

EDGE = 1e-4
"""How far inside a range a projection ends, relative to the end of the range."""

_SPELLINGS = {
    "g/cm3": "g/cm^3",
    "g/cm³": "g/cm^3",
    "Å^3": "angstrom^3",
    "Å³": "angstrom^3",
}


class Between(Constraint):
    """A quantity lies in a closed range.

    The violation is the distance to the nearer end, in the quantity's unit. `Density` and
    `VolumePerAtom` say the same in one word less.

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

    hard = False

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

    def project(self, soft: SoftCrystals) -> SoftCrystals | None:
        """Return the crystals with their cells scaled to the nearer end of the range.

        Coordinates and the shape of the cell stay. A crystal that no scaling brings into
        the range (no volume, no mass, an end that is not positive) stays as it is.

        Equation:
            L' = L (V' / V)^(1/3), with V' / V = x' / x for the volume per atom and x / x'
            for the density, x' the point of the range nearest to x

        Args:
            soft: undecided crystals.
        """
        value = self.value(soft)
        low, high = self.low + EDGE * abs(self.low), self.high - EDGE * abs(self.high)
        if low > high:
            low = high = (self.low + self.high) / 2
        wanted = torch.where(
            (value < self.low) | (value > self.high), value.clamp(low, high), value
        )
        ratio = wanted / value if self.quantity == "volume_per_atom" else value / wanted
        sound = ratio.isfinite() & (ratio > 0)
        factor = torch.where(sound, ratio, torch.ones_like(ratio)) ** (1 / 3)
        return dataclasses.replace(soft, lattice=soft.lattice * factor[:, None, None])


class Density(Between):
    """The mass density lies in a closed range.

    Args:
        low: lower end, included; -inf for none.
        high: upper end, included; inf for none.
        unit: "g/cm^3".

    Raises:
        DataError: an end is not a number.
        UnitError: another unit.
        InfeasibleTarget: low is above high.

    Example:
        >>> Density(2, 5)
        density from 2 to 5 g/cm^3
    """

    def __init__(self, low: float, high: float, *, unit: str = "g/cm^3") -> None:
        super().__init__("density", low, high, unit=unit)


class VolumePerAtom(Between):
    """The volume of the cell divided by its atoms lies in a closed range.

    Args:
        low: lower end, included; -inf for none.
        high: upper end, included; inf for none.
        unit: "angstrom^3".

    Raises:
        DataError: an end is not a number.
        UnitError: another unit.
        InfeasibleTarget: low is above high.

    Example:
        >>> VolumePerAtom(10, 20)
        volume per atom from 10 to 20 angstrom^3
    """

    def __init__(self, low: float, high: float, *, unit: str = "angstrom^3") -> None:
        super().__init__("volume_per_atom", low, high, unit=unit)
