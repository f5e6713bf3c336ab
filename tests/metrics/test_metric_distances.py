"""Wasserstein-1: exact cases, axioms, agreement with scipy, the cost of a resample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matdesign.errors import DataError
from matdesign.metrics.distances import Transport, wasserstein

numbers = st.lists(st.floats(-50, 50), min_size=1, max_size=40).map(np.array)


def test_known_distances():
    assert wasserstein(np.array([0.0]), np.array([3.0])) == 3.0
    assert wasserstein(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0
    # half of the mass moves by 1, the other half by 3
    assert wasserstein(np.array([0.0]), np.array([1.0, 3.0])) == 2.0


@given(numbers, numbers)
def test_agrees_with_scipy(a, b):
    stats = pytest.importorskip("scipy.stats")
    assert wasserstein(a, b) == pytest.approx(
        stats.wasserstein_distance(a, b), abs=1e-9
    )


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
    assert Transport(a, b).distance(draws) == pytest.approx(expected, abs=1e-9)


def test_a_shift_is_far_above_the_floor_and_inside_the_interval():
    random = np.random.default_rng(0)
    reference = random.normal(5, 1, 3000)
    shifted = random.normal(5, 1, 300) + 0.7
    way = Transport(shifted, reference)
    low, high = way.interval(seed=1)
    assert low < 0.7 < high
    assert way.floor() < 0.15 < low  # 300 draws scatter by about 1/sqrt(300) = 0.06


def test_floor_shrinks_with_the_sample():
    random = np.random.default_rng(0)
    reference = random.normal(size=2000)
    floors = [Transport(reference[:n], reference).floor() for n in (20, 200, 2000)]
    assert floors[0] > 2 * floors[1] > 4 * floors[2]


def test_errors_say_which_sample_and_how_many_are_finite():
    with pytest.raises(DataError, match="values must be finite numbers; got 0"):
        wasserstein(np.array([]), np.array([1.0]))
    with pytest.raises(DataError, match=r"reference .* got 2 of which 1 are finite"):
        wasserstein(np.array([1.0]), np.array([1.0, np.nan]))
