"""What pages say of their own numbers, in words that follow from the numbers.

A direction that new weights may turn (is this above that?) is computed here. What must
hold whatever the weights is an `assert` in a hidden cell beside the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matdesign.constraints.base import listing

if TYPE_CHECKING:
    from matdesign.evaluate import Comparison
    from matdesign.generators.contract import Generator
    from matdesign.lessons import Sweep
    from matdesign.metrics.summary import Metric

BASELINES = ("shuffled training data", "random substitution")
"""Names that `lessons.judge` gives to the two baselines of every chapter."""

FIGURES = {
    "structural validity": 1,
    "compositional validity": 1,
    "uniqueness": 1,
    "novelty": 1,
    "density distance, all": -1,
    "element count distance, all": -1,
}
"""Figures that `against_baselines` speaks of: 1 where more is better, -1 where less."""


def compared(
    one: tuple[float, float],
    other: tuple[float, float],
    words: Sequence[str] = ("above", "below", "not told apart from"),
) -> str:
    """Return how one interval lies to another, in words.

    Args:
        one: its lower and upper end, for example of `wilson(hits, n)`.
        other: the same of what it is compared with.
        words: for wholly above, wholly below, and overlapping.

    Example:
        >>> compared((0.6, 0.8), (0.1, 0.3)), compared((0.6, 0.8), (0.7, 0.9))
        ('above', 'not told apart from')
    """
    if one[0] > other[1]:
        return words[0]
    return words[1] if one[1] < other[0] else words[2]


def against_baselines(judged: Comparison, name: str = "samples") -> str:
    """Return in which figures a model beats both baselines, and in which it does not.

    Args:
        judged: what `lessons.judge` gave.
        name: of the samples in it.
    """
    found: dict[str, list[str]] = {}
    for figure, sign in FIGURES.items():
        of = {k: judged[k].metrics.get(figure) for k in (name, *BASELINES)}
        ends = {k: _better(one, sign) for k, one in of.items() if one is not None}
        if len(ends) == len(of):
            best = max((ends[k] for k in BASELINES), key=sum)
            verdict = compared(ends[name], best, ("better", "worse", "alike"))
            found.setdefault(verdict, []).append(figure.removesuffix(", all"))
    parts = {
        "better": "better than both baselines in",
        "alike": "not told apart from the better baseline in",
        "worse": "worse than the better baseline in",
    }
    said = [f"{words} {listing(found[k])}" for k, words in parts.items() if k in found]
    return f"the {name} are {'; '.join(said)}"


def _better(one: Metric, sign: int) -> tuple[float, float]:
    """Return the ends of an interval on a scale on which more is better."""
    low, high = sorted((sign * one.low, sign * one.high))
    return low, high


def best_scale(sweep: Sweep) -> str:
    """Return what the scale of guidance does in a sweep of the chapters, in a sentence.

    Args:
        sweep: what `lessons.steer` gave: nothing asked, then rising scales.
    """
    asked = [row for row in sweep.rows[1:] if not row["asked"].endswith("scale 0")]
    best, last = max(asked, key=lambda row: row["hits"]), asked[-1]
    volume = sweep.samples[-1].volume / sweep.samples[-1].n_atoms
    end = (
        f"At the largest, {last['asked'].split(', ')[1]}, {_hits(last)} meet it, and the "
        f"median volume is {float(volume.median()):.1f} Å³ per atom"
    )
    if best is last:
        return f"{end}: no smaller scale has more hits."
    apart = compared(
        (last["low"], last["high"]),
        (best["low"], best["high"]),
        ("more", "fewer: more is not better", "not told apart"),
    )
    where = best["asked"].split(", ")[1]
    return f"Most hits, {_hits(best)}, come at {where}. {end} ({apart})."


def _hits(row: Mapping[str, object]) -> str:
    return f"{row['hits']} of {row['n']}"


def trained(model: Generator) -> str:
    """Return how long a shipped model was trained, from the record in its weights.

    Args:
        model: what `design.load_model` gave.
    """
    steps, minutes = model.record["steps"], model.record["seconds"] / 60
    long = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    return f"{steps:,} steps in {long}, on {model.record['device']}"
