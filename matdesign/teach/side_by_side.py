"""One table of the architectures: what each buys and costs, computed on the spot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.metrics.baselines import baselines
from matdesign.metrics.evaluator import Comparison, Evaluation, evaluate
from matdesign.metrics.intervals import wilson
from matdesign.metrics.summary import html_table, text_table
from matdesign.paths import data_dir
from matdesign.teach import chapters

if TYPE_CHECKING:
    import pandas


NOTHING = "none: a baseline"
"""Architecture of a column that was made without learning."""


@dataclass(frozen=True)
class Column:
    """What was measured of one model.

    Args:
        name: of the model.
        family: its class.
        representation: "cell" or "symmetric".
        parameters: number of weights.
        likelihood: what `log_prob` gives.
        evaluations: network evaluations per crystal.
        seconds: to make all samples, on this machine, after one to warm up.
        judged: the samples under the published protocol.
        free: how many of the samples meet the target that nobody asked for.
        asked: how many do when the target is asked for, at scale 1; None where it
            cannot be asked for.
        made: the samples.
    """

    name: str
    family: str
    representation: str
    parameters: int
    likelihood: str
    evaluations: float
    seconds: float
    judged: Evaluation
    free: int
    asked: int | None
    made: Crystals


@dataclass(frozen=True)
class SideBySide:
    """Models in columns, figures in rows; it prints, and `add` makes it grow.

    Args:
        columns: one per model.
    """

    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def against_baselines(self, *names: str) -> list[str]:
        """Return per model in which figures it beats every baseline; see `Comparison`."""
        ends = [c.name for c in self.columns if c.family == NOTHING]
        judged = {c.name: c.judged for c in self.columns}
        return Comparison(judged, tuple(ends)).against_baselines(*names)

    def add(self, column: Column) -> SideBySide:
        """Return the table with one more model, or with a newer entry of the same."""
        kept = tuple(c for c in self.columns if c.name != column.name)
        return replace(self, columns=(*kept, column))

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows as text."""
        figures: dict[str, Callable[[Column], str]] = {
            "architecture": lambda c: c.family,
            "representation": lambda c: c.representation,
            "parameters": lambda c: f"{c.parameters:,}",
            "likelihood": lambda c: c.likelihood,
            "network evaluations per crystal": lambda c: f"{c.evaluations:.0f}",
            "crystals per second": lambda c: f"{len(c.made) / c.seconds:.1f}",
            "drawn again, atoms too near": lambda c: str(
                c.made.info.get("redrawn", "not counted")
            ),
            **{
                name: partial(_rate, name=name)
                for name in (
                    "structural validity",
                    "compositional validity",
                    "uniqueness",
                    "novelty",
                    "valid, unique and novel",
                )
            },
            "meets the target unasked": lambda c: _share(c.free, len(c.made)),
            "meets it when asked": lambda c: (
                "" if c.asked is None else _share(c.asked, len(c.made))
            ),
        }
        rows = [[name, *map(value, self.columns)] for name, value in figures.items()]
        return ["", *self._heads()], rows

    def _heads(self) -> list[str]:
        """Return the names, without the data set where all have the same."""
        names = [c.name for c in self.columns]
        models = [c.name for c in self.columns if c.family != NOTHING]
        ends = {name.rpartition("-")[2] for name in models}
        if len(models) > 1 and len(ends) == 1 and all("-" in name for name in models):
            end = f"-{ends.pop()}"
            names = [n.removesuffix(end) if n in models else n for n in names]
        return names

    def __repr__(self) -> str:
        return text_table(*self.cells())

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{html_table(*self.cells())}</div>'


