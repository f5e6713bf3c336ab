"""Intervals: how far a figure from n crystals may be from the figure of the model."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from matdesign.errors import DataError

Floats = NDArray[np.float64]


def wilson(count: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a rate seen `count` times in `n` independent draws.

    Unlike the bootstrap it does not shrink to nothing at 0 of n and n of n, where
    generated crystals often are.

    Equation:
        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),
        with p = count / n

    Args:
        count: draws that had the property, 0 to n.
        n: draws, at least 1; not whole for draws of unequal weight.
        level: probability that the interval covers the true rate, in (0, 1).

    Returns:
        Lower and upper end, within [0, 1].

    Raises:
        DataError: count is not within 0 to n, n is 0, or level is not in (0, 1).

    Source:
        E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927). Nothing changed.
    """
    if n < 1 or not 0 <= count <= n:
        raise DataError(
            f"a rate needs 0 <= count <= n and n >= 1; got {count} of {n}. "
            "Judge at least one crystal."
        )
    z = _quantile(level)
    p = count / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (middle - half) / scale, (middle + half) / scale
    # rounding may leave 1e-17 instead of the exact end
    return (0.0 if count == 0 else low), (1.0 if count == n else high)


def share(count: int, n: int, level: float = 0.95) -> str:
    """Return a rate as text, `3/4 (0.30 to 0.95)`: how many of n, and Wilson's interval."""
    if not n:
        return "none"
    low, high = wilson(count, n, level=level)
    return f"{count}/{n} ({low:.2f} to {high:.2f})"


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    n: int,
    *,
    seed: int = 0,
    resamples: int = 200,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the bootstrap interval of any statistic of n crystals, its figure inside.

    Each resample draws n crystals with replacement; `statistic` sees how often each
    crystal was drawn and returns the figure. The interval holds the middle part of the
    resamples, moved by their bias: a resample scatters twice, so that its distance to
    anything is larger than that of the crystals themselves.

    Equation:
        [q_low, q_high] + (figure - mean of the resamples), then widened to the figure
        where it lies outside.

    Args:
        statistic: maps draws per crystal, shape (n,) with sum n, to a figure.
        n: crystals, at least 1.
        seed: of the resampling; the same seed gives the same interval.
        resamples: how many; 200 place the ends to about a tenth of the width.
        level: part of the resamples inside the interval, in (0, 1).

    Returns:
        Lower and upper end, in the unit of the statistic; a caller whose figure has
        bounds cuts them there.

    Raises:
        DataError: there is nothing to resample or level is not in (0, 1).

    Source:
        B. Efron, Ann. Stat. 7, 1 (1979), percentile form. Changed: moved by the bias.
    """
    if n < 1 or resamples < 1:
        raise DataError(
            f"nothing to resample: got n = {n}, resamples = {resamples}. "
            "Give at least one of each."
        )
    _quantile(level)
    random = np.random.default_rng(seed)
    figures = [
        statistic(np.bincount(random.integers(0, n, size=n), minlength=n))
        for _ in range(resamples)
    ]
    figure = statistic(np.ones(n, dtype=np.int64))
    ends = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    low, high = ends + figure - np.mean(figures)
    return min(float(low), figure), max(float(high), figure)


def larger_by_chance(
    first: Floats, second: Floats, *, seed: int = 0, shuffles: int = 2_000
) -> float:
    """Return the p of a one-sided permutation test that the first mean is larger.

    Equation:
        p = (1 + number of random divisions whose first mean is at least as large as the
        one seen) / (1 + shuffles)

    Args:
        first: values, shape (n,), n >= 1.
        second: values, shape (m,).
        seed: of the divisions.
        shuffles: random divisions of all values into n and m.

    Returns:
        In (0, 1]; under exchange of the two it is at most a with probability a.

    Raises:
        DataError: the first has no values.

    Source:
        E. J. G. Pitman, Suppl. J. R. Stat. Soc. 4, 119 (1937), with random divisions.
    """
    if not len(first):
        raise DataError("nothing to compare: the first batch has no values.")
    pool = np.concatenate([first, second])
    rows = np.tile(pool, (shuffles, 1))
    means = np.random.default_rng(seed).permuted(rows, axis=1)[:, : len(first)].mean(1)
    # rounding must not tell equal means apart
    as_large = means >= first.mean() - 1e-9 * np.abs(pool).max()
    return float((1 + as_large.sum()) / (1 + shuffles))


def weighted_median(values: Floats, draws: NDArray[np.int64]) -> float:
    """Return the median of sorted values that were drawn several times each.

    Args:
        values: ascending, shape (n,).
        draws: how often each was drawn, shape (n,), not all zero.

    Returns:
        The lower median, in the unit of the values.
    """
    reached = np.cumsum(draws)
    return float(values[np.searchsorted(reached, (reached[-1] + 1) // 2)])


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise DataError(
            f"level must lie between 0 and 1; got {level}. Use 0.95 for 95 %."
        )
    return NormalDist().inv_cdf((1 + level) / 2)
