"""Checks for the exercises of the chapters on diffusion and on all models side by side."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from matdesign.crystals import wrapped_normal
from matdesign.crystals.geometry import torus_difference
from matdesign.teach.exercises import Verdict, _call, checked


@checked
def check_difference(answer: Callable[[int, int, int, int], float]) -> Verdict:
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
        got = float(answer(a, n, b, m))
        pooled = (a + b) / (n + m)
        error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        want = (b / m - a / n) / error
        if not math.isclose(got, want, rel_tol=0.02, abs_tol=1e-6):
            return Verdict(
                False, f"{a} of {n} against {b} of {m}: got {got:.3f}, want {want:.3f}."
            )
    return Verdict(True, f"{len(cases)} pairs of counts.")


@checked
def check_count(answer: Callable[[float, float], int]) -> Verdict:
    """Check a function that says how many crystals tell two rates apart."""
    for rate, gap in [(0.95, 0.01), (0.5, 0.1), (0.99, 0.005)]:
        got, want = float(answer(rate, gap)), 8 * rate * (1 - rate) / gap**2
        if not got.is_integer():
            return Verdict(False, f"a number of crystals is whole; got {got:g}.")
        if abs(got - want) > max(2.0, 0.02 * want):
            return Verdict(
                False, f"rate {rate}, difference {gap}: got {got:g}, want {want:.0f}."
            )
    return Verdict(True, "3 rates and differences.")


@checked
def check_mixture_score(
    answer: Callable[[Tensor, Tensor, Tensor, float], Tensor],
) -> Verdict:
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
    for places, shares, sigma in cases:
        centres, weights = torch.tensor(places), torch.tensor(shares)
        x = torch.linspace(0, 1, 41)[:-1]
        at = x.double().requires_grad_()
        each = wrapped_normal.log_density(at[:, None] - centres.double(), sigma)
        total = (each + weights.double().log()).logsumexp(-1).sum()
        (want,) = torch.autograd.grad(total, at)
        got = _call(answer, x.clone(), centres, weights, sigma)
        where = f"wells at {places} with weights {shares}, sigma {sigma}"
        if isinstance(got, str):
            return Verdict(False, f"{where}: it {got}")
        got = torch.as_tensor(got)
        if tuple(got.shape) != (len(x),):
            return Verdict(
                False, f"{where}: shape {tuple(got.shape)} for {len(x)} places."
            )
        off = (got.double() - want).abs() * sigma
        worst = int(off.argmax())
        if not float(off[worst]) < 1e-3:
            return Verdict(
                False,
                f"{where}: at x = {float(x[worst]):.3f} the score is "
                f"{float(want[worst]):.3f}; got {float(got[worst]):.3f}.",
            )
    return Verdict(True, f"{len(cases)} sets of wells at 40 places each.")


@checked
def check_step_back(
    answer: Callable[[Tensor, Tensor, float, float, Tensor], Tensor],
) -> Verdict:
    """Check one step of the predictor, (x, score, now, then, z) -> x at the lower noise.

    `now` and `then` are the widths before and after, `z` is standard normal noise. The
    step is exact where the data are one point: from a wrapped normal of width `now` it
    must lead to one of width `then`.
    """
    for now, then in [(0.3, 0.2), (0.1, 0.02), (0.5, 0.499), (0.05, 0.0)]:
        x = torch.tensor([0.01, 0.4, 0.99, 0.5])
        score = torch.tensor([-3.0, 0.0, 2.0, -1.5])
        z = torch.tensor([0.0, 1.0, -2.0, 0.5])
        got = _call(answer, x.clone(), score.clone(), now, then, z.clone())
        where = f"from width {now} to {then}"
        if isinstance(got, str):
            return Verdict(False, f"{where} it {got}")
        gain = now**2 - then**2
        noise = then / now * math.sqrt(gain) * z
        want = x + gain * score + noise
        got = torch.as_tensor(got).to(want)
        off = torus_difference(want, got).abs()
        worst = int(off.argmax())
        if not float(off[worst]) < 1e-5:
            return Verdict(
                False,
                f"{where}: x = {float(x[worst]):g}, score {float(score[worst]):g}, "
                f"z = {float(z[worst]):g} must give {float(want[worst]) % 1:.4f}; "
                f"got {float(got[worst]):.4f}.",
            )
        if bool(((got < 0) | (got >= 1)).any()):
            return Verdict(False, f"{where}: {got.tolist()} is not all in [0, 1).")
    return Verdict(True, "4 steps of 4 atoms.")
