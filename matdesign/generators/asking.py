"""Asking about elements in the order of drawing, where that costs less than a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.generators.choices import Choices
from matdesign.generators.rests import Rests

DRAWS = 5
"""Elements that are asked about before all that could be there is worked out."""


class Question(NamedTuple):
    """A crystal that gets one more orbit.

    Args:
        there: atoms of each element so far.
        size: atoms of the orbit.
        ways: sets of orbits, any of which may follow.
        rising: whether these can hold no lighter element than the orbit does.
    """

    there: dict[int, int]
    size: int
    ways: Rests
    rising: bool


def perturbed(score: Tensor, rng: torch.Generator, temperature: float = 1.0) -> Tensor:
    """Return scores with noise, so that the largest of a row is drawn, not just chosen.

    The others follow in the order in which they would be drawn if the larger ones were
    refused one by one.

    Equation:
        argmax_z (score_z + T g_z) is distributed as softmax(score / T);  g = -ln(-ln u)

    Args:
        score: log weights, shape (..., choices).
        rng: source of randomness.
        temperature: T; 0 gives the scores themselves.

    Source:
        E. J. Gumbel, Statistical theory of extreme values (1954); the order of all:
        R. D. Luce, Individual choice behavior (1959).
    """
    noise = torch.rand(score.shape, generator=rng, device=rng.device).to(score.device)
    return score - temperature * torch.log(-torch.log(noise.clamp(1e-12, 1 - 1e-7)))


def first_allowed(
    choices: Choices,
    ranked: Tensor,
    known: Tensor,
    questions: Callable[[], Sequence[Question]],
    mask: Callable[[], Tensor],
) -> Tensor:
    """Return the first element of each crystal with which it can be finished, else 0.

    Where choices are quick to say whether a crystal can be finished, elements are asked
    about in their order, and only after `DRAWS` refusals all that could be there is
    worked out; for the last orbit, where most are refused, at once.

    Args:
        choices: what is asked.
        ranked: order of the elements, largest first, -inf where one cannot be, shape
            (crystals, 104); `perturbed` scores draw within what is allowed.
        known: elements that may follow, bool, shape (104,).
        questions: gives the crystals; called only where choices are quick.
        mask: gives the elements that they may take, bool, shape (crystals, 104); called
            only where choices are not.
    """
    if not choices.quick:
        return _first(ranked.masked_fill(~mask(), -torch.inf))
    asked, row = questions(), known.cpu().numpy().tobytes()
    last = [i for i, one in enumerate(asked) if one.there and one.ways == ((),)]
    rest = sorted(set(range(len(asked))) - set(last))

    def left(rows: list[int]) -> Tensor:
        may = [_possible(choices, asked[i], row) for i in rows]
        return ranked[rows].masked_fill(~torch.stack(may).to(found.device), -torch.inf)

    def whole(rows: list[int]) -> Callable[[int, int], bool]:
        return lambda k, z: _whole(choices, asked[rows[k]], z, row)

    found = torch.zeros(len(asked), dtype=torch.long, device=ranked.device)
    if last:
        found[last] = _first(left(last))
    found[rest] = first_accepted(ranked[rest], whole(rest), DRAWS)
    refused = [i for i in rest if not found[i]]
    if refused:
        found[refused] = first_accepted(left(refused), whole(refused), len(known))
    return found


def first_accepted(
    ranked: Tensor, accepts: Callable[[int, int], bool], most: int
) -> Tensor:
    """Return the first element of each row that is accepted, 0 where none is.

    Args:
        ranked: order of the elements, largest first, -inf where one cannot be, shape
            (rows, 104).
        accepts: whether a row may take an element.
        most: elements to ask about.
    """
    best = ranked.topk(most)
    there = best.values.isfinite().sum(1).tolist()
    rows = enumerate(zip(best.indices.tolist(), there, strict=True))
    found = [
        next((z for z in kinds[:many] if accepts(k, z)), 0) for k, (kinds, many) in rows
    ]
    return torch.tensor(found, dtype=torch.long, device=ranked.device)


def _possible(choices: Choices, asked: Question, row: bytes) -> Tensor:
    """Return which elements an orbit may have, bool, shape (104,)."""
    there, size, ways, _ = asked
    may = _numbers(row, 0)
    left = [choices.next_elements(there, size, way, may) for way in ways]
    if len(left) == 1:
        return left[0]
    return torch.stack(left).any(0) if left else torch.zeros(MASK, dtype=torch.bool)


def _whole(choices: Choices, asked: Question, z: int, row: bytes) -> bool:
    """Return whether a crystal can be finished once its orbit has an element."""
    there = {**asked.there, z: asked.there.get(z, 0) + asked.size}
    may = _numbers(row, z if asked.rising else 0)
    return any(choices.completable(there, way, may) for way in asked.ways)


def _first(ranked: Tensor) -> Tensor:
    """Return the largest of each row, 0 where nothing is left."""
    best = ranked.max(1)
    return torch.where(best.values.isfinite(), best.indices, 0)


def atoms_of(species: Sequence[int], counts: Sequence[int]) -> dict[int, int]:
    """Return the atoms of each element of one crystal; open orbits and padding left out.

    Args:
        species: element of each orbit, 0 = padding, 104 = open.
        counts: atoms of each.
    """
    found: dict[int, int] = {}
    for z, atoms in zip(species, counts, strict=True):
        if 0 < z < MASK:
            found[z] = found.get(z, 0) + atoms
    return found


@lru_cache(maxsize=1024)
def _numbers(row: bytes, lowest: int) -> frozenset[int]:
    """Return the atomic numbers of a mask that are not below one."""
    return frozenset(z for z, there in enumerate(row) if there and z >= lowest)
