"""The baseline of every guide: draw N, keep the best one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matdesign.errors import DataError
from matdesign.metrics.intervals import bootstrap, wilson
from matdesign.metrics.summary import Metric


def best_of(violation: ArrayLike, good: ArrayLike, n: int, *, seed: int = 0) -> Metric:
    """Return how often the best of n unguided crystals is good, with its 95 % interval.

    The best is the one of the smallest violation; whether it is good may be for another
    judge to say. The figure is the exact mean over all ways to draw n of the pool.

    Equation:
        E = sum_i good_i C(m - i, n - 1) / C(m, n), crystals in ascending order of
        violation, i = 1 ... m; those of equal violation share the mean of their good.

    Args:
        violation: of a pool of m unguided crystals, any unit, shape (m,).
        good: whether each is good, bool, shape (m,).
        n: crystals to choose among, from 1 to m.
        seed: of the bootstrap over the pool. Its interval is widened to Wilson's of as
            many as decide, 1 / sum_i w_i^2, E = sum_i w_i good_i; without a good one, to
            n draws at the far end of Wilson's of the pool.

    Raises:
        DataError: shapes differ, or n is not from 1 to m.

    Source:
        The unbiased estimator of pass@k, Chen et al., arXiv 2107.03374, equation 1.
        Changed: choice by a score, and a judge apart from it.

    Example:
        >>> found = best_of([0.0, 1.0, 1.0, 1.0], [True, False, False, False], 2)
        >>> round(found.value, 9)
        0.5
    """
    v = np.nan_to_num(np.asarray(violation, dtype=float), nan=np.inf)
    flags = np.asarray(good, dtype=float)
    if v.ndim != 1 or v.shape != flags.shape:
        raise DataError(
            "best_of needs one violation and one flag for each crystal of the pool; got "
            f"shapes {v.shape} and {flags.shape}."
        )
    m = len(v)
    if not 1 <= n <= m:
        raise DataError(
            f"the best of {n} cannot be estimated from a pool of {m}; draw at least {n}."
        )
    order = np.argsort(v, kind="stable")
    flags, group = flags[order], np.unique(v[order], return_inverse=True)[1]
    weight = _weights(m, n)

    def rate(draws: NDArray[np.int64]) -> float:
        taken = draws[order]
        hits, of = (np.bincount(group, weights=x) for x in (taken * flags, taken))
        share = (hits / of.clip(min=1))[group]  # a resample has shares of its own
        return float(np.repeat(share, taken) @ weight)

    # the weights sum to 1 but for rounding
    value = min(rate(np.ones(m, dtype=np.int64)), 1.0)
    low, high = bootstrap(rate, m, seed=seed)
    each = (np.bincount(group, weights=weight) / np.bincount(group))[group]
    decide = max(1 / float(each @ each), 1.0)
    ends = wilson(value * decide, decide)
    low, high = max(min(low, ends[0]), 0.0), min(max(high, ends[1]), 1.0)
    if not flags.any():  # resamples of nothing are nothing
        high = 1 - (1 - wilson(0, m)[1]) ** n
    return Metric(f"best of {n}", value, low, high, n=m)


def _weights(m: int, n: int) -> NDArray[np.float64]:
    """Return the probability that the i-th best of m is the best of n, shape (m,)."""
    left = m - np.arange(1.0, m)  # crystals beyond the first, the second, ...
    return np.cumprod([n / m, *((left - n + 1).clip(0) / left)])
