"""The printed check: which crystals meet which constraints."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.tables import text_table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Check:
    """Which crystals meet which constraints; prints as two tables.

    Args:
        constraints: the single constraints.
        formulas: reduced formula of every crystal.
        satisfied: strict answers, shape (crystals, constraints).
        violation: distances from satisfaction, shape (crystals, constraints), each
            column in its constraint's unit.
        ids: name of every crystal; empty where none were given.
    """

    constraints: tuple[Constraint, ...]
    formulas: tuple[str, ...]
    satisfied: Tensor
    violation: Tensor
    ids: tuple[str, ...] = ()

    @property
    def met(self) -> Tensor:
        """Whether each crystal meets every constraint, shape (crystals,)."""
        return self.satisfied.all(dim=1)

    @property
    def counts(self) -> dict[str, int]:
        """How many crystals meet each constraint, by its sentence, and all of them."""
        each = self.satisfied.sum(dim=0).tolist()
        found = {str(c): int(k) for c, k in zip(self.constraints, each, strict=True)}
        return {**found, "all of them": int(self.met.sum())}

    def reasons(self) -> tuple[str, ...]:
        """Return, for every crystal, which constraints it misses; "" where none."""
        reasons = []
        for row in self.satisfied.tolist():
            pairs = zip(self.constraints, row, strict=True)
            missed = [str(one) for one, met in pairs if not met]
            reasons.append(f"misses: {'; '.join(missed)}" if missed else "")
        return tuple(reasons)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a table with name, formula, whether all are met, and each violation."""
        import pandas

        names = self.ids or tuple(map(str, range(len(self))))
        columns = {"id": names, "formula": self.formulas, "met": self.met.tolist()}
        for j, one in enumerate(self.constraints):
            columns[f"{one} [{one.unit}]"] = self.violation[:, j].tolist()
        return pandas.DataFrame(columns)

    def __len__(self) -> int:
        return len(self.formulas)

    def __repr__(self) -> str:
        total = len(self)
        letters = [chr(ord("A") + k) for k in range(len(self.constraints))]
        each = self.satisfied.sum(dim=0).tolist()
        counts = [
            [f"  {letter}", f"{k:>6} of {total}", f"{one}  [{one.unit}]"]
            for letter, k, one in zip(letters, each, self.constraints, strict=True)
        ]
        shown, rows = range(total if total <= 24 else 20), []
        for i in shown:
            pairs = zip(self.satisfied[i].tolist(), self.violation[i].tolist())
            cells = ["met" if met else f"{v:.3g}" for met, v in pairs]
            name = self.ids[i] if self.ids else str(i)
            rows.append([f"  {name[:15]}", self.formulas[i][:17], *cells])
        first = f"{int(self.met.sum())} of {total} crystals meet every constraint"
        lines = [first, "", text_table([""] * 3, counts).lstrip("\n"), ""]
        lines += [text_table(["  id", "formula", *letters], rows), ""]
        lines += ["  (met, or by how much not)"]
        if len(shown) < total:
            lines[-1] += f"  ... and {total - len(shown)} more; see .to_pandas()"
        return "\n".join(lines)


def check(crystals: Crystals, wanted: Constraint) -> Check:
    """Return which crystals meet which of the wanted constraints.

    Args:
        crystals: finished crystals.
        wanted: one constraint, or several joined with `&`.

    Returns:
        A table that prints: counts per constraint, then one line per crystal.

    Raises:
        DataError: the second argument is not a constraint.

    Example:
        >>> import matdesign as design  # doctest: +SKIP
        >>> design.check(crystals, design.MinDistance(1.4))  # doctest: +SKIP
    """
    if not isinstance(wanted, Constraint):
        raise DataError(
            f"check needs a constraint as its second argument; got {wanted!r}. "
            "Build one such as MinDistance(1.4), and join several with &."
        )
    parts = wanted.parts
    with torch.no_grad():
        satisfied = torch.stack([one.satisfied(crystals) for one in parts], dim=1)
        violation = torch.stack([one.violation(crystals) for one in parts], dim=1)
    return Check(parts, crystals.formulas, satisfied, violation, crystals.ids)
