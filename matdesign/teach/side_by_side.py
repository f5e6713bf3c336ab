"""One table of the architectures: what each buys and costs, computed on the spot."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from matdesign.crystals.batch import Crystals
from matdesign.generators.contract import Generator
from matdesign.generators.shipped import load_model
from matdesign.metrics.baselines import baselines
from matdesign.metrics.evaluator import evaluate
from matdesign.metrics.intervals import share
from matdesign.tables import Table
from matdesign.teach.chapters import COUNT, SEED, Sweep, hits, steer
from matdesign.teach.sampled import Sample, recorded, source

if TYPE_CHECKING:
    import pandas

NOTHING = "none: a baseline"
"""Architecture of a column that was made without learning."""

RATES = (
    "structural validity",
    "compositional validity",
    "uniqueness",
    "novelty",
    "valid, unique and novel",
)


@dataclass(frozen=True)
class Column(Sample):
    """Crystals of one model without conditions, and what was measured of it besides.

    Args:
        name: of the model.
        free: how many of the crystals meet the target all the same.
        conditioned: how many do where the target is the condition, at scale 1; None where it
            cannot be one.
        family: its class.
        representation: "cell" or "symmetric".
        parameters: number of weights.
        likelihood: what `log_prob` gives.
    """

    name: str
    free: int
    conditioned: int | None = None
    family: str = NOTHING
    representation: str = ""
    parameters: int = 0
    likelihood: str = "none"


@dataclass(frozen=True, repr=False)
class SideBySide(Table):
    """Models in columns, figures in rows; it prints.

    Args:
        columns: one per model.
    """

    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def cells_as_text(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows as text."""

        def rate(column: Column, name: str) -> str:
            metric = column.judged[name]
            return f"{metric.figure()} ({metric.span()})"

        def met(column: Column, count: int | None) -> str:
            return "" if count is None else share(count, len(column.made))

        figures: dict[str, Callable[[Column], str]] = {
            "architecture": lambda c: c.family,
            "representation": lambda c: c.representation,
            "parameters": lambda c: f"{c.parameters:,}",
            "likelihood": lambda c: c.likelihood,
            "network evaluations per crystal": lambda c: (
                f"{c.evaluations / len(c.made):.0f}"
            ),
            "crystals per second": lambda c: f"{len(c.made) / c.seconds:.1f}",
            "drawn again, atoms too near": lambda c: str(
                c.made.info.get("redrawn", "not counted")
            ),
            **{name: partial(rate, name=name) for name in RATES},
            "meets the target, unconditioned": lambda c: met(c, c.free),
            "meets it as a condition": lambda c: met(c, c.conditioned),
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


def measure(
    model: Generator, train: Crystals, sweep: Sweep, *, name: str = ""
) -> Column:
    """Return the column of one model: what it made free and with the target, judged.

    Args:
        model: any generator.
        train: its training set, for novelty.
        sweep: what `chapters.steer` has made of it, at scale 1 among others.
        name: of the column; the model's own where left out.
    """
    free, made = sweep.rows[0], sweep.samples[0]
    [asked] = [row for row in sweep.rows if row["condition"] == "target, scale 1"]
    return Column(
        made,
        evaluate(made, train),
        free["seconds"],
        name=name or str(model.record.get("name", type(model).__name__)),
        free=free["hits"],
        conditioned=asked["hits"],
        family=type(model).__name__,
        representation=model.representation,
        parameters=sum(p.numel() for p in model.parameters()),
        likelihood=model.likelihood,
    )


def side_by_side(
    names: Sequence[str], train: Crystals, *, n: int = COUNT
) -> SideBySide:
    """Return the table of several shipped models and of the baselines.

    Args:
        names: of `design.models()`.
        train: their training set.
        n: crystals of each.

    Raises:
        DataError: a name is no shipped model.
    """
    columns = []
    for name in names:
        model = load_model(name)
        sweep = steer(model, scales=(1.0,), n=n)
        columns.append(measure(model, train, sweep, name=name))
    for name in baselines(train, 1):
        start = time.perf_counter()
        made = baselines(train, n, seed=SEED)[name]
        seconds, judged = time.perf_counter() - start, evaluate(made, train)
        columns.append(Column(made, judged, seconds, name, int(hits(made).sum())))
    return SideBySide(tuple(columns))


MEASURED = (
    "structural validity|compositional validity|COV-R|COV-P|density distance, valid|"
    "element count distance, valid|energy distance, valid|uniqueness|novelty|stability|"
    "S.U.N.|S.U.N., new formula|ledger: duplicate|ledger: substitution|"
    "ledger: new structure|ledger: new|duplicates and substitutions, of the stable|"
    "match rate|RMSE"
).split("|")
"""Rows of the table on real data."""


def measured() -> pandas.DataFrame:
    """Return what scripts/bench.py quality measured on reduced MP-20, as text.

    Rows are the figures of `MEASURED` that any batch has.
    Columns are batches of crystals, published samples beside those of the shipped models;
    every cell has its 95 % interval. `attrs["source"]` is the command, machine and day.

    Raises:
        DataError: the file is not there: the data folder is incomplete.
    """
    import pandas

    found = recorded("quality", "bench.py quality")
    table = pandas.DataFrame(
        {
            name: {row: figure(batch["figures"].get(row)) for row in MEASURED}
            for name, batch in found["batches"].items()
        }
    )
    table = table[(table != "").any(axis=1)]
    table.attrs["source"] = source(found)
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
