"""The figures of a batch, each computed from the table of its crystals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdesign.crystals import matching
from matdesign.crystals.batch import Crystals
from matdesign.metrics.distances import Transport
from matdesign.metrics.intervals import bootstrap, weighted_median
from matdesign.metrics.summary import Metric, Protocol

Table = dict[str, NDArray[Any]]
"""Column -> one entry per crystal."""


def rates(table: Table, settings: Protocol) -> list[Metric]:
    """Return the rates, each over all crystals: a failed one is in every denominator.

    Args:
        table: with the columns `structure_valid`, `composition_valid`, `valid`,
            `unique`, and `novel` where there was a reference.
        settings: the level of the intervals.
    """
    columns = {
        "structural validity": "structure_valid",
        "compositional validity": "composition_valid",
        "validity": "valid",
        "uniqueness": "unique",
        "novelty": "novel",
    }
    found = [
        Metric.rate(name, table[column], settings.level)
        for name, column in columns.items()
        if column in table
    ]
    if "novel" in table:
        all_three = table["valid"] & table["unique"] & table["novel"]
        found.append(Metric.rate("valid, unique and novel", all_three, settings.level))
    return found


def distances(
    table: Table, reference: Crystals, settings: Protocol, seed: int
) -> list[Metric]:
    """Return Wasserstein-1 distances to the reference, over valid crystals and all.

    Args:
        table: with the columns `density`, `n_elements` and `valid`.
        reference: crystals that the batch should resemble.
        settings: level and number of the resamples.
        seed: of the resamples.

    Returns:
        Density (g/cm^3) and number of elements, each twice. Published figures take
        valid crystals; those without a density are in neither.
    """
    known = reference.density.double().cpu().numpy()
    counts = [len(f) for f in matching.reduced(reference.species)]
    targets = {
        "density": (known[np.isfinite(known)], "g/cm^3"),
        "n_elements": (np.array(counts, dtype=float), "elements"),
    }
    has_density = np.isfinite(table["density"])
    found = []
    for suffix, rows in ((", valid", table["valid"]), (", all", has_density)):
        for column, (target, unit) in targets.items():
            name = f"{column.replace('n_elements', 'element count')} distance{suffix}"
            values = table[column][rows & has_density].astype(float)
            found.append(distance(name, values, target, unit, settings, seed))
    return found


def distance(
    name: str,
    values: NDArray[np.float64],
    target: NDArray[np.float64],
    unit: str,
    settings: Protocol,
    seed: int,
) -> Metric:
    """Return the Wasserstein-1 distance of two samples with its interval and floor."""
    if not len(values) or not len(target):
        return Metric(name, np.nan, np.nan, np.nan, unit)
    way = Transport(values, target)
    low, high = way.interval(
        seed=seed, resamples=settings.resamples, level=settings.level
    )
    far, floor = way.distance(), way.floor(seed=seed)
    return Metric(name, far, low, high, unit, len(values), floor=floor)


def median(
    name: str,
    values: NDArray[np.float64],
    unit: str,
    settings: Protocol,
    seed: int,
) -> Metric:
    """Return the median of the finite values with its bootstrap interval."""
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return Metric(name, np.nan, np.nan, np.nan, unit)

    def middle(draws: NDArray[np.int64]) -> float:
        return weighted_median(values, draws)

    low, high = bootstrap(
        middle,
        len(values),
        seed=seed,
        resamples=settings.resamples,
        level=settings.level,
    )
    once = middle(np.ones(len(values), dtype=np.int64))
    return Metric(name, once, low, high, unit, len(values))


def mean(
    name: str,
    values: NDArray[np.float64],
    unit: str,
    settings: Protocol,
    seed: int,
) -> Metric:
    """Return the mean of the values with its bootstrap interval."""
    if not len(values):
        return Metric(name, np.nan, np.nan, np.nan, unit)

    def average(draws: NDArray[np.int64]) -> float:
        return float(draws @ values / draws.sum())

    low, high = bootstrap(
        average,
        len(values),
        seed=seed,
        resamples=settings.resamples,
        level=settings.level,
    )
    once = average(np.ones(len(values), dtype=np.int64))
    return Metric(name, once, low, high, unit, len(values))
