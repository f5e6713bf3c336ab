"""`Results`: what an oracle said of every crystal, failures included."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, ShapeError
from matdesign.tables import text_table

if TYPE_CHECKING:
    import pandas

ENERGIES = dict.fromkeys(
    ("energy_per_atom", "formation_energy_per_atom", "energy_above_hull"), "eV/atom"
)
UNITS = {**ENERGIES, "hull_error": "eV/atom", "competing": "", "steps": ""}
"""Unit of each column of an oracle that relaxes and has a hull; counts have none."""

COUNTS = ("competing", "steps")
"""Columns that are no property of a crystal."""

SHORT = {
    "energy_per_atom": "energy",
    "formation_energy_per_atom": "formation",
    "energy_above_hull": "above hull",
    "hull_error": "error",
}
"""What the printed table calls these columns; their unit is eV/atom."""


@dataclass(frozen=True, eq=False)
class Column:
    """The values of one property, one per crystal.

    Args:
        values: numbers, NaN where unknown; kept as float64, whole numbers as they are.
        unit: "" for counts and pure numbers.
        std: standard deviation of each value, in the same unit, where it is known.
    """

    values: Tensor
    unit: str = ""
    std: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _numbers(self.values))
        if self.std is not None:
            object.__setattr__(self, "std", _numbers(self.std))

    def __getitem__(self, which: Any) -> Column:
        """Return some rows."""
        std = None if self.std is None else self.std[which]
        return Column(self.values[which], self.unit, std)


@dataclass(frozen=True, eq=False)
class Results:
    """A table with one row per crystal, in the order the crystals were given.

    A failed crystal is a row like any other: its `reason` says why, and any number in it
    is what the oracle said before the result was refused; do not use it. Each column is
    an attribute too: `results.energy_above_hull` are the values of that column, and NaN
    where an oracle does not compute it.

    Oracles that relax give `energy_per_atom`, and with a hull
    `formation_energy_per_atom`, `energy_above_hull` (negative below the hull) and
    `hull_error` (how far the potential is off for known crystals), all in eV/atom, and
    `competing`, the known compounds in the crystal's chemical system: where it is 0 only
    the elements compete and `energy_above_hull` says little. `steps` are those of the
    relaxation.

    Args:
        structures: relaxed crystals; where there is none, the crystal as given. Their
            properties are replaced by the columns.
        columns: name -> values with their unit; lists become tensors.
        reason: "" where a row can be used, else why not; where left out, a row fails
            that holds a value that is not a number.
        seconds: cost of each crystal, seconds of computing time or what stands for it.
        oracle: name of the oracle.

    Raises:
        ShapeError: a column does not have one value per crystal.
        DataError: a column has a name that it cannot have.

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> salt = Structure(Lattice.cubic(3.9), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        >>> found = Results(
        ...     Crystals.from_structures([salt, salt]), {"gap": Column([8.3, 1.2], "eV")}
        ... )
        >>> found.gap.max(), found.columns["gap"].unit
        (tensor(8.3000, dtype=torch.float64), 'eV')
    """

    structures: Crystals
    columns: Mapping[str, Column]
    reason: tuple[str, ...] = ()
    seconds: Tensor = field(default_factory=lambda: torch.zeros(0))
    oracle: str = ""

    def __post_init__(self) -> None:
        n, columns = len(self.structures), dict(self.columns)
        object.__setattr__(self, "columns", columns)
        seconds = self.seconds if len(self.seconds) else torch.zeros(n)
        object.__setattr__(self, "seconds", seconds.double())
        if not self.reason:
            object.__setattr__(self, "reason", _not_numbers(columns, n))
        sizes = {name: len(one.values) for name, one in columns.items()}
        stds = {f"{k}_std": one.std for k, one in columns.items()}
        sizes |= {name: len(std) for name, std in stds.items() if std is not None}
        sizes |= {"reason": len(self.reason), "seconds": len(seconds)}
        for name, got in sizes.items():
            if got != n:
                raise ShapeError(
                    f"column {name} does not fit: got {got} values for {n} crystals. "
                    "Give one per crystal."
                )
        check_names(columns)
        shown = {k: v for k, v in columns.items() if k not in COUNTS}
        numbers = {k: v.values for k, v in shown.items()}
        units = {k: v.unit for k, v in shown.items()}
        kept = replace(self.structures, properties=numbers, units=units)
        object.__setattr__(self, "structures", kept)

    @classmethod
    def cat(cls, tables: Sequence[Results]) -> Results:
        """Return one table of all rows; a column that some lack is NaN there.

        Raises:
            DataError: there is no table, or two have a column in different units.
        """
        if not tables:
            raise DataError("there is no table to join; give one or more.")

        def joined(name: str, what: str) -> Tensor:
            held = [getattr(one.columns.get(name), what, None) for one in tables]
            empty = [torch.full((len(one),), math.nan).double() for one in tables]
            return torch.cat(
                [nan if x is None else x for x, nan in zip(held, empty, strict=True)]
            )

        units: dict[str, str] = {}
        for name, column in ((k, v) for one in tables for k, v in one.columns.items()):
            if units.setdefault(name, column.unit) != column.unit:
                raise DataError(
                    f"tables to join must agree on units: got {name} in {units[name]!r} "
                    f"and in {column.unit!r}. Convert one of them."
                )
        columns = {}
        for name, unit in units.items():
            values, std = joined(name, "values"), joined(name, "std")
            columns[name] = Column(values, unit, None if std.isnan().all() else std)
        return cls(
            Crystals.cat([one.structures for one in tables]),
            columns,
            tuple(why for one in tables for why in one.reason),
            torch.cat([one.seconds for one in tables]),
            tables[0].oracle,
        )

    def __len__(self) -> int:
        return len(self.structures)

    def __getattr__(self, name: str) -> Tensor:
        columns = vars(self).get("columns", {})
        if name in columns:
            values: Tensor = columns[name].values
            return values
        if name in UNITS:
            return torch.full((len(self),), math.nan, dtype=torch.float64)
        raise AttributeError(
            f"these results have no column {name!r}; they have {', '.join(columns) or 'none'}."
        )

    def __getitem__(self, which: slice | Tensor | Sequence[int]) -> Results:
        """Return some rows; `results[results.ok]` are the usable ones."""
        index: Any = torch.arange(len(self))
        if not isinstance(which, slice):
            rows = torch.as_tensor(which)
            which = rows if rows.numel() else rows.long()  # [] becomes float
        chosen = index[which]
        return Results(
            self.structures[chosen],
            {name: column[chosen] for name, column in self.columns.items()},
            tuple(self.reason[i] for i in chosen.tolist()),
            self.seconds[chosen],
            self.oracle,
        )

    @property
    def ok(self) -> Tensor:
        """Whether the numbers of each row can be used."""
        return torch.tensor([not why for why in self.reason], dtype=torch.bool)

    @property
    def failed(self) -> dict[str, int]:
        """How many crystals failed, by reason without figures; most frequent first."""
        return dict(Counter(kind_of(x) for x in self.reason if x).most_common())

    def to_dict(self) -> dict[str, Any]:
        """Return all but the structures as plain values for a JSON file."""
        columns: dict[str, Any] = {}
        for name, one in self.columns.items():
            columns[name] = {"unit": one.unit, "values": _plain(one.values)}
            if one.std is not None:
                columns[name]["std"] = _plain(one.std)
        rows = {"reason": list(self.reason), "seconds": _plain(self.seconds)}
        return {"oracle": self.oracle, **rows, "columns": columns}

    @classmethod
    def from_dict(cls, structures: Crystals, words: Mapping[str, Any]) -> Results:
        """Return the table of `to_dict` with its structures.

        Raises:
            KeyError: something is missing.
        """
        columns = {
            name: Column(one["values"], one["unit"], one.get("std"))
            for name, one in words["columns"].items()
        }
        reason = tuple(map(str, words["reason"]))
        seconds = _numbers(words["seconds"])
        return cls(structures, columns, reason, seconds, str(words["oracle"]))

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict per crystal; a standard deviation is called `<column>_std`."""
        table: dict[str, Sequence[Any]] = {
            "id": self.structures.ids or tuple(str(i) for i in range(len(self))),
            "formula": self.structures.formulas,
        }
        for name, column in self.columns.items():
            table[name] = column.values.tolist()
            if column.std is not None:
                table[f"{name}_std"] = column.std.tolist()
        table |= {"seconds": self.seconds.tolist(), "ok": self.ok.tolist()}
        table["reason"] = self.reason
        return [
            dict(zip(table, row, strict=True))
            for row in zip(*table.values(), strict=True)
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
        names = [n for n in self.columns if n not in COUNTS]
        heads = [SHORT.get(n) or f"{n} {self.columns[n].unit}".strip() for n in names]
        cells = [
            [row["id"][:15], row["formula"][:15]]
            + [_number(row, name) if row["ok"] else "" for name in names]
            + [f"{row['seconds']:.2f}", _remark(row)]
            for row in self.rows()[: len(self) if len(self) <= 24 else 20]
        ]
        units = "energies in eV/atom" if set(names) & set(SHORT) else ""
        lines.append(text_table(["id", "formula", *heads, "seconds", units], cells))
        if len(cells) < len(self):
            lines.append(f"... and {len(self) - len(cells)} more; see .to_pandas()")
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


_TAKEN = {*vars(Results), *Results.__dataclass_fields__, "id", "formula"}
_TAKEN = {name for name in _TAKEN if not name.startswith("_")}


def check_names(columns: Iterable[str], *more: str) -> None:
    """Raise where a column has a name that it cannot have, or one of `more`."""
    for name in columns:
        if not name.isidentifier() or name.startswith("_") or name in {*_TAKEN, *more}:
            raise DataError(
                f"a column cannot be called {name!r}: a name is a word of letters, "
                f"digits and underscores, and none of {', '.join(sorted({*_TAKEN, *more}))}."
            )


def _numbers(values: Any) -> Tensor:
    """Return values as float64, or as they are where they are whole numbers."""
    if not isinstance(values, Tensor):
        known = [math.nan if one is None else one for one in values]
        values = torch.as_tensor(np.asarray(known, dtype=None if known else float))
    values = values.detach().cpu()
    return values.double() if values.is_floating_point() else values.long()


def _plain(values: Tensor) -> list[float | None]:
    return [one if math.isfinite(one) else None for one in values.tolist()]


def _not_numbers(columns: Mapping[str, Column], n: int) -> tuple[str, ...]:
    """Return, for each row, which column is not a number."""
    reasons = [""] * n
    for name, one in columns.items():
        for i, value in enumerate(one.values[:n].tolist()):
            if not math.isfinite(value):
                reasons[i] = reasons[i] or f"{name} is not a number"
    return tuple(reasons)


def _number(row: Mapping[str, Any], name: str) -> str:
    value, std = row[name], row.get(f"{name}_std", math.nan)
    text = f"{'± ' if name == 'hull_error' else ''}{value:.3f}"
    text += f" ± {std:.2g}" if std == std else ""
    return text if value == value else "-"


def _remark(row: Mapping[str, Any]) -> str:
    if not row["ok"]:
        return f"failed: {row['reason'][:60]}"
    return "only elements compete" if row.get("competing") == 0 else ""
