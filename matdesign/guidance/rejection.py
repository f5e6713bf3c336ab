"""The rounds of a guided sampling: draw, check strictly, draw again what is missing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.constraints.checks import held
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget

DRAWS_PER_CRYSTAL = 50
LARGEST_ROUND = 1024

COUNTS = ("redrawn", "overlapping")
"""Entries of a sample's record that are added up over the rounds."""

Draw = Callable[[int, int, "list[int] | None"], Crystals]
"""Draws so many crystals with a seed, of given sizes: (size, seed, n_atoms)."""

Slot = tuple[int, int | None]
"""A place in the result, and how many atoms its crystal has; None = any number."""


def rounds(
    draw: Draw,
    wanted: Constraint,
    n: int,
    *,
    strict: str,
    draws: int | None,
    n_atoms: int | Sequence[int] | Tensor | None,
    random: torch.Generator,
) -> tuple[Crystals, Record]:
    """Return n crystals that pass the strict check, and what it took.

    Args:
        draw: makes crystals.
        wanted: what they shall be.
        n: how many, >= 0.
        strict: "all" draws again whatever misses a constraint, "hard" only what misses
            a hard one.
        draws: at most how many crystals to draw; None means 50 for each one asked.
        n_atoms: atoms per crystal, one number or one for each; None leaves it open.
        random: source of the seeds of the rounds.

    Raises:
        InfeasibleTarget: the budget of draws was spent first.
        DataError: n is negative, or n_atoms does not name n sizes.
    """
    slots = _slots(n, n_atoms)
    record = Record(wanted, n, draws, strict)
    kept: list[Crystals] = []
    filled: list[int] = []
    while slots:
        size = record.next_round(len(slots))
        if size < 1:
            raise InfeasibleTarget(record.failure(len(filled)))
        asked = [slots[k % len(slots)] for k in range(size)]
        sizes = None if n_atoms is None else [atoms or 0 for _, atoms in asked]
        seed = int(torch.randint(2**62, (1,), generator=random, device=random.device))
        drawn = draw(size, seed, sizes)
        good = record.add(size, drawn, held(drawn, wanted))
        chosen, places = _matched(slots, drawn.n_atoms.tolist(), good.tolist())
        kept.append(drawn[chosen])
        filled += places
        done = set(places)
        slots = [one for one in slots if one[0] not in done]
    order = sorted(range(n), key=filled.__getitem__)
    return (Crystals.cat(kept)[order] if n else _none()), record


def _matched(
    slots: list[Slot], atoms: list[int], good: list[bool]
) -> tuple[list[int], list[int]]:
    """Return crystals that may be kept, and the place in the result that each takes."""
    free: dict[int | None, list[int]] = {}
    for place, size in reversed(slots):
        free.setdefault(size, []).append(place)
    chosen, places = [], []
    for i in [i for i, one in enumerate(good) if one]:
        waiting = free.get(atoms[i]) or free.get(None)
        if waiting:
            chosen.append(i)
            places.append(waiting.pop())
    return chosen, places


