"""Templates for a composition: training crystals vote with their elements replaced."""

from __future__ import annotations

import itertools
import math
from functools import cache

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.generators.features import chemistry_code
from matdesign.generators.request import Request
from matdesign.generators.template_index import ABSENT, Index, pick

NEAREST = 400
"""Candidates of one composition that are weighed; the others weigh nothing."""

MOST_ORDERS = 720
"""Most ways to place elements that are all tried; above, the cheapest one is taken."""

MOST_TRIES = 2000
"""Steps after which the search for a way to fill one template is given up."""

Drawn = tuple[Tensor, Tensor]
"""A template for each crystal, and the element or role of each of its orbits."""


@cache
def distances() -> Tensor:
    """Return how unlike two elements are, shape (104, 104).

    The distance of their chemistry codes; a period apart matters less than a group apart.
    """
    code = chemistry_code()[: elements.MAX_Z + 1].clone()
    code[:, :7] *= 0.3
    return torch.cdist(code, code)


def vote(
    index: Index,
    request: Request,
    one: int,
    n: int,
    rng: torch.Generator,
    *,
    tau: float,
    temperature: float,
) -> Drawn | None:
    """Return templates with the element of each orbit for a formula.

    Args:
        index: the training set.
        request: what is asked for.
        one: which crystal of it.
        n: how many crystals to make.
        rng: source of randomness.
        tau: width of the similarity of elements.
        temperature: below 1, the template with most votes is drawn more often.

    Returns:
        Templates (n,) and species (n, orbits); None where no template can hold the
        formula.
    """
    counts = request.formula[one]
    amounts, order = counts[counts > 0].sort(descending=True, stable=True)
    asked = counts.nonzero().squeeze(1)[order]
    shape = tuple(amounts.tolist())
    found = [
        candidates(index, request, one, key, rows, asked, tau)
        for key, rows in index.multiples(shape, request, one)
    ]
    if not found:
        return fill(index, request, one, n, shape, asked, rng)
    template, species, cost = (torch.cat(parts) for parts in zip(*found, strict=True))
    near = cost.argsort(stable=True)[:NEAREST]
    cost = cost[near]
    votes = torch.exp(-(cost - cost[0]) / tau).double()
    names = torch.cat([template[near, None], species[near]], dim=1)
    kinds, which = names.unique(dim=0, return_inverse=True)
    share = torch.zeros(len(kinds), dtype=torch.float64).index_add_(0, which, votes)
    share = (share / share.max()) ** (1 / max(temperature, 1e-3))
    drawn = kinds[pick(share, n, rng)]
    return drawn[:, 0], drawn[:, 1:]


