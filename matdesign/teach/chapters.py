"""What the chapters on architectures share: data, target, seeds, baselines and tables.

One set of numbers for all of them, so that the chapters can be read in columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from matdesign.constraints.between import VolumePerAtom
from matdesign.constraints.composition import Composition, atoms_of_each
from matdesign.crystals.batch import Crystals
from matdesign.crystals.data.sets import load
from matdesign.generators.contract import Generator
from matdesign.metrics.evaluator import Comparison, compare
from matdesign.metrics.intervals import wilson
from matdesign.tables import Table
from matdesign.teach.sampled import sampled

if TYPE_CHECKING:
    import pandas

DATA = "prototypes"
SEED = 0
COUNT = 64
TARGET: dict[str, Any] = {"composition": "ABX3", "volume_per_atom": (14.0, 18.0)}
"""The design question of every chapter: ABX3 crystals of 14 to 18 A^3 per atom."""

SCALES = (0.0, 1.0, 2.0, 4.0)
"""Scales of classifier-free guidance in the sweep."""


def data() -> tuple[Crystals, Crystals]:
    """Return the training and the held-out crystals of all chapters."""
    return load(DATA, split="train"), load(DATA, split="test")


def judge(made: Crystals | Mapping[str, Crystals], train: Crystals) -> Comparison:
    """Return samples beside the two baselines of every chapter, under one protocol.

    Args:
        made: samples of one model, or of several by name.
        train: the training set: what counts as known, and the source of the baselines,
            as large as the largest sample.
    """
    batches = {"samples": made} if isinstance(made, Crystals) else dict(made)
    return compare(batches, train, seed=SEED)


def hits(crystals: Crystals) -> Tensor:
    """Return which crystals meet the target of the chapters, bool, shape (crystals,).

    Both parts are computed from the crystal itself: the pattern by counting, the volume
    from the cell.
    """
    volume = VolumePerAtom(*TARGET["volume_per_atom"])
    return (Composition(TARGET["composition"]) & volume).satisfied(crystals)


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
        figures: dict[str, Callable[[dict[str, Any]], str]] = {
            "condition": lambda row: row["condition"],
            "meet the target": "{hits}/{n}".format_map,
            "95 % interval": "{low:.2f} to {high:.2f}".format_map,
            "structurally valid": "{valid}/{n}".format_map,
            "network evaluations per crystal": lambda row: (
                f"{row['evaluations'] / row['n']:.0f}"
            ),
            "seconds": "{seconds:.1f}".format_map,
        }
        return list(figures), [[f(row) for f in figures.values()] for row in self.rows]


def steer(
    model: Generator,
    *,
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
        scales: of classifier-free guidance; at 0 only the pattern is a condition.
        n: crystals in each row.
        seed: of the samples.
        steps: sampling steps; None takes the model's own number.
    """
    rows, samples = [], []
    model.sample(1, seed=seed, steps=1)  # tables are built at the first call
    for scale in (None, *scales):
        asked: dict[str, Any] = {"conditions": TARGET, "scale": scale}
        name = f"target, scale {scale or 0:g}"
        if scale is None:
            asked, name = {"conditions": None, "scale": 1.0}, "nothing"
        one = sampled(model, n, seed=seed, steps=steps, **asked)
        met = int(hits(one.made).sum())
        low, high = wilson(met, n)
        row = {"condition": name, "hits": met, "n": n, "low": low, "high": high}
        row |= {"valid": one.count("structure_valid"), "seconds": one.seconds}
        rows.append(row | {"evaluations": one.evaluations})
        samples.append(one.made)
    return Sweep(tuple(rows), tuple(samples))


def nearest(made: Crystals, train: Crystals) -> tuple[Crystals, Tensor]:
    """Return the training crystal of nearest composition for each, and the distances.

    The distance is half the sum of absolute differences of the atomic fractions: 0 for
    the same composition, 1 for no common element. Among equals the cell volume per atom
    decides.
    """
    counts = atoms_of_each(made), atoms_of_each(train)
    ours, theirs = (each / each.sum(1, keepdim=True) for each in counts)
    apart = torch.cdist(ours, theirs, p=1.0) / 2
    own, volume = ((one.volume / one.n_atoms).log() for one in (made, train))
    at = (apart + 1e-3 * (own[:, None] - volume[None]).abs()).argmin(1)
    return train[at], apart.gather(1, at[:, None]).squeeze(1)


def neighbours(made: Crystals, train: Crystals) -> pandas.DataFrame:
    """Return generated crystals beside the training crystal that is most like each.

    See `nearest`.
    """
    import pandas

    known, distance = nearest(made, train)
    columns = {
        "generated": made.formulas,
        "nearest in training": known.formulas,
        "distance of compositions": [f"{one:.3f}" for one in distance.tolist()],
    }
    return pandas.DataFrame(columns)
