"""Wasserstein-1: how far one distribution has to be carried to become another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matdesign.errors import DataError
from matdesign.metrics.intervals import bootstrap

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
            A resample is always a little farther from the reference than the sample is,
            so that near 0 the interval lies too high; compare with `floor`.
        """
        return bootstrap(
            self.distance, len(self.values), seed=seed, resamples=resamples, level=level
        )

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
