"""Checks for the exercises of part V: what to compute next, and how sure to be."""

import math

import torch
from scipy.stats import norm
from torch import Tensor

from matdesign.teach.exercises import exercise

_PREDICTED = [(0.1, 0.2, 0.0), (-0.3, 0.05, -0.2), (1.0, 0.5, 0.0), (0.0, 1.0, 0.0)]


@exercise(lambda: _PREDICTED, off=1e-5)
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
