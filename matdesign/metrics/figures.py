"""The figures of a batch, each computed from the table of its crystals."""

from collections.abc import Callable
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
    name: str, values: NDArray[np.float64], unit: str, settings: Protocol, seed: int
) -> Metric:
    """Return the median of the finite values with its bootstrap interval."""
    values = np.sort(values[np.isfinite(values)])
    return _centre(name, values, weighted_median, unit, settings, seed)


def mean(
    name: str, values: NDArray[np.float64], unit: str, settings: Protocol, seed: int
) -> Metric:
    """Return the mean of the values with its bootstrap interval."""

    def average(values: NDArray[np.float64], draws: NDArray[np.int64]) -> float:
        return float(draws @ values / draws.sum())

    return _centre(name, values, average, unit, settings, seed)


def _centre(
    name: str,
    values: NDArray[np.float64],
    of: Callable[[NDArray[np.float64], NDArray[np.int64]], float],
    unit: str,
    settings: Protocol,
    seed: int,
) -> Metric:
    """Return a statistic of values, each drawn a number of times, with its interval."""
    n = len(values)
    if not n:
        return Metric(name, np.nan, np.nan, np.nan, unit)
    low, high = bootstrap(
        lambda draws: of(values, draws),
        n,
        seed=seed,
        resamples=settings.resamples,
        level=settings.level,
    )
    return Metric(name, of(values, np.ones(n, dtype=np.int64)), low, high, unit, n)
