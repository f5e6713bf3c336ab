"""`judge`: does a guide fool its predictor? A second one, trained apart, says."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matdesign.constraints.base import Constraint
from matdesign.constraints.predicted import Predictor, Property
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.intervals import larger_by_chance, share
from matdesign.predictors.network import PropertyNetwork
from matdesign.predictors.shipped import held_out_error, load_predictor
from matdesign.tables import html_table, text_table

ENOUGH, LEVEL = 8, 0.95
"""Accepted crystals that both batches need, for these alone to be compared; and of the
intervals: a p-value below 1 - LEVEL counts as proof."""


@dataclass(frozen=True)
class Opinion:
    """What the guide's predictor f and the judge g say of one batch.

    Args:
        n: crystals.
        accepted: crystals that f finds in the range.
        confirmed: crystals that g finds in the range.
        refused: accepted crystals that g finds outside by more than its error.
        correlation: of f and g, NaN where one of them is constant.
        apart: mean |f - g|.
        apart_accepted: mean |f - g| of the accepted crystals, NaN where there are none.
    """

    n: int
    accepted: int
    confirmed: int
    refused: int
    correlation: float
    apart: float
    apart_accepted: float


@dataclass(frozen=True)
class Judgement:
    """Whether a guide fooled its predictor; print it.

    Args:
        wanted: the constraint in words.
        unit: of the property.
        error: by how much the judge must find a crystal outside to refuse it.
        guided: what was said of guided crystals.
        unguided: what was said of unguided ones.
        among: crystals that were compared: "accepted", or "all" where these are too few.
        p_value: of the test that the predictors part more on guided crystals.
    """

    wanted: str
    unit: str
    error: float
    guided: Opinion
    unguided: Opinion
    among: str
    p_value: float

    @property
    def gap(self) -> float:
        """Hit rate of guided crystals by the guide's predictor, less that by the judge."""
        return (self.guided.accepted - self.guided.confirmed) / self.guided.n

    @property
    def fooled(self) -> bool:
        """Whether the guide is caught: the judge sees fewer hits, and it is no chance."""
        return self.gap > 0 and self.p_value < 1 - LEVEL

    @property
    def verdict(self) -> str:
        """The finding in a few sentences."""
        one, free = self.guided, self.unguided
        if not one.accepted:
            return "Nothing to judge: the guide's own predictor accepts no crystal."
        if one.apart == free.apart == 0:
            return "No second opinion: the judge says what the guide's predictor says."
        field = "apart_accepted" if self.among == "accepted" else "apart"
        a, b = (f"{getattr(x, field):.3g} {self.unit}".strip() for x in (one, free))
        kind = "accepted crystals" if self.among == "accepted" else "crystals"
        found = (
            f"{'Fooled' if self.fooled else 'Not caught'}: on guided {kind} the two differ "
            f"by {a}, on unguided ones by {b} (p = {self.p_value:.2g}). Of those that its "
            f"predictor accepts the judge refuses {one.refused} of {one.accepted} guided "
            f"and {free.refused} of {free.accepted} unguided."
        )
        if self.among == "all":
            found += (
                " That is too few to compare them alone; where the predictors part more "
                "inside the range than outside, draw more to be fair."
            )
        return found

    def record(self) -> dict[str, Any]:
        """Return everything as plain values for a JSON file."""
        said = {"gap": self.gap, "fooled": self.fooled, "verdict": self.verdict}
        return {**dataclasses.asdict(self), **said}

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        both, unit = (self.guided, self.unguided), f" {self.unit}" if self.unit else ""
        rows: dict[str, list[str]] = {
            "hits by its predictor": [share(x.accepted, x.n, LEVEL) for x in both],
            f"of those, refused by the judge by over {self.error:.3g}{unit}": [
                share(x.refused, x.accepted, LEVEL) for x in both
            ],
            "hits by the judge": [share(x.confirmed, x.n, LEVEL) for x in both],
            "correlation of the two": [f"{x.correlation:.2f}" for x in both],
            f"mean difference of the two{unit and ','}{unit}": [
                f"{x.apart:.3g}" for x in both
            ],
            "the same, its hits only": [f"{x.apart_accepted:.3g}" for x in both],
        }
        return ["", "guided", "unguided"], [[name, *row] for name, row in rows.items()]

    def __repr__(self) -> str:
        return f"{self.wanted}\n{text_table(*self._cells())}\n{self.verdict}"

    def _repr_html_(self) -> str:
        said = [["verdict", self.verdict]]
        return html_table(*self._cells(), self.wanted) + html_table([], said)


