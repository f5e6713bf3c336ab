"""What the chapters on architectures share: data, target, seeds, baselines and tables.

One set of numbers for all of them, so that the chapters can be read in columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.generators.contract import Generator
from matdesign.metrics.baselines import baselines
from matdesign.metrics.evaluator import Comparison, compare, evaluate
from matdesign.metrics.intervals import wilson
from matdesign.tables import Table
from matdesign.teach.sampled import sampled

DATA = "prototypes"
SEED = 0
COUNT = 64
TARGET: dict[str, Any] = {"composition": "ABX3", "volume_per_atom": (14.0, 18.0)}
"""The design question of every chapter: ABX3 crystals of 14 to 18 A^3 per atom."""

SCALES = (0.0, 1.0, 2.0, 4.0)
"""Scales of classifier-free guidance in the sweep."""


def data() -> tuple[Crystals, Crystals]:
    """Return the training and the held-out crystals of all chapters."""
    from matdesign.crystals.data.sets import load

    return load(DATA, split="train"), load(DATA, split="test")


def judge(
    made: Crystals | Mapping[str, Crystals], train: Crystals, *, n: int | None = None
) -> Comparison:
    """Return samples beside the two baselines of every chapter, under one protocol.

    Args:
        made: samples of one model, or of several by name.
        train: the training set: what counts as known, and the source of the baselines.
        n: crystals in each baseline; None takes as many as the largest sample has.
    """
    batches = {"samples": made} if isinstance(made, Crystals) else dict(made)
    if n is not None:
        batches |= baselines(train, n, seed=SEED)
    return compare(batches, train, seed=SEED)


def hits(crystals: Crystals, target: Mapping[str, Any] = TARGET) -> Tensor:
    """Return which crystals meet the target of the chapters, bool, shape (crystals,).

    Both parts are computed from the crystal itself: the pattern by counting, the volume
    from the cell.
    """
    from matdesign.constraints.between import Between
    from matdesign.constraints.composition import Composition

    low, high = target["volume_per_atom"]
    wanted = Composition(pattern=target["composition"]) & Between(
        "volume_per_atom", low, high, unit="angstrom^3"
    )
    return wanted.satisfied(crystals)


def structurally_valid(crystals: Crystals) -> int:
    """Return how many crystals pass the published test of structural validity."""
    return int(evaluate(crystals).table["structure_valid"].sum())


@dataclass(frozen=True, repr=False)
class Sweep(Table):
    """Hit rate against price, one row per scale of guidance; it prints as a table.

    Args:
        rows: one dictionary per scale: `condition`, `hits`, `n`, `low`, `high`, `valid`,
            `evaluations`, `seconds`.
        samples: the crystals of each row.
    """

    rows: tuple[dict[str, Any], ...]
    samples: tuple[Crystals, ...]

    def cells_as_text(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows as text."""
        head = [
            "condition",
            "meet the target",
            "95 % interval",
            "structurally valid",
            "network evaluations per crystal",
            "seconds",
        ]
        return head, [
            [
                row["condition"],
                f"{row['hits']}/{row['n']}",
                f"{row['low']:.2f} to {row['high']:.2f}",
                f"{row['valid']}/{row['n']}",
                f"{row['evaluations'] / row['n']:.0f}",
                f"{row['seconds']:.1f}",
            ]
            for row in self.rows
        ]


def steer(
    model: Generator,
    *,
    target: Mapping[str, Any] = TARGET,
    scales: Sequence[float] = SCALES,
    n: int = COUNT,
    seed: int = SEED,
    steps: int | None = None,
) -> Sweep:
    """Return how often a model meets the target, without and with it as a condition.

    The first row has no condition. The others have the whole target: the pattern
    holds by construction, the volume as well as the model learned it.

    Args:
        model: any generator that knows the target's properties.
        target: the conditions.
        scales: of classifier-free guidance; at 0 only the pattern is a condition.
        n: crystals in each row.
        seed: of the samples.
        steps: sampling steps; None takes the model's own number.
    """
    ways: dict[str, dict[str, Any]] = {"nothing": {"conditions": None, "scale": 1.0}}
    for scale in scales:
        ways[f"target, scale {scale:g}"] = {"conditions": target, "scale": scale}
    rows, samples = [], []
    for name, way in ways.items():
        one = sampled(model, n, seed=seed, steps=steps, **way)
        met = int(hits(one.made, target).sum())
        low, high = wilson(met, n)
        rows.append(
            {
                "condition": name,
                "hits": met,
                "n": n,
                "low": low,
                "high": high,
                "valid": one.count("structure_valid"),
                "evaluations": one.evaluations,
                "seconds": one.seconds,
            }
        )
        samples.append(one.made)
    return Sweep(tuple(rows), tuple(samples))


@dataclass(frozen=True, repr=False)
class Neighbours(Table):
    """Generated crystals beside the training crystal that is most like each.

    Args:
        made: the generated crystals.
        nearest: training crystals, in the same order.
        rows: formula, formula of the neighbour, distance.
    """

    made: Crystals
    nearest: Crystals
    rows: tuple[tuple[str, str, float], ...]

    def cells_as_text(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows as text."""
        head = ["generated", "nearest in training", "distance of compositions"]
        return head, [[a, b, f"{distance:.3f}"] for a, b, distance in self.rows]


def neighbours(made: Crystals, train: Crystals) -> Neighbours:
    """Return the training crystal whose composition and size are nearest to each.

    The distance is half the sum of absolute differences of the atomic fractions: 0 for
    the same composition, 1 for no common element. Among equals the cell volume per atom
    decides.
    """
    share, pool = _fractions(made), _fractions(train)
    apart = torch.cdist(share, pool, p=1.0) / 2
    volume = (train.volume / train.n_atoms).log()
    own = (made.volume / made.n_atoms).log()
    nearest = (apart + 1e-3 * (own[:, None] - volume[None]).abs()).argmin(1)
    chosen = train[nearest]
    found = apart.gather(1, nearest[:, None]).squeeze(1).tolist()
    return Neighbours(
        made, chosen, tuple(zip(made.formulas, chosen.formulas, found, strict=True))
    )


def _fractions(crystals: Crystals) -> Tensor:
    """Return atomic fractions of all elements, shape (crystals, 104)."""
    counts = torch.zeros(len(crystals), 104)
    counts.scatter_add_(1, crystals.species, crystals.mask.float())
    return counts / counts.sum(1, keepdim=True)
