"""Roles of a composition: which element each has, and how many atoms it still needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matdesign.generators.features import MASK
from matdesign.generators.filling import Counts, Filling
from matdesign.generators.frames import Choices
from matdesign.generators.request import Request
from matdesign.generators.wyckoff_table import NONE, wyckoff_table

Mask = npt.NDArray[np.bool_]
"""A mask of one crystal: at a hundred entries NumPy is several times as fast as torch."""


@dataclass
class Roles:
    """Elements (or roles of a pattern) of one crystal, and how many atoms each still needs.

    Args:
        filling: what the letters of its space group can hold.
        left: atoms of each role still to be placed.
        element: atomic number of each role, 0 = not chosen yet.
        may: elements that each role may take, NumPy bool, shape (roles, 104); None = any.
        ordered: elements on one letter come in the order of their numbers.
    """

    filling: Filling
    left: Counts
    element: list[int]
    may: Mask | None = None
    ordered: bool = True
    _choices: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.whole = self.left

    def letters(self, allowed: list[int], last: int, species: int) -> list[int]:
        """Return the letters that still lead to a whole crystal.

        Args:
            allowed: letters to choose from.
            last: letter of the site before.
            species: its element.
        """
        self._choices = {}
        for letter in allowed:
            lowest = species if letter == last else 0
            fit = [
                k
                for k, z in enumerate(self.element)
                if (not z or z >= lowest)
                and self._fits(letter, k, z if z or letter != last else species + 1)
            ]
            if fit:
                self._choices[letter] = fit
        return list(self._choices)

    def elements(self, letter: int, fresh: Mask) -> Mask:
        """Return which elements may stand on a chosen letter, NumPy bool, shape (104,).

        Args:
            letter: one of `letters`.
            fresh: elements that a role without one may take, likewise.
        """
        mask = np.zeros_like(fresh)
        for k in self._choices[letter]:
            if self.element[k]:
                continue
            free = fresh if self.may is None else fresh & self.may[k]
            for low, high in self._alike(len(fresh)):
                if self._fits(letter, k, low):
                    mask[low:high] |= free[low:high]
        mask[self.element] = False
        for k in self._choices[letter]:
            if self.element[k]:
                mask[self.element[k]] = True
        return mask

    def _alike(self, most: int) -> list[tuple[int, int]]:
        """Return ranges of elements that the same roles may follow on a letter."""
        chosen = sorted({z + 1 for z in self.element if z}) if self.ordered else []
        return list(zip([0, *chosen], [*chosen, most], strict=True))

    def place(self, letter: int, species: int, rng: torch.Generator) -> None:
        """Take one orbit off what is left."""
        if species in self.element:
            role = self.element.index(species)
        else:
            open_roles = [
                k
                for k in self._choices[letter]
                if not self.element[k]
                and (self.may is None or bool(self.may[k, species]))
                and self._fits(letter, k, species)
            ]
            role = open_roles[0]
            if len(open_roles) > 1:
                many = len(open_roles)
                draw = torch.randint(many, (1,), generator=rng, device=rng.device)
                role = open_roles[int(draw)]
            self.element[role] = species
        size = self.filling.count[letter]
        self.left = tuple(n - size if k == role else n for k, n in enumerate(self.left))

    def _fits(self, letter: int, role: int, z: int) -> bool:
        """Return whether a role may take element z on a letter."""
        after = self.filling.after(letter, role, self.left, self._again(z))
        return after is not None

    def _again(self, z: int) -> frozenset[int] | None:
        """Return the roles that may follow element z on the same letter; None = all."""
        if not self.ordered:
            return None
        return frozenset(
            k for k, other in enumerate(self.element) if not other or other >= z
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


def wanted_roles(request: Request, row: int, n_atoms: int) -> tuple[Counts, list[int]]:
    """Return atoms and element (0 = open) of each role asked for; empty without any."""
    times = n_atoms // int(request.unit[row])
    formula = request.formula[row]
    if bool(formula.any()):
        kinds = formula.nonzero().squeeze(1).tolist()
        return tuple(int(formula[z]) * times for z in kinds), kinds
    counts = [k for k in request.pattern[row].tolist() if k]
    return tuple(k * times for k in counts), [0] * len(counts)


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


def taking(several: dict[int, Roles], may: Tensor, letter: Sequence[int]) -> Tensor:
    """Return which elements may be taken, for crystals with roles what these allow.

    Args:
        several: the roles, by crystal, after `fitting`.
        may: elements to choose from, bool, shape (crystals, 104).
        letter: chosen letter of each crystal.
    """
    rows = list(several)
    made = may[rows].cpu().numpy()
    for row, mine in zip(rows, made, strict=True):
        mine &= several[row].elements(letter[row], mine)
    return may.index_put((torch.tensor(rows),), torch.from_numpy(made).to(may.device))


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
        one.may = mine
    return (may.any(-1) | (species == 0)).all(1)
