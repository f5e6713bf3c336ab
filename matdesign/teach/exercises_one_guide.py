"""Checks for the exercises of the chapter on one guide for all families."""

from __future__ import annotations

import math
from collections.abc import Callable

from matdesign.teach.exercises import Verdict, checked


@checked
def check_best_of(answer: Callable[[int, int, int], float]) -> Verdict:
    """Check a function (hits, m, n) -> chance that one of n out of m is a hit."""
    for hits, m, n in [(6, 50, 4), (1, 10, 10), (0, 20, 5), (3, 8, 1), (5, 6, 3)]:
        got = float(answer(hits, m, n))
        misses = [(m - hits - i) / (m - i) for i in range(n)]
        want = 1 - math.prod(max(share, 0.0) for share in misses)
        if not math.isclose(got, want, rel_tol=1e-6, abs_tol=1e-9):
            return Verdict(
                False, f"{hits} hits of {m}, n = {n}: got {got:.4f}, want {want:.4f}."
            )
    return Verdict(True, "5 pools, among them one without a hit.")


@checked
def check_price(answer: Callable[[float, float, float], float]) -> Verdict:
    """Check a function (p, g, c) -> cost of a guided hit over that of an unguided one."""
    for p, g, c in [(0.1, 0.5, 8.0), (0.02, 0.4, 2.0), (0.3, 0.3, 1.0)]:
        got, want = float(answer(p, g, c)), (c / g) / (1 / p)
        if not math.isclose(got, want, rel_tol=1e-6):
            return Verdict(
                False, f"p = {p}, g = {g}, c = {c}: got {got:.4f}, want {want:.4f}."
            )
    return Verdict(True, "3 guides, one that is worth nothing.")
