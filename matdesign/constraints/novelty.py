"""The constraints that a crystal, or its formula, is not among those that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.crystals.matching import find_same
from matdesign.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class NovelFormula(Constraint):
    """The reduced formula is not that of a known compound, nor an element.

    The violation is 0 or 1 and has no gradient; on undecided crystals it is that of the
    most probable elements. Polymorphs of a known compound do not meet this: compare the
    crystals themselves with `Novelty`.

    Args:
        known: a function from crystals to flags, shape (crystals,), such as the method
            `known` of a hull.

    Example:
        >>> salt = NovelFormula(lambda crystals: [f == "NaCl" for f in crystals.formulas])
        >>> salt
        a formula that is not known
    """

    unit = "1 if known"

    def __init__(self, known: Callable[[Crystals], ArrayLike]) -> None:
        self._known = known

    def sentence(self) -> str:
        """Return "a formula that is not known"."""
        return "a formula that is not known"

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether the formula is not known, shape (crystals,)."""
        found = torch.as_tensor(self._known(crystals), dtype=torch.bool)
        return ~found.to(crystals.device)


class Novelty(Constraint):
    """The crystal equals none of a set of known crystals.

    Equal is what the metrics count as equal: pymatgen's StructureMatcher finds the two
    primitive cells the same, whatever origin, orientation, cell or order of the atoms.
    A crystal that cannot be compared, or that is not a number, is not called novel. The
    violation is 0 or 1 and has no gradient; on undecided crystals it is that of the most
    probable elements.

    Args:
        reference: the known crystals, such as a training set.

    Raises:
        DataError: the reference is empty.

    Accuracy:
        A crystal is compared with the 20 most similar of its formula.

    Example:
        >>> cell = 4.0 * torch.eye(3)[None]
        >>> iron = Crystals(torch.tensor([[26]]), torch.zeros(1, 1, 3), cell)
        >>> Novelty(iron), Novelty(iron).satisfied(iron).tolist()
        (equal to none of 1 known crystals, [False])
    """

    unit = "1 if known"

    def __init__(self, reference: Crystals) -> None:
        if not len(reference):
            raise DataError(
                "Novelty needs known crystals to compare with; got none. Pass a data set."
            )
        self.reference = reference

    def sentence(self) -> str:
        """Return for example "equal to none of 500 known crystals"."""
        return f"equal to none of {len(self.reference):,} known crystals"

    def satisfied(self, crystals: Crystals) -> Tensor:
        """Return whether no known crystal is equal, shape (crystals,)."""
        found = find_same(crystals, self.reference)
        novel = torch.from_numpy(found.match < 0)
        novel[sorted(found.reason)] = False
        sound = crystals.frac.isfinite().all(-1).all(-1)
        sound &= crystals.lattice.isfinite().all(-1).all(-1)
        return novel.to(crystals.device) & sound
