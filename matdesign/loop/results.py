"""`Results`: what an oracle said of every crystal, failures included."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.errors import ShapeError

if TYPE_CHECKING:
    import pandas

UNITS = {
    "energy_per_atom": "eV/atom",
    "formation_energy_per_atom": "eV/atom",
    "energy_above_hull": "eV/atom",
    "hull_error": "eV/atom",
    "seconds": "s",
}
"""Unit of each numeric column."""


@dataclass(frozen=True, eq=False)
class Results:
    """A table with one row per crystal, in the order the crystals were given.

    A failed crystal is a row like any other: `ok` is False, `reason` says why, and any
    number in it is what the oracle said before the result was refused; do not use it.

    Args:
        structures: relaxed crystals; where there is none, the crystal as given.
        energy_per_atom: eV/atom, shape (crystals,); NaN where never computed.
        formation_energy_per_atom: eV/atom, NaN without reference elements.
        energy_above_hull: eV/atom, negative below the hull, NaN without one.
        hull_error: error of that distance, eV/atom: how far the potential is off for
            known crystals; NaN where not measured.
        competing: known compounds in the crystal's chemical system; where it is 0
            only the elements compete and `energy_above_hull` says little.
        ok: whether the numbers can be used.
        reason: "" where ok, else why not.
        steps: of the relaxation.
        seconds: computing time of each crystal.
        oracle: name of the oracle.
    """

    structures: Crystals
    energy_per_atom: Tensor
    formation_energy_per_atom: Tensor
    energy_above_hull: Tensor
    hull_error: Tensor
    competing: Tensor
    ok: Tensor
    reason: tuple[str, ...]
    steps: Tensor
    seconds: Tensor
    oracle: str = ""

    def __post_init__(self) -> None:
        n = len(self.structures)
        for name in (*UNITS, "competing", "ok", "steps", "reason"):
            if (got := len(getattr(self, name))) != n:
                raise ShapeError(
                    f"column {name} does not fit: got {got} values for {n} crystals. "
                    "Give one per crystal."
                )

    @classmethod
    def empty(cls, crystals: Crystals, oracle: str = "") -> Results:
        """Return a table in which no crystal was evaluated yet."""
        n = len(crystals)
        unknown = torch.full((n,), float("nan"), dtype=torch.float64)
        zero = torch.zeros(n, dtype=torch.long)
        return cls(
            replace(crystals, properties={}, units={}),
            unknown,
            unknown.clone(),
            unknown.clone(),
            unknown.clone(),
            zero,
            torch.zeros(n, dtype=torch.bool),
            ("not evaluated",) * n,
            zero.clone(),
            torch.zeros(n, dtype=torch.float64),
            oracle,
        )

    @classmethod
    def gather(
        cls, crystals: Crystals, rows: Mapping[int, Results], oracle: str = ""
    ) -> Results:
        """Return one table from tables of single crystals, by their place.

        Args:
            crystals: all crystals as given; places without a row stay not evaluated.
            rows: place -> table of one crystal of the same number of sites or fewer.
            oracle: name of the oracle.
        """
        made = cls.empty(crystals, oracle)
        frac, lattice = crystals.frac.clone(), crystals.lattice.clone()
        reason = list(made.reason)
        for place, row in rows.items():
            width = row.structures.frac.shape[1]
            frac[place, :width] = row.structures.frac[0].to(frac)
            lattice[place] = row.structures.lattice[0].to(lattice)
            reason[place] = row.reason[0]
            for name in (*UNITS, "competing", "ok", "steps"):
                getattr(made, name)[place] = getattr(row, name)[0]
        structures = replace(
            made.structures,
            frac=frac,
            lattice=lattice,
            properties={k: getattr(made, k) for k in UNITS if k != "seconds"},
            units={k: u for k, u in UNITS.items() if k != "seconds"},
        )
        return replace(made, structures=structures, reason=tuple(reason))

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, which: slice | Tensor | Sequence[int]) -> Results:
        """Return some rows; `results[results.ok]` are the usable ones."""
        index: Any = torch.arange(len(self))
        chosen = index[which if isinstance(which, slice) else torch.as_tensor(which)]
        changes: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, (Tensor, Crystals)):
                changes[one.name] = value[chosen]
        changes["reason"] = tuple(self.reason[i] for i in chosen.tolist())
        return replace(self, **changes)

    @property
    def failed(self) -> dict[str, int]:
        """How many crystals failed, by reason without figures; most frequent first."""
        kinds = (
            kind_of(why)
            for why, fine in zip(self.reason, self.ok.tolist(), strict=True)
            if not fine
        )
        return dict(Counter(kinds).most_common())

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict per crystal."""
        names = [*UNITS, "competing", "ok", "steps"]
        columns = [getattr(self, name).tolist() for name in names]
        ids = self.structures.ids or tuple(str(i) for i in range(len(self)))
        return [
            {"id": name, "formula": formula}
            | dict(zip(names, values, strict=True))
            | {"reason": reason}
            for name, formula, values, reason in zip(
                ids,
                self.structures.formulas,
                zip(*columns, strict=True),
                self.reason,
                strict=True,
            )
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """Return the table as a pandas data frame, one row per crystal."""
        import pandas

        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        fine = int(self.ok.sum())
        by = f" by {self.oracle}" if self.oracle else ""
        lines = [f"{fine} of {len(self)} crystals evaluated{by}"]
        if self.failed:
            why = ", ".join(f"{n} {kind}" for kind, n in self.failed.items())
            lines.append(f"failed: {why}")
        lines.append(
            f"  {'id':<16}{'formula':<16}{'energy':>10}{'formation':>11}"
            f"{'above hull':>12}{'error':>9}{'seconds':>9}"
            "   eV/atom; failures with their reason"
        )
        shown = self.rows()[: len(self) if len(self) <= 24 else 20]
        for row in shown:
            line = f"  {row['id'][:15]:<16}{row['formula'][:15]:<16}"
            if row["ok"]:
                line += f"{row['energy_per_atom']:>10.3f}"
                line += _number(row["formation_energy_per_atom"], 11)
                line += _number(row["energy_above_hull"], 12)
                line += _number(row["hull_error"], 9, "± ")
                line += f"{row['seconds']:>9.2f}"
                if row["competing"] == 0 and _known(row["energy_above_hull"]):
                    line += "   only elements compete"
            else:
                line += f"  failed: {row['reason'][:60]}"
            lines.append(line)
        if len(shown) < len(self):
            lines.append(f"  ... and {len(self) - len(shown)} more; see .to_pandas()")
        return "\n".join(lines)


def kind_of(reason: str) -> str:
    """Return a reason without its figures, to count by: "short bond 0.52" is one kind.

    Example:
        >>> [kind_of(why) for why in ("short bond 0.52", "time limit 60 s", "")]
        ['short bond', 'time limit', 'ok']
        >>> kind_of("empty cell: 640 angstrom^3 per atom")
        'empty cell'
    """
    head = re.sub(r"\s*[-+]?\d[\d.e+-]*(\s*s\b)?", "", reason.split(":")[0])
    return " ".join(head.split()) or "ok"


def _known(value: float) -> bool:
    return value == value


def _number(value: float, width: int, sign: str = "") -> str:
    return f"{f'{sign}{value:.3f}' if _known(value) else '-':>{width}}"
