"""What pages say of their own numbers, in words that follow from the numbers.

A direction that new weights may turn (is this above that?) is computed here. What must
hold whatever the weights is an `assert` in a hidden cell beside the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator
    from matdesign.metrics.evaluator import Comparison
    from matdesign.teach.chapters import Sweep

FIGURES = (
    "structural validity",
    "compositional validity",
    "uniqueness",
    "novelty",
    "density distance, all",
    "element count distance, all",
)
"""Figures in which chapters hold samples against the baselines."""


def compared(
    one: tuple[float, float],
    other: tuple[float, float],
    words: Sequence[str] = ("above", "below", "not distinguished from"),
) -> str:
    """Return how one interval lies to another, in words.

    Args:
        one: its lower and upper end, for example of `wilson(hits, n)`.
        other: the same of what it is compared with.
        words: for wholly above, wholly below, and overlapping.

    Example:
        >>> compared((0.6, 0.8), (0.1, 0.3)), compared((0.6, 0.8), (0.7, 0.9))
        ('above', 'not distinguished from')
    """
    if one[0] > other[1]:
        return words[0]
    return words[1] if one[1] < other[0] else words[2]


def against_baselines(judged: Comparison, name: str = "samples") -> str:
    """Return in which figures a model beats both baselines, and in which it does not.

    Args:
        judged: what `chapters.judge` gave.
        name: of the samples in it.
    """
    said = judged.against_baselines(*FIGURES)[list(judged.evaluations).index(name)]
    return f"the {name} are {said.removeprefix(f'{name}: ').removesuffix('.')}"


def best_scale(sweep: Sweep) -> str:
    """Return what the scale of guidance does in a sweep of the chapters, in a sentence.

    Args:
        sweep: what `chapters.steer` gave: no condition, then rising scales.
    """
    guided = [row for row in sweep.rows[1:] if not row["condition"].endswith("scale 0")]
    best, last = max(guided, key=lambda row: row["hits"]), guided[-1]
    volume = sweep.samples[-1].volume / sweep.samples[-1].n_atoms
    end = (
        f"At the largest, {last['condition'].split(', ')[1]}, {_hits(last)} meet it, and the "
        f"median volume is {float(volume.median()):.1f} Å³ per atom"
    )
    if best is last:
        return f"{end}: no smaller scale has more hits."
    apart = compared(
        (last["low"], last["high"]),
        (best["low"], best["high"]),
        ("more", "fewer: more is not better", "the intervals overlap"),
    )
    where = best["condition"].split(", ")[1]
    return f"Most hits, {_hits(best)}, come at {where}. {end} ({apart})."


def _hits(row: Mapping[str, object]) -> str:
    return f"{row['hits']} of {row['n']}"


def trained(model: Generator) -> str:
    """Return how long a shipped model was trained, from the record in its weights.

    Steps of the weights that a training went on from are named, their minutes are not.

    Args:
        model: what `design.load_model` gave.
    """
    steps, minutes = model.record["steps"], model.record["seconds"] / 60
    long = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    first = model.record.get("started_from")
    after = f", after {first['steps']:,} steps of earlier weights" if first else ""
    return f"{steps:,} steps in {long}, on {model.record['device']}{after}"
