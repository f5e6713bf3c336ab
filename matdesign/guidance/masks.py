"""`Masks`: what constraints leave of the elements, while a crystal is being made."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from matdesign.constraints.base import All, Constraint
from matdesign.constraints.known import Known
from matdesign.constraints.unfinished import Orbits
from matdesign.crystals.elements import MASK

REMEMBERED = 100_000
"""Half-decided crystals of which answers are remembered, about."""


class Masks:
    """Which elements may still be where, so that all constraints can still be met.

    Feasibility is that of the completion: an element is allowed where, after it is put
    there, some choice for all other open orbits meets the constraints together. Answers
    are remembered, for a sampler asks about most half-decided crystals many times.

    Args:
        constraints: those that have a say in elements.
        known: sites whose elements are fixed beforehand; they come first in a crystal.
    """

    def __init__(
        self, constraints: tuple[Constraint, ...], known: tuple[Known, ...] = ()
    ) -> None:
        self.wanted: Constraint | None = None
        if constraints:  # what one alone says is its last word
            self.wanted = constraints[0] if len(constraints) == 1 else All(*constraints)
        self.known = known
        self._known: dict[bytes, Tensor] = {}

    def __repr__(self) -> str:
        sites = [f"{len(one.species)} known sites" for one in self.known]
        words = [] if self.wanted is None else [self.wanted.sentence()]
        return ", and ".join([*words, *sites])

    def __call__(
        self, species: Tensor, counts: Tensor, role: Tensor | None, among: Tensor
    ) -> Tensor:
        """Return what each orbit may become, as `Choices` of the generators says.

        Args:
            species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
            counts: atoms of each orbit, shape (crystals, orbits).
            role: orbits of one role carry one element; None = no roles.
            among: elements to choose from, bool, shape (crystals, orbits, 104).
        """
        first = 0
        for one in self.known:
            among = _known_only(one, first, species, counts, among)
            first += len(one.species)
        if not len(species) or self.wanted is None:
            return among
        blank = torch.full_like(species, -1) if role is None else role
        rows = torch.cat([species, counts, blank], 1).cpu().numpy()
        bits = np.packbits(among.cpu().flatten(1).numpy(), axis=1)
        keys = [row.tobytes() + bit.tobytes() for row, bit in zip(rows, bits)]
        if len(self._known) > REMEMBERED:
            self._known.clear()
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            at = torch.tensor(list(new.values()), device=species.device)
            roles = None if role is None else role[at]
            orbits = Orbits(species[at], counts[at], roles, among[at])
            left = self.wanted.allowed(orbits)
            left = among[at] if left is None else left & among[at]
            self._known |= zip(new, left.cpu(), strict=True)
        return torch.stack([self._known[key] for key in keys]).to(species.device)


def _known_only(
    known: Known, first: int, species: Tensor, counts: Tensor, among: Tensor
) -> Tensor:
    """Return what is left where some sites have known elements, or one for all."""
    end = first + len(known.species)
    if counts.shape[1] < end:
        return torch.zeros_like(among)
    among = among & (counts[:, end - 1] > 0)[:, None, None]
    those = species[:, first:end]
    taken = torch.where((those > 0) & (those < MASK), those, 0).amax(1, keepdim=True)
    wanted = torch.where(known.species.to(those) > 0, known.species.to(those), taken)
    number = torch.arange(among.shape[-1], device=among.device)
    left = (wanted[..., None] == 0) | (wanted[..., None] == number)
    among = among.clone()
    among[:, first:end] &= left
    return among


def speaks(constraint: Constraint) -> bool:
    """Return whether a constraint has a say in elements.

    Args:
        constraint: a single one.
    """
    one = torch.full((1, 2), 104)
    return constraint.allowed(Orbits(one, torch.ones_like(one))) is not None
