"""What each guidance method buys and costs, family by family: the table of the guides.

A row draws crystals with a guide and without, and judges both: satisfaction, diversity,
novelty and cost. Its baseline is the best of N unguided crystals at equal cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators.contract import Generator
from matdesign.generators.shipped import load_model
from matdesign.guidance.guide import METHODS, Guide
from matdesign.metrics.best_of import best_of
from matdesign.metrics.intervals import share
from matdesign.tables import Table, render
from matdesign.teach.chapters import nearest
from matdesign.teach.sampled import Sample, recorded, sampled, source

_OF_GUIDE = ("scale", "particles", "draws")
"""Settings of a guide; all others are the sampler's."""

HEAD = (
    "constraint|model|method|met, unguided|met, guided|best of N|valid|unique|novel|"
    "distance from training|drawn|evaluations each|seconds each"
).split("|")


@dataclass(frozen=True)
class Case:
    """One question that is put to every generator.

    Args:
        wanted: the constraint whose satisfaction is measured.
        given: constraints that hold on both sides, guided and unguided (elements, say),
            so that a rare thing can be compared at all.
        judge: the same constraint by a second predictor, trained apart, which decides
            what is satisfied; None lets `wanted` itself decide.
        name: what tables call it; the constraint's own sentence where left out.
    """

    wanted: Constraint
    given: Constraint | None = None
    judge: Constraint | None = None
    name: str = ""

    def __repr__(self) -> str:
        given = "" if self.given is None else f", given {self.given}"
        return (self.name or str(self.wanted)) + given


@dataclass(frozen=True)
class Batch:
    """What is known of one batch of crystals, guided or not.

    Args:
        n: crystals returned.
        met: how many satisfy the judge.
        believed: how many satisfy the guiding constraint itself.
        drawn: crystals drawn for them.
        valid: how many have a valid structure and composition.
        unique: how many are valid in structure and no repeat of an earlier one.
        novel: how many are valid in structure and not in the training set.
        apart: mean distance of compositions to the nearest training crystal, 0 to 1.
        evaluations: network evaluations, all together.
        predictor_calls: crystals that predictors have judged.
        seconds: all together.
    """

    n: int
    met: int
    believed: int
    drawn: int
    valid: int
    unique: int
    novel: int
    apart: float
    evaluations: int
    predictor_calls: int
    seconds: float


@dataclass(frozen=True)
class Cell:
    """One constraint, one method, one model.

    Args:
        case: the question, in words.
        hard: whether a crystal that misses may not be returned.
        model: name.
        family: class of the model.
        method: what served the constraint.
        guided: the guided batch; None where the guide refused beforehand.
        free: the unguided batch.
        best: rate of the best of N unguided ones at equal network evaluations, and its
            interval; empty where the guide refused.
        of: N.
        refused: why there is no guided batch.
    """

    case: str
    hard: bool
    model: str
    family: str
    method: str
    guided: Batch | None
    free: Batch
    best: tuple[float, float, float] | tuple[()] = ()
    of: int = 0
    refused: str = ""

    @property
    def gain(self) -> float:
        """Guided over unguided rate; infinite where no unguided crystal does."""
        if self.guided is None:
            return math.nan
        free = self.free.met / self.free.n
        return self.guided.met / self.guided.n / free if free else math.inf

    @property
    def beats_best(self) -> bool:
        """Whether the guided rate is above that of the best of N."""
        if self.guided is None or not self.best:
            return False
        return self.guided.met / self.guided.n > self.best[0]

    @property
    def validity_loss(self) -> float:
        """Share of valid crystals, unguided less guided."""
        if self.guided is None:
            return math.nan
        return self.free.valid / self.free.n - self.guided.valid / self.guided.n


def restored(found: Mapping[str, Any]) -> Cell:
    """Return a cell from its JSON form, as `GuidanceTable.record` gives it.

    Args:
        found: the plain values.
    """
    guided = found["guided"] and Batch(**found["guided"])
    parts = {"guided": guided, "free": Batch(**found["free"])}
    return Cell(**{**found, **parts, "best": tuple(found["best"])})


# ---- one row -------------------------------------------------------------------------


