"""`Templates`: which arrangements the training set has, and which one to fill next."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from matdesign.crystals import elements
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import symmetric_layouts
from matdesign.errors import InfeasibleTarget
from matdesign.generators.family import Family
from matdesign.generators.layers import chemistry_code
from matdesign.generators.planning import Plan, plan_cells
from matdesign.generators.request import Request

ABSENT = 255
"""Letter of an orbit that is not there."""

SLACK = 0.2
"""How fast rows outside an asked property range lose weight, standard deviations."""

TAU, TEMPERATURE = 0.2, 0.25
"""Width of the similarity of elements, and below 1 for the template with most votes."""

NEAREST = 400
"""Candidates of one composition that are weighed; the others weigh nothing."""

MOST_ORDERS = 720
"""Most ways to place the elements of one composition that are tried."""


class Index(NamedTuple):
    """Look-up tables over the rows of `Templates`, on the CPU.

    Args:
        spacegroup: space group of each row, long, shape (rows,).
        letters: letter of each orbit, `ABSENT` on padding, shape (rows, orbits).
        n_atoms: atoms in the primitive cell, shape (rows,).
        slot: which of the row's elements each orbit has, counted from the most frequent
            one, -1 on padding, long, shape (rows, orbits).
        kinds: the row's elements in that order, 0 beyond, shape (rows, slots).
        rows_of: amounts of the elements, largest first -> the rows that have them.
    """

    spacegroup: Tensor
    letters: Tensor
    n_atoms: Tensor
    slot: Tensor
    kinds: Tensor
    rows_of: dict[tuple[int, ...], Tensor]


class Templates(nn.Module):
    """The space group, Wyckoff letters and species of every training crystal.

    A template is a space group and a Wyckoff letter for each orbit. Generators that do
    not make templates draw one here and fill it. For a composition that is to be built
    (structure prediction), a template is drawn with its species: crystals with the same
    numbers of atoms of each element vote for their own template, with their elements
    replaced by the asked ones, and those with similar elements count most. Where no
    crystal has these numbers, all atoms are free in P1.

    Equation:
        p(template, elements | composition) ~
            (sum over rows r and ways b that give it of exp(-d(r, b) / tau))^(1 / T),
        d(r, b) = mean over elements e of r of |code(e) - code(b(e))|.

    Args:
        rows: number of training crystals.
        orbits: most orbits of one of them.
        properties: number of properties whose values are kept for each row.

    Source:
        Substitution by similar elements: Hautier et al., Inorg. Chem. 50, 656 (2011);
        training templates for a diffusion model: DiffCSP++, Jiao et al., arXiv
        2402.03992. Changed: the similarity is a distance of chemistry codes, all rows
        vote, and the template is drawn, not the best taken.
    """

    spacegroup: Tensor
    letters: Tensor
    species: Tensor
    count: Tensor
    labels: Tensor

    def __init__(self, rows: int, orbits: int, properties: int = 0) -> None:
        super().__init__()
        self.register_buffer("spacegroup", torch.ones(rows, dtype=torch.uint8))
        blank = torch.zeros(rows, orbits, dtype=torch.uint8)
        self.register_buffer("letters", blank + ABSENT)
        self.register_buffer("species", blank)
        self.register_buffer("count", blank.clone())
        self.register_buffer("labels", torch.full((rows, properties), torch.nan))

    @classmethod
    def of(
        cls, encoded: Encoded, properties: Mapping[str, Sequence[float]] | None = None
    ) -> Templates:
        """Return the templates of a training set.

        Args:
            encoded: training crystals in the representation "symmetric".
            properties: name -> [mean, standard deviation], those of the model; rows in
                or near an asked range of one of these are preferred.
        """
        layout, scales = encoded.layout, dict(properties or {})
        there = layout.orbits
        made = cls(len(encoded), there.shape[1], len(scales))
        made.spacegroup.copy_(layout.spacegroup)
        made.letters.copy_(layout.letter.masked_fill(~there, ABSENT))
        made.species.copy_(encoded.species * there)
        made.count.copy_(layout.count)
        for i, (name, (mean, std)) in enumerate(scales.items()):
            if name in encoded.labels:
                made.labels[:, i] = (encoded.labels[name].float() - mean) / std
        return made

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.__dict__.pop("index", None)  # of what was held before

    def __len__(self) -> int:
        return len(self.spacegroup)

    @property
    def shape(self) -> list[int]:
        """Rows, orbits and properties: `Templates(*shape)` holds as much."""
        return [len(self), self.letters.shape[1], self.labels.shape[1]]

    @cached_property
    def index(self) -> Index:
        """The look-up tables, built at the first use."""
        parts = self.spacegroup, self.letters, self.species, self.count
        group, letters, species, count = (part.cpu().long() for part in parts)
        per_element = torch.zeros(len(self), elements.MAX_Z + 1, dtype=torch.long)
        per_element.scatter_add_(1, species, count)
        per_element[:, 0] = 0
        # most atoms first; the sort is stable: equal amounts stand by atomic number
        amounts, kinds = per_element.sort(dim=1, descending=True, stable=True)
        kinds = (kinds * (amounts > 0))[:, : letters.shape[1]]
        slot = (species[:, :, None] == kinds[:, None]).to(torch.uint8).argmax(-1)
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for i, row in enumerate(amounts.tolist()):
            rows_of.setdefault(tuple(a for a in row if a), []).append(i)
        return Index(
            group,
            letters,
            count.sum(1),
            slot.masked_fill(letters == ABSENT, -1),
            kinds,
            {key: torch.tensor(listed) for key, listed in rows_of.items()},
        )

    def choose(
        self, request: Request, rng: torch.Generator, *, shared: bool = False
    ) -> Plan:
        """Return a plan for each crystal of a request.

        Without a composition, a training row is drawn and its template taken. Property
        ranges make rows within them, or near, more likely.

        Args:
            request: what is asked for.
            rng: source of randomness.
            shared: without a composition, take from the drawn row also which orbits
                share an element, as roles.

        Returns:
            The plan, on the CPU.

        Raises:
            InfeasibleTarget: no template fits.
        """
        index, (n, width) = self.index, (len(request), self.letters.shape[1])
        row = torch.zeros(n, dtype=torch.long)
        species = torch.zeros(n, width, dtype=torch.long)
        role = torch.full_like(species, -1)
        cells = torch.zeros_like(row)  # atoms of those that no template can hold
        for one, members in request.alike():
            formula = request.formula[one]
            counts = formula if formula.any() else request.pattern[one]
            amounts, order = counts[counts > 0].sort(descending=True, stable=True)
            found = self._having(amounts.tolist(), request, one)
            if not found:
                cells[members] = self._size_of_cell(request, one, rng)
            elif formula.any():
                wanted = formula.nonzero().squeeze(1)[order]
                drawn = self._vote(request, one, found, wanted, len(members), rng)
                row[members], species[members] = drawn
            else:
                rows = torch.cat([part for _, part in found])
                weight = self._nearness(request, one, rows)
                row[members] = rows[_pick(weight, len(members), rng)]
                if shared or len(amounts):
                    role[members] = index.slot[row[members]]
        if not n:
            return plan_cells(request, row)
        letters = [[k for k in r if k != ABSENT] for r in index.letters[row].tolist()]
        layout = symmetric_layouts(index.spacegroup[row].tolist(), letters)
        width = layout.count.shape[1]
        plan = Plan(layout, species[:, :width], role[:, :width], request.condition)
        free, fits = cells.nonzero().squeeze(1), (cells == 0).nonzero().squeeze(1)
        if not len(free):
            return plan
        alone = plan_cells(request[free], cells[free])
        return Plan.cat([plan[fits], alone])[torch.cat([fits, free]).argsort()]

    def _having(
        self, amounts: list[int], request: Request, one: int
    ) -> list[tuple[tuple[int, ...], Tensor]]:
        """Return amounts that are multiples of a formula's, with the rows that fit.

        Args:
            amounts: atoms of each element in the formula unit, largest first; empty = any.
            request: what is asked for.
            one: which crystal of it.

        Raises:
            InfeasibleTarget: none where none is asked; names what is nearest.
        """
        index, size = self.index, int(request.n_atoms[one])
        inside = torch.ones(len(self), dtype=torch.bool)
        if request.groups is not None:
            inside = request.groups[index.spacegroup]
        fit = inside & (index.n_atoms == size) if size else inside
        if amounts:
            most = int(index.n_atoms.max()) // sum(amounts)
            keys = [tuple(t * a for a in amounts) for t in range(1, most + 1)]
            held = ((key, index.rows_of[key]) for key in keys if key in index.rows_of)
            found = [(key, rows[fit[rows]]) for key, rows in held]
            return [(key, rows) for key, rows in found if len(rows)]
        if fit.any():
            return [((), fit.nonzero().squeeze(1))]
        often = index.spacegroup.bincount().argsort(descending=True)[:8].tolist()
        near = f"The most frequent space groups are {', '.join(map(str, often))}"
        if inside.any():
            sizes = index.n_atoms[inside].unique()
            gap = (sizes - size).abs().argsort(stable=True)[:4]
            listed = sizes[gap].sort().values.tolist()
            near = f"The nearest sizes are {', '.join(map(str, listed))} atoms"
        raise InfeasibleTarget(
            f"no training crystal has {request.words(one)}. {near}; for others use the "
            'representation "cell" or the autoregressive model.'
        )

    def _nearness(self, request: Request, one: int, rows: Tensor) -> Tensor:
        """Return a weight for each row: 1 inside all asked ranges, less outside.

        Equation:
            w = exp(-1/2 sum over properties ((d - min d) / slack)^2), with d how far
            the row's value is outside the range, in standard deviations.
        """
        weight, asked = torch.ones(len(rows)), request.condition
        for p in range(min(self.labels.shape[1], asked.given.shape[1])):
            if asked.given[one, p]:
                value = self.labels[rows, p].cpu()
                outside = (asked.low[one, p] - value).clamp(min=0)
                outside = outside + (value - asked.high[one, p]).clamp(min=0)
                outside = torch.where(value.isfinite(), outside, 1.0)
                far = (outside - outside.min()) / SLACK
                weight = weight * torch.exp(-0.5 * far.square())
        return weight

    def _vote(
        self,
        request: Request,
        one: int,
        found: list[tuple[tuple[int, ...], Tensor]],
        wanted: Tensor,
        n: int,
        rng: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return n rows, and their orbits with the elements of a formula.

        Args:
            request: what is asked for.
            one: which crystal of it.
            found: of `_having`.
            wanted: elements of the formula, in the order of their amounts.
            n: how many to draw.
            rng: source of randomness.
        """
        index, parts = self.index, []
        for key, rows in found:
            placed = wanted[orders(key)]  # (ways, k): the element that takes each slot
            kinds = index.kinds[rows, : len(key)]
            every = distances()[kinds[:, None], placed[None]].mean(-1).flatten()
            near = every.argsort(stable=True)[: 4 * NEAREST]
            row, taken = near // len(placed), placed[near % len(placed)]
            cost = every[near]
            if request.condition.given[one].any():  # far outside a range costs as much
                weight = self._nearness(request, one, rows)[row]
                cost = cost - TAU * weight.clamp(min=1e-9).log()
            slot, letter = index.slot[rows[row]], index.letters[rows[row]]
            species = taken.gather(1, slot.clamp(min=0)) * (slot >= 0)
            # orbits of one letter have no order: sort their elements
            species = (letter * 1000 + species).sort(1).values % 1000
            parts.append((rows[row], species * (letter != ABSENT), cost))
        row, species, cost = (torch.cat(part) for part in zip(*parts, strict=True))
        near = cost.argsort(stable=True)[:NEAREST]
        row, species, cost = row[near], species[near], cost[near]
        group, letter = index.spacegroup[row, None], index.letters[row]
        rows = torch.cat([group, letter, species], 1)
        kinds, which = rows.unique(dim=0, return_inverse=True)
        votes = torch.exp(-(cost - cost[0]) / TAU).double()
        share = torch.zeros(len(kinds), dtype=torch.float64).index_add_(0, which, votes)
        share = (share / share.max()) ** (1 / TEMPERATURE)
        first = torch.full((len(kinds),), len(row)).scatter_reduce(
            0, which, torch.arange(len(row)), "amin"
        )[_pick(share, n, rng)]
        return row[first], species[first]

    def _size_of_cell(self, request: Request, one: int, rng: torch.Generator) -> int:
        """Return the size of a P1 cell for a composition that no template can hold."""
        if request.groups is not None and not request.groups[1]:
            raise InfeasibleTarget(
                f"no template of the training set can hold {request.words(one)}. Ask "
                "for another number of atoms or space group, or use the representation "
                '"cell" or the autoregressive model.'
            )
        unit, sizes = int(request.unit[one]), self.index.n_atoms
        if int(request.n_atoms[one]):
            return int(request.n_atoms[one])
        fitting = sizes[sizes % unit == 0]
        return int(fitting[_pick(torch.ones(len(fitting)), 1, rng)])


