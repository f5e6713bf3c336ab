"""Look-up tables over a training set's templates: which rows can serve a request."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.errors import InfeasibleTarget
from matdesign.generators.request import Request

ABSENT = 255
"""Letter of an orbit that is not there."""

SLACK = 0.2
"""How fast rows outside an asked property range lose weight, standard deviations."""


@dataclass(frozen=True, eq=False)
class Index:
    """Look-up tables over the rows of `Templates`, on the CPU.

    Args:
        spacegroup: space group of each row, long, shape (rows,).
        letters: letter of each orbit, `ABSENT` on padding, shape (rows, orbits).
        count: atoms of each orbit in the primitive cell, shape (rows, orbits).
        labels: standardised properties of each row, NaN unknown, (rows, properties).
        template: number of each row's (space group, letters), long, shape (rows,).
        first: a row that has it, long, shape (templates,).
        frequency: number of rows of each template, shape (templates,).
        n_atoms: atoms in the primitive cell, shape (rows,).
        slot: which of the row's elements each orbit has, counted from the most frequent
            one, -1 on padding, long, shape (rows, orbits).
        kinds: the row's elements in that order, 0 beyond, shape (rows, slots).
        rows_of: amounts of the elements, largest first -> the rows that have them.
        of_size: atoms -> templates of that size.
    """

    spacegroup: Tensor
    letters: Tensor
    count: Tensor
    labels: Tensor
    template: Tensor
    first: Tensor
    frequency: Tensor
    n_atoms: Tensor
    slot: Tensor
    kinds: Tensor
    rows_of: dict[tuple[int, ...], Tensor]
    of_size: dict[int, Tensor]

    def __len__(self) -> int:
        return len(self.spacegroup)

    def fits(self, request: Request, one: int, rows: Tensor) -> Tensor:
        """Return which rows have the asked number of atoms and space group."""
        fit = torch.ones(len(rows), dtype=torch.bool)
        if int(request.n_atoms[one]):
            fit &= self.n_atoms[rows] == request.n_atoms[one]
        if request.groups is not None:
            fit &= request.groups[self.spacegroup[rows]]
        return fit

    def serving(self, request: Request, one: int) -> Tensor:
        """Return the rows that may serve a crystal whose species are open.

        Raises:
            InfeasibleTarget: there is none; names what is nearest.
        """
        every = torch.arange(len(self))
        rows = every[self.fits(request, one, every)]
        if len(rows):
            return rows
        asked, groups = request.words(one), self.spacegroup
        if request.groups is not None and not request.groups[groups].any():
            often = groups.bincount().argsort(descending=True)[:8].tolist()
            raise InfeasibleTarget(
                f"no training crystal has {asked}. The most frequent space groups are "
                f"{', '.join(map(str, often))}; for others use the representation "
                '"cell" or the autoregressive model.'
            )
        inside = every if request.groups is None else every[request.groups[groups]]
        sizes = self.n_atoms[inside].unique()
        gap = (sizes - request.n_atoms[one]).abs()
        near = sizes[gap.argsort(stable=True)[:4]].sort().values.tolist()
        raise InfeasibleTarget(
            f"no training crystal has {asked}. The nearest sizes are "
            f"{', '.join(map(str, near))} atoms; for others use the representation "
            '"cell" or the autoregressive model.'
        )

    def multiples(
        self, shape: tuple[int, ...], request: Request, one: int
    ) -> list[tuple[tuple[int, ...], Tensor]]:
        """Return amounts that are multiples of a formula's, with the rows that fit.

        Args:
            shape: atoms of each element in the formula unit, largest first.
            request: what is asked for.
            one: which crystal of it.
        """
        unit, size = sum(shape), int(request.n_atoms[one])
        most = (size or max(self.of_size)) // unit
        found = []
        for times in range(most if size else 1, most + 1):
            key = tuple(times * amount for amount in shape)
            rows = self.rows_of.get(key)
            if rows is not None:
                rows = rows[self.fits(request, one, rows)]
                if len(rows):
                    found.append((key, rows))
        return found

    def nearness(self, request: Request, one: int, rows: Tensor) -> Tensor:
        """Return a weight for each row: 1 inside all asked ranges, less outside.

        Equation:
            w = exp(-1/2 sum over properties ((d - min d) / slack)^2), with d how far
            the row's value is outside the range, in standard deviations.
        """
        weight, asked = torch.ones(len(rows)), request.condition
        for p in range(min(self.labels.shape[1], asked.given.shape[1])):
            if asked.given[one, p]:
                value = self.labels[rows, p]
                outside = (asked.low[one, p] - value).clamp(min=0)
                outside = outside + (value - asked.high[one, p]).clamp(min=0)
                outside = torch.where(value.isfinite(), outside, 1.0)
                far = (outside - outside.min()) / SLACK
                weight = weight * torch.exp(-0.5 * far.square())
        return weight


def build(
    spacegroup: Tensor, letters: Tensor, species: Tensor, count: Tensor, labels: Tensor
) -> Index:
    """Return the look-up tables of a training set.

    Args:
        spacegroup: number of each row, long, shape (rows,).
        letters: letter of each orbit, ascending, `ABSENT` on padding, (rows, orbits).
        species: its element, 0 on padding.
        count: its atoms in the primitive cell, 0 on padding.
        labels: standardised properties, NaN unknown, shape (rows, properties).
    """
    rows = len(letters)
    names = torch.cat([spacegroup[:, None], letters], dim=1)
    found, template = names.unique(dim=0, return_inverse=True)
    first = torch.full((len(found),), rows).scatter_reduce(
        0, template, torch.arange(rows), "amin"
    )
    per_element = torch.zeros(rows, elements.MAX_Z + 1, dtype=torch.long)
    per_element.scatter_add_(1, species, count)
    per_element[:, 0] = 0
    # most atoms first; the sort is stable, so equal amounts stand by atomic number
    amounts, kinds = per_element.sort(dim=1, descending=True, stable=True)
    slots = max(1, int((amounts > 0).sum(1).max()))
    amounts = amounts[:, :slots]
    kinds = kinds[:, :slots] * (amounts > 0)
    slot = (species[:, :, None] == kinds[:, None]).to(torch.uint8).argmax(-1)
    slot = slot.masked_fill(letters == ABSENT, -1)
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(amounts.tolist()):
        rows_of.setdefault(tuple(a for a in row if a), []).append(i)
    n_atoms = count.sum(1)
    sizes = n_atoms[first]
    return Index(
        spacegroup,
        letters,
        count,
        labels,
        template,
        first,
        template.bincount(minlength=len(found)),
        n_atoms,
        slot,
        kinds,
        {key: torch.tensor(listed) for key, listed in rows_of.items()},
        {int(k): (sizes == k).nonzero().squeeze(1) for k in sizes.unique()},
    )


def pick(weight: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Return n positions drawn by weight, with repetition, on the CPU."""
    total = weight.double().cumsum(0)
    cut = torch.rand(n, generator=rng, device=rng.device, dtype=torch.float64).cpu()
    drawn = torch.searchsorted(total, cut * total[-1], right=True)
    return drawn.clamp(max=len(weight) - 1)
