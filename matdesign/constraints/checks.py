"""The printed check: which crystals meet which constraints."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError

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
            missed = [str(one) for one, held in pairs if not held]
            reasons.append(f"misses: {'; '.join(missed)}" if missed else "")
        return tuple(reasons)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict per crystal: name, formula, met, and each violation."""
        made = []
        for i, formula in enumerate(self.formulas):
            row: dict[str, Any] = {"id": self.ids[i] if self.ids else str(i)}
            row |= {"formula": formula, "met": bool(self.met[i])}
            for j, one in enumerate(self.constraints):
                row[f"{one} [{one.unit}]"] = float(self.violation[i, j])
            made.append(row)
        return made

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the rows as a pandas table."""
        import pandas

        return pandas.DataFrame(self.rows())

    def __len__(self) -> int:
        return len(self.formulas)

    def __repr__(self) -> str:
        total = len(self)
        lines = [f"{int(self.met.sum())} of {total} crystals meet every constraint", ""]
        for k, (one, count) in enumerate(
            zip(self.constraints, self.satisfied.sum(dim=0).tolist(), strict=True)
        ):
            lines.append(f"  {_letter(k)}  {count:>6} of {total}  {one}  [{one.unit}]")
        heads = "".join(f"{_letter(k):>10}" for k in range(len(self.constraints)))
        lines += ["", f"  {'id':<16}{'formula':<18}{heads}   (met, or by how much not)"]
        shown = range(total) if total <= 24 else range(20)
        for i in shown:
            name = (self.ids[i] if self.ids else str(i))[:15]
            cells = "".join(
                f"{'met' if self.satisfied[i, k] else _short(self.violation[i, k]):>10}"
                for k in range(len(self.constraints))
            )
            lines.append(f"  {name:<16}{self.formulas[i][:17]:<18}{cells}")
        if len(shown) < total:
            lines.append(f"  ... and {total - len(shown)} more; see .to_pandas()")
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
    parts, satisfied = wanted.parts, held(crystals, wanted)
    with torch.no_grad():
        violation = torch.stack([one.violation(crystals) for one in parts], dim=1)
    return Check(parts, crystals.formulas, satisfied, violation, crystals.ids)


@torch.no_grad()
def held(crystals: Crystals, wanted: Constraint) -> Tensor:
    """Return which of the wanted constraints each crystal meets, strictly.

    Args:
        crystals: finished crystals.
        wanted: one constraint, or several joined with `&`.

    Returns:
        Booleans of shape (crystals, constraints).
    """
    return torch.stack([one.satisfied(crystals) for one in wanted.parts], dim=1)


def _letter(k: int) -> str:
    return chr(ord("A") + k) if k < 26 else f"#{k + 1}"


def _short(value: Tensor) -> str:
    return f"{float(value):.3g}"
