"""Crystals of which some elements are undecided, as rules about elements read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.errors import DataError


class Unfinished(NamedTuple):
    """One crystal of which some elements are undecided.

    Args:
        there: atoms of each element that is decided, by atomic number.
        sizes: atoms of each open orbit, or of each open role.
        vocabulary: elements that any of them may become.
        distinct: each of them takes an element of its own.
        open: (orbit, atoms of it or of its role) where more than one element is left.
    """

    there: dict[int, int]
    sizes: tuple[int, ...]
    vocabulary: frozenset[int]
    distinct: bool
    open: list[tuple[int, int]]


def possible(species: Tensor, within: Tensor | None = None) -> Tensor:
    """Return what each orbit may be: what it is, or anything within while it is open.

    Args:
        species: 0 = padding, 104 = undecided, shape (crystals, orbits).
        within: bool, shape (104,) or (crystals, orbits, 104); None = every element.

    Returns:
        Bool, shape (crystals, orbits, 104); padding allows nothing.
    """
    table = torch.eye(MASK + 1, MASK, dtype=torch.bool, device=species.device)
    table[MASK] = True
    table[:, 0] = False
    found = table[species]
    return found if within is None else found & within.to(found.device)


def feasibility_mask(
    elements_of: Callable[..., dict[int, frozenset[int]]],
    species: Tensor,
    counts: Tensor,
    roles: Tensor | None = None,
    within: Tensor | None = None,
    required: frozenset[int] = frozenset(),
) -> Tensor:
    """Return which elements each orbit may become; see `Constraint.allowed`.

    An open orbit with one element left within counts as decided. The others are judged
    with all that any of them may be: exact when that is the same for all of them, and
    else a mask that rules out too little, never too much.

    Args:
        elements_of: what an orbit of each size may become; see `Neutrality.elements`.
        species: 0 = padding, 104 = undecided, shape (crystals, orbits).
        counts: atoms of each orbit, same shape.
        roles: role of each orbit, -1 = none; either all open orbits of a crystal have
            one or none.
        within: what else allows, bool, shape (104,) or (crystals, orbits, 104).
        required: elements that must be there.

    Raises:
        DataError: open orbits with and without a role in one crystal.
    """
    found = possible(species, within)
    answer = torch.zeros_like(found, device="cpu")
    for b, one in enumerate(unfinished(species, counts, roles, found)):
        if one is None:
            continue
        allowed = elements_of(*one[:3], required, one.distinct)
        answer[b] = any(allowed.values())
        for size, kinds in allowed.items() if one.open else ():
            row = torch.zeros(MASK, dtype=torch.bool)
            row[sorted(kinds)] = True
            answer[b, [orbit for orbit, n in one.open if n == size]] = row
    return found & answer.to(found.device)


def unfinished(
    species: Tensor, counts: Tensor, roles: Tensor | None, found: Tensor
) -> Iterator[Unfinished | None]:
    """Yield each crystal of a batch; None where an orbit has no element left.

    Args:
        species: 0 = padding, 104 = undecided, shape (crystals, orbits).
        counts: atoms of each orbit, same shape.
        roles: role of each orbit, -1 = none, same shape; None = none.
        found: which elements each orbit may be, bool, shape (crystals, orbits, 104).

    Raises:
        DataError: open orbits with and without a role in one crystal.
    """
    left = found.sum(-1)
    open_ = (species == MASK) & (left > 1)
    lost = ((species > 0) & (left == 0)).any(1)
    union = (found & open_[..., None]).any(1).cpu().numpy()
    only = found.byte().argmax(-1)
    role = torch.full_like(species, -1) if roles is None else roles
    rows = (x.tolist() for x in (species, counts, only, open_, role, lost))
    for b, (row, atoms, element, waits, part, hopeless) in enumerate(zip(*rows)):
        if hopeless:
            yield None
            continue
        there: dict[int, int] = {}
        for z, n, e, waiting in zip(row, atoms, element, waits, strict=True):
            if z and not waiting:
                there[e] = there.get(e, 0) + n
        orbits = [o for o, waiting in enumerate(waits) if waiting]
        if len({part[o] < 0 for o in orbits}) > 1:
            raise DataError(
                "open orbits of one crystal must all have a role, or none of them; got "
                f"roles {part}. Give the others a role of their own."
            )
        distinct = bool(orbits) and part[orbits[0]] >= 0
        whole: dict[int, int] = {}  # atoms of each open role, or of each open orbit
        for o in orbits:
            key = part[o] if distinct else o
            whole[key] = whole.get(key, 0) + atoms[o]
        yield Unfinished(
            there,
            tuple(sorted(whole.values())),
            _numbers(union[b].tobytes()),
            distinct,
            [(o, whole[part[o] if distinct else o]) for o in orbits],
        )


@lru_cache(maxsize=10_000)
def _numbers(row: bytes) -> frozenset[int]:
    """Return the elements of a row of a mask."""
    return frozenset(z for z, there in enumerate(row) if there)


def amounts_of(species: list[int]) -> dict[int, int]:
    """Return the number of atoms of each element, padding left out."""
    found: dict[int, int] = {}
    for z in species:
        if z:
            found[z] = found.get(z, 0) + 1
    return found