class Templated(Family):
    """A family whose "symmetric" models take their layouts from the training set.

    Args:
        own: of `Family`.
        templates: rows, orbits and properties of the table of templates; None = none.
        **data: what a training set gives; see `Family`.
    """

    share_elements: bool = False
    """Orbits that share an element in a template's row share one in the new crystal."""

    def __init__(
        self,
        own: dict[str, Any],
        *,
        templates: Sequence[int] | None = None,
        **data: Any,
    ) -> None:
        super().__init__({**own, "templates": templates}, **data)
        self.templates = None if templates is None else Templates(*templates)

    def count(self, data: Encoded) -> None:
        """Take the templates of a training set, in the representation "symmetric"."""
        if data.representation == "symmetric":
            self.templates = Templates.of(data, self.properties)
            self.config["templates"] = self.templates.shape

    def layouts(self, request: Request, rng: torch.Generator) -> Plan:
        """Return templates of the training set; sizes alone in "cell"."""
        if self.templates is None:
            return super().layouts(request, rng)
        return self.templates.choose(request, rng, shared=self.share_elements)


@cache
def distances() -> Tensor:
    """Return how unlike two elements are, shape (104, 104).

    The distance of their chemistry codes; a period apart matters less than a group apart.
    """
    code = chemistry_code()[: elements.MAX_Z + 1].clone()
    code[:, :7] *= 0.3
    return torch.cdist(code, code)


def orders(key: tuple[int, ...]) -> Tensor:
    """Return the ways to put elements into slots of equal amounts, (ways, slots).

    The first `MOST_ORDERS` where there are more.

    Example:
        >>> orders((3, 1, 1)).tolist()
        [[0, 1, 2], [0, 2, 1]]
    """
    blocks = itertools.groupby(range(len(key)), key=key.__getitem__)
    ways = itertools.product(*(itertools.permutations(block) for _, block in blocks))
    some = itertools.islice(ways, MOST_ORDERS)
    return torch.tensor([[i for block in way for i in block] for way in some])


def _pick(weight: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Return n positions drawn by weight, with repetition, on the CPU."""
    total = weight.double().cumsum(0)
    cut = torch.rand(n, generator=rng, device=rng.device, dtype=torch.float64).cpu()
    drawn = torch.searchsorted(total, cut * total[-1], right=True)
    return drawn.clamp(max=len(weight) - 1)
