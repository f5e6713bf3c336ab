"""Wasserstein-1: exact cases, axioms, agreement with scipy, the cost of a resample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matdesign.errors import DataError
from matdesign.metrics.distances import carrying, total_variation, wasserstein
from matdesign.metrics.figures import distance
from matdesign.metrics.summary import Protocol

numbers = st.lists(st.floats(-50, 50), min_size=1, max_size=40).map(np.array)


def test_known_distances():
    assert wasserstein(np.array([0.0]), np.array([3.0])) == 3.0
    assert wasserstein(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0
    # half of the mass moves by 1, the other half by 3
    assert wasserstein(np.array([0.0]), np.array([1.0, 3.0])) == 2.0


@given(numbers, numbers)
def test_is_the_mean_way_between_the_sorted_values(a, b):
    a, b = a[: len(b)], b[: len(a)]
    ways = np.abs(np.sort(a) - np.sort(b))
    assert wasserstein(a, b) == pytest.approx(ways.mean(), abs=1e-9)


@given(numbers, numbers, numbers, st.floats(-20, 20))
def test_is_a_distance(a, b, c, shift):
    assert wasserstein(a, b) == pytest.approx(wasserstein(b, a), abs=1e-9)
    assert wasserstein(a, np.concatenate([a, a])) == pytest.approx(0, abs=1e-9)
    assert wasserstein(a, a + shift) == pytest.approx(abs(shift), abs=1e-9)
    assert wasserstein(a, c) <= wasserstein(a, b) + wasserstein(b, c) + 1e-9


@given(numbers, numbers, st.data())
def test_a_resample_is_the_distance_of_the_repeated_values(a, b, data):
    draws = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=len(a), max_size=len(a)))
    )
    draws[0] += 1
    expected = wasserstein(np.repeat(a, draws), b)
    assert carrying(a, b)(draws) == pytest.approx(expected, abs=1e-9)


@given(numbers, numbers, st.data())
def test_any_number_of_resamples_after_one_sorting_agree_with_scipy(a, b, data):
    from scipy.stats import wasserstein_distance

    away = carrying(a, b)
    counts = st.lists(st.integers(0, 3), min_size=len(a), max_size=len(a))
    for _ in range(3):
        draws = np.array(data.draw(counts)) + (np.arange(len(a)) == 0)
        expected = wasserstein_distance(a, b, draws)
        assert away(draws) == pytest.approx(expected, abs=1e-9)


def test_a_shift_is_far_above_the_floor_and_inside_the_interval():
    random = np.random.default_rng(0)
    reference = random.normal(5, 1, 3000)
    shifted = random.normal(5, 1, 300) + 0.7
    far = distance("", shifted, reference, "", Protocol(), 1)
    assert far.low < 0.7 < far.high
    assert far.floor < 0.15 < far.low  # 300 draws scatter by about 1/sqrt(300) = 0.06


def test_the_interval_of_draws_from_the_reference_itself_holds_zero():
    """A sample is always some way off; 19 in 20 intervals must still hold the truth."""
    random = np.random.default_rng(0)
    reference = random.gamma(4, 1.5, 1500)
    few = Protocol(resamples=40)
    held = sum(
        distance("", random.choice(reference, 100), reference, "", few, seed).low == 0
        for seed in range(60)
    )
    assert held >= 52  # 57 expected, 1.7 its deviation


def test_floor_shrinks_with_the_sample():
    random = np.random.default_rng(0)
    reference = random.normal(size=2000)
    few = Protocol(resamples=1)
    floors = [
        distance("", reference[:n], reference, "", few, 0).floor
        for n in (20, 200, 2000)
    ]
    assert floors[0] > 2 * floors[1] > 4 * floors[2]


def test_errors_say_which_sample_and_how_many_are_finite():
    with pytest.raises(DataError, match="values must be finite numbers; got 0"):
        wasserstein(np.array([]), np.array([1.0]))
    with pytest.raises(DataError, match=r"reference .* got 2 of which 1 are finite"):
        wasserstein(np.array([1.0]), np.array([1.0, np.nan]))


# ---- total variation -------------------------------------------------------------------


def test_total_variation_of_known_counts():
    half = np.array([0.5, 0.5, 0.0])
    assert total_variation(np.array([0, 1, 0, 1]), half).value == 0
    assert total_variation(np.array([2, 2]), half).value == 1
    quarter = total_variation(np.array([0, 0, 0, 1]), half)
    assert quarter.value == pytest.approx(0.25)
    assert quarter.low <= quarter.value <= quarter.high
    assert quarter.n == 4


def test_its_floor_is_what_exact_draws_score_and_its_interval_covers_a_far_truth():
    exact, other = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.3, 0.2, 0.1])
    random = np.random.default_rng(0)
    scores, covered, near, none = [], 0, 0, 0
    for seed in range(40):
        own = total_variation(random.choice(4, 500, p=exact), exact, resamples=50)
        scores.append(own.value)
        near += own.low <= own.floor <= own.high
        none += own.low == 0
        far = total_variation(random.choice(4, 500, p=other), exact, seed=seed)
        covered += far.low <= 0.4 <= far.high
    # the mean of 40 scores is known to about 5 %
    assert np.mean(scores) == pytest.approx(own.floor, rel=0.2)
    assert own.low < own.value < own.high
    assert near >= 30  # with 4 outcomes the scatter is lopsided; without the shift 15
    assert covered >= 34  # of 40 at 95 %: below this once in 2,000
    assert none >= 34  # the truth of exact draws


def test_total_variation_says_what_it_needs():
    with pytest.raises(DataError, match="one of 2 outcomes; got 0 draws"):
        total_variation(np.array([], dtype=int), np.array([0.5, 0.5]))
    with pytest.raises(DataError, match="from 0 to 2"):
        total_variation(np.array([0, 2]), np.array([0.5, 0.5]))
    with pytest.raises(DataError, match=r"got 0\.9"):
        total_variation(np.array([0]), np.array([0.5, 0.4]))
