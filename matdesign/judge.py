"""`judge`: does a guide fool its predictor? A second one, trained apart, says."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matdesign.constraints.base import Constraint
from matdesign.constraints.predicted import Predictor, Property
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.shipped import held_out_error, load_predictor
from matdesign.metrics.intervals import Floats, bootstrap, larger_by_chance, wilson
from matdesign.metrics.summary import html_table, text_table

if TYPE_CHECKING:
    from matdesign.generators.property_network import PropertyNetwork


@dataclass(frozen=True)
class Opinion:
    """What the guide's predictor and the judge say of one batch.

    Args:
        n: crystals.
        accepted: crystals that the guide's predictor finds in the range.
        confirmed: crystals that the judge finds in the range.
        refused: accepted crystals that the judge finds outside by more than its error.
        correlation: of the two predictions, NaN where one of them is constant.
        apart: mean absolute difference of the two predictions.
        low: lower end of its interval.
        high: upper end of its interval.
    """

    n: int
    accepted: int
    confirmed: int
    refused: int
    correlation: float
    apart: float
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """Whether a guide fooled its predictor; print it.

    Args:
        wanted: the constraint in words.
        unit: of the property.
        error: by how much the judge must find a crystal outside to refuse it.
        guided: what was said of guided crystals.
        unguided: what was said of unguided ones.
        p_value: probability that chance alone sets the predictors as far apart on guided
            crystals, compared with unguided ones, as they are.
        level: of the intervals; p-values below 1 - level count as proof.
    """

    wanted: str
    unit: str
    error: float
    guided: Opinion
    unguided: Opinion
    p_value: float
    level: float = 0.95

    @property
    def gap(self) -> float:
        """Hit rate of guided crystals by the guide's predictor, less that by the judge."""
        return (self.guided.accepted - self.guided.confirmed) / self.guided.n

    @property
    def fooled(self) -> bool:
        """Whether the guide is caught: the judge sees fewer hits, and it is no chance."""
        return self.gap > 0 and self.p_value < 1 - self.level

    @property
    def verdict(self) -> str:
        """The finding in a sentence or two."""
        one, free, unit = self.guided, self.unguided, self.unit
        apart = (
            f"the two differ by {one.apart:.3g} {unit} on guided crystals and by "
            f"{free.apart:.3g} {unit} on unguided ones (p = {self.p_value:.2g})"
        ).replace("  ", " ")
        if not one.accepted:
            return "Nothing to judge: the guide's own predictor accepts no crystal."
        if one.apart == free.apart == 0:
            return "No second opinion: the judge says what the guide's predictor says."
        if self.fooled:
            return (
                f"Fooled: {apart}, and the judge refuses {one.refused} of the "
                f"{one.accepted} crystals that the guide's predictor accepts."
            )
        return (
            f"Not caught: {apart}; of {one.accepted} accepted crystals the judge refuses "
            f"{one.refused}."
        )

    def record(self) -> dict[str, Any]:
        """Return everything as plain values for a JSON file."""
        said = {"gap": self.gap, "fooled": self.fooled, "verdict": self.verdict}
        return {**dataclasses.asdict(self), **said}

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        both = (self.guided, self.unguided)
        unit = f" {self.unit}" if self.unit else ""
        form = f"{self.error:.3g}{unit}"

        def rate(count: int, n: int) -> str:
            if not n:
                return "none"
            low, high = wilson(count, n, level=self.level)
            return f"{count}/{n} ({low:.2f} to {high:.2f})"

        return ["", "guided", "unguided"], [
            ["hits by the guide's predictor", *(rate(x.accepted, x.n) for x in both)],
            ["hits by the judge", *(rate(x.confirmed, x.n) for x in both)],
            [
                f"accepted, refused by the judge by more than {form}",
                *(rate(x.refused, x.accepted) for x in both),
            ],
            ["correlation of the two", *(f"{x.correlation:.2f}" for x in both)],
            [
                "mean absolute difference of the two",
                *(f"{x.apart:.3g}{unit} ({x.low:.3g} to {x.high:.3g})" for x in both),
            ],
        ]

    def __repr__(self) -> str:
        return f"{self.wanted}\n{text_table(*self._cells())}\n{self.verdict}"

    def _repr_html_(self) -> str:
        table = html_table(*self._cells(), self.wanted)
        return f"<div>{table}<p>{self.verdict}</p></div>"