def unguided(
    model: Generator,
    given: Constraint | None,
    n: int,
    train: Crystals,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Sample:
    """Return unguided crystals of a model, with only what is given on both sides.

    Args:
        model: any generator.
        given: constraints that hold on both sides, or None.
        n: how many.
        train: the training set.
        seed: of the samples, different from that of guided ones.
        settings: for the sampler.
    """
    plain = {k: v for k, v in (settings or {}).items() if k not in _OF_GUIDE}
    guide = None if given is None else Guide(given)
    model.sample(1, seed=seed, guide=guide, **plain)  # tables are built at first
    return sampled(model, n, train, seed=seed + 1_000_003, guide=guide, **plain)


def measure(
    model: Generator,
    case: Case,
    free: Sample,
    train: Crystals,
    name: str,
    method: str | None = None,
    n: int = 32,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Cell:
    """Return one row: a guided batch beside an unguided one.

    Args:
        model: any generator.
        case: what is asked.
        free: unguided crystals of the same model.
        train: the training set.
        name: of the model.
        method: of the guide; None lets it choose.
        n: guided crystals.
        seed: of the samples.
        settings: for the guide and the sampler.
    """
    wanted, own = case.wanted, dict(settings or {})
    for_guide = {k: own.pop(k) for k in list(own) if k in _OF_GUIDE}
    good, pool = _judged(free, case, train)
    cell = Cell(
        case=str(case),
        hard=wanted.hard,
        model=name,
        family=type(model).__name__,
        method=method or "",
        guided=None,
        free=pool,
    )
    try:
        asked = wanted if case.given is None else case.given & wanted
        guide = Guide(asked, method, strict="hard", **for_guide)
        parts = set(wanted.parts)
        plan = [one for one in guide.plan(model).choices if one.constraint in parts]
        used = {way for one in plan for way in one.methods}
        served = " + ".join(way for way in METHODS if way in used)
        cell = replace(cell, method=served)
        one = sampled(model, n, train, seed=seed, guide=guide, **own)
    except (DataError, InfeasibleTarget) as error:
        return replace(cell, refused=str(error))
    _, guided = _judged(one, case, train)
    price = guided.evaluations / guided.n / (pool.evaluations / pool.n)
    of = max(1, math.ceil(price - 1e-9))
    best: tuple[float, float, float] | tuple[()] = ()
    if of <= pool.n:
        with torch.no_grad():
            violation = wanted.violation(free.made).double().cpu().numpy()
        found = best_of(violation, good.cpu().numpy(), of, seed=seed)
        best = (found.value, found.low, found.high)
    return replace(cell, guided=guided, best=best, of=of)


def _judged(sample: Sample, case: Case, train: Crystals) -> tuple[Tensor, Batch]:
    """Return which crystals satisfy the judge, and what is known of the batch."""
    made, log = sample.made, sample.made.info.get("guide", {})
    with torch.no_grad():
        met = believed = (case.judge or case.wanted).satisfied(made)
        if case.judge is not None:
            believed = case.wanted.satisfied(made)
    return met, Batch(
        n=len(made),
        met=int(met.sum()),
        believed=int(believed.sum()),
        drawn=int(log.get("drawn", len(made))),
        valid=sample.count("valid"),
        unique=sample.count("unique"),
        novel=sample.count("novel"),
        apart=float(nearest(made, train)[1].mean()),
        evaluations=sample.evaluations,
        predictor_calls=int(log.get("predictor_calls", 0)),
        seconds=sample.seconds,
    )


# ---- the table -----------------------------------------------------------------------


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
        name: "guidance", or "guidance-fresh": constraints on which no default of a guide
            was chosen.

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
    questions = [one if isinstance(one, Case) else Case(one) for one in cases]
    if not isinstance(models, Mapping):
        models = {name: load_model(name) for name in models}
    cells = []
    for name, model in models.items():
        free: dict[str, Sample] = {}
        for case in questions:
            key = str(case.given)
            if key not in free:
                free[key] = unguided(
                    model, case.given, pool or n, train, seed, settings
                )
            cells += [
                measure(model, case, free[key], train, name, way, n, seed, settings)
                for way in methods
            ]
    return GuidanceTable(tuple(cells))


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