def candidates(
    index: Index,
    request: Request,
    one: int,
    key: tuple[int, ...],
    rows: Tensor,
    asked: Tensor,
    tau: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows most like a composition, with their elements replaced.

    Args:
        index: the training set.
        request: what is asked for.
        one: which crystal of it.
        key: atoms of each element, largest first.
        rows: the rows with these amounts.
        asked: elements of the composition in the order of `key`.
        tau: width of the similarity; a row far outside an asked property range costs as
            much as its weight says.

    Returns:
        Template, species of the orbits, and cost of each candidate.
    """
    table, kinds, ways = distances(), index.kinds[rows, : len(key)], orders(key)
    if ways is not None:
        placed = asked[ways]  # (ways, k): the element that takes each slot
        cost = table[kinds[:, None], placed[None]].mean(-1)  # (rows, ways)
        near = cost.flatten().argsort(stable=True)[: 4 * NEAREST]
        row, cost = near // len(ways), cost.flatten()[near]
        taken = placed[near % len(ways)]
    else:
        taken = cheapest(table, kinds, key, asked)
        cost = table[kinds, taken].mean(-1)
        row = torch.arange(len(rows))
    if index.labels.shape[1] and request.condition.given[one].any():
        weight = index.nearness(request, one, rows)[row]
        cost = cost - tau * weight.clamp(min=1e-9).log()
    at = rows[row]
    slot, letter = index.slot[at], index.letters[at]  # (candidates, orbits)
    species = taken.gather(1, slot.clamp(min=0)) * (slot >= 0)
    # orbits of one letter have no order: sort their elements
    species = (letter * 1000 + species).sort(1).values % 1000
    return index.template[at], species * (letter != ABSENT), cost


def roles(
    index: Index, request: Request, one: int, n: int, rng: torch.Generator
) -> Drawn | None:
    """Return templates with the role of each orbit for a pattern, as the data has them."""
    counts = request.pattern[one]
    shape = tuple(counts[counts > 0].tolist())
    found = index.multiples(shape, request, one)
    if not found:
        kinds = torch.arange(len(shape))
        return fill(index, request, one, n, shape, kinds, rng, blank=-1)
    rows = torch.cat([part for _, part in found])
    picked = rows[pick(index.nearness(request, one, rows), n, rng)]
    return index.template[picked], index.slot[picked]


def fill(
    index: Index,
    request: Request,
    one: int,
    n: int,
    shape: tuple[int, ...],
    kinds: Tensor,
    rng: torch.Generator,
    *,
    blank: int = 0,
) -> Drawn | None:
    """Return templates of other compositions whose orbits add up to the asked one.

    Args:
        index: the training set.
        request: what is asked for.
        one: which crystal of it.
        n: how many crystals to make.
        shape: atoms of each element in the formula unit.
        kinds: what to write on the orbits of each element.
        rng: source of randomness; frequent templates are tried first.
        blank: what to write where there is no orbit.
    """
    unit, size = sum(shape), int(request.n_atoms[one])
    sizes = [k for k in index.of_size if k == size or (not size and k % unit == 0)]
    if not sizes:
        return None
    wanted = torch.cat([index.of_size[k] for k in sizes])
    wanted = wanted[index.fits(request, one, index.first[wanted])]
    if not len(wanted):
        return None
    chance = torch.rand(len(wanted), generator=rng, device=rng.device).cpu()
    order = (chance.log() / index.frequency[wanted]).argsort(descending=True)
    found: list[tuple[int, list[int]]] = []
    for t in wanted[order[:500]].tolist():
        row = index.first[t]
        counts = [c for c in index.count[row].tolist() if c]
        times = sum(counts) // unit
        places = partition(counts, [times * amount for amount in shape])
        if places is not None:
            found.append((t, places))
        if len(found) == min(n, 20):
            break
    if not found:
        return None
    filled = torch.full((n, index.slot.shape[1]), blank)
    for i in range(n):
        places = found[i % len(found)][1]
        filled[i, : len(places)] = kinds[places]
    template = torch.tensor([found[i % len(found)][0] for i in range(n)])
    return template, filled


def orders(key: tuple[int, ...]) -> Tensor | None:
    """Return the ways to put elements into slots of equal amounts, (ways, slots).

    None where there are more than `MOST_ORDERS`.

    Example:
        >>> orders((3, 1, 1)).tolist()
        [[0, 1, 2], [0, 2, 1]]
    """
    blocks = [
        list(block)
        for _, block in itertools.groupby(range(len(key)), key=lambda i: key[i])
    ]
    if math.prod(math.factorial(len(block)) for block in blocks) > MOST_ORDERS:
        return None
    ways = itertools.product(*(itertools.permutations(block) for block in blocks))
    return torch.tensor([[i for block in way for i in block] for way in ways])


def cheapest(
    table: Tensor, kinds: Tensor, key: tuple[int, ...], asked: Tensor
) -> Tensor:
    """Return the placement of least distance for each row, shape (rows, slots)."""
    from scipy.optimize import linear_sum_assignment

    amounts = torch.tensor(key)
    forbidden = 1e6 * (amounts[:, None] != amounts[None]).float()
    taken = [
        asked[linear_sum_assignment((table[row][:, asked] + forbidden).numpy())[1]]
        for row in kinds
    ]
    return torch.stack(taken)


def partition(counts: list[int], wanted: list[int]) -> list[int] | None:
    """Return which element each orbit gets so that the amounts add up, or None.

    Args:
        counts: atoms of each orbit.
        wanted: atoms of each element.

    Example:
        >>> partition([1, 1, 3], [3, 2])
        [1, 1, 0]
    """
    if sum(counts) != sum(wanted):
        return None
    order = sorted(range(len(counts)), key=lambda i: -counts[i])
    left, places, tries = list(wanted), [0] * len(counts), 0

    def place(depth: int) -> bool:
        nonlocal tries
        tries += 1
        if depth == len(order) or tries > MOST_TRIES:
            return depth == len(order)
        seen = set()
        for kind, room in enumerate(left):
            if room < counts[order[depth]] or room in seen:
                continue
            seen.add(room)
            left[kind] -= counts[order[depth]]
            places[order[depth]] = kind
            if place(depth + 1):
                return True
            left[kind] += counts[order[depth]]
        return False

    return places if place(0) else None
