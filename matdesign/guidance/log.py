"""`GuidanceLog`: what a guide checked, moved and spent, step by step, as plain JSON."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.generators.control import State

BATCHES = 4
"""Batches of which every step is written down; of the others only sums are."""

EACH = 16
"""Crystals of the first batch whose violations are written down one by one."""

SEEN = 128
"""Steps of the first batch of which the first crystal's preview is written down."""


class GuidanceLog:
    """The steps of one guided sampling.

    Args:
        constraints: those that are looked at between steps.

    Attributes:
        batches: for each of the first batches its steps, one dict each: `t`, `step`, mean
            and largest `violation` by constraint, what was `done`, and with particles the
            mean effective sample size `ess`, how many populations were `resampled` and
            the `weights` of the first population. In the first batch also `each`, the
            violation of the first crystals (particles after particles) beside the mean,
            and the `preview` of the first: `species`, `frac` and `lattice`.
        checks: violations that were written down, constraints times crystals.
        predictor_calls: crystals that predictors judged for this log alone.
    """

    def __init__(self, constraints: tuple[Constraint, ...]) -> None:
        self.constraints = constraints
        self.batches: list[list[dict[str, Any]]] = []
        self.begun = 0
        self.checks = 0
        self.predictor_calls = 0

    def begin(self) -> None:
        """Start a batch."""
        self.begun += 1
        if self.begun <= BATCHES:
            self.batches.append([])

    def violations(
        self, state: State, seen: dict[Constraint, Tensor], blind: bool
    ) -> dict[str, dict[str, Any]]:
        """Return mean and largest violation of each constraint on a preview.

        Args:
            state: what is looked at.
            seen: violations that are known already, each of shape (crystals,).
            blind: the sampler does not know coordinates yet; only what is in `seen` counts.
        """
        found: dict[str, dict[str, Any]] = {}
        for one in self.constraints:
            if one not in seen and blind:
                continue
            if one not in seen:
                before = getattr(one, "predictor_calls", 0)
                with torch.no_grad():
                    seen[one] = one.violation(state.soft)
                self.predictor_calls += getattr(one, "predictor_calls", 0) - before
            v = seen[one].nan_to_num(posinf=1e9)
            self.checks += len(v)
            if len(v):
                found[str(one)] = {
                    "mean": round(float(v.mean()), 5),
                    "largest": round(float(v.max()), 5),
                }
                if self.begun == 1:
                    found[str(one)]["each"] = [round(x, 4) for x in v[:EACH].tolist()]
        return found

    def step(
        self,
        state: State,
        done: list[str],
        seen: dict[Constraint, Tensor],
        blind: bool,
        weights: Tensor | None = None,
        ess: Tensor | None = None,
        resampled: int = 0,
    ) -> None:
        """Write down one step.

        Args:
            state: what was looked at.
            done: what was done, in words.
            seen: violations that are known already.
            blind: the sampler does not know coordinates yet.
            weights: of the first population, shape (particles,).
            ess: effective sample sizes before resampling, shape (groups,).
            resampled: populations that were resampled.
        """
        if self.begun > BATCHES or not self.batches:
            return
        row: dict[str, Any] = {
            "t": round(state.t, 5),
            "step": state.step,
            "violation": self.violations(state, seen, blind),
            "done": done,
        }
        if ess is not None and weights is not None:
            row["ess"] = round(float(ess.mean()), 4)
            row["resampled"] = resampled
            row["weights"] = [round(w, 4) for w in weights.tolist()]
        if self.begun == 1 and len(self.batches[-1]) < SEEN and len(state.soft):
            row["preview"] = _written(state)
        self.batches[-1].append(row)

    def record(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {
            "checked": [str(one) for one in self.constraints],
            "checks": self.checks,
            "batches": self.begun,
            "steps": self.batches,
        }


def _written(state: State) -> dict[str, Any]:
    """Return the first crystal of a preview as plain numbers."""
    soft = state.soft
    there = soft.mask[0]
    return {
        "species": soft.species[0, there].argmax(-1).tolist(),
        "frac": [[round(x, 3) for x in row] for row in soft.frac[0, there].tolist()],
        "lattice": [[round(x, 3) for x in row] for row in soft.lattice[0].tolist()],
    }
