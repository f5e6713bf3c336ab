"""The constraint on how many atoms a cell holds."""

from typing import Any

from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError, InfeasibleTarget


class NumberOfAtoms(Constraint):
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

    unit = "atoms"

    def __init__(self, low: int, high: int | None = None) -> None:
        high = low if high is None else high
        for bound in (low, high):
            if not isinstance(bound, int) or isinstance(bound, bool) or bound < 1:
                raise DataError(
                    f"a number of atoms is a whole number from 1 on; got {bound!r}."
                )
        if low > high:
            raise InfeasibleTarget(
                f"no cell has at least {low} and at most {high} atoms; swap the ends: "
                f"NumberOfAtoms({high}, {low})."
            )
        self.low = low
        self.high = high

    def sentence(self) -> str:
        """Return for example "2 to 10 atoms in the cell"."""
        if self.low == self.high:
            return f"{self.low} atom{'s' * (self.low > 1)} in the cell"
        return f"{self.low} to {self.high} atoms in the cell"

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return how many atoms are too few or too many, shape (crystals,)."""
        n = crystals.mask.sum(dim=1).to(crystals.frac.dtype)
        return (self.low - n).clamp(min=0) + (n - self.high).clamp(min=0)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the number lies in the range, shape (crystals,)."""
        n = crystals.mask.sum(dim=1)
        return (n >= self.low) & (n <= self.high)

    def conditions(self) -> dict[str, Any]:
        """Return the number as a wish; nothing for a range of more than one."""
        return {"n_atoms": self.low} if self.low == self.high else {}
