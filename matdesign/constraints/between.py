"""The constraints that a number lies in a range: a density, a volume, a number of atoms."""

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import ANGSTROM3_G, Crystals, SoftCrystals
from matdesign.errors import DataError, InfeasibleTarget, UnitError

AnyCrystals = Crystals | SoftCrystals

UNITS = {"density": "g/cm^3", "volume_per_atom": "angstrom^3"}
"""Quantity of `Between` -> its unit."""

EDGE = 1e-4
"""How far inside a range a projection ends, relative to the end of the range."""


class Range(Constraint):
    """A number lies in a closed range; a subclass says which, by `value`.

    The violation is the distance to the nearer end, and infinite where there is no number.

    Args:
        name: of the number.
        low: lower end, included; -inf for none.
        high: upper end, included; inf for none.
        unit: of both ends, "" for none.

    Raises:
        DataError: an end is not a number.
        InfeasibleTarget: low is above high.
    """

    hard = False

    learned = ""
    """Name under which a generator may have been trained with the number."""

    def __init__(self, name: str, low: float, high: float, unit: str) -> None:
        if math.isnan(low) or math.isnan(high):
            raise DataError(
                f"a range of {name} needs two numbers; got {low} and {high}. "
                "Use -inf or inf for an open end."
            )
        if low > high:
            raise InfeasibleTarget(
                f"no {name} is both above {low:g} and below {high:g} {unit}; swap the "
                "ends."
            )
        self.name, self.low, self.high = name, float(low), float(high)
        self.unit = unit

    @property
    def key(self) -> Hashable:
        """What the number is: ranges of one key that do not overlap exclude each other."""
        return self.name

    @abstractmethod
    def value(self, crystals: AnyCrystals) -> Tensor:
        """Return the number itself, in `unit`, shape (crystals,)."""

    def sentence(self) -> str:
        """Return for example "density from 2 to 5 g/cm^3"."""
        name, unit = self.name.replace("_", " "), f" {self.unit}" if self.unit else ""
        if self.high == math.inf:
            return f"{name} of at least {self.low:g}{unit}"
        if self.low == -math.inf:
            return f"{name} of at most {self.high:g}{unit}"
        return f"{name} from {self.low:g} to {self.high:g}{unit}"

    def violation(self, crystals: AnyCrystals) -> Tensor:
        """Return the distance to the nearer end of the range, shape (crystals,)."""
        value = self.value(crystals)
        off = (self.low - value).clamp(min=0) + (value - self.high).clamp(min=0)
        return torch.where(value.isnan(), torch.inf, off)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the number lies in the range, shape (crystals,)."""
        value = self.value(crystals)
        return (value >= self.low) & (value <= self.high)

    def excludes(self, other: Constraint) -> bool:
        """Return whether the other one is a range of the same number without overlap."""
        if not isinstance(other, Range) or self.key != other.key:
            return False
        return self.high < other.low or other.high < self.low


class Between(Range):
    """The density, or the volume per atom, lies in a closed range.

    `Density` and `VolumePerAtom` say the same in one word less.

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
        if quantity not in UNITS:
            raise DataError(
                f"unknown quantity: got {quantity!r}; choose {' or '.join(UNITS)}."
            )
        needed = UNITS[quantity]
        named = str(unit).replace("Å", "angstrom").replace("³", "3").replace("^", "")
        if named != needed.replace("^", ""):
            raise UnitError(
                f"{quantity} is in {needed}; got unit={unit!r}. "
                f'Convert the two ends and write unit="{needed}".'
            )
        super().__init__(quantity, low, high, needed)
        self.learned = self.quantity = quantity

    def value(self, crystals: AnyCrystals) -> Tensor:
        """Return the quantity itself, in `unit`, shape (crystals,)."""
        if self.quantity == "density":
            return crystals.density
        return crystals.volume / crystals.mask.sum(dim=1)

    def volumes(self, light: float, heavy: float) -> tuple[float, float]:
        """Return the volumes per atom that the range leaves; see `Constraint.volumes`."""
        if self.quantity == "volume_per_atom":
            return self.low, self.high
        light, heavy = light * ANGSTROM3_G, heavy * ANGSTROM3_G
        least = light / self.high if self.high > 0 else math.inf
        return least, heavy / self.low if self.low > 0 else math.inf

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
    """The mass density lies in a closed range; `Between` with its unit.

    Args:
        low: lower end, included; -inf for none.
        high: upper end, included; inf for none.

    Example:
        >>> Density(2, 5)
        density from 2 to 5 g/cm^3
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__("density", low, high, unit="g/cm^3")


class VolumePerAtom(Between):
    """The volume of the cell divided by its atoms lies in a range; `Between` with its unit.

    Args:
        low: lower end, included; -inf for none.
        high: upper end, included; inf for none.

    Example:
        >>> VolumePerAtom(10, 20)
        volume per atom from 10 to 20 angstrom^3
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__("volume_per_atom", low, high, unit="angstrom^3")


class NumberOfAtoms(Range):
    """The cell has a number of atoms, or one in a closed range.

    Counted are the atoms of the cell as it stands; generators make primitive cells. The
    violation is the number of atoms too few or too many. It is a whole number even on
    undecided crystals, whose size is decided, so it has no gradient.

    Args:
        low: number of atoms, or the fewest, >= 1.
        high: the most; None = exactly `low`.

    Raises:
        DataError: a bound is no whole number of at least one.
        InfeasibleTarget: low is above high.

    Example:
        >>> NumberOfAtoms(5), NumberOfAtoms(2, 10)
        (5 atoms in the cell, 2 to 10 atoms in the cell)
    """

    hard = True

    def __init__(self, low: int, high: int | None = None) -> None:
        high = low if high is None else high
        for bound in (low, high):
            if not isinstance(bound, int) or isinstance(bound, bool) or bound < 1:
                raise DataError(
                    f"a number of atoms is a whole number from 1 on; got {bound!r}."
                )
        super().__init__("number of atoms", low, high, "atoms")

    def sentence(self) -> str:
        """Return for example "2 to 10 atoms in the cell"."""
        if self.low == self.high:
            return f"{self.low:g} atom{'s' * (self.low > 1)} in the cell"
        return f"{self.low:g} to {self.high:g} atoms in the cell"

    def value(self, crystals: AnyCrystals) -> Tensor:
        """Return the number of atoms, shape (crystals,)."""
        return crystals.mask.sum(dim=1).to(crystals.frac.dtype)

    def excludes(self, other: Constraint) -> bool:
        """Return whether the other one needs more elements, or other numbers."""
        return super().excludes(other) or len(other.required) > self.high

    def conditions(self) -> dict[str, Any]:
        """Return the number as a condition; nothing for a range of more than one."""
        return {"n_atoms": int(self.low)} if self.low == self.high else {}
