"""Constraints on which elements a crystal may and must hold."""

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint, listing
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError


class OnlyElements(Constraint):
    """Every atom is one of the named elements.

    The violation is the expected number of atoms that are something else, in atoms.

    Args:
        *symbols: element symbols, such as "Ca", "Ti", "O".

    Raises:
        DataError: no symbol is given, or one is not an element up to Lr.

    Example:
        >>> OnlyElements("Ca", "Ti", "O")
        only Ca, O and Ti
        >>> OnlyElements.without("Pb", "Cd")
        without Cd and Pb
    """

    unit = "atoms"

    def __init__(self, *symbols: str) -> None:
        self.symbols = frozenset(_known(symbols, "OnlyElements"))
        self.excluded = frozenset(elements.symbols()[1:]) - self.symbols

    @classmethod
    def without(cls, *symbols: str) -> "OnlyElements":
        """Return the constraint that allows every element except the named ones."""
        excluded = frozenset(_known(symbols, "OnlyElements.without"))
        return cls(*(s for s in elements.symbols()[1:] if s not in excluded))

    def sentence(self) -> str:
        """Return for example "only Ca, O and Ti"; names the shorter of the two lists."""
        if not self.excluded:
            return "any element"
        if len(self.excluded) < len(self.symbols):
            return f"without {listing(sorted(self.excluded))}"
        return f"only {listing(sorted(self.symbols))}"

    def allowed(self, like: Tensor) -> Tensor:
        """Return 1 for each allowed atomic number and for padding, shape (104,)."""
        table = like.new_zeros(elements.MAX_Z + 1)
        table[[0, *(elements.atomic_number(s) for s in self.symbols)]] = 1
        return table

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the (expected) number of forbidden atoms, shape (crystals,)."""
        if isinstance(crystals, Crystals):
            forbidden = self.allowed(crystals.species)[crystals.species] == 0
            return forbidden.sum(dim=1).float()
        return (crystals.species @ (1 - self.allowed(crystals.species))).sum(dim=1)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether no forbidden atom is there, shape (crystals,)."""
        return self.allowed(crystals.species).bool()[crystals.species].all(dim=1)


class RequiredElements(Constraint):
    """Every named element is there at least once.

    Equation:
        violation = sum over required e of prod over sites i of (1 - p_ie): the expected
        number of missing elements, when sites are undecided independently.

    Args:
        *symbols: element symbols.

    Raises:
        DataError: no symbol is given, or one is not an element up to Lr.

    Example:
        >>> RequiredElements("Li", "O")
        contains Li and O
    """

    unit = "elements"

    def __init__(self, *symbols: str) -> None:
        self.symbols = frozenset(_known(symbols, "RequiredElements"))

    def sentence(self) -> str:
        """Return for example "contains Li and O"."""
        return f"contains {listing(sorted(self.symbols))}"

    def _numbers(self) -> list[int]:
        return [elements.atomic_number(s) for s in sorted(self.symbols)]

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the (expected) number of missing elements, shape (crystals,)."""
        if isinstance(crystals, Crystals):
            present = [(crystals.species == z).any(dim=1) for z in self._numbers()]
            return (~torch.stack(present)).sum(dim=0).float()
        absent = 1 - crystals.species[..., self._numbers()]  # (b, sites, required)
        return absent.prod(dim=1).sum(dim=-1)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether every required element is there, shape (crystals,)."""
        return self.violation(crystals) == 0


def _known(symbols: tuple[str, ...], name: str) -> tuple[str, ...]:
    if not symbols:
        raise DataError(f'{name} got no element; name at least one, as in {name}("O").')
    for symbol in symbols:
        elements.atomic_number(symbol)
    return symbols
