"""Periodic geometry: wrap, minimum image, distances."""

import torch
from torch import Tensor


def wrap(frac: Tensor) -> Tensor:
    """Return fractional coordinates moved into [0, 1).

    `x - floor(x)` alone is not enough: in float32 a small negative number such as -1e-9
    gives exactly 1.0, outside the interval; that value becomes 0.
    """
    moved = frac - torch.floor(frac)
    return torch.where(moved >= 1.0, torch.zeros_like(moved), moved)
