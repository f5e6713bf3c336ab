"""Checks for the exercises of the chapter on one guide for all families."""

from __future__ import annotations

import math
from collections.abc import Iterator

from matdesign.teach.exercises import Case, exercise, near


@exercise
def check_best_of() -> Iterator[Case]:
    """Check a function (hits, m, n) -> chance that one of n out of m is a hit."""
    for hits, m, n in [(6, 50, 4), (1, 10, 10), (0, 20, 5), (3, 8, 1), (5, 6, 3)]:
        misses = math.comb(m - hits, n) / math.comb(m, n)
        yield f"{hits} hits of {m}, n = {n}", (hits, m, n), near(1 - misses, 1e-6)


@exercise
def check_price() -> Iterator[Case]:
    """Check a function (p, g, c) -> cost of a guided hit over that of an unguided one."""
    for p, g, c in [(0.1, 0.5, 8.0), (0.02, 0.4, 2.0), (0.3, 0.3, 1.0)]:
        yield f"p = {p}, g = {g}, c = {c}", (p, g, c), near(c * p / g, 1e-6)
