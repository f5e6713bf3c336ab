"""How far one distribution is from another: Wasserstein-1 and total variation."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdesign.errors import DataError
from matdesign.metrics.intervals import bootstrap
from matdesign.metrics.summary import Metric

Floats = NDArray[np.float64]


def wasserstein(values: Floats, reference: Floats) -> float:
    """Return the Wasserstein-1 distance of two samples on the line; see `carrying`."""
    return carrying(values, reference)(np.ones(len(values)))


def carrying(values: Floats, reference: Floats) -> Callable[[NDArray[Any]], float]:
    """Return the exact Wasserstein-1 distance of resampled values to a reference.

    The mean way that a value has to be moved. Sorting is done once for all resamples.

    Equation:
        W1 = integral of |F(x) - G(x)| dx, F and G the empirical distribution functions.

    Args:
        values: shape (n,), n >= 1, any order, finite.
        reference: shape (m,), m >= 1, any order, finite.

    Returns:
        From how often each value was drawn, shape (n,), to the distance, >= 0.

    Raises:
        DataError: a sample is empty or holds a value that is not finite.

    Source:
        S. S. Vallender, Theory Probab. Appl. 18, 784 (1974), as scipy computes it.
    """
    for name, sample in (("values", values), ("reference", reference)):
        if not len(sample) or not np.isfinite(sample).all():
            raise DataError(
                f"{name} must be finite numbers; got {len(sample)} of which "
                f"{int(np.isfinite(sample).sum())} are finite. Drop the others."
            )
    order = np.argsort(values)
    places = np.unique(np.concatenate([values, reference]))
    below = values[order].searchsorted(places[:-1], "right")
    theirs = np.sort(reference).searchsorted(places[:-1], "right") / len(reference)

    def distance(draws: NDArray[Any]) -> float:
        drawn = np.concatenate([[0], np.cumsum(draws[order])])
        return float(np.abs(drawn[below] / drawn[-1] - theirs) @ np.diff(places))

    return distance


def total_variation(
    drawn: NDArray[np.int64], exact: Floats, *, seed: int = 0, resamples: int = 200
) -> Metric:
    """Return how far drawn outcomes are from known probabilities, with an interval.

    The part of the probability that would have to be moved to make the two agree. It is
    not zero for exact draws, because their counts scatter: compare with `floor`, what as
    many exact draws score on average; below what few of them pass, `low` is 0.

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
    scores = [away(counts) for counts in sets]
    value = away(np.bincount(drawn, minlength=len(exact)))
    low = max(low, 0.0) if value > np.quantile(scores, 0.975) else 0.0
    floor = float(np.mean(scores))
    return Metric("total variation", value, low, min(high, 1.0), n=n, floor=floor)
