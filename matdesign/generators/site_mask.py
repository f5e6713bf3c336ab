"""`SiteMask`: which letters and elements the next site may have, as asked of a crystal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.layout import Layout, symmetric_layouts
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.conditions import guided
from matdesign.generators.filling import (
    Counts,
    element_mask,
    fillable,
    orbit_sizes,
    taken,
    unit_of,
)
from matdesign.generators.planning import options
from matdesign.generators.request import Choices, Request
from matdesign.generators.sampling import choose

Scores = tuple[Tensor, Callable[[Tensor], Tensor]]
"""Scores of the next letter, and what gives those of the elements on chosen letters."""


@dataclass
class Amounts:
    """Atoms that one crystal still needs of each element, or of each role of a pattern.

    Args:
        group: its space group.
        left: atoms of each role still to be placed.
        element: atomic number of each role, 0 = not chosen yet.
        known: elements that open roles may take, ascending.
        ordered: elements on one letter come in the order of their numbers.
    """

    group: int
    left: Counts
    element: list[int]
    known: Sequence[int]
    ordered: bool = True

    def __post_init__(self) -> None:
        self.whole = self.left
        self.may = [self.known] * len(self.left)
        """Elements that each open role may take, ascending."""

    def letters(self, some: Iterable[int], last: int, species: int) -> list[int]:
        """Return those of some letters that still lead to a whole crystal.

        Args:
            some: letters to choose from.
            last: letter of the site before.
            species: its element.
        """

        def leads_on(letter: int) -> bool:
            least = species if self.ordered and letter == last else 0
            lightest = [next(self._options(k, least), 0) for k in range(len(self.left))]
            return any(z and self._fits(letter, k, z) for k, z in enumerate(lightest))

        return [letter for letter in some if leads_on(letter)]

    def elements(self, letter: int) -> list[int]:
        """Return the elements that some role may put on a letter."""
        return [
            z
            for role in range(len(self.left))
            for z in self._options(role)
            if self._fits(letter, role, z)
        ]

    def place(self, letter: int, species: int, rng: torch.Generator) -> None:
        """Take one orbit off what is left.

        Args:
            letter: its letter.
            species: one of `elements`.
            rng: draws the role, where several may take the element.
        """
        takers = [
            role
            for role in range(len(self.left))
            if species in self._options(role) and self._fits(letter, role, species)
        ]
        draw = torch.randint(len(takers), (1,), generator=rng, device=rng.device)
        role = takers[int(draw)]
        self.element[role] = species
        self.left = taken(self.left, role, orbit_sizes()[self.group][letter][0])

    def _options(self, role: int, least: int = 0) -> Iterator[int]:
        """Return the elements that a role may take, none lighter than `least`."""
        if own := self.element[role]:
            return iter((own,) if own >= least else ())
        return (z for z in self.may[role] if z >= least and z not in self.element)

    def _fits(self, letter: int, role: int, z: int) -> bool:
        """Return whether all atoms find a place after a role took one on a letter.

        Where there is an order, lighter elements than z cannot follow on the letter.
        """
        size, free = orbit_sizes()[self.group][letter]
        if not 0 < size <= self.left[role]:
            return False
        rest = taken(self.left, role, size)
        if not free:
            return fillable(self.group, letter + 1, rest)
        later = None
        if self.ordered:
            held = zip(self.element, self.may, strict=True)
            heaviest = [e or max(may, default=0) for e, may in held]
            later = frozenset({role, *(k for k, e in enumerate(heaviest) if e >= z)})
        return fillable(self.group, letter, rest, later)


def wanted_amounts(request: Request, n_atoms: Tensor) -> list[tuple[Counts, list[int]]]:
    """Return atoms and element (0 = open) of each role asked for; empty without any.

    Args:
        request: what is asked of some crystals.
        n_atoms: atoms in the cell of each.
    """
    times = (n_atoms.cpu() // request.unit)[:, None]
    found: list[tuple[Counts, list[int]]] = []
    both = (request.formula * times).tolist(), (request.pattern * times).tolist()
    for formula, pattern in zip(*both, strict=True):
        kinds = [z for z, k in enumerate(formula) if k]
        counts = tuple(k for k in formula if k) or tuple(k for k in pattern if k)
        found.append((counts, kinds or [0] * len(counts)))
    return found


def layout_of(group: Tensor, letter: Tensor, *, cells: bool) -> Layout:
    """Return the layouts of groups and letters (`NONE` on padding); P1 for `cells`."""
    if cells or not len(letter):
        return Layout.whole_cell((letter < NONE).sum(1).cpu())
    rows = [[w for w in row if w < NONE] for row in letter.tolist()]
    return symmetric_layouts(group.tolist(), rows)


class SiteMask:
    """Which letters and elements the next site of each crystal may have, as asked.

    A formula is looked ahead of exactly. The elements of a pattern, and those on which
    constraints have a say, are looked ahead of roughly: it rules out too little, never
    too much, so that a crystal may come to a dead end and is begun again.

    Args:
        group: space groups, shape (crystals,).
        wanted: atoms and element of each role, for each crystal; see `wanted_amounts`.
        choices: what is asked of all elements together; None = nothing.
        known: elements that the model knows, bool, shape (104,).
        ordered: elements on one letter come in the order of their numbers.
    """

    def __init__(
        self,
        group: Tensor,
        wanted: Sequence[tuple[Counts, list[int]]],
        choices: Choices | None,
        known: Tensor,
        *,
        ordered: bool = True,
    ) -> None:
        self.group, self.choices = group, choices
        self.known, self.ordered = known, ordered
        listed = known.nonzero().squeeze(1).tolist()
        self.amounts = {
            row: Amounts(g, counts, [*kinds], listed, ordered)
            for row, (g, (counts, kinds)) in enumerate(zip(group.tolist(), wanted))
            if counts
        }
        self.given = torch.zeros_like(group, dtype=torch.bool)
        self.given[list(self.amounts)] = True
        """Crystals of which a formula or a pattern is asked."""
        self.sites: list[tuple[Tensor, Tensor]] = []
        """Element and atoms of each site so far, each of shape (crystals,)."""

    def letters(
        self, may: Tensor, active: Tensor, last: Tensor, species: Tensor
    ) -> Tensor:
        """Return which letters may come next, bool, shape (crystals, letters).

        Args:
            may: those to choose from, of that shape.
            active: crystals that are not finished, bool, shape (crystals,).
            last: letter of the site before.
            species: its element.
        """
        open_, may = self._unfinished(active), may.clone()
        if self.choices is not None and any(0 in one.element for one in open_.values()):
            self._restrict(list(open_.values()))
        for row, one in open_.items():
            some = may[row].nonzero().squeeze(1).tolist()
            fit = one.letters(some, int(last[row]), int(species[row]))
            may[row] = False
            may[row, fit] = True
        return may

    def elements(
        self, may: Tensor, active: Tensor, letter: Tensor, left: Tensor
    ) -> Tensor:
        """Return which elements may stand on a chosen letter, bool, (crystals, 104).

        Args:
            may: those to choose from, of that shape.
            active: crystals that are not finished, bool, shape (crystals,).
            letter: chosen for each.
            left: atoms that are still to be placed, this site's too.
        """
        may = may.clone()
        for row, one in self._unfinished(active).items():
            fit = torch.zeros_like(may[row])
            fit[one.elements(int(letter[row]))] = True
            may[row] &= fit
        rows = (active & ~self.given).nonzero().squeeze(1)
        if self.choices is not None and len(rows):
            may[rows] = self._choices(rows, may[rows], letter, left)
        return may

    def sequences(
        self,
        read: Callable[..., Scores],
        follow: Callable[[Tensor, Tensor, Tensor], Tensor],
        left: Tensor,
        active: Tensor,
        rng: torch.Generator,
        *,
        first: Sequence[tuple[Tensor, Tensor]] = (),
        copies: int = 1,
        scale: float = 1.0,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return letter and element of each site, drawn one after the other.

        Args:
            read: what the network says, from the number of the site, and in columns which
                crystals are not finished, letter and element before, and atoms left.
            follow: which letters may come after a letter and element, so many atoms being
                left, bool, (crystals, 27). One more column is the end of the crystal;
                without it a crystal ends when no atoms are left.
            left: atoms for which there is room, shape (crystals,).
            active: crystals that are drawn at all, bool, shape (crystals,).
            rng: source of randomness, on the model's device.
            first: letter and element of the first sites, the same for all crystals.
            copies: 2 where `read` sees all crystals twice, without and with a condition.
            scale: of classifier-free guidance, on all logits.
            temperature: of `choose`.

        Returns:
            Letters and elements, `NONE` and 0 from the end on, (crystals, sites); and the
            atoms that are left.
        """

        def pick(score: Tensor, may: Tensor, rows: Tensor) -> Tensor:
            score = guided(score, copies, scale)[rows]
            return choose(score.masked_fill(~may[rows], -torch.inf), rng, temperature)

        letter, species = torch.full_like(left, NONE), torch.zeros_like(left)
        drawn = [torch.empty(2, 0, len(left)).to(left)]
        for step in range(int(left.max()) if len(left) else 0):
            if step and not bool(active.any()):
                break
            site = letter, species, left
            wide = (x.repeat(copies)[:, None] for x in (active, *site))
            scores, may = read(step, *wide), follow(*site)
            ending = may.shape[1] > NONE
            may[:, NONE:] |= ~active[:, None]
            if not ending:  # what is finished or stuck draws no more random numbers
                may &= active[:, None]
            if step < len(first):
                letter, species = first[step]
            else:
                letter, species = self._draw(pick, scores, may, active, site)
            active = active & (species > 0)
            letter = torch.where(active, letter, NONE)
            species = torch.where(active, species, 0)
            left = left - self.place(active, letter, species, rng)
            drawn.append(torch.stack([letter, species])[:, None])
            active = active & (ending | (left > 0))
        letters, kinds = torch.cat(drawn, 1).transpose(1, 2)
        return letters, kinds, left

    def _draw(
        self,
        pick: Callable[[Tensor, Tensor, Tensor], Tensor],
        scores: Scores,
        may: Tensor,
        active: Tensor,
        site: tuple[Tensor, Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return letter and element of one more site, `NONE` and 0 where none can be.

        A letter that no element can take is drawn again. So is an element after which
        nothing fits on the last letter of a group, where no lighter one can follow.
        """
        (last, species, left), may = site, may.clone()
        may[:, :NONE] = self.letters(may[:, :NONE], active, last, species)
        letter, found = torch.full_like(last, NONE), torch.zeros_like(last)
        least = species if self.ordered else torch.where(self.given, 0, species)
        fits = torch.zeros_like(self.known).repeat(len(last), 1)
        todo = may.any(1)
        while bool(todo.any()):
            letter[todo] = pick(scores[0], may, todo)
            todo = todo & (letter < NONE)
            some = element_mask(self.known, letter, last, least)
            fits[todo] = self.elements(some, todo, letter, left)[todo]
            todo = todo & ~fits.any(1)
            may[todo, letter[todo]] = False
            letter[todo] = NONE
            todo = todo & may.any(1)
        twice = letter.repeat(len(scores[0]) // len(letter))[:, None]
        rows, score = fits.any(1).nonzero().squeeze(1), scores[1](twice)
        while len(rows):
            z = pick(score, fits, rows)
            found[rows] = z
            if self.choices is None:
                break
            rows, z = rows[~self.given[rows]], z[~self.given[rows]]
            if len(rows):
                one = torch.nn.functional.one_hot(z, len(self.known)).bool()
                lost = ~self._choices(rows, one, letter, left, z).any(1)
                rows, z = rows[lost], z[lost]
                found[rows], fits[rows, z] = 0, False
                rows = rows[fits[rows].any(1)]
        return letter, found

    def place(
        self, active: Tensor, letter: Tensor, species: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Take notice of one more site, and return its atoms, shape (crystals,)."""
        for row, one in self._unfinished(active).items():
            one.place(int(letter[row]), int(species[row]), rng)
        count = wyckoff_table(str(letter.device)).count
        size = torch.where(active, count[self.group, letter], 0)
        self.sites.append((species, size))
        return size

    def _unfinished(self, active: Tensor) -> dict[int, Amounts]:
        there = active.tolist()
        return {row: one for row, one in self.amounts.items() if there[row]}

    def _restrict(self, several: list[Amounts]) -> None:
        """Leave to open roles the elements with which constraints can still be met."""

        def rows(values: Iterable[Sequence[int]], blank: int) -> Tensor:
            listed = [torch.tensor(one, device=self.known.device) for one in values]
            return pad_sequence(listed, batch_first=True, padding_value=blank)

        species = rows([[z or MASK for z in one.element] for one in several], 0)
        counts = rows([one.whole for one in several], 0)
        role = rows([range(len(one.whole)) for one in several], -1)
        assert self.choices is not None
        may = self.choices(species, counts, role, options(species, self.known))
        for one, mine in zip(several, may.cpu(), strict=True):
            one.may = [row.nonzero().squeeze(1).tolist() for row in mine]

    def _choices(
        self,
        rows: Tensor,
        may: Tensor,
        letter: Tensor,
        left: Tensor,
        least: Tensor | None = None,
    ) -> Tensor:
        """Return which elements of `may` the next site of some crystals may have.

        The atoms that come after it are thought of as open orbits of as many atoms as
        the sizes of all letters to come have in common, on the last letter of a group
        with elements not lighter than `least`.
        """
        assert self.choices is not None
        table, group = wyckoff_table(str(rows.device)), self.group[rows]
        letter = letter[rows]
        size = table.count[group, letter]
        left = left[rows] - size
        first = torch.where(table.freedom[group, letter] > 0, letter, letter + 1)
        asked = zip(group.tolist(), first.tolist(), left.tolist(), strict=True)
        unit = torch.tensor([unit_of(*one) for one in asked], device=rows.device)
        many = left // unit
        rest = torch.arange(int(many.max()), device=rows.device) < many[:, None]
        sites = [(z[rows], n[rows]) for z, n in self.sites]
        kinds, counts = zip(*sites, (torch.full_like(size, MASK), size), strict=True)
        species = torch.cat([torch.stack(kinds, 1), rest * MASK], 1)
        sizes = torch.cat([torch.stack(counts, 1), rest * unit[:, None]], 1)
        among, at = options(species, self.known), len(sites)
        among[:, at] &= may
        if least is not None:
            number = torch.arange(len(self.known), device=rows.device)
            others = table.count[group, letter + 1] > 0  # letters have no gaps
            heavy = (number >= least[:, None]) | others[:, None]
            among[:, at + 1 :] &= heavy[:, None]
        found = self.choices(species, sizes, None, among)
        whole = (found.any(-1) | (species == 0)).all(1)
        return found[:, at] & whole[:, None]
