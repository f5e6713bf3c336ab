"""Checks for the exercises of the chapter on guidance while sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.teach.exercises import Verdict, _call, checked


@checked
def check_masked(answer: Callable[[Tensor, Tensor], Any]) -> Verdict:
    """Check a function (table, allowed) -> distribution of a masked sampler.

    The sampler draws the column, then the row; it never draws a column without an
    allowed row, nor a row that is forbidden in its column.
    """
    rng = torch.Generator().manual_seed(0)
    for bins, share in [(2, 0.6), (3, 0.5), (6, 0.7), (6, 0.2)]:
        table = torch.rand(bins, bins, generator=rng, dtype=torch.float64) ** 2
        table = table / table.sum()
        allowed = torch.rand(bins, bins, generator=rng) < share
        allowed[0, 0], allowed[-1] = True, False
        column = table.sum(1) * allowed.any(1)
        rows = table * allowed
        rows = rows / rows.sum(1, keepdim=True).clamp(min=1e-300)
        want = column[:, None] / column.sum() * rows
        got = _call(answer, table.clone(), allowed.clone())
        where = f"a table of {bins} x {bins} with {int(allowed.sum())} cells allowed"
        if isinstance(got, str):
            return Verdict(False, f"{where}: it {got}")
        got = torch.as_tensor(got)
        if tuple(got.shape) != (bins, bins):
            return Verdict(False, f"{where}: shape {tuple(got.shape)}.")
        got = got.to(want)
        if bool((got[~allowed] != 0).any()):
            return Verdict(False, f"{where}: a forbidden cell has probability.")
        if not math.isclose(float(got.sum()), 1, abs_tol=1e-6):
            return Verdict(False, f"{where}: it sums to {float(got.sum()):.3f}.")
        i, j = divmod(int((got - want).abs().argmax()), bins)
        if not float((got - want).abs().max()) < 1e-6:
            return Verdict(
                False,
                f"{where}: column {i}, row {j} has {float(want[i, j]):.4f}; "
                f"got {float(got[i, j]):.4f}.",
            )
    return Verdict(True, "4 tables.")


@checked
def check_known_step(
    answer: Callable[[Tensor, Tensor, float, float, Tensor], Any],
) -> Verdict:
    """Check one step of known coordinates, (x, known, now, then, z) -> x at lower noise.

    `now` and `then` are the widths of the noise before and after, `z` is standard normal.
    """
    for now, then in [(0.3, 0.2), (0.5, 0.05), (0.1, 0.0)]:
        x = torch.tensor([0.02, 0.4, 0.99, 0.5])
        known = torch.tensor([0.98, 0.4, 0.05, 0.75])
        z = torch.tensor([0.0, 1.0, -2.0, 0.5])
        got = _call(answer, x.clone(), known.clone(), now, then, z.clone())
        where = f"from width {now} to {then}"
        if isinstance(got, str):
            return Verdict(False, f"{where} it {got}")
        kept = then**2 / now**2
        spread = then / now * math.sqrt(now**2 - then**2)
        want = wrap(known + kept * torus_difference(known, x) + spread * z)
        got = torch.as_tensor(got).to(want)
        off = torus_difference(want, got).abs()
        worst = int(off.argmax())
        if not float(off[worst]) < 1e-5:
            return Verdict(
                False,
                f"{where}: x = {float(x[worst]):g}, known = {float(known[worst]):g}, "
                f"z = {float(z[worst]):g} must give {float(want[worst]):.4f}; "
                f"got {float(got[worst]):.4f}.",
            )
        if bool(((got < 0) | (got >= 1)).any()):
            return Verdict(False, f"{where}: {got.tolist()} is not all in [0, 1).")
    return Verdict(True, "3 steps of 4 coordinates.")


@checked
def check_effective_size(answer: Callable[[Tensor], Any]) -> Verdict:
    """Check a function from the log-weights of K particles to their effective number."""
    cases = {
        "equal weights": (torch.full((5,), -3.0), 5.0),
        "one particle that counts": (torch.tensor([0.0, -800.0, -900.0]), 1.0),
        "two of four": (torch.tensor([1.0, 1.0, -700.0, -700.0]), 2.0),
        "large log-weights": (torch.tensor([1000.0, 1000.0 + math.log(2)]), 1.8),
    }
    for name, (log_weights, want) in cases.items():
        got = _call(answer, log_weights.clone())
        if isinstance(got, str):
            return Verdict(False, f"{name}: it {got}")
        if not math.isclose(float(got), want, rel_tol=1e-3):
            return Verdict(False, f"{name}: {want:g}; got {float(got):.4g}.")
    return Verdict(True, f"{len(cases)} sets of log-weights.")


@checked
def check_resampling(answer: Callable[[Tensor, float], Any]) -> Verdict:
    """Check systematic resampling of one population, (weights, first) -> K particles.

    `first`, in [0, 1), places all K marks.
    """
    for weights in ([0.5, 0.3, 0.2, 0.0], [0.25] * 4, [0.0, 0.0, 1.0], [0.1, 0.9]):
        for first in (0.0, 0.35, 0.999):
            w = torch.tensor(weights, dtype=torch.float64)
            marks = (torch.arange(len(w)) + first) / len(w)
            want = torch.searchsorted(w.cumsum(0), marks.double(), right=True)
            want = want.clamp(max=len(w) - 1)
            got = _call(answer, w.clone(), first)
            where = f"weights {weights}, first {first:g}"
            if isinstance(got, str):
                return Verdict(False, f"{where}: it {got}")
            got = torch.as_tensor(got).flatten()
            if got.sort().values.tolist() != want.tolist():
                return Verdict(False, f"{where}: {want.tolist()}; got {got.tolist()}.")
    return Verdict(True, "4 populations with 3 marks each.")
