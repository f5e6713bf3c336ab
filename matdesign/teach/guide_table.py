"""What each guidance method buys and costs, family by family: the table of the guides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.metrics.intervals import share
from matdesign.tables import Table, render
from matdesign.teach.guide_rows import Case, Cell, Free, measure, restored, unguided
from matdesign.teach.sampled import recorded, source

HEAD = [
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


@dataclass(frozen=True, repr=False)
class GuidanceTable(Table):
    """Constraint x method x family; it prints, and `add` makes it grow.

    Args:
        cells: one for each.
        source: the command, machine and day of a table that was measured before.
    """

    cells: tuple[Cell, ...] = ()
    source: str = ""

    def add(self, *cells: Cell) -> GuidanceTable:
        """Return the table with more cells."""
        return replace(self, cells=(*self.cells, *cells))

    def record(self) -> list[dict[str, Any]]:
        """Return all figures as plain JSON."""
        return [{**asdict(cell), "best": list(cell.best)} for cell in self.cells]

    def cells_as_text(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows as text."""
        blank = [""] * 8
        return HEAD, [
            _row(one) + ([f"refused: {one.refused}", *blank] * (one.guided is None))
            for one in self.cells
        ]

    def _repr_html_(self) -> str:
        groups = {
            case: [(_row(x)[1:], x.refused) for x in self.cells if x.case == case]
            for case in dict.fromkeys(cell.case for cell in self.cells)
        }
        return render("guidance_table", head=HEAD[1:], groups=groups.items())


def measured(name: str = "guidance") -> GuidanceTable:
    """Return a table that scripts/bench.py guidance measured with many crystals.

    Args:
        name: "guidance", or "guidance-again": the same soft cases with another seed, and
            conditions on which no default of a guide was chosen.

    Raises:
        DataError: it is not there: the data folder is incomplete.
    """
    runs = recorded(name, "bench.py guidance")["runs"]
    cells = [restored(one) for run in runs for one in run["cells"]]
    return GuidanceTable(tuple(cells), "\n".join(map(source, runs)))


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
    if not isinstance(models, Mapping):
        from matdesign.generators.shipped import load_model

        models = {name: load_model(name) for name in models}
    for name, model in models.items():
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


def _row(cell: Cell) -> list[str]:
    """Return the text of one row; of a refused guide only its first cells."""
    one, free = cell.guided, cell.free
    start = [cell.case, cell.model, cell.method, share(free.met, free.n)]
    if one is None:
        return start
    best = f"pool below N = {cell.of}"
    if cell.best:
        best = f"{cell.best[0]:.2f} ({cell.best[1]:.2f} to {cell.best[2]:.2f}), N = {cell.of}"

    def each(name: str, form: str = ".2f") -> str:
        before, after = getattr(free, name) / free.n, getattr(one, name) / one.n
        return f"{before:{form}} -> {after:{form}}"

    return [
        *start,
        share(one.met, one.n),
        best,
        *map(each, ("valid", "unique", "novel")),
        f"{free.apart:.2f} -> {one.apart:.2f}",
        str(one.drawn),
        each("evaluations", ".0f"),
        each("seconds"),
    ]
