"""Checks for the exercises of the chapter on normalizing flows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from matdesign.crystals.batch import generator
from matdesign.generators.splines import circular_spline
from matdesign.teach.exercises import Case, exercise, near


@exercise
def check_floor() -> Iterator[Case]:
    """Check a function (standard deviation of the blur) -> lowest loss per coordinate."""
    for width in (0.001, 0.004, 0.02, 0.05):
        want = math.log(width * math.sqrt(2 * math.pi * math.e))
        hint = "The loss cannot fall below the entropy of the blur, in nats."
        yield f"a standard deviation of {width}", (width,), near(want, 1e-3, hint)


@exercise
def check_inverse() -> Iterator[Case]:
    """Check a function (map, y) -> x with map(x) = y.

    The maps rise from 0 to 1 on [0, 1] and can only be evaluated forwards.
    """
    rng = generator(0)
    for k in range(12):
        raw = 2 * torch.randn(1, 13, generator=rng, dtype=torch.float64)
        raw[:, -1] = 0.0

        def forward(x: Tensor, raw: Tensor = raw) -> Tensor:
            x = torch.as_tensor(x, dtype=torch.float64).reshape(-1)
            y: Tensor = circular_spline(x, raw.expand(len(x), -1))[0]
            return y

        want = 0.02 + 0.96 * float(torch.rand(1, generator=rng))
        y = float(forward(torch.tensor([want])))
        yield f"map {k} and y = {y:.4f}", (forward, y), near(want)


@exercise
def check_log_det() -> Iterator[Case]:
    """Check a function (map, x) -> ln |det| of the Jacobian of the map at x."""
    rng = generator(1)
    for dims in (1, 2, 3, 6):
        matrix = torch.randn(dims, dims, generator=rng, dtype=torch.float64)

        def forward(x: Tensor, matrix: Tensor = matrix) -> Tensor:
            return x + torch.sinh(matrix @ x) / 2

        x = torch.randn(dims, generator=rng, dtype=torch.float64) / 2
        want = torch.linalg.slogdet(torch.autograd.functional.jacobian(forward, x))[1]
        yield f"a map of {dims} dimensions", (forward, x), near(want, 1e-6)


@exercise
def check_divergence_of() -> Iterator[Case]:
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
        want = (slope * matrix.diagonal()).sum(1)
        yield f"4 points in {dims} dimensions", (velocity, x), near(want, 1e-6)
