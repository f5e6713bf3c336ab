"""Half-decided crystals as what is there, what is open, and what may still come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.errors import DataError
from matdesign.generators.features import MASK


@dataclass(frozen=True)
class Place:
    """One half-decided crystal.

    Args:
        decided: (atomic number, atoms) of what is there, by atomic number.
        items: open orbits, or open roles, as (atoms, how many such), by atoms.
        vocabulary: elements that any of them may become.
        distinct: each of them takes an element of its own.
        settled: decided orbits, and open ones that one element is left for.
        open: (orbit, atoms of its item) of the others.
    """

    decided: tuple[tuple[int, int], ...]
    items: tuple[tuple[int, int], ...]
    vocabulary: frozenset[int]
    distinct: bool
    settled: tuple[int, ...]
    open: tuple[tuple[int, int], ...]


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
    choices = found.sum(-1).tolist()
    first = found.long().argmax(-1).tolist()
    listed = roles.tolist() if roles is not None else [None] * len(species)
    open_ = (species == MASK) & (found.sum(-1) > 1)
    union = (found & open_[..., None]).any(1)
    known: dict[bytes, frozenset[int]] = {}
    rows = zip(species.tolist(), counts.tolist(), listed, strict=True)
    for b, (row, atoms, role) in enumerate(rows):
        orbits = [o for o, z in enumerate(row) if z]
        if any(not choices[b][o] for o in orbits):
            yield None
            continue
        free = [o for o in orbits if row[o] == MASK and choices[b][o] > 1]
        fixed = [o for o in orbits if o not in set(free)]
        there: Counter[int] = Counter()
        for o in fixed:
            there[first[b][o]] += atoms[o]
        of_role: Counter[int] = Counter()
        kinds = {role[o] >= 0 for o in free} if role is not None else {False}
        if len(kinds) > 1:
            raise DataError(
                "open orbits of one crystal must all have a role, or none of them; got "
                f"roles {role}. Give the others a role of their own."
            )
        distinct = True in kinds
        if distinct and role is not None:
            for o in free:
                of_role[role[o]] += atoms[o]
        sizes = [of_role[role[o]] if distinct and role else atoms[o] for o in free]
        items = Counter(of_role.values() if distinct else sizes)
        row_of = union[b].cpu()
        key = row_of.numpy().tobytes()
        if key not in known:
            known[key] = frozenset(row_of.nonzero().squeeze(1).tolist())
        yield Place(
            tuple(sorted(there.items())),
            tuple(sorted(items.items())),
            known[key],
            distinct,
            tuple(fixed),
            tuple(zip(free, sizes, strict=True)),
        )


@lru_cache(maxsize=65536)
def row_of(found: frozenset[int]) -> Tensor:
    """Return elements as a row of a mask, bool, shape (104,); not to be written to."""
    row = torch.zeros(elements.MAX_Z + 1, dtype=torch.bool)
    row[sorted(found)] = True
    return row
