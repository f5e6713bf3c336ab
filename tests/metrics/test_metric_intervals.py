"""Intervals: known values, coverage by simulation, and errors that speak."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matdesign.errors import DataError
from matdesign.metrics import figures
from matdesign.metrics.best_of import best_of
from matdesign.metrics.distances import total_variation, wasserstein
from matdesign.metrics.intervals import (
    bootstrap,
    larger_by_chance,
    share,
    weighted_median,
    wilson,
)
from matdesign.metrics.summary import Metric, Protocol


def test_wilson_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for count, n in ((231, 256), (0, 40), (40, 40), (1, 3), (8322, 10000)):
        theirs = stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
        assert wilson(count, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.integers(1, 5000), st.data())
def test_wilson_holds_the_rate_and_stays_in_bounds(n, data):
    count = data.draw(st.integers(0, n))
    low, high = wilson(count, n)
    assert 0 <= low <= count / n <= high <= 1
    assert low < high  # never a point, not even at 0 of n or n of n


def test_wilson_covers_the_true_rate_as_often_as_it_says():
    random = np.random.default_rng(0)
    truth, n, trials = 0.9, 256, 4000
    ends = [wilson(int(k), n) for k in random.binomial(n, truth, trials)]
    covered = np.mean([low <= truth <= high for low, high in ends])
    # 0.95 up to the steps of a binomial and 4 standard errors of 4,000 trials
    assert 0.925 < covered < 0.97


def test_bootstrap_of_a_mean_is_the_standard_error():
    random = np.random.default_rng(1)
    values = random.normal(3.0, 2.0, 400)
    low, high = bootstrap(lambda d: float(d @ values) / 400, 400, resamples=2000)
    expected = 2 * 1.96 * values.std() / np.sqrt(400)
    assert high - low == pytest.approx(expected, rel=0.1)  # 2,000 resamples: 3 %
    assert low < values.mean() < high


def test_bootstrap_repeats_with_its_seed_and_changes_with_it():
    values = np.arange(50.0)

    def mean(draws):
        return float(draws @ values) / 50

    assert bootstrap(mean, 50, seed=3) == bootstrap(mean, 50, seed=3)
    assert bootstrap(mean, 50, seed=3) != bootstrap(mean, 50, seed=4)


@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 4)), min_size=1))
def test_weighted_median_is_the_lower_median_of_the_repeats(pairs):
    values = np.array([v for v, _ in pairs])
    draws = np.array([d for _, d in pairs])
    if not draws.sum():
        draws[0] = 1
    order = np.argsort(values, kind="stable")
    values, draws = values[order], draws[order]
    repeated = np.repeat(values, draws)
    expected = repeated[(len(repeated) - 1) // 2]
    assert weighted_median(values, draws) == expected


def test_errors_name_the_value_and_the_remedy():
    with pytest.raises(DataError, match="got 3 of 2"):
        wilson(3, 2)
    with pytest.raises(DataError, match=r"got 0 of 0.*at least one crystal"):
        wilson(0, 0)
    with pytest.raises(DataError, match=r"got 95.*0\.95"):
        wilson(1, 2, level=95)
    with pytest.raises(DataError, match="n = 0"):
        bootstrap(lambda d: 0.0, 0)


def test_a_permutation_test_is_exact_on_few_values():
    """Of the 20 divisions of 1..6 into threes one has a mean as large as 4, 5, 6."""
    high, low = np.array([4.0, 5, 6]), np.array([1.0, 2, 3])
    found = larger_by_chance(high, low, shuffles=20_000)
    assert found == pytest.approx(1 / 20, abs=0.005)
    assert larger_by_chance(low, high, shuffles=1_000) == 1
    assert larger_by_chance(high, high[:0], shuffles=10) == 1
    with pytest.raises(DataError, match="no values"):
        larger_by_chance(high[:0], low)


def test_a_permutation_test_rarely_errs_where_nothing_differs():
    random = np.random.default_rng(1)
    trials = [
        larger_by_chance(*random.exponential(size=(2, 15)), shuffles=200)
        for _ in range(400)
    ]
    assert 6 <= sum(p < 0.05 for p in trials) <= 36  # 20 expected, 3.7 sigma


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    st.integers(0, 99),
)
@settings(max_examples=60)
def test_no_interval_excludes_its_figure(values, other, seed):
    """Distance, median, mean, rate, best of n and total variation alike."""
    a, b = np.array(values), np.array(other)
    protocol = Protocol(resamples=20)
    found = [
        figures.distance("distance", a, b, "", protocol, seed),
        figures.median("median", a, "", protocol, seed),
        figures.mean("mean", a, "", protocol, seed),
        Metric.rate("rate", a > 0, 0.95),
        best_of(a, a > 0, 1 + seed % len(a), seed=seed),
        total_variation(np.arange(len(a)) % 3, np.ones(4) / 4, seed=seed, resamples=20),
    ]
    for one in found:
        assert one.low <= one.value <= one.high, one


def test_the_interval_of_a_distance_covers_what_other_draws_of_its_size_score():
    """Without the shift by the bias it lies above nearly all of them."""
    random = np.random.default_rng(3)
    reference = random.normal(size=2_000)
    scores = [wasserstein(random.normal(size=80), reference) for _ in range(60)]
    found = [
        figures.distance("", random.normal(size=80), reference, "", Protocol(), 0)
        for _ in range(20)
    ]
    covered = np.mean([one.low <= np.median(scores) <= one.high for one in found])
    assert covered >= 0.7


def test_a_share_is_a_count_and_its_interval():
    low, high = wilson(3, 4)
    assert share(3, 4) == f"3/4 ({low:.2f} to {high:.2f})" == "3/4 (0.30 to 0.95)"
    assert share(0, 0) == "none"
    assert share(3, 4, 0.5) != share(3, 4)
