"""`Choices`: which elements may still be where, as samplers ask and constraints answer."""

from __future__ import annotations

from collections.abc import Mapping
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

    @property
    def quick(self) -> bool:
        """Whether `completable` and `next_elements` answer, at much less cost than a mask."""

    def completable(
        self,
        there: Mapping[int, int],
        sizes: tuple[int, ...],
        vocabulary: frozenset[int],
    ) -> bool:
        """Return whether orbits can be added to a crystal so that it is as asked.

        Args:
            there: atoms of each element so far; one element at least.
            sizes: atoms of the orbits to add.
            vocabulary: elements that these may have.
        """

    def next_elements(
        self,
        there: Mapping[int, int],
        size: int,
        rest: tuple[int, ...],
        vocabulary: frozenset[int],
    ) -> Tensor:
        """Return which elements one more orbit of a crystal may have, bool, (104,).

        Args:
            there: atoms of each element so far; one element at least.
            size: atoms of the orbit.
            rest: atoms of the orbits after it.
            vocabulary: elements to choose from.
        """
