"""Wasserstein-1: how far one distribution has to be carried to become another."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdesign.errors import DataError
from matdesign.metrics.intervals import bootstrap
from matdesign.metrics.summary import Metric

Floats = NDArray[np.float64]


def wasserstein(values: Floats, reference: Floats) -> float:
    """Return the exact Wasserstein-1 distance of two samples on the line.

    It is the mean way that a value has to be moved, in the unit of the values: 0 for
    equal samples, d for samples shifted by d.

    Equation:
        W1 = integral of |F(x) - G(x)| dx, F and G the empirical distribution functions.

    Args:
        values: shape (n,), n >= 1, any order, finite.
        reference: shape (m,), m >= 1, any order, finite.

    Returns:
        The distance, >= 0, in the unit of the values.

    Raises:
        DataError: a sample is empty or holds a value that is not finite.

    Source:
        S. S. Vallender, Theory Probab. Appl. 18, 784 (1974). Nothing changed.
    """
    return Transport(values, reference).distance()


@dataclass
class Transport:
    """The distance of one sample to a reference, ready to be computed many times.

    Both samples are sorted onto one grid once; a resample then costs one pass over it.

    Args:
        values: shape (n,), finite.
        reference: shape (m,), finite.

    Raises:
        DataError: a sample is empty or holds a value that is not finite.
    """

    values: Floats
    reference: Floats

    def __post_init__(self) -> None:
        for name, sample in (("values", self.values), ("reference", self.reference)):
            if not len(sample) or not np.isfinite(sample).all():
                raise DataError(
                    f"{name} must be finite numbers; got {len(sample)} of which "
                    f"{int(np.isfinite(sample).sum())} are finite. Drop the others."
                )
        n = len(self.values)
        pooled = np.concatenate([self.values, self.reference])
        order = np.argsort(pooled, kind="stable")
        self._gaps = np.diff(pooled[order])
        place = np.argsort(order)
        self._places = place[:n]  # where each value stands on the grid
        self._target = _steps(place[n:], np.ones(len(pooled) - n), len(pooled))

    def distance(self, draws: NDArray[np.int64] | None = None) -> float:
        """Return the distance when value i was drawn `draws[i]` times, else once."""
        weights = np.ones(len(self.values)) if draws is None else draws.astype(float)
        steps = _steps(self._places, weights, len(self._target))
        return float(np.abs(steps - self._target)[:-1] @ self._gaps)

    def interval(
        self, *, seed: int = 0, resamples: int = 200, level: float = 0.95
    ) -> tuple[float, float]:
        """Return the bootstrap interval over the values; the reference stays as it is.

        Accuracy:
            It says how far the distance of another draw of as many values may lie. All
            of these are too far by about `floor` when the distributions are equal:
            compare with that.
        """
        low, high = bootstrap(
            self.distance, len(self.values), seed=seed, resamples=resamples, level=level
        )
        return max(low, 0.0), high

    def floor(self, *, seed: int = 0, resamples: int = 50) -> float:
        """Return the mean distance of n draws *from the reference itself* to it.

        No model can be told from a perfect one below this figure at this sample size.
        """
        random = np.random.default_rng(seed)
        n, m = len(self.values), len(self.reference)
        itself = Transport(self.reference, self.reference)
        drawn = (random.integers(0, m, n) for _ in range(resamples))
        return float(
            np.mean([itself.distance(np.bincount(d, minlength=m)) for d in drawn])
        )


def _steps(places: NDArray[np.int64], weights: Floats, n: int) -> Floats:
    """Return a distribution function on a grid of n points, ending at 1."""
    mass = np.zeros(n)
    mass[places] = weights
    return np.asarray(np.cumsum(mass) / weights.sum())


def total_variation(
    drawn: NDArray[np.int64], exact: Floats, *, seed: int = 0, resamples: int = 200
) -> Metric:
    """Return how far drawn outcomes are from known probabilities, with an interval.

    The part of the probability that would have to be moved to make the two agree. It is
    not zero for exact draws, because their counts scatter: compare with `floor`, what as
    many exact draws score on average.

    Equation:
        TV = 1/2 sum_i |count_i / n - p_i|

    Args:
        drawn: outcome of each draw, whole numbers from 0, shape (n,).
        exact: probability of each outcome, shape (outcomes,), sums to 1.
        seed: of the bootstrap and of the exact draws.
        resamples: of the bootstrap, and sets of exact draws.

    Returns:
        The distance, 0 to 1, its bootstrap interval, and the floor.

    Raises:
        DataError: there are no draws, an outcome has no probability, or the
            probabilities do not sum to 1.
    """
    if not len(drawn) or drawn.min() < 0 or drawn.max() >= len(exact):
        raise DataError(
            f"each draw must name one of {len(exact)} outcomes; got {len(drawn)} draws"
            + (f" from {drawn.min()} to {drawn.max()}." if len(drawn) else ".")
        )
    if not np.isclose(exact.sum(), 1):
        raise DataError(f"probabilities must sum to 1; got {exact.sum():.3g}.")
    n = len(drawn)

    def away(counts: NDArray[Any]) -> float:
        return 0.5 * float(np.abs(counts / n - exact).sum())

    def resampled(draws: NDArray[np.int64]) -> float:
        return away(np.bincount(drawn, weights=draws, minlength=len(exact)))

    low, high = bootstrap(resampled, n, seed=seed, resamples=resamples)
    share = exact / exact.sum()
    sets = np.random.default_rng(seed).multinomial(n, share, size=resamples)
    floor = float(np.mean([away(counts) for counts in sets]))
    value = away(np.bincount(drawn, minlength=len(exact)))
    return Metric(
        "total variation", value, max(low, 0.0), min(high, 1.0), n=n, floor=floor
    )
