"""One row of the table of guides: a question, a method, a model, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators.contract import Generator
from matdesign.guidance.guide import METHODS, Guide
from matdesign.guidance.methods import Choices
from matdesign.metrics.best_of import best_of
from matdesign.teach.chapters import neighbours
from matdesign.teach.sampled import Sample, sampled

_OF_GUIDE = ("scale", "particles", "draws", "noise")
"""Settings of a guide; all others are the sampler's."""


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

    @property
    def asked(self) -> Constraint:
        """Everything that a guide is asked for."""
        return self.wanted if self.given is None else self.given & self.wanted

    def __repr__(self) -> str:
        return (self.name or str(self.wanted)) + (
            "" if self.given is None else f", given {self.given}"
        )


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
    guided, free = found["guided"], Batch(**found["free"])
    guided = None if guided is None else Batch(**guided)
    best = tuple(found["best"])
    return Cell(**{**found, "guided": guided, "free": free, "best": best})


@dataclass(frozen=True)
class Free:
    """Unguided crystals of one model, what is known of them, and their cost."""

    made: Crystals
    batch: Batch


def unguided(
    model: Generator,
    given: Constraint | None,
    n: int,
    train: Crystals,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Free:
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
    one = sampled(model, n, train, seed=seed + 1_000_003, guide=guide, **plain)
    return Free(one.made, _batch(one, train))


def measure(
    model: Generator,
    case: Case,
    free: Free,
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
    judge = case.judge or case.wanted
    own = dict(settings or {})
    for_guide = {k: own.pop(k) for k in list(own) if k in _OF_GUIDE}
    pool = _judged(free.batch, free.made, case.wanted, judge)
    cell = Cell(
        case=str(case),
        hard=case.wanted.hard,
        model=name,
        family=type(model).__name__,
        method=method or "",
        guided=None,
        free=pool,
    )
    try:
        guide = Guide(case.asked, method, strict="hard", **for_guide)
        choices = guide.plan(model)
        cell = replace(cell, method=_served(choices, case.wanted))
        one = sampled(model, n, train, seed=seed, guide=guide, **own)
    except (DataError, InfeasibleTarget) as error:
        return replace(cell, refused=str(error))
    guided = _judged(_batch(one, train), one.made, case.wanted, judge)
    price = guided.evaluations / guided.n / (pool.evaluations / pool.n)
    of = max(1, math.ceil(price - 1e-9))
    with torch.no_grad():
        violation = case.wanted.violation(free.made).double().cpu().numpy()
        good = judge.satisfied(free.made).cpu().numpy()
    best: tuple[float, float, float] | tuple[()] = ()
    if of <= len(good):
        found = best_of(violation, good, of, seed=seed)
        best = (found.value, found.low, found.high)
    return replace(cell, guided=guided, best=best, of=of)


def _served(choices: Choices, wanted: Constraint) -> str:
    """Return the methods that serve a constraint, in words."""
    parts = set(wanted.parts)
    used = {m for c in choices.choices if c.constraint in parts for m in c.methods}
    return " + ".join(method for method in METHODS if method in used)


def _batch(sample: Sample, train: Crystals) -> Batch:
    """Return what is known of a batch, whatever the constraint."""
    made, log = sample.made, sample.made.info.get("guide", {})
    apart = [row[2] for row in neighbours(made, train).rows]
    return Batch(
        n=len(made),
        met=0,
        believed=0,
        drawn=int(log.get("drawn", len(made))),
        valid=sample.count("valid"),
        unique=sample.count("unique"),
        novel=sample.count("novel"),
        apart=sum(apart) / len(apart),
        evaluations=sample.evaluations,
        predictor_calls=int(log.get("predictor_calls", 0)),
        seconds=sample.seconds,
    )


def _judged(
    batch: Batch, made: Crystals, wanted: Constraint, judge: Constraint
) -> Batch:
    with torch.no_grad():
        met = int(judge.satisfied(made).sum())
        believed = met if judge is wanted else int(wanted.satisfied(made).sum())
    return replace(batch, met=met, believed=believed)
