"""`Scales`: what a training set looks like on average, so that a network sees unit numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.errors import DataError


class Scales(nn.Module):
    """Elements that may appear, and mean, spread and bounds of the lattice code.

    Equation:
        x = (k - mean) / std on the free entries of the code, 0 on the fixed ones.

    Args:
        elements: atomic numbers seen in training.
        code_mean: mean of each entry of the lattice code where it is free, 6 numbers.
        code_std: its standard deviation.
        code_low: lower bound of x.
        code_high: upper bound of x.
    """

    allowed: Tensor
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        elements: Sequence[int],
        code_mean: Sequence[float],
        code_std: Sequence[float],
        code_low: Sequence[float],
        code_high: Sequence[float],
    ) -> None:
        super().__init__()
        allowed = torch.zeros(MASK, dtype=torch.bool)
        allowed[list(elements)] = True
        self.register_buffer("allowed", allowed, persistent=False)
        for name, values in (
            ("mean", code_mean),
            ("std", code_std),
            ("low", code_low),
            ("high", code_high),
        ):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def standardize(self, code: Tensor, layout: Layout) -> Tensor:
        """Return x, shape (crystals, 6)."""
        return (code - self.mean) / self.std * layout.code_free

    def restore(self, x: Tensor) -> Tensor:
        """Return the code of x; `Layout.project` sets the fixed entries."""
        return x * self.std + self.mean

    def clamp(self, x: Tensor) -> Tensor:
        """Return x within the quantiles of the training set."""
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def lattice(self, x: Tensor, layout: Layout) -> Tensor:
        """Return the primitive cells of x, rows in angstrom, in full precision."""
        with torch.autocast(x.device.type, enabled=False):
            return layout.lattice(self.restore(x))


def scales_of(train: Encoded) -> dict[str, Any]:
    """Return the constructor keywords of `Scales` for a training set.

    Means and spreads are over the crystals in which an entry of the code is free; bounds
    are the quantiles 0.001 and 0.999 with a margin of 0.1.

    Raises:
        DataError: the training set is empty.
    """
    if not len(train):
        raise DataError("the training set is empty; give at least one crystal.")
    free, code = train.layout.code_free, train.code.double()
    rows = []
    for entry in range(6):
        values = code[free[:, entry], entry]
        if not len(values):
            rows.append([0.0, 1.0, -0.1, 0.1])
            continue
        mean = values.mean()
        std = values.std(unbiased=False).clamp(min=0.02)
        x = (values - mean) / std
        low, high = x.quantile(0.001) - 0.1, x.quantile(0.999) + 0.1
        rows.append([float(mean), float(std), float(low), float(high)])
    names = ("code_mean", "code_std", "code_low", "code_high")
    columns = zip(*rows, strict=True)
    seen = train.species.unique()
    return {
        "elements": seen[seen > 0].tolist(),
        "size_histogram": train.n_atoms.bincount().tolist(),
        **{
            name: [round(value, 6) for value in column]
            for name, column in zip(names, columns, strict=True)
        },
    }
