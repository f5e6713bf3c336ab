"""Half-decided crystals as what is there, what is open, and what may still come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from matdesign.constraints.elements import possible
from matdesign.crystals import elements
from matdesign.crystals.elements import MASK
from matdesign.errors import DataError


class Place(NamedTuple):
    """One half-decided crystal.

    Args:
        decided: (atomic number, atoms) of what is there, by atomic number.
        items: open orbits, or open roles, as (atoms, how many such), by atoms.
        vocabulary: elements that any of them may become.
        distinct: each of them takes an element of its own.
        open: (orbit, atoms of its item) of each that more than one element is left for.
    """

    decided: tuple[tuple[int, int], ...]
    items: tuple[tuple[int, int], ...]
    vocabulary: frozenset[int]
    distinct: bool
    open: list[tuple[int, int]]


def places(
    species: Tensor, counts: Tensor, roles: Tensor | None, found: Tensor
) -> Iterator[Place | None]:
    """Yield each crystal of a batch; None where an orbit has no element left.

    Args:
        species: 0 = padding, 104 = undecided, shape (crystals, orbits).
        counts: atoms of each orbit, same shape.
        roles: role of each orbit, -1 = none, same shape; None = none.
        found: which elements each orbit may be, bool, shape (crystals, orbits, 104).

    Raises:
        DataError: open orbits with and without a role in one crystal.
    """
    choices = found.sum(-1)
    open_ = (species == MASK) & (choices > 1)
    lost = ((species > 0) & (choices == 0)).any(1)
    union = (found & open_[..., None]).any(1).cpu().numpy()
    first = found.byte().argmax(-1)
    listed = [] if roles is None else roles.tolist()
    rows = (x.tolist() for x in (species, counts, first, open_, lost))
    for b, (row, atoms, kind, free, hopeless) in enumerate(zip(*rows, strict=True)):
        if hopeless:
            yield None
            continue
        there: dict[int, int] = {}
        for z, n, e, waits in zip(row, atoms, kind, free, strict=True):
            if z and not waits:
                there[e] = there.get(e, 0) + n
        orbits = [o for o, waits in enumerate(free) if waits]
        sizes = [atoms[o] for o in orbits]
        items, distinct = sizes, False
        if orbits and listed:
            sizes, items, distinct = _by_role(listed[b], orbits, sizes)
        yield Place(
            tuple(sorted(there.items())),
            tuple(sorted((n, items.count(n)) for n in set(items))),
            _numbers(union[b].tobytes()),
            distinct,
            list(zip(orbits, sizes, strict=True)),
        )


def mask(
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
        elements_of: what an orbit of each size may become; see `Completions.elements`.
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
    met = torch.zeros(len(found), dtype=torch.bool)
    at, rows = [], []
    for b, place in enumerate(places(species, counts, roles, found)):
        allowed = elements_of(*place[:3], required, place.distinct) if place else {}
        met[b] = any(allowed.values())
        for orbit, size in place.open if place else ():
            at.append(b * found.shape[1] + orbit)
            rows.append(row_of(allowed[size]))
    answer = met[:, None, None].repeat(1, *found.shape[1:])
    if rows:
        answer.view(-1, found.shape[-1])[at] = torch.stack(rows)
    return found & answer.to(found.device)


def _by_role(
    roles: Sequence[int], orbits: list[int], sizes: list[int]
) -> tuple[list[int], list[int], bool]:
    """Return atoms of the role of each open orbit, of each open role, and if any has one.

    Args:
        roles: role of each orbit, -1 = none.
        orbits: those that are open.
        sizes: atoms of each of these.
    """
    mine = [roles[o] for o in orbits]
    if len({role >= 0 for role in mine}) > 1:
        raise DataError(
            "open orbits of one crystal must all have a role, or none of them; got "
            f"roles {roles}. Give the others a role of their own."
        )
    if mine[0] < 0:
        return sizes, sizes, False
    whole: dict[int, int] = {}
    for role, size in zip(mine, sizes, strict=True):
        whole[role] = whole.get(role, 0) + size
    return [whole[role] for role in mine], list(whole.values()), True


@lru_cache(maxsize=65536)
def _numbers(row: bytes) -> frozenset[int]:
    """Return the elements of a row of a mask."""
    return frozenset(z for z, there in enumerate(row) if there)


@lru_cache(maxsize=65536)
def row_of(found: frozenset[int]) -> Tensor:
    """Return elements as a row of a mask, bool, shape (104,); not to be written to."""
    row = torch.zeros(elements.MAX_Z + 1, dtype=torch.bool)
    row[sorted(found)] = True
    return row
