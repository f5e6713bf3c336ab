"""Crystals of which some elements are undecided, as rules about elements read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.errors import DataError


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
    with all that any of them may be.

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
    left = found.sum(-1)
    open_ = (species == MASK) & (left > 1)
    only = found.byte().argmax(-1)
    union = (found & open_[..., None]).any(1)
    role = torch.full_like(species, -1) if roles is None else roles
    rows = zip(*(x.tolist() for x in (species, counts, only, open_, role)), strict=True)
    answer = torch.zeros_like(found, device="cpu")
    lost = ((species > 0) & (left == 0)).any(1).tolist()
    for b, (row, atoms, element, waits, part) in enumerate(rows):
        orbits = [o for o, waiting in enumerate(waits) if waiting]
        if len({part[o] < 0 for o in orbits}) > 1:
            raise DataError(
                "open orbits of one crystal must all have a role, or none of them; got "
                f"roles {part}. Give the others a role of their own."
            )
        if lost[b]:
            continue
        there: Counter[int] = Counter()
        for o, z in enumerate(row):
            if z and not waits[o]:
                there[element[o]] += atoms[o]
        distinct = any(part[o] >= 0 for o in orbits)
        key = {o: part[o] if distinct else o for o in orbits}
        whole: Counter[int] = (
            Counter()
        )  # atoms of each open role, or of each open orbit
        for o in orbits:
            whole[key[o]] += atoms[o]
        vocabulary = frozenset(union[b].nonzero().flatten().tolist())
        sizes = tuple(sorted(whole.values()))
        allowed = elements_of(there, sizes, vocabulary, required, distinct)
        answer[b] = any(allowed.values())
        for o in orbits:
            answer[b, o] = False
            answer[b, o, sorted(allowed[whole[key[o]]])] = True
    return found & answer.to(found.device)


def amounts_of(species: list[int]) -> dict[int, int]:
    """Return the number of atoms of each element, padding left out."""
    return Counter(z for z in species if z)
