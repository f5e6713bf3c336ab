"""The checks accept what is right and refuse what is nearly right."""

import numpy as np
import torch

from matdesign.loop.acquisition import expected_improvement
from matdesign.loop.surrogate import Prediction, conformal_width
from matdesign.teach import exercises_loop as exercises


def test_the_expected_improvement() -> None:
    def right(mean, std, best):
        found = Prediction(torch.tensor([mean]), torch.tensor([std]))
        return float(expected_improvement(found, best))

    assert exercises.check_expected_improvement(right)
    assert not exercises.check_expected_improvement(lambda m, s, b: max(b - m, 0.0))


def test_the_half_width() -> None:
    assert exercises.check_conformal_width(conformal_width)
    plain = exercises.check_conformal_width(
        lambda r, level: float(np.quantile(r.abs().numpy(), level))
    )
    assert not plain and "not right" in str(plain)


def test_the_window_of_predicted_gaps() -> None:
    def right(low, high, missing):
        return low * (1 - missing), high * (1 - missing)

    assert exercises.check_gap_window(right)
    assert not exercises.check_gap_window(lambda a, b, m: (a / (1 - m), b / (1 - m)))


def test_the_band_edges() -> None:
    def edges(mulliken, counts, gap, *, by_atom=True):
        weight = np.array(counts) if by_atom else np.ones(len(counts))
        middle = np.exp(weight @ np.log(mulliken) / weight.sum()) - 4.5
        return middle - gap / 2, middle + gap / 2

    assert exercises.check_band_edges(edges)
    assert not exercises.check_band_edges(lambda *of: edges(*of, by_atom=False))


def test_the_voltage_and_the_capacity_of_a_cathode() -> None:
    def voltage(full, host, metal, atoms, left, charge):
        gained = left * host + (atoms - left) * metal - atoms * full
        return gained / (atoms - left) / charge

    assert exercises.check_average_voltage(voltage)
    assert not exercises.check_average_voltage(lambda *of: voltage(*of[:5], 1))
    assert exercises.check_capacity(lambda n, mass: n * 26801.48 / mass)
    assert not exercises.check_capacity(lambda n, mass: 26801.48 / mass)