class Record:
    """What the rounds of one guided sampling drew, and how much it cost.

    Args:
        wanted: what the crystals shall be.
        n: crystals that are asked for.
        draws: at most how many to draw; None means 50 for each one asked.
        strict: "all" or "hard".
    """

    def __init__(
        self, wanted: Constraint, n: int, draws: int | None, strict: str
    ) -> None:
        self.parts = wanted.parts
        self.enforced = [strict == "all" or one.hard for one in self.parts]
        self.asked = n
        self.budget = draws or DRAWS_PER_CRYSTAL * max(n, 1)
        self.start = time.perf_counter()
        self.drawn = 0
        self.met = 0
        self.evaluations: int | None = 0
        self.info: dict[str, Any] = {}
        self.held = torch.zeros(0, len(self.parts), dtype=torch.bool)

    def next_round(self, missing: int) -> int:
        """Return how many to draw: at first the missing, then with a margin for misses."""
        if not self.drawn:
            return min(missing, LARGEST_ROUND, self.budget)
        share = (self.met + 1) / (self.drawn + 1)
        wanted = math.ceil(missing / share * 1.1)
        return min(max(wanted, missing), LARGEST_ROUND, self.budget - self.drawn)

    def add(self, size: int, drawn: Crystals, satisfied: Tensor) -> Tensor:
        """Count one round; return which of its crystals may be kept, (crystals,).

        Args:
            size: how many were asked for.
            drawn: the crystals of the round.
            satisfied: which constraints each meets, bool, shape (crystals, constraints).
        """
        enforced = torch.tensor(self.enforced, device=satisfied.device)
        good = (satisfied | ~enforced).all(1)
        self.drawn += size
        self.met += int(good.sum())
        self.held = torch.cat([self.held, satisfied.cpu()])
        counts = {name: drawn.info[name] for name in COUNTS if name in drawn.info}
        counts = {name: self.info.get(name, 0) + k for name, k in counts.items()}
        self.info = {**drawn.info, **self.info, **counts}
        cost = drawn.info.get("network_evaluations")
        if self.evaluations is None or cost is None:
            self.evaluations = None
        else:
            self.evaluations += int(cost)
        return good

    def counts(self) -> dict[str, int]:
        """Return how many of all drawn meet each constraint."""
        each = self.held.sum(dim=0).tolist()
        parts = self.parts
        return {str(one): int(k) for one, k in zip(parts, each, strict=True)}

    def failure(self, found: int) -> str:
        """Return the message for a spent budget: counts, and what to loosen."""
        parts, gains = self.parts, []
        held = self.held | ~torch.tensor(self.enforced)
        for k in range(len(parts)):
            others = torch.cat([held[:, :k], held[:, k + 1 :]], dim=1)
            gains.append(int(others.all(dim=1).sum()))
        sure = [k for k in range(len(parts)) if self.enforced[k]]
        table = "; ".join(f"{name}: {k}" for name, k in self.counts().items())
        said = (
            f"{found} of {self.asked} crystals found: {self.met} of {self.drawn} drawn "
            f"met every constraint that must be met ({table})."
        )
        if self.met == self.drawn:
            return f"{said} Others had not the sizes of n_atoms: ask for other sizes."
        best = max(sure, key=gains.__getitem__)
        return (
            f"{said} Loosen '{parts[best]}' first (without it "
            f"{gains[best]} of {self.drawn} would do), or raise Guide(..., draws="
            f"{self._estimate()}), or ask for fewer."
        )

    def _estimate(self) -> int:
        """Return a budget that should do, judged from the share met (or 1 more)."""
        return math.ceil(1.5 * self.asked * (self.drawn + 1) / (self.met + 1))

    def log(self) -> dict[str, Any]:
        """Return counts, budget and cost as plain JSON."""
        return {
            "wanted": [str(one) for one in self.parts],
            "asked": self.asked,
            "drawn": self.drawn,
            "met": self.met,
            "met_each": self.counts(),
            "budget": self.budget,
            "network_evaluations": self.evaluations,
            "seconds": round(time.perf_counter() - self.start, 3),
        }


def _slots(n: int, n_atoms: int | Sequence[int] | Tensor | None) -> list[Slot]:
    """Return the crystals still to be found: position in the result, and size."""
    if n < 0:
        raise DataError(f"the number of crystals must be >= 0; got {n}.")
    if n_atoms is None:
        return [(i, None) for i in range(n)]
    if isinstance(n_atoms, Tensor):
        n_atoms = n_atoms.flatten().tolist()
    if isinstance(n_atoms, int):
        n_atoms = [n_atoms] * n
    if len(n_atoms) == 1:
        n_atoms = list(n_atoms) * n
    if len(n_atoms) != n:
        raise DataError(
            f"n_atoms must be one number or one for each of {n} crystals; "
            f"got {len(n_atoms)}."
        )
    return [(i, int(k)) for i, k in enumerate(n_atoms)]


def _none() -> Crystals:
    return Crystals(
        torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, 3), torch.zeros(0, 3, 3)
    )
