"""Roles of a composition: which element each has, and how many atoms it still needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.filling import Counts, Filling
from matdesign.generators.request import Choices, Request

Mask = npt.NDArray[np.bool_]
"""A mask of one crystal: at a hundred entries NumPy is several times as fast as torch."""

After = tuple[frozenset[int], tuple[int, ...]]
"""Roles that may follow an element on its letter; elements that can come only elsewhere."""


@dataclass
class Roles:
    """Elements (or roles of a pattern) of one crystal, and how many atoms each still needs.

    Args:
        filling: what the letters of its space group can hold.
        left: atoms of each role still to be placed.
        element: atomic number of each role, 0 = not chosen yet.
        may: elements that each role may take, NumPy bool, shape (roles, 104); None = any.
        ordered: elements on one letter come in the order of their numbers.
        required: elements that some role must have in the end.
    """

    filling: Filling
    left: Counts
    element: list[int]
    may: Mask | None = None
    ordered: bool = True
    required: frozenset[int] = frozenset()
    _choices: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _takers: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.whole = self.left
        self.allow(self.may, self.required)

    def allow(self, may: Mask | None, required: frozenset[int]) -> None:
        """Take notice of which elements each role may have, and which must be there."""
        self.may, self.required = may, required
        self.heaviest = [MASK] * len(self.element)
        if may is not None:
            self.heaviest = (may.shape[1] - 1 - may[:, ::-1].argmax(1)).tolist()

    def letters(self, allowed: list[int], last: int, species: int) -> list[int]:
        """Return the letters that still lead to a whole crystal.

        Args:
            allowed: letters to choose from.
            last: letter of the site before.
            species: its element.
        """
        self._choices, self._takers = {}, {}
        for letter in allowed:
            fit = self.filling.roles(letter, self.left)
            if fit and self._in_order(letter):
                here = species if letter == last else 0
                fit = tuple(k for k in fit if self._follows(letter, k, here))
            if fit:
                self._choices[letter] = fit
        return list(self._choices)

    def worth_asking(self, letter: int, most: int) -> Mask | None:
        """Return which elements a role might put on a chosen letter, (most,); None = any.

        Args:
            letter: one of `letters`.
            most: number of elements.
        """
        choices = self._choices[letter]
        if any(not self.element[k] for k in choices):
            return None if self.may is None else np.any(self.may, 0)
        mask = np.zeros(most, bool)
        mask[[self.element[k] for k in choices]] = True
        return mask

    def takers(self, letter: int, z: int) -> list[int]:
        """Return the roles that may put an element on a chosen letter.

        Args:
            letter: one of `letters`.
            z: the element.
        """
        if (letter, z) not in self._takers:
            self._takers[letter, z] = self._find_takers(letter, z)
        return self._takers[letter, z]

    def _find_takers(self, letter: int, z: int) -> list[int]:
        choices = self._choices[letter]
        if z in self.element:
            return [k for k in choices if self.element[k] == z]
        free = [
            k
            for k in choices
            if not self.element[k] and (self.may is None or self.may[k, z])
        ]
        if not free or not self._in_order(letter):
            return free
        after = self._after(z)
        return [k for k in free if self._fits(letter, k, after)]

    def place(self, letter: int, species: int, rng: torch.Generator) -> None:
        """Take one orbit off what is left.

        Args:
            letter: its letter.
            species: an element that some role may put there.
            rng: draws the role, where several may take the element.
        """
        takers = self.takers(letter, species)
        role = takers[0]
        if len(takers) > 1:
            draw = torch.randint(len(takers), (1,), generator=rng, device=rng.device)
            role = takers[int(draw)]
        self.element[role] = species
        size = self.filling.count[letter]
        self.left = tuple(n - size if k == role else n for k, n in enumerate(self.left))

    def _in_order(self, letter: int) -> bool:
        """Return whether other elements may follow on a letter, by their numbers."""
        return self.ordered and self.filling.freedom[letter] > 0

    def _after(self, z: int) -> After:
        """Return who may follow element z on its letter, and whom it must not shut out."""
        follow = frozenset(
            k
            for k, other in enumerate(self.element)
            if other >= z or (not other and self.heaviest[k] > z)
        )
        missing = [r for r in self.required if r < z and r not in self.element]
        return follow, tuple(missing)

    def _follows(self, letter: int, role: int, before: int) -> bool:
        """Return whether a role may come after an element on a letter, 0 = the first."""
        z = self.element[role]
        if not z and not before:
            return True  # whatever it becomes, as far as one can tell
        if (z or self.heaviest[role] - 1) < before:
            return False
        return self._fits(letter, role, self._after(z or before + 1))

    def _fits(self, letter: int, role: int, after: After) -> bool:
        """Return whether a role may take a place on a letter.

        Lighter elements cannot come after it there, so that for each required one that
        is missing some open role must find all of its places on other letters.

        Args:
            letter: of the place.
            role: number of the role.
            after: `_after` of its element.
        """
        again = after[0] | {role}
        if self.filling.after(letter, role, self.left, again) is None:
            return False
        return all(
            any(
                self.filling.after(letter, role, self.left, again - {k}) is not None
                for k, z in enumerate(self.element)
                if not z and k != role and (self.may is None or self.may[k, missing])
            )
            for missing in after[1]
        )


@lru_cache(maxsize=4096)
def filling(spacegroup: int, wanted: Counts) -> Filling:
    """Return what the letters of a space group can hold of several roles."""
    table = wyckoff_table()
    return Filling(
        table.count[spacegroup, :NONE].tolist(),
        table.freedom[spacegroup, :NONE].tolist(),
        wanted,
    )


def wanted_roles(request: Request, n_atoms: Tensor) -> list[tuple[Counts, list[int]]]:
    """Return atoms and element (0 = open) of each role asked for; empty without any.

    Args:
        request: what is asked of some crystals.
        n_atoms: atoms in the cell of each.
    """
    times = (n_atoms.cpu() // request.unit).tolist()
    found: list[tuple[Counts, list[int]]] = []
    for pattern, many in zip(request.pattern.tolist(), times, strict=True):
        counts = tuple(k * many for k in pattern if k)
        found.append((counts, [0] * len(counts)))
    at = request.formula.nonzero(as_tuple=True)
    named = zip(*(one.tolist() for one in (*at, request.formula[at])), strict=True)
    for row, several in groupby(named, key=itemgetter(0)):
        kinds, counts = zip(*((z, k * times[row]) for _, z, k in several), strict=True)
        found[row] = counts, list(kinds)
    return found


def some_of(several: dict[int, Roles], which: Tensor) -> dict[int, Roles]:
    """Return the roles of some crystals.

    Args:
        several: the roles, by crystal.
        which: of all crystals, bool, shape (crystals,).
    """
    there = which.tolist()
    return {row: one for row, one in several.items() if there[row]}


def fitting(
    several: dict[int, Roles], may: Tensor, last: Sequence[int], species: Sequence[int]
) -> Tensor:
    """Return which letters may come next, for crystals with roles what these allow.

    Args:
        several: the roles, by crystal.
        may: letters to choose from, bool, shape (crystals, letters).
        last: letter of the site before in each crystal.
        species: its element.
    """
    rows = list(several)
    made = may[rows].cpu().numpy()
    for row, mine in zip(rows, made, strict=True):
        some = mine.nonzero()[0].tolist()
        fit = several[row].letters(some, last[row], species[row])
        mine[:] = False
        mine[fit] = True
    return may.index_put((torch.tensor(rows),), torch.from_numpy(made).to(may.device))


def taking(roles: Sequence[Roles], ranked: Tensor, letter: Sequence[int]) -> Tensor:
    """Return the first element of each crystal that one of its roles may take, else 0.

    Args:
        roles: those of each crystal, after `fitting`.
        ranked: order of the elements, largest first, -inf where one cannot be, shape
            (crystals, 104); see `mixtures.perturbed`.
        letter: chosen letter of each crystal.
    """

    asked = (
        one.worth_asking(letter[i], ranked.shape[1]) for i, one in enumerate(roles)
    )
    left = {i: may for i, may in enumerate(asked) if may is not None}
    if left:
        some = torch.tensor(list(left)).to(ranked.device)
        may = torch.from_numpy(np.stack(list(left.values()))).to(ranked.device)
        fewer = ranked[some].masked_fill(~may, -torch.inf)
        ranked = ranked.index_put((some,), fewer)
    order = ranked.sort(1, descending=True)
    there = order.values.isfinite().sum(1).tolist()
    found = [
        next((z for z in kinds[:many] if one.takers(new, z)), 0)
        for one, new, kinds, many in zip(roles, letter, order.indices.tolist(), there)
    ]
    return torch.tensor(found, dtype=torch.long, device=ranked.device)


def tell(choices: Choices, several: Sequence[Roles], known: Tensor) -> Tensor:
    """Tell roles which elements each may take, so that all can still be taken.

    Args:
        choices: what is asked of all elements together.
        several: the roles of some crystals.
        known: elements that the model knows, bool, shape (104,).

    Returns:
        Which crystals can be finished, bool, shape (crystals,).
    """
    width = max((len(one.whole) for one in several), default=0)

    def rows(values: Callable[[Roles], Sequence[int]], blank: int) -> Tensor:
        listed = [[*values(r), *[blank] * (width - len(r.whole))] for r in several]
        made = torch.tensor(listed, dtype=torch.long, device=known.device)
        return made.view(len(several), width)

    species = rows(lambda r: [z or MASK for z in r.element], 0)
    role = rows(lambda r: range(len(r.whole)), -1)
    number = torch.arange(len(known), device=known.device)
    among = (species == MASK)[..., None] & known
    among |= (species[..., None] == number) & (number > 0)
    may = choices(species, rows(lambda r: r.whole, 0), role, among)
    for one, mine in zip(several, may.cpu().numpy(), strict=True):
        one.allow(mine, choices.required)
    return (may.any(-1) | (species == 0)).all(1)
