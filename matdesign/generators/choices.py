"""`Choices`: which elements may still be where, as samplers ask and constraints answer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Choices(Protocol):
    """Says which elements may still be where, given what is already decided."""

    @property
    def required(self) -> frozenset[int]:
        """Elements that must be there in the end, whatever else is asked."""

    def __call__(
        self, species: Tensor, counts: Tensor, role: Tensor | None, among: Tensor
    ) -> Tensor:
        """Return what each undecided orbit may become, so that all can be finished.

        Args:
            species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, orbits).
            counts: atoms of each orbit, 0 on padding, shape (crystals, orbits).
            role: orbits of one role carry one element, -1 = no role; None = no roles.
            among: elements to choose from, bool, shape (crystals, orbits, 104).

        Returns:
            Bool, shape (crystals, orbits, 104), a part of `among`; nothing at all on the
            undecided orbits of a crystal that cannot be finished.
        """
