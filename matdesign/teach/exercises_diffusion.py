"""Checks for the exercises of the chapters on diffusion and on all models side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals import wrapped_normal
from matdesign.crystals.geometry import torus_difference
from matdesign.teach.exercises import Case, exercise, near, number, numbers, within


@exercise
def check_difference() -> Iterator[Case]:
    """Check a function of four counts that gives a difference in standard errors.

    It is given hits and trials of two models, among them equal ones, swapped ones and
    trials of different number.
    """
    cases = [
        (43, 48, 46, 48),
        (46, 48, 43, 48),
        (90, 100, 90, 100),
        (50, 100, 300, 400),
    ]
    for a, n, b, m in cases:
        p = (a + b) / (n + m)
        want = (b / m - a / n) / math.sqrt(p * (1 - p) * (1 / n + 1 / m))
        yield f"{a} of {n} against {b} of {m}", (a, n, b, m), near(want, 0.02)


@exercise
def check_count() -> Iterator[Case]:
    """Check a function that says how many crystals tell two rates apart."""

    def judge(want: float, got: Any) -> str:
        have = number(got)
        if not have.is_integer():
            return f"a number of crystals is whole; got {have:g}."
        right = abs(have - want) <= max(2.0, 0.02 * want)
        return "" if right else f"{have:g} crystals, which is not right."

    for rate, gap in [(0.95, 0.01), (0.5, 0.1), (0.99, 0.005)]:
        want = 8 * rate * (1 - rate) / gap**2
        yield f"rate {rate}, difference {gap}", (rate, gap), partial(judge, want)


@exercise
def check_mixture_score() -> Iterator[Case]:
    """Check a function (x, centres, weights, sigma) -> score of wells on a circle.

    The density is the weighted sum of wrapped normal distributions of one width; the
    answer is compared with the gradient of its logarithm, also across the boundary.
    """
    cases = [
        ([0.1, 0.6], [0.7, 0.3], 0.05),
        ([0.98, 0.3, 0.5], [0.2, 0.5, 0.3], 0.12),
        ([0.5, 0.0], [0.9, 0.1], 0.4),
        ([0.25], [1.0], 0.02),
    ]
    x = torch.linspace(0, 1, 41)[:-1]
    for places, shares, sigma in cases:
        centres, weights = torch.tensor(places), torch.tensor(shares)
        at = x.double().requires_grad_()
        each = wrapped_normal.log_density(at[:, None] - centres.double(), sigma)
        total = (each + weights.double().log()).logsumexp(-1).sum()
        (want,) = torch.autograd.grad(total, at)
        right = near(want * sigma, 1e-3)

        def judge(got: Any, right: Any = right, sigma: float = sigma) -> str:
            wrong = right(numbers(got) * sigma)
            return f"score x sigma: {wrong}" if wrong else ""

        where = f"wells at {places} with weights {shares}, sigma {sigma}"
        yield where, (x, centres, weights, sigma), judge


def off_torus(want: Tensor, got: Tensor) -> Tensor:
    """Return the distance on the circle of each coordinate to the right one."""
    return torus_difference(want.double(), got).abs()


@exercise
def check_step_back() -> Iterator[Case]:
    """Check one step of the predictor, (x, score, now, then, z) -> x at the lower noise.

    `now` and `then` are the widths before and after, `z` is standard normal noise. The
    step is exact where the data are one point: from a wrapped normal of width `now` it
    must lead to one of width `then`.
    """
    x = torch.tensor([0.01, 0.4, 0.99, 0.5])
    score = torch.tensor([-3.0, 0.0, 2.0, -1.5])
    z = torch.tensor([0.0, 1.0, -2.0, 0.5])
    for now, then in [(0.3, 0.2), (0.1, 0.02), (0.5, 0.499), (0.05, 0.0)]:
        gain = now**2 - then**2
        want = x + gain * score + then / now * math.sqrt(gain) * z
        right = within(partial(off_torus, want), want, 1e-5)
        yield f"a step from width {now} to {then}", (x, score, now, then, z), right
