"""Constraints on the proportions of the elements: a formula, or a pattern of one."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.constraints.between import NumberOfAtoms
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.unfinished import possible
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.elements import MASK
from matdesign.crystals.formulas import is_pattern, parse_formula, parse_pattern
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
        self.amounts: dict[str, int] = {}
        """Atoms of each element in the reduced formula; empty for a pattern."""
        if formula is not None:
            names = elements.symbols()
            parsed = parse_formula(formula)
            self.amounts = {names[z]: k for z, k in parsed.items()}
            self.counts = tuple(sorted(self.amounts.values(), reverse=True))
            self.required = frozenset(parsed)
            self.only = self.required
        else:
            self.counts = parse_pattern(str(pattern))
        """Atoms of each different element in the smallest unit, largest first."""

    def sentence(self) -> str:
        """Return for example "formula SrTiO3"."""
        if self.amounts:
            return f"formula {self.formula}"
        return f"composition of the pattern {self.pattern}"

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the number of atoms that would have to change, shape (crystals,)."""
        counts = _counts(crystals)  # (crystals, 104)
        n = counts.sum(dim=1, keepdim=True).clamp(min=1e-12)
        wanted = counts.new_zeros(counts.shape[1])
        total = sum(self.counts)
        if self.amounts:
            for symbol, amount in self.amounts.items():
                wanted[elements.atomic_number(symbol)] = amount / total
        else:
            counts = counts.sort(dim=1, descending=True).values
            for k, amount in enumerate(self.counts):
                wanted[k] = amount / total
        return (counts - n * wanted).abs().sum(dim=1) / 2

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the counts have exactly the wanted proportions."""
        answers = [self._holds(row) for row in crystals.species.tolist()]
        return torch.tensor(answers, dtype=torch.bool, device=crystals.device)

    def allowed(
        self,
        species: Tensor,
        counts: Tensor,
        roles: Tensor | None = None,
        within: Tensor | None = None,
        required: frozenset[int] = frozenset(),
    ) -> Tensor | None:
        """Return what leaves the formula reachable; see `Constraint.allowed`.

        Exact where every open orbit may be each element of the formula. A pattern has no
        mask of its own: ask for it with `conditions`, which gives every orbit a role.
        """
        if not self.amounts:
            return None
        found = possible(species, within)
        wanted = {elements.atomic_number(s): k for s, k in self.amounts.items()}
        mask = torch.zeros_like(found, device="cpu")
        rows = zip(species.tolist(), counts.tolist(), strict=True)
        for b, (row, atoms) in enumerate(rows):
            times, rest = divmod(sum(atoms), sum(self.counts))
            left = {z: k * times for z, k in wanted.items()}
            for z, n in zip(row, atoms, strict=True):
                if 0 < z < MASK:
                    left[z] = left.get(z, -1) - n
            if rest or min(left.values()) < 0:
                continue
            sizes = [n for z, n in zip(row, atoms, strict=True) if z == MASK]
            choices = _fillable(tuple(sorted(left.items())), tuple(sorted(sizes)))
            for o, (z, n) in enumerate(zip(row, atoms, strict=True)):
                if z == MASK:
                    mask[b, o, sorted(choices[n])] = True
                elif z and (not sizes or any(choices.values())):
                    mask[b, o, z] = True
        return found & mask.to(found.device)

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
            numbers = {elements.atomic_number(s): k for s, k in self.amounts.items()}
            return other.residual(numbers) > 0
        few = other.only is not None and len(other.only) < len(self.counts)
        return few or len(other.required) > len(self.counts)

    def _holds(self, species: list[int]) -> bool:
        found: dict[int, int] = {}
        for z in species:
            if z:
                found[z] = found.get(z, 0) + 1
        unit = math.gcd(*found.values())
        if self.amounts:
            symbols = elements.symbols()
            return {symbols[z]: k // unit for z, k in found.items()} == self.amounts
        return (
            tuple(sorted((k // unit for k in found.values()), reverse=True))
            == self.counts
        )


@lru_cache(maxsize=20_000)
def _fillable(
    left: tuple[tuple[int, int], ...], sizes: tuple[int, ...]
) -> dict[int, set[int]]:
    """Return the elements that an orbit of each size may be; none where none fits.

    Args:
        left: (atomic number, atoms still to be placed).
        sizes: atoms of each open orbit, sorted; together as many as are left.
    """
    found: dict[int, set[int]] = {n: set() for n in sizes}
    for n in found:
        others = list(sizes)
        others.remove(n)
        for z, room in left:
            rest = tuple(sorted(k - n * (y == z) for y, k in left))
            if room >= n and _packs(rest, tuple(sorted(others, reverse=True))):
                found[n].add(z)
    return found if all(found.values()) else {n: set() for n in sizes}


@lru_cache(maxsize=200_000)
def _packs(rooms: tuple[int, ...], sizes: tuple[int, ...]) -> bool:
    """Return whether orbits of these sizes, largest first, fill the rooms exactly."""
    if not sizes:
        return not any(rooms)
    for k, room in enumerate(rooms):
        if room >= sizes[0] and (not k or room != rooms[k - 1]):
            rest = (*rooms[:k], room - sizes[0], *rooms[k + 1 :])
            if _packs(tuple(sorted(rest)), sizes[1:]):
                return True
    return False


def _counts(crystals: Crystals | SoftCrystals) -> Tensor:
    """Return the (expected) number of atoms of every element, shape (crystals, 104)."""
    if isinstance(crystals, SoftCrystals):
        return crystals.species.sum(dim=1)
    made = crystals.frac.new_zeros(len(crystals), elements.MAX_Z + 1)
    made.scatter_add_(1, crystals.species, crystals.mask.to(made))
    return made