def judge(
    guided: Crystals,
    wanted: Constraint,
    second: str | Path | PropertyNetwork | Predictor,
    *,
    unguided: Crystals,
    error: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Judgement:
    """Return whether a guide made good crystals, or only fooled its predictor.

    A guide moves crystals to where its predictor says yes. Some of these are places where
    the predictor is wrong. A second predictor, trained apart, errs elsewhere: where the
    two agree about guided crystals as well as about unguided ones, nothing was exploited;
    where they part, the guide has found a weakness and not a crystal.

    Equation:
        d = mean over guided |f - g| - mean over unguided |f - g|, with f the guide's
        predictor and g the judge; p = share of random divisions of all crystals into two
        such batches whose d is at least as large.

    Args:
        guided: crystals that a guide made.
        wanted: what it was asked for: a `Property`, or constraints with one among them.
        second: the judge: name or folder of a trained network, the network, or a function
            of crystals, in the unit of the constraint.
        unguided: crystals of the same generator without the guide, or of the same guide
            by `reject`, which chooses but does not push.
        error: mean absolute error of the judge on crystals that it never saw; None takes
            that of the network's card, and 0 for anything without a card.
        level: of the intervals and of the proof.
        seed: of the random divisions and the bootstrap.

    Returns:
        Rates, differences and the verdict. Crystals that either predictor gives no number
        for count as missed, and are left out of the differences.

    Raises:
        DataError: no `Property` or several in `wanted`, no such network, fewer than two
            crystals in a batch that both predict.
        UnitError: the judge predicts in another unit.

    Accuracy:
        The judge is a predictor too: weaknesses that both share stay unseen, and on
        crystals unlike all training data both may part without anybody being fooled.

    Source:
        The measure of over-optimised proxies, Gao et al., arXiv 2210.10760, in its
        simplest form: there a larger reward model judges the one that was optimised.
    """
    asked = [one for one in wanted.parts if isinstance(one, Property)]
    if len(asked) != 1:
        raise DataError(
            f"judge needs one Property in what was wanted; got {len(asked)} in {wanted}. "
            "Judge each property by itself."
        )
    (first,) = asked
    if isinstance(second, str | Path):
        second = load_predictor(second)
    other = Property(
        second, first.low, first.high, name=first.name, unit=first.unit or None
    )
    if error is None:
        error = held_out_error(other.network, first.name) or 0.0
    said = [_values(batch, first, other) for batch in (guided, unguided)]
    apart = [np.abs(f - g)[np.isfinite(f) & np.isfinite(g)] for f, g in said]
    opinions = [
        _opinion(f, g, first, error, level, seed) for f, g in said
    ]
    return Judgement(
        wanted=str(first),
        unit=first.unit,
        error=float(error),
        guided=opinions[0],
        unguided=opinions[1],
        p_value=larger_by_chance(*apart, seed=seed),
        level=level,
    )


def _values(crystals: Crystals, first: Property, other: Property) -> tuple[Any, Any]:
    """Return what both predictors say, float64, shape (crystals,) each."""
    with torch.no_grad():
        f, g = (one.value(crystals).double().cpu().numpy() for one in (first, other))
    both = int((np.isfinite(f) & np.isfinite(g)).sum())
    if both < 2:
        raise DataError(
            f"the two predictors both give a number for {both} of {len(crystals)} "
            "crystals; judge at least two, guided and unguided."
        )
    return f, g


def _opinion(
    f: Floats, g: Floats, wanted: Property, error: float, level: float, seed: int
) -> Opinion:
    """Return what is said of one batch."""
    low, high = wanted.low, wanted.high
    yes = (f >= low) & (f <= high)
    sure = (g >= low - error) & (g <= high + error)
    known = np.isfinite(f) & np.isfinite(g)
    a, b = f[known], g[known]
    gaps = np.abs(a - b)
    varies = min(a.std(), b.std()) > 0
    ends = bootstrap(
        lambda draws: float(np.average(gaps, weights=draws)),
        len(gaps),
        seed=seed,
        resamples=1_000,
        level=level,
    )
    return Opinion(
        n=len(f),
        accepted=int(yes.sum()),
        confirmed=int(((g >= low) & (g <= high)).sum()),
        refused=int((yes & ~sure).sum()),
        correlation=float(np.corrcoef(a, b)[0, 1]) if varies else float("nan"),
        apart=float(gaps.mean()),
        low=ends[0],
        high=ends[1],
    )