def judge(
    guided: Crystals,
    wanted: Constraint,
    second: str | Path | PropertyNetwork | Predictor,
    *,
    unguided: Crystals,
    error: float | None = None,
) -> Judgement:
    """Return whether a guide made good crystals, or only fooled its predictor.

    A guide moves crystals to where its predictor says yes. Some of these are places where
    the predictor is wrong. A second predictor, trained apart, errs elsewhere: where the
    two agree about guided crystals as well as about unguided ones, nothing was exploited;
    where they part, the guide has found a weakness and not a crystal. What selection
    alone does (the best of many are the luckiest, too) is in the unguided hits as well.

    Equation:
        d = mean over guided |f - g| - mean over unguided |f - g|, with f the guide's
        predictor and g the judge; p = share of random divisions of these crystals into
        two such batches whose d is at least as large.

    Args:
        guided: crystals that a guide made.
        wanted: what it was asked for: a `Property`, or constraints with one among them.
        second: the judge: name or folder of a trained network, the network, or a function
            of crystals, in the unit of the constraint.
        unguided: crystals of the same generator without the guide. Where at least 8 in
            each batch are accepted by the guide's predictor, only these are compared.
        error: mean absolute error of the judge on crystals that it never saw; None takes
            that of the network's card, and 0 for anything without a card.

    Returns:
        Rates, differences and the verdict. Crystals that a predictor gives no number for
        count as missed, and are left out of the differences.

    Raises:
        DataError: no `Property` or several in `wanted`, no such network, fewer than two
            crystals in a batch that both predict.
        UnitError: the judge predicts in another unit.

    Accuracy:
        The judge is a predictor too: weaknesses that both share stay unseen.

    Source:
        Over-optimised proxies, Gao et al., arXiv 2210.10760, where a larger reward model
        judges the one that was optimised. Changed: a test against unguided samples.
    """
    asked = [one for one in wanted.parts if isinstance(one, Property)]
    if len(asked) != 1:
        raise DataError(
            f"judge needs one Property in what was wanted; got {len(asked)} in {wanted}. "
            "Judge each property by itself."
        )
    first = asked[0]
    low, high = first.low, first.high
    if isinstance(second, str | Path):
        second = load_predictor(second)
    other = Property(second, low, high, name=first.name, unit=first.unit or None)
    if error is None:
        error = held_out_error(other.network, first.name) or 0.0
    opinions, every, hits = [], [], []
    for batch in (guided, unguided):
        with torch.no_grad():
            values = (one.value(batch).double().cpu().numpy() for one in (first, other))
            f, g = values
        yes, known = (f >= low) & (f <= high), np.isfinite(f) & np.isfinite(g)
        if known.sum() < 2:
            raise DataError(
                f"the two predictors both give a number for {int(known.sum())} of "
                f"{len(batch)} crystals; judge at least two, guided and unguided."
            )
        every.append(np.abs(f - g)[known])
        hits.append(np.abs(f - g)[known & yes])
        varies = min(f[known].std(), g[known].std()) > 0
        correlation = np.corrcoef(f[known], g[known])[0, 1] if varies else math.nan
        opinions.append(
            Opinion(
                n=len(batch),
                accepted=int(yes.sum()),
                confirmed=int(((g >= low) & (g <= high)).sum()),
                refused=int((yes & ~((g >= low - error) & (g <= high + error))).sum()),
                correlation=float(correlation),
                apart=float(every[-1].mean()),
                apart_accepted=float(hits[-1].mean()) if len(hits[-1]) else math.nan,
            )
        )
    enough = min(map(len, hits)) >= ENOUGH
    return Judgement(
        wanted=str(first),
        unit=first.unit,
        error=float(error),
        guided=opinions[0],
        unguided=opinions[1],
        among="accepted" if enough else "all",
        p_value=larger_by_chance(*(hits if enough else every)),
    )
