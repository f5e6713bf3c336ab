"""What each guidance method buys and costs, family by family: the table of the guides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Any

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.metrics.intervals import wilson
from matdesign.metrics.summary import text_table
from matdesign.paths import data_dir
from matdesign.teach.guide_rows import Case, Cell, Free, measure, restored, unguided

SMALL = '<small style="font-size:85%">'
"""An interval below its figure; themes of books make plain small text large."""


@dataclass(frozen=True)
class GuidanceTable:
    """Constraint x method x family; it prints, and `add` makes it grow.

    Args:
        cells: one for each.
        source: the command, machine and day of a table that was measured before.
    """

    cells: tuple[Cell, ...] = field(default=())
    source: str = ""

    def add(self, *cells: Cell) -> GuidanceTable:
        """Return the table with more cells."""
        return replace(self, cells=(*self.cells, *cells))

    def record(self) -> list[dict[str, Any]]:
        """Return all figures as plain JSON."""
        return [{**asdict(cell), "best": list(cell.best)} for cell in self.cells]

    def cells_as_text(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows as text."""
        head = [
            "constraint",
            "model",
            "method",
            "met, unguided",
            "met, guided",
            "best of N",
            "valid",
            "unique",
            "novel",
            "distance from training",
            "drawn",
            "evaluations each",
            "seconds each",
        ]
        return head, [_row(cell) for cell in self.cells]

    def __repr__(self) -> str:
        return text_table(*self.cells_as_text())

    def _repr_html_(self) -> str:
        head, rows = self.cells_as_text()
        top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head[1:])
        parts = []
        for case in dict.fromkeys(row[0] for row in rows):
            body = "".join(_line(row[1:]) for row in rows if row[0] == case)
            over = f'<th colspan="{len(head) - 1}" scope="rowgroup">{escape(case)}</th>'
            parts.append(f"<tbody><tr>{over}</tr>{body}</tbody>")
        table = f"<table><thead><tr>{top}</tr></thead>{''.join(parts)}</table>"
        return f'<div style="overflow-x:auto;font-size:78%">{table}</div>'


def _line(cells: list[str]) -> str:
    """Return one row, figures unbroken and their intervals below them."""
    if cells[3].startswith("refused"):
        why = f'<td colspan="{len(cells) - 3}">{escape(cells[3])}</td>'
        return f"<tr>{''.join(f'<td>{escape(x)}</td>' for x in cells[:3])}{why}</tr>"
    made = [escape(x).replace(" (", f"<br>{SMALL}(", 1) for x in cells]
    made = [x + "</small>" if SMALL in x else x for x in made]
    made[1] = made[1].replace(" + ", "<br>+ ")
    figures = "".join(f'<td style="white-space:nowrap">{x}</td>' for x in made[1:])
    return f"<tr><td>{made[0]}</td>{figures}</tr>"


def measured(name: str = "guidance") -> GuidanceTable:
    """Return a table that scripts/bench.py guidance measured with many crystals.

    Args:
        name: "guidance", or "guidance-again": the same soft cases with another seed, and
            wishes on which no default of a guide was chosen.

    Raises:
        DataError: it is not there: the data folder is incomplete.
    """
    path = data_dir() / "measured" / f"{name}.json"
    if not path.is_file():
        raise DataError(
            f"no measured table at {path}. Run scripts/bench.py guidance --output "
            f"{path.name}, or take the data folder of a release."
        )
    runs = json.loads(path.read_text())["runs"]
    cells = [restored(one) for run in runs for one in run["cells"]]
    lines = [f"{run['command']} ({run['hardware']}, {run['written']})" for run in runs]
    return GuidanceTable(tuple(cells), "\n".join(lines))


def guidance_table(
    models: Mapping[str, Generator] | Sequence[str],
    cases: Iterable[Case | Constraint],
    train: Crystals,
    *,
    methods: Sequence[str | None] = (None,),
    n: int = 32,
    pool: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> GuidanceTable:
    """Return what every method buys and costs for every constraint and model.

    Each row compares a guided batch with an unguided one of the same model: satisfaction
    with its interval, validity, diversity, distance from the training set and cost, and
    the rate of the best of N unguided crystals at equal network evaluations. Soft
    constraints may be missed, so that hit rates mean something; hard ones hold always.

    Args:
        models: generators by name, or names of shipped ones.
        cases: what is asked.
        train: the training set, for novelty and distance.
        methods: of the guide; None lets it choose.
        n: guided crystals in each row.
        pool: unguided crystals for each model and given constraint; None takes n.
        seed: of the samples.
        **settings: for `Guide` (`scale`, `particles`, `draws`) and for the sampler.

    Raises:
        DataError: a name is no shipped model, or n or pool is below 1.

    Example:
        >>> import matdesign as design  # doctest: +SKIP
        >>> train = design.load("prototypes", split="train")  # doctest: +SKIP
        >>> design.guidance_table(
        ...     ["vae-prototypes"], [design.Density(5, 6)], train
        ... )  # doctest: +SKIP
    """
    if n < 1 or (pool is not None and pool < 1):
        raise DataError(f"n and pool must be at least 1; got {n} and {pool}.")
    table = GuidanceTable()
    questions = [one if isinstance(one, Case) else Case(one) for one in cases]
    for name, model in _loaded(models):
        free: dict[str, Free] = {}
        for case in questions:
            key = str(case.given)
            if key not in free:
                free[key] = unguided(
                    model, case.given, pool or n, train, seed, settings
                )
            for method in methods:
                cell = measure(
                    model, case, free[key], train, name, method, n, seed, settings
                )
                table = table.add(cell)
    return table


def _loaded(
    models: Mapping[str, Generator] | Sequence[str],
) -> list[tuple[str, Generator]]:
    if isinstance(models, Mapping):
        return list(models.items())
    from matdesign.generators.shipped import load_model

    return [(name, load_model(name)) for name in models]


def _rate(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count}/{n} ({low:.2f} to {high:.2f})"


def _row(cell: Cell) -> list[str]:
    one, free = cell.guided, cell.free
    if one is None:
        return [
            cell.case,
            cell.model,
            cell.method,
            _rate(free.met, free.n),
            f"refused: {cell.refused}",
            *[""] * 8,
        ]
    best = f"pool below N = {cell.of}"
    if cell.best:
        best = f"{cell.best[0]:.2f} ({cell.best[1]:.2f} to {cell.best[2]:.2f}), N = {cell.of}"
    return [
        cell.case,
        cell.model,
        cell.method,
        _rate(free.met, free.n),
        _rate(one.met, one.n),
        best,
        f"{_share(free.valid, free.n)} -> {_share(one.valid, one.n)}",
        f"{_share(free.unique, free.n)} -> {_share(one.unique, one.n)}",
        f"{_share(free.novel, free.n)} -> {_share(one.novel, one.n)}",
        f"{free.apart:.2f} -> {one.apart:.2f}",
        str(one.drawn),
        f"{free.evaluations / free.n:.0f} -> {one.evaluations / one.n:.0f}",
        f"{free.seconds / free.n:.2f} -> {one.seconds / one.n:.2f}",
    ]


def _share(count: int, n: int) -> str:
    return f"{count / n:.2f}"
