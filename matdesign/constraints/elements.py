"""Constraints on which elements a crystal may and must hold."""

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint, listing
from matdesign.constraints.unfinished import Orbits, possible
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.elements import MASK
from matdesign.errors import DataError

HARMFUL = {
    "oxides or salts cause cancer, or probably do (IARC, groups 1 and 2A)": (
        *("Be", "Cr", "Co", "Ni", "As", "Cd", "Sb", "Pb"),
    ),
    "poisonous in small amounts": ("Se", "Te", "Os", "Hg", "Tl"),
    "no stable isotope": (
        *("Tc", "Pm", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu"),
        *("Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr"),
    ),
}
"""Elements that `OnlyElements.harmless` leaves out, by reason. A rule of thumb for
proposals: what a compound does is a question for toxicology, not for a list."""


class OnlyElements(Constraint):
    """Every atom is one of the named elements.

    The violation is the expected number of atoms that are something else, in atoms.

    Args:
        *symbols: element symbols, such as "Ca", "Ti", "O".
        words: what the constraint calls itself; its elements where left out.

    Raises:
        DataError: no symbol is given, or one is not an element up to Lr.

    Example:
        >>> OnlyElements("Ca", "Ti", "O")
        only Ca, O and Ti
        >>> OnlyElements.without("Pb", "Cd")
        without Cd and Pb
    """

    unit = "atoms"

    def __init__(self, *symbols: str, words: str = "") -> None:
        self.words = words
        self.symbols = frozenset(_known(symbols, "OnlyElements"))
        self.excluded = frozenset(elements.symbols()[1:]) - self.symbols
        self._numbers = [elements.atomic_number(s) for s in sorted(self.symbols)]
        self.only: frozenset[int] = frozenset(self._numbers)

    @classmethod
    def without(cls, *symbols: str, words: str = "") -> "OnlyElements":
        """Return the constraint that allows every element except the named ones."""
        excluded = frozenset(_known(symbols, "OnlyElements.without"))
        others = (s for s in elements.symbols()[1:] if s not in excluded)
        return cls(*others, words=words)

    @classmethod
    def harmless(cls) -> "OnlyElements":
        """Return the constraint that allows every element not named in `HARMFUL`."""
        harmful = (symbol for some in HARMFUL.values() for symbol in some)
        return cls.without(*harmful, words="only harmless elements")

    def sentence(self) -> str:
        """Return for example "only Ca, O and Ti"; names the shorter of the two lists."""
        if self.words:
            return self.words
        if not self.excluded:
            return "any element"
        if len(self.excluded) < len(self.symbols):
            return f"without {listing(sorted(self.excluded))}"
        return f"only {listing(sorted(self.symbols))}"

    def excludes(self, other: Constraint) -> bool:
        """Return whether the other one leaves only elements that are not among these."""
        return other.only is not None and not other.only & self.only

    def _table(self, like: Tensor) -> Tensor:
        """Return 1 for each allowed atomic number and for padding, shape (104,)."""
        table = like.new_zeros(elements.MAX_Z + 1)
        table[[0, *self._numbers]] = 1
        return table

    def allowed(self, orbits: Orbits) -> Tensor | None:
        """Return the allowed elements of each orbit; see `Constraint.allowed`."""
        table = self._table(orbits.species).bool()
        table[0] = False
        return possible(orbits) & table

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the (expected) number of forbidden atoms, shape (crystals,)."""
        if isinstance(crystals, Crystals):
            forbidden = self._table(crystals.species)[crystals.species] == 0
            return forbidden.sum(dim=1).float()
        return (crystals.species @ (1 - self._table(crystals.species))).sum(dim=1)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether no forbidden atom is there, shape (crystals,)."""
        return self._table(crystals.species).bool()[crystals.species].all(dim=1)


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
        self._numbers = [elements.atomic_number(s) for s in sorted(self.symbols)]
        self.required = frozenset(self._numbers)

    def sentence(self) -> str:
        """Return for example "contains Li and O"."""
        return f"contains {listing(sorted(self.symbols))}"

    def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return the (expected) number of missing elements, shape (crystals,)."""
        if isinstance(crystals, Crystals):
            present = [(crystals.species == z).any(dim=1) for z in self._numbers]
            return (~torch.stack(present)).sum(dim=0).float()
        absent = 1 - crystals.species[..., self._numbers]  # (b, sites, required)
        return absent.prod(dim=1).sum(dim=-1)

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether every required element is there, shape (crystals,)."""
        return self.violation(crystals) == 0

    def allowed(self, orbits: Orbits) -> Tensor | None:
        """Return what leaves room for the required elements; see `Constraint.allowed`.

        While as many orbits (or roles) are open as elements are missing, only missing
        ones may come. Exact where all open orbits may have the same elements.
        """
        species, found = orbits.species, possible(orbits)
        wanted = sorted(self.required | orbits.required)
        open_ = (species == MASK)[..., None]
        there = torch.stack([(species == z).any(1) for z in wanted], dim=1)
        missing = (~there).sum(1)  # (crystals,)
        room = _room(species, orbits.roles)
        comes = (found & open_).any(1)[:, wanted]
        met = (there | comes).all(1) & (missing <= room)
        table = found.new_zeros(len(species), elements.MAX_Z + 1)
        table[:, wanted] = ~there
        full = (missing >= room) & (missing > 0)
        only = ~(full[:, None, None] & open_) | table[:, None]
        return found & only & met[:, None, None]


def _room(species: Tensor, roles: Tensor | None) -> Tensor:
    """Return how many different elements the open orbits can still add, (crystals,)."""
    open_ = species == MASK
    if roles is None:
        return open_.sum(1)
    alone = (open_ & (roles < 0)).sum(1)
    kinds = int(roles.max()) + 1 if roles.numel() else 0
    bundles = [(open_ & (roles == r)).any(1) for r in range(kinds)]
    return torch.stack([alone, *(one.long() for one in bundles)]).sum(0)


def _known(symbols: tuple[str, ...], name: str) -> tuple[str, ...]:
    if not symbols:
        raise DataError(f'{name} got no element; name at least one, as in {name}("O").')
    for symbol in symbols:
        elements.atomic_number(symbol)
    return symbols
