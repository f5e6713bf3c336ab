"""The best of N: against all ways to draw N, and against simple cases."""

import itertools

import numpy as np
import pytest

from matdesign.errors import DataError
from matdesign.metrics.best_of import best_of


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_equals_the_mean_over_all_ways_to_draw(n: int) -> None:
    """Brute force over every subset; of equal violations each is as likely the best."""
    rng = np.random.default_rng(3)
    v = rng.integers(0, 4, 8).astype(float)
    good = rng.random(8) < 0.5
    means = []
    for some in itertools.combinations(range(8), n):
        least = min(v[list(some)])
        means.append(np.mean([good[i] for i in some if v[i] == least]))
    assert best_of(v, good, n).value == pytest.approx(np.mean(means), abs=1e-12)


def test_without_another_judge_it_is_the_chance_of_any() -> None:
    """1 - C(m - h, n) / C(m, n), the estimator of pass@k."""
    good = np.arange(50) < 6
    found = best_of(np.where(good, 0.0, 1.0), good, 4)
    any_of = 1 - (44 * 43 * 42 * 41) / (50 * 49 * 48 * 47)
    assert found.value == pytest.approx(any_of, abs=1e-12)
    assert found.low < found.value < found.high
    assert found.n == 50


def test_a_judge_may_refuse_what_the_score_prefers() -> None:
    """The better the fooled score looks, the worse the choice."""
    v = np.arange(20.0)
    good = v >= 5
    rates = [best_of(v, good, n).value for n in (1, 2, 4, 16)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(0.75) and rates[-1] == 0


def test_the_interval_counts_what_a_judge_says_of_equals_as_uncertain() -> None:
    """Crystals that the score cannot tell apart, of which a judge refuses some."""
    rng, found = np.random.default_rng(0), []
    for seed in range(60):
        believed = rng.random(400) < 0.03
        good = believed & (rng.random(400) < 0.4)
        found.append(best_of(np.where(believed, 0.0, 1.0), good, 8, seed=seed))
    scatter = np.std([one.value for one in found])
    assert np.mean([one.high - one.low for one in found]) > 3 * scatter
    exact = (1 - 0.97**8) * 0.4
    assert sum(one.low <= exact <= one.high for one in found) >= 50


def test_the_interval_knows_that_few_crystals_decide() -> None:
    """Of 64 the best of 16 is one of some eight: that all are good makes it not sure."""
    rng, n = np.random.default_rng(0), 16
    exact = 0.97 - 0.5 / (n + 1)  # the least of n uniform violations is 1 / (n + 1)
    held = 0
    for seed in range(60):
        v = rng.random(64)
        found = best_of(v, rng.random(64) < 0.97 - v / 2, n, seed=seed)
        held += found.low <= exact <= found.high
    assert held >= 52  # 57 expected


def test_nothing_found_is_not_a_certain_zero() -> None:
    none = best_of(np.ones(30), np.zeros(30, bool), 3)
    every = best_of(np.zeros(30), np.ones(30, bool), 3)
    assert none.value == none.low == 0 and 0.2 < none.high < 0.4
    assert every.value == pytest.approx(1) and 0.8 < every.low < 0.95


def test_what_is_not_a_number_is_worst() -> None:
    v = np.array([np.nan, 2.0])
    assert best_of(v, [True, False], 2).value == 0


@pytest.mark.parametrize("n", [0, 5])
def test_impossible_n_is_refused(n: int) -> None:
    with pytest.raises(DataError, match="pool of 4"):
        best_of(np.zeros(4), np.ones(4, bool), n)


def test_shapes_must_agree() -> None:
    with pytest.raises(DataError, match="one violation and one flag"):
        best_of(np.zeros(4), np.ones(3, bool), 1)
