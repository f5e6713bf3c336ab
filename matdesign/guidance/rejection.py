"""Rejection: draw, check strictly, draw again what is missing."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget

DRAWS_PER_CRYSTAL = 50
MOST_AT_ONCE = 1024

COUNTS = ("redrawn", "overlapping")
"""Entries of a sample's record that are added up over all draws."""

Draw = Callable[[int, int, "list[int] | None"], Crystals]
"""Draws so many crystals with a seed, of given sizes: (size, seed, n_atoms)."""


class Record:
    """What a guided sampling drew, and how much it cost.

    Args:
        wanted: what the crystals shall be.
        n: crystals that are asked for.
        strict: "all" keeps what meets every constraint, "hard" every hard one.
        draws: at most how many to draw; None means 50 for each one asked.
    """

    def __init__(
        self, wanted: Constraint, n: int, strict: str, draws: int | None = None
    ) -> None:
        self.parts, self.asked = wanted.parts, n
        self.enforced = torch.tensor([strict == "all" or c.hard for c in self.parts])
        self.budget = draws or DRAWS_PER_CRYSTAL * max(n, 1)
        self.start = time.perf_counter()
        self.drawn = self.met = 0
        self.evaluations: int | None = 0
        self.info: dict[str, Any] = {}
        self.satisfied = torch.zeros(0, len(self.parts), dtype=torch.bool)

    def next_size(self, missing: int) -> int:
        """Return how many to draw: at first the missing, then with a margin for misses."""
        share = (self.met + 1) / (self.drawn + 1)
        wanted = (
            max(math.ceil(missing / share * 1.1), missing) if self.drawn else missing
        )
        return min(wanted, MOST_AT_ONCE, self.budget - self.drawn)

    def add(self, size: int, made: Crystals) -> list[int]:
        """Count some draws; return which crystals may be kept.

        Args:
            size: how many were asked for.
            made: the crystals.
        """
        with torch.no_grad():
            each = torch.stack([one.satisfied(made).cpu() for one in self.parts], dim=1)
        good = (each | ~self.enforced).all(1)
        self.drawn, self.met = self.drawn + size, self.met + int(good.sum())
        self.satisfied = torch.cat([self.satisfied, each])
        counts = {
            k: self.info.get(k, 0) + made.info[k] for k in COUNTS if k in made.info
        }
        self.info = {**made.info, **self.info, **counts}
        cost, before = made.info.get("network_evaluations"), self.evaluations
        self.evaluations = (
            None if cost is None or before is None else before + int(cost)
        )
        return good.nonzero().flatten().tolist()

    def failure(self, found: int) -> str:
        """Return the message for a spent budget: counts, and what to loosen."""
        log = self.log()
        table = "; ".join(f"{name}: {k}" for name, k in log["met_each"].items())
        text = (
            f"{found} of {self.asked} crystals found: {self.met} of {self.drawn} drawn "
            f"met every constraint that must be met ({table})."
        )
        if self.met == self.drawn:
            return f"{text} Others had not the sizes of n_atoms: ask for other sizes."
        gains = {}
        for k in self.enforced.nonzero().flatten().tolist():
            loose = self.enforced.clone()
            loose[k] = False
            gains[k] = int((self.satisfied | ~loose).all(1).sum())
        best = max(gains, key=gains.__getitem__)
        needed = math.ceil(1.5 * self.asked * (self.drawn + 1) / (self.met + 1))
        return (
            f"{text} Loosen '{self.parts[best]}' first (without it {gains[best]} of "
            f"{self.drawn} would do), or raise Guide(..., draws={needed}), or ask for "
            "fewer."
        )

    def log(self) -> dict[str, Any]:
        """Return counts, budget and cost as plain JSON."""
        each = zip(self.parts, self.satisfied.sum(dim=0).tolist(), strict=True)
        return {
            "wanted": [str(one) for one in self.parts],
            "asked": self.asked,
            "drawn": self.drawn,
            "met": self.met,
            "met_each": {str(one): int(k) for one, k in each},
            "budget": self.budget,
            "network_evaluations": self.evaluations,
            "seconds": round(time.perf_counter() - self.start, 3),
        }


def draw_until_met(
    draw: Draw,
    record: Record,
    n_atoms: int | Sequence[int] | Tensor | None,
    random: torch.Generator,
) -> Crystals:
    """Return as many crystals as are asked for, all of which pass the strict check.

    Args:
        draw: makes crystals.
        record: says what is asked, and takes note of every draw.
        n_atoms: atoms per crystal, one number or one for each; None leaves it open.
        random: source of the seeds.

    Raises:
        InfeasibleTarget: the budget of draws was spent first.
        DataError: n is negative, or n_atoms does not name n sizes.
    """
    n = record.asked
    missing = dict(enumerate(_sizes(n, n_atoms)))  # position in the result -> atoms
    kept, positions = list[Crystals](), list[int]()
    while missing:
        size = record.next_size(len(missing))
        if size < 1:
            raise InfeasibleTarget(record.failure(len(positions)))
        wanted = list(missing.values()) * math.ceil(size / len(missing))
        seed = int(torch.randint(2**62, (1,), generator=random, device=random.device))
        made = draw(size, seed, None if n_atoms is None else wanted[:size])
        atoms, chosen = made.n_atoms.tolist(), []
        for i in record.add(size, made):
            fits = (k for k, many in missing.items() if many in (0, atoms[i]))
            position = next(fits, None)
            if position is not None:
                del missing[position]
                chosen.append(i)
                positions.append(position)
        kept.append(made[chosen])
    if not n:
        nothing = torch.zeros(0, 1, 3)
        return Crystals(nothing[..., 0].long(), nothing, torch.zeros(0, 3, 3))
    return Crystals.cat(kept)[sorted(range(n), key=positions.__getitem__)]


def _sizes(n: int, n_atoms: int | Sequence[int] | Tensor | None) -> list[int]:
    """Return atoms of each crystal, 0 = any number."""
    if n < 0:
        raise DataError(f"the number of crystals must be >= 0; got {n}.")
    if n_atoms is None:
        return [0] * n
    sizes = torch.as_tensor(n_atoms).flatten().tolist()
    sizes = sizes * n if len(sizes) == 1 else sizes
    if len(sizes) != n:
        raise DataError(
            f"n_atoms must be one number or one for each of {n} crystals; "
            f"got {len(sizes)}."
        )
    return [int(k) for k in sizes]
