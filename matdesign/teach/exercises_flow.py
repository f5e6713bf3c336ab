"""Checks for the exercises of the chapter on normalizing flows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals.batch import generator
from matdesign.generators.splines import circular_spline
from matdesign.teach.exercises import Verdict, _call, checked


@checked
def check_floor(answer: Callable[[float], Any]) -> Verdict:
    """Check a function (spread of the blur) -> lowest loss per coordinate, in nats."""
    widths = (0.001, 0.004, 0.02, 0.05)
    for width in widths:
        true = math.log(width * math.sqrt(2 * math.pi * math.e))
        got = _call(answer, width)
        if isinstance(got, str):
            return Verdict(False, f"for a spread of {width} it {got}")
        if abs(float(got) - true) > 1e-3:
            return Verdict(
                False,
                f"for a spread of {width} the entropy of the blur is {true:.4f} nats; "
                f"got {float(got):.4f}.",
            )
    return Verdict(True, f"{len(widths)} spreads.")


@checked
def check_inverse(
    answer: Callable[[Callable[[Tensor], Tensor], float], Any],
) -> Verdict:
    """Check a function (map, y) -> x with map(x) = y.

    The maps rise from 0 to 1 on [0, 1] and can only be asked forwards.
    """
    rng = generator(0)
    for number in range(12):
        raw = 2 * torch.randn(1, 13, generator=rng, dtype=torch.float64)
        raw[:, -1] = 0.0

        def forward(x: Tensor, raw: Tensor = raw) -> Tensor:
            x = torch.as_tensor(x, dtype=torch.float64).reshape(-1)
            y: Tensor = circular_spline(x, raw.expand(len(x), -1))[0]
            return y

        true = 0.02 + 0.96 * float(torch.rand(1, generator=rng))
        y = float(forward(torch.tensor([true])))
        got = _call(answer, forward, y)
        if isinstance(got, str):
            return Verdict(False, f"for map {number} and y = {y:.4f} it {got}")
        if abs(float(got) - true) > 1e-4:
            return Verdict(
                False,
                f"map {number} takes {true:.5f} to {y:.5f}; got {float(got):.5f} back.",
            )
    return Verdict(True, "12 maps, none of which knows its own inverse.")


@checked
def check_log_det(
    answer: Callable[[Callable[[Tensor], Tensor], Tensor], Any],
) -> Verdict:
    """Check a function (map, x) -> ln |det| of the Jacobian of the map at x."""
    rng = generator(1)
    for dims in (1, 2, 3, 6):
        matrix = torch.randn(dims, dims, generator=rng, dtype=torch.float64)

        def forward(x: Tensor, matrix: Tensor = matrix) -> Tensor:
            return x + torch.sinh(matrix @ x) / 2

        x = torch.randn(dims, generator=rng, dtype=torch.float64) / 2
        jacobian = torch.autograd.functional.jacobian(forward, x)
        true = float(torch.linalg.slogdet(jacobian)[1])
        got = _call(answer, forward, x.clone())
        if isinstance(got, str):
            return Verdict(False, f"in {dims} dimensions it {got}")
        if abs(float(got) - true) > 1e-6:
            return Verdict(
                False,
                f"in {dims} dimensions ln |det| is {true:.6f}; got {float(got):.6f}.",
            )
    return Verdict(True, "1, 2, 3 and 6 dimensions, with negative determinants too.")


@checked
def check_divergence_of(
    answer: Callable[[Callable[[Tensor], Tensor], Tensor], Any],
) -> Verdict:
    """Check a function (velocity, x) -> its divergence at each of several points.

    The velocity takes points (points, dims) and gives vectors of that shape.
    """
    rng = generator(2)
    for dims in (1, 2, 5):
        matrix = torch.randn(dims, dims, generator=rng, dtype=torch.float64)

        def velocity(x: Tensor, matrix: Tensor = matrix) -> Tensor:
            return torch.sin(2 * math.pi * x @ matrix)

        x = torch.rand(4, dims, generator=rng, dtype=torch.float64)
        slope = 2 * math.pi * torch.cos(2 * math.pi * x @ matrix)
        true = (slope * matrix.diagonal()).sum(1)
        got = _call(answer, velocity, x.clone())
        if isinstance(got, str):
            return Verdict(False, f"in {dims} dimensions it {got}")
        given = torch.as_tensor(got).detach().reshape(-1)
        if given.shape != true.shape:
            return Verdict(
                False,
                f"give one number for each of 4 points; got {tuple(given.shape)}.",
            )
        if not torch.allclose(given.to(true), true, atol=1e-6):
            return Verdict(
                False,
                f"in {dims} dimensions the divergence at the first point is "
                f"{float(true[0]):.4f}; got {float(given[0]):.4f}.",
            )
    return Verdict(True, "12 points in 1, 2 and 5 dimensions.")
