"""Drawing again what is not as it must be."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def resample(
    draw: Callable[[Tensor, int], None],
    ok: Callable[[Tensor], Tensor],
    n: int,
    tries: int,
) -> Tensor:
    """Draw rows, and draw again those that are not as they must be.

    Args:
        draw: draws the rows of the given numbers and keeps them; told the attempt too,
            from 0.
        ok: says which of the rows of the given numbers are as they must be, bool.
        n: number of rows.
        tries: how often a row is drawn at most.

    Returns:
        The rows that never were, long.

    Example:
        >>> kept = torch.zeros(3)
        >>> def draw(rows, attempt):
        ...     kept[rows] = rows + float(attempt)
        >>> resample(draw, lambda rows: kept[rows] > 1, 3, tries=2), kept
        (tensor([0]), tensor([1., 2., 2.]))
    """
    left = torch.arange(n)
    for attempt in range(tries):
        if not len(left):
            break
        draw(left, attempt)
        left = left[~ok(left).to(left.device)]
    return left
