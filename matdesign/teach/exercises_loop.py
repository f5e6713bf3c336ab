"""Checks for the exercises of part V: what to compute next, and learning from rewards."""

import math

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from matdesign.metrics.intervals import Floats
from matdesign.teach.exercises import exercise, near


@exercise(lambda: [(0.1, 0.2, 0.0), (-0.3, 0.05, -0.2), (1.0, 0.5, 0.0)], off=1e-5)
def check_expected_improvement(mean: float, std: float, best: float) -> float:
    """Check a function (mean, std, best) -> E max(best - value, 0)."""
    u = (best - mean) / std
    return float(std * (u * norm.cdf(u) + norm.pdf(u)))


_LEFT = torch.tensor([0.3, -0.1, 0.7, -0.5, 0.2, 0.05, -0.9, 0.4, -0.6])


@exercise(lambda: [(_LEFT, 0.5), (_LEFT, 0.8), (_LEFT[:4], 0.75)], off=1e-6)
def check_conformal_width(residuals: Tensor, level: float) -> float:
    """Check a function (residuals, level) -> half width of enough residuals."""
    k = math.ceil((len(residuals) + 1) * level)
    size = sorted(residuals.abs().tolist())
    return size[k - 1]


def _choices() -> list[tuple[Tensor, Tensor, float]]:
    prior = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    rewards = torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64)
    last = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    return [(prior, rewards, 1.0), (prior, rewards, 0.1), (last, rewards, 0.3)]


@exercise(_choices, near, hint="Does it sum to one?")
def check_tilted(prior: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Check a function (prior, rewards, beta) -> the distribution that learning ends at."""
    weight = prior * (rewards / beta).exp()
    return weight / weight.sum()


@exercise(lambda: [(q, g, 0.2) for q in (0.5, 0.9, 1.1, 1.5) for g in (-1.0, 0.5)])
def check_clipped(q: float, g: float, c: float) -> float:
    """Check a function (q, g, c) -> the clipped gain of one crystal."""
    return min(q * g, min(max(q, 1 - c), 1 + c) * g)


@exercise(lambda: [([3, 3, 3, 4],), ([1] * 6 + [2],), ([5] * 5,), ([7] * 9,)])
def check_diversity(formulas: list[int]) -> list[float]:
    """Check a function from formulas to the factor of each reward, 3 free and 6 most."""
    counts = [formulas.count(one) for one in formulas]
    return [min(max((6 - n) / 3, 0.0), 1.0) for n in counts]


@exercise(lambda: [(1.1, 1.6, 0.45), (1.0, 3.0, 0.0), (2.0, 2.5, 0.3)], near)
def check_gap_window(low: float, high: float, missing: float) -> Tensor:
    """Check a function (low, high, missing) -> ends of the window of predicted gaps."""
    return torch.tensor([low, high], dtype=torch.float64) * (1 - missing)


@exercise(lambda: [([3.45, 7.54], [1, 2], 3.2), ([6.0], [4], 2.0)], near)
def check_band_edges(mulliken: list[float], counts: list[int], gap: float) -> Tensor:
    """Check a function (mulliken, counts, gap) -> conduction and valence edge, V."""
    logs = torch.tensor(mulliken, dtype=torch.float64).log()
    middle = (logs @ logs.new_tensor(counts) / sum(counts)).exp() - 4.5
    return torch.stack([middle - gap / 2, middle + gap / 2])


@exercise(lambda: [(-6.0, -6.5, -1.9, 7, 6, 1), (-5.0, -4.0, -1.5, 8, 6, 2)], near)
def check_average_voltage(
    full: float, host: float, metal: float, atoms: int, left: int, charge: int
) -> float:
    """Check a function of energies per atom (eV) and numbers of atoms -> voltage, V."""
    n = atoms - left
    return (left * host + n * metal - atoms * full) / (n * charge)


@exercise(lambda: [(1, 97.87), (2, 157.76), (3, 300.0)], off=0.1)
def check_capacity(lithium: int, mass: float) -> float:
    """Check a function (lithium atoms, mass of the formula in u) -> mAh/g."""
    return lithium * 96485.332 / 3.6 / mass


_CONTENT = np.array([[0.5, 0.5, 0], [0.25, 0.75, 0], [0.2, 0.2, 0.6], [0, 0.4, 0.6]])


@exercise(
    lambda: [(_CONTENT, _CONTENT @ [-3, -8, -5]), (_CONTENT, _CONTENT[:, 0] ** 2)]
)
def check_references(content: Floats, offset: Floats) -> object:
    """Check a function (content, offset) -> references by least squares."""
    return np.linalg.lstsq(content, offset, rcond=None)[0]


def _intervals() -> list[tuple[Tensor, Tensor, Tensor, float]]:
    value, mean = torch.linspace(-2, 2, 40), torch.zeros(40)
    return [(value, mean, 0.5 + value.abs() / 2, p) for p in (0.5, 0.9, 0.99)]


@exercise(_intervals, off=1e-6)
def check_coverage(values: Tensor, mean: Tensor, std: Tensor, level: float) -> float:
    """Check a function (values, mean, std, level) -> share of values inside."""
    return float(
        ((values - mean).abs() <= norm.ppf((1 + level) / 2) * std).float().mean()
    )


@exercise(lambda: [(100, 5, 2053, 100), (20, 1, 50, 5), (50, 5, 50, 5)])
def check_acceleration(calls: int, k: int, n: int, good: int) -> float:
    """Check a function (calls, k, n, good) -> calls at random over these, for k good."""
    return k * (n + 1) / (good + 1) / calls