def measure(
    model: Generator,
    train: Crystals,
    *,
    name: str = "",
    n: int = chapters.COUNT,
    seed: int = chapters.SEED,
    target: dict[str, Any] | None = None,
) -> Column:
    """Return the column of one model: sampled free, sampled with the target, judged.

    Args:
        model: any generator.
        train: its training set, for novelty.
        name: of the column; the model's own where left out.
        n: crystals to make, twice.
        seed: of the samples.
        target: conditions; those of the chapters where left out.
    """
    wish = chapters.TARGET if target is None else target
    model.sample(1, seed=seed)  # tables are built at the first call
    start = time.perf_counter()
    made = model.sample(n, seed=seed)
    seconds = time.perf_counter() - start
    asked = model.sample(n, seed=seed, conditions=wish)
    return Column(
        name=name or str(model.record.get("name", type(model).__name__)),
        family=type(model).__name__,
        representation=model.representation,
        parameters=sum(p.numel() for p in model.parameters()),
        likelihood=model.likelihood,
        evaluations=made.info["network_evaluations"] / max(1, n),
        seconds=seconds,
        judged=evaluate(made, train),
        free=int(chapters.hits(made, wish).sum()),
        asked=int(chapters.hits(asked, wish).sum()),
        made=made,
    )


def side_by_side(
    names: Sequence[str], train: Crystals, *, n: int = chapters.COUNT
) -> SideBySide:
    """Return the table of several shipped models and of the baselines.

    Args:
        names: of `design.models()`.
        train: their training set.
        n: crystals of each.

    Raises:
        DataError: a name is no shipped model.
    """
    from matdesign.generators.shipped import load_model

    models = [measure(load_model(name), train, name=name, n=n) for name in names]
    return SideBySide((*models, *without_learning(train, n=n)))


def without_learning(
    train: Crystals, *, n: int = chapters.COUNT, seed: int = chapters.SEED
) -> list[Column]:
    """Return the columns of the baselines, crystals made from the training set."""
    columns = []
    for name in baselines(train, 1):
        start = time.perf_counter()
        made = baselines(train, n, seed=seed)[name]
        columns.append(
            Column(
                name=name,
                family=NOTHING,
                representation="",
                parameters=0,
                likelihood="none",
                evaluations=0.0,
                seconds=time.perf_counter() - start,
                judged=evaluate(made, train),
                free=int(chapters.hits(made).sum()),
                asked=None,
                made=made,
            )
        )
    return columns


MEASURED = (
    "structural validity",
    "compositional validity",
    "COV-R",
    "COV-P",
    "density distance, valid",
    "element count distance, valid",
    "energy distance, valid",
    "uniqueness",
    "novelty",
    "stability",
    "S.U.N.",
    "S.U.N., new formula",
    "ledger: duplicate",
    "ledger: substitution",
    "ledger: new structure",
    "ledger: new",
    "duplicates and substitutions, of the stable",
    "match rate",
    "RMSE",
)
"""Rows of the table on real data."""


def measured() -> pandas.DataFrame:
    """Return what scripts/bench.py quality measured on reduced MP-20, as text.

    Columns are batches of crystals, published samples beside those of the shipped models;
    every cell has its 95 % interval. `attrs["source"]` is the command, machine and day.

    Raises:
        DataError: the file is not there: the data folder is incomplete.
    """
    import pandas

    path = data_dir() / "measured" / "quality.json"
    if not path.is_file():
        raise DataError(
            f"no measured table at {path}. Run scripts/bench.py quality --output "
            f"{path.name}, or take the data folder of a release."
        )
    found = json.loads(path.read_text())
    table = pandas.DataFrame(
        {
            name: {row: figure(batch["figures"].get(row)) for row in MEASURED}
            for name, batch in found["batches"].items()
        }
    )
    table.attrs["source"] = (
        f"{found['command']} ({found['hardware']}, {found['written']})"
    )
    return table


def figure(one: dict[str, Any] | None) -> str:
    """Return a measured figure with its interval; nothing where there is none."""
    if one is None or "value" not in one:
        return ""
    if "count" in one:
        low, high = 100 * one["low"], 100 * one["high"]
        return f"{100 * one['value']:.1f} % ({low:.1f} to {high:.1f}), n = {one['n']}"
    unit = f" {one['unit']}" if one.get("unit") else ""
    return f"{one['value']:.3f}{unit} ({one['low']:.3f} to {one['high']:.3f})"


def _rate(column: Column, name: str) -> str:
    metric = column.judged[name]
    return f"{metric.figure()} ({metric.span()})"


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count}/{n} ({low:.2f} to {high:.2f})"
