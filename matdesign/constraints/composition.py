"""Constraints on the proportions of the elements: a formula, or a pattern of one."""

import math
from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.constraints.between import NumberOfAtoms
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.unfinished import amounts_of
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.elements import is_pattern, parse_formula, parse_pattern
from matdesign.errors import DataError


class Composition(Constraint):
    """The crystal has an exact reduced formula, or one of a given pattern.

    `Composition("SrTiO3")` holds for SrTiO3 and Sr2Ti2O6. `Composition("ABX3")` holds for
    every crystal of exactly three different elements in the proportions 1:1:3, whichever
    they are; the letters only count, so "ABX3" and "XAB3" mean the same. A text of single
    capitals of which one is no element is a pattern, as in the condition "composition" of
    a generator; the keyword `pattern` takes nothing else.

    Equation:
        violation = n / 2 * sum over e of |x_e - x*_e|: the number of atoms that would
        have to become another element, with x the fraction of atoms of each element
        and x* the wanted one. For a pattern both are sorted by size before they are
        compared. For undecided crystals x is the expected fraction.

    Args:
        formula: a formula with integer amounts, such as "SrTiO3" or "Ca(OH)2", or a
            pattern; D and T are hydrogen.
        pattern: capital letters with integer amounts, such as "ABX3" or "A2X3".

    Raises:
        DataError: neither or both are given, or one cannot be read.

    Example:
        >>> Composition("SrTiO3"), Composition("ABX3")
        (formula SrTiO3, composition of the pattern ABX3)
    """

    unit = "atoms"

    def __init__(
        self, formula: str | None = None, *, pattern: str | None = None
    ) -> None:
        if (formula is None) == (pattern is None):
            raise DataError(
                "Composition needs one formula or pattern; "
                f"got formula={formula!r}, pattern={pattern!r}. "
                'Write Composition("SrTiO3") or Composition("ABX3").'
            )
        if formula is not None and is_pattern(formula):
            formula, pattern = None, formula
        self.pattern = pattern
        self.formula = formula
        self.numbers = {} if formula is None else parse_formula(formula)
        """Atoms of each atomic number in the reduced formula; empty for a pattern."""
        self.amounts = {elements.symbols()[z]: k for z, k in self.numbers.items()}
        """Atoms of each element in the reduced formula; empty for a pattern."""
        self.counts = tuple(sorted(self.numbers.values(), reverse=True))
        """Atoms of each different element in the smallest unit, largest first."""
        if formula is not None:
            self.required = self.only = frozenset(self.numbers)
        else:
            self.counts = parse_pattern(str(pattern))

    def sentence(self) -> str:
        """Return for example "formula SrTiO3"."""
        if self.amounts:
            return f"formula {self.formula}"
        return f"composition of the pattern {self.pattern}"

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the number of atoms that would have to change, shape (crystals,)."""
        counts = atoms_of_each(crystals)  # (crystals, 104)
        n = counts.sum(dim=1, keepdim=True).clamp(min=1e-12)
        wanted = counts.new_zeros(counts.shape[1])
        total = sum(self.counts)
        if self.amounts:
            for z, amount in self.numbers.items():
                wanted[z] = amount / total
        else:
            counts = counts.sort(dim=1, descending=True).values
            for k, amount in enumerate(self.counts):
                wanted[k] = amount / total
        return (counts - n * wanted).abs().sum(dim=1) / 2

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the counts have exactly the wanted proportions."""
        answers = [self._holds(row) for row in crystals.species.tolist()]
        return torch.tensor(answers, dtype=torch.bool, device=crystals.device)

    def conditions(self) -> dict[str, Any]:
        """Return the formula or the pattern as a condition."""
        return {"composition": self.formula or self.pattern}

    def excludes(self, other: Constraint) -> bool:
        """Return whether numbers of elements, or of atoms, do not go together."""
        if isinstance(other, Composition):
            both = bool(self.amounts and other.amounts)
            return self.counts != other.counts or (
                both and self.amounts != other.amounts
            )
        if isinstance(other, NumberOfAtoms):
            unit = sum(self.counts)
            return other.high // unit * unit < other.low
        if isinstance(other, ChargeNeutral) and not other.mixed_valence:
            return other.residual(self.numbers) > 0
        few = other.only is not None and len(other.only) < len(self.counts)
        return few or len(other.required) > len(self.counts)

    def _holds(self, species: list[int]) -> bool:
        found = amounts_of(species)
        unit = math.gcd(*found.values())
        reduced = {z: k // unit for z, k in found.items()}
        if self.numbers:
            return reduced == self.numbers
        return tuple(sorted(reduced.values(), reverse=True)) == self.counts


def atoms_of_each(crystals: Crystals | SoftCrystals) -> Tensor:
    """Return the (expected) number of atoms of every element, shape (crystals, 104).

    Args:
        crystals: finished or undecided crystals.
    """
    if isinstance(crystals, SoftCrystals):
        return crystals.species.sum(dim=1)
    made = crystals.frac.new_zeros(len(crystals), elements.MAX_Z + 1)
    made.scatter_add_(1, crystals.species, crystals.mask.to(made))
    return made
