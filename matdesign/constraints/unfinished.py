"""Crystals of which some elements are undecided, as rules about elements read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.elements import MASK
from matdesign.errors import DataError


@dataclass(frozen=True, eq=False)
class Orbits:
    """The orbits of crystals of which some elements are undecided, as masks read them.

    Args:
        species: element of each orbit, 0 = padding, 104 = undecided, shape
            (crystals, orbits).
        counts: atoms that each orbit stands for, 0 = padding, same shape.
        roles: orbits of one role carry one element and different roles different
            ones, -1 = no role, same shape; None = no roles.
        within: what is allowed by everything else, bool, shape (104,) or (crystals,
            orbits, 104); the answer lies within it. None = every element.
        required: elements that something else demands to be there.
    """

    species: Tensor
    counts: Tensor
    roles: Tensor | None = None
    within: Tensor | None = None
    required: frozenset[int] = frozenset()


def possible(orbits: Orbits) -> Tensor:
    """Return what each orbit may be: what it is, or anything within while it is open.

    Args:
        orbits: of half-decided crystals.

    Returns:
        Bool, shape (crystals, orbits, 104); padding allows nothing.
    """
    species, within = orbits.species, orbits.within
    table = torch.eye(MASK + 1, MASK, dtype=torch.bool, device=species.device)
    table[MASK] = True
    table[:, 0] = False
    found = table[species]
    return found if within is None else found & within.to(found.device)


def feasibility_mask(
    elements_of: Callable[..., dict[int, frozenset[int]]], orbits: Orbits
) -> Tensor:
    """Return which elements each orbit may become; see `Constraint.allowed`.

    An open orbit with one element left within counts as decided. The others are judged
    with all that any of them may be.

    Args:
        elements_of: what an orbit of each size may become; see `Neutrality.elements`.
        orbits: of half-decided crystals; either all open ones of a crystal have a role,
            or none.

    Raises:
        DataError: open orbits with and without a role in one crystal.
    """
    species, roles, found = orbits.species, orbits.roles, possible(orbits)
    left = found.sum(-1)
    open_ = (species == MASK) & (left > 1)
    only = found.byte().argmax(-1)
    union = (found & open_[..., None]).any(1)
    role = torch.full_like(species, -1) if roles is None else roles
    fields = species, orbits.counts, only, open_, role
    rows = zip(*(x.tolist() for x in fields), strict=True)
    answer = torch.zeros_like(found, device="cpu")
    lost = ((species > 0) & (left == 0)).any(1).tolist()
    for b, (row, atoms, element, waits, part) in enumerate(rows):
        still = [o for o, waiting in enumerate(waits) if waiting]
        if len({part[o] < 0 for o in still}) > 1:
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
        distinct = any(part[o] >= 0 for o in still)
        key = {o: part[o] if distinct else o for o in still}
        whole: Counter[int] = Counter()  # atoms of each open role, or open orbit
        for o in still:
            whole[key[o]] += atoms[o]
        vocabulary = frozenset(union[b].nonzero().flatten().tolist())
        sizes = tuple(sorted(whole.values()))
        allowed = elements_of(there, sizes, vocabulary, orbits.required, distinct)
        answer[b] = any(allowed.values())
        for o in still:
            answer[b, o] = False
            answer[b, o, sorted(allowed[whole[key[o]]])] = True
    return found & answer.to(found.device)


def amounts_of(species: list[int]) -> dict[int, int]:
    """Return the number of atoms of each element, padding left out."""
    return Counter(z for z in species if z)
