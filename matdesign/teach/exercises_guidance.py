"""Checks for the exercises of the chapter on guidance while sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.teach.exercises import Case, exercise, near, numbers, within
from matdesign.teach.exercises_diffusion import off_torus


@exercise
def check_masked() -> Iterator[Case]:
    """Check a function (table, allowed) -> distribution of a masked sampler.

    The sampler draws the column, then the row; it never draws a column without an
    allowed row, nor a row that is forbidden in its column.
    """

    def judge(want: Tensor, allowed: Tensor, got: Any) -> str:
        have = numbers(got)
        if have.shape == want.shape:
            if bool((have[~allowed] != 0).any()):
                return "a forbidden cell has probability."
            if not math.isclose(float(have.sum()), 1, abs_tol=1e-6):
                return f"it sums to {float(have.sum()):.3f}."
        return near(want, 1e-6, "The column comes first, then the row.")(have)

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
        name = f"a table of {bins} x {bins} with {int(allowed.sum())} cells allowed"
        yield name, (table, allowed), partial(judge, want, allowed)


@exercise
def check_known_step() -> Iterator[Case]:
    """Check one step of known coordinates, (x, known, now, then, z) -> x at lower noise.

    `now` and `then` are the widths of the noise before and after, `z` is standard normal.
    """
    x = torch.tensor([0.02, 0.4, 0.99, 0.5])
    known = torch.tensor([0.98, 0.4, 0.05, 0.75])
    z = torch.tensor([0.0, 1.0, -2.0, 0.5])
    for now, then in [(0.3, 0.2), (0.5, 0.05), (0.1, 0.0)]:
        kept = then**2 / now**2
        noise = then / now * math.sqrt(now**2 - then**2) * z
        want = wrap(known + kept * torus_difference(known, x) + noise)
        right = within(partial(off_torus, want), want, 1e-5)
        yield f"a step from width {now} to {then}", (x, known, now, then, z), right


@exercise
def check_effective_size() -> Iterator[Case]:
    """Check a function from the log-weights of K particles to their effective number."""
    cases = {
        "equal weights": (torch.full((5,), -3.0), 5.0),
        "one particle that counts": (torch.tensor([0.0, -800.0, -900.0]), 1.0),
        "two of four": (torch.tensor([1.0, 1.0, -700.0, -700.0]), 2.0),
        "large log-weights": (torch.tensor([1000.0, 1000.0 + math.log(2)]), 1.8),
    }
    for name, (log_weights, want) in cases.items():
        yield name, (log_weights,), near(want, 1e-3)


@exercise
def check_resampling() -> Iterator[Case]:
    """Check systematic resampling of one population, (weights, first) -> K particles.

    `first`, in [0, 1), places all K marks.
    """

    def judge(want: list[int], got: Any) -> str:
        have = numbers(got).flatten().sort().values.tolist()
        return "" if have == want else f"{have} are not the particles under the marks."

    for weights in ([0.5, 0.3, 0.2, 0.0], [0.25] * 4, [0.0, 0.0, 1.0], [0.1, 0.9]):
        for first in (0.0, 0.35, 0.999):
            w = torch.tensor(weights, dtype=torch.float64)
            marks = (torch.arange(len(w)) + first) / len(w)
            want = torch.searchsorted(w.cumsum(0), marks.double(), right=True)
            found = want.clamp(max=len(w) - 1).tolist()
            yield (
                f"weights {weights}, first {first:g}",
                (w, first),
                partial(judge, found),
            )
