"""How wanted constraints steer a generator: one door for every family and method."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from matdesign.constraints.base import Check, Constraint, check
from matdesign.constraints.contradictions import contradictions
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError, InfeasibleTarget

if TYPE_CHECKING:
    from matdesign.generators.contract import Generator

METHODS = ("reject",)
"""The guidance methods there are."""

DRAWS_PER_CRYSTAL = 50
LARGEST_ROUND = 1024


class Guide:
    """Steers a generator toward crystals that meet constraints, without retraining.

    The one method so far is `reject`, the baseline that every other method must beat:
    draw, check strictly, keep what holds. It changes nothing about the model's own
    distribution except to condition it on the constraints exactly; its price is one
    over the share of draws that hold.

    Equation:
        p(x | wanted) = p(x) 1[x satisfies wanted] / P(wanted); expected draws for n
        crystals = n / P(wanted).

    Args:
        wanted: one constraint, or several joined with `&`.
        method: "reject".
        draws: at most how many crystals to draw; None means 50 for each one asked.

    Raises:
        InfeasibleTarget: the constraints exclude each other; the message says which.
        DataError: the method is unknown, or draws is not positive.

    Example:
        >>> import matdesign as design
        >>> design.Guide(design.OnlyElements("Na", "Cl") & design.MinDistance(1.4))
        Guide by reject: only Cl and Na, and no two atoms closer than 1.4 angstrom
    """

    def __init__(
        self, wanted: Constraint, *, method: str = "reject", draws: int | None = None
    ) -> None:
        if not isinstance(wanted, Constraint):
            raise DataError(
                f"a guide needs a constraint; got {wanted!r}. "
                "Build one such as MinDistance(1.4), and join several with &."
            )
        if method not in METHODS:
            raise DataError(
                f"unknown guidance method {method!r}; choose {', '.join(METHODS)}."
            )
        if draws is not None and draws < 1:
            raise DataError(f"draws must be at least 1; got {draws}.")
        clashes = contradictions(wanted)
        if clashes:
            raise InfeasibleTarget(
                "no crystal can meet these constraints together: "
                f"{'; '.join(clashes)}. Loosen or drop one of them."
            )
        self.wanted = wanted
        self.method = method
        self.draws = draws

    def __repr__(self) -> str:
        return f"Guide by {self.method}: {self.wanted}"

    def sample(
        self,
        model: "Generator",
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        n_atoms: int | Sequence[int] | Tensor | None = None,
        **settings: Any,
    ) -> Crystals:
        """Return n crystals of the model that all meet the constraints.

        Args:
            model: any generator.
            n: how many crystals, >= 0.
            seed: for the draws; None draws a fresh one, reported in `info["seed"]`.
            n_atoms: atoms per crystal, one number or one for each; None lets the model
                choose. With one for each, crystal i of the result has n_atoms[i] atoms.
            **settings: passed on to the model's `sample` (steps, batch_size, ...).

        Returns:
            Exactly n crystals. `info["guide"]` records how many were drawn, how many
            met each constraint, network evaluations and seconds.

        Raises:
            InfeasibleTarget: the budget of draws was spent first; the message says how
                many were found and which constraint to loosen.
            DataError: n is negative, or n_atoms does not name n sizes.
        """
        start = time.perf_counter()
        random = generator(seed)
        open_slots = _slots(n, n_atoms)
        record = _Record(self, n)
        kept: dict[int, Crystals] = {}
        while open_slots:
            size = record.next_round(len(open_slots))
            if size < 1:
                raise InfeasibleTarget(record.failure(len(kept)))
            asked = [open_slots[k % len(open_slots)] for k in range(size)]
            sizes = None if n_atoms is None else [atoms or 0 for _, atoms in asked]
            draw_seed = int(
                torch.randint(2**62, (1,), generator=random, device=random.device)
            )
            drawn = model.sample(size, seed=draw_seed, n_atoms=sizes, **settings)
            checked = check(drawn, self.wanted)
            record.add(size, drawn, checked)
            for i in checked.met.nonzero().squeeze(1).tolist():
                atoms = None if n_atoms is None else int(drawn.n_atoms[i])
                slot = next((s for s in open_slots if s[1] == atoms), None)
                if slot is not None:
                    kept[slot[0]] = drawn[[i]]
                    open_slots.remove(slot)
        return record.result([kept[i] for i in range(n)], random, start)


class _Record:
    """What the rounds of one guided sampling drew, and how much it cost."""

    def __init__(self, guide: Guide, n: int) -> None:
        self.guide = guide
        self.asked = n
        self.budget = guide.draws or DRAWS_PER_CRYSTAL * max(n, 1)
        self.drawn = 0
        self.met = 0
        self.evaluations: int | None = 0
        self.info: dict[str, Any] = {}
        self.held = torch.zeros(0, len(guide.wanted.parts), dtype=torch.bool)

    def next_round(self, missing: int) -> int:
        """Return how many to draw: the missing over the share met, and a margin."""
        share = (self.met + 1) / (self.drawn + 1)
        wanted = math.ceil(missing / share * 1.1)
        return min(max(wanted, missing), LARGEST_ROUND, self.budget - self.drawn)

    def add(self, size: int, drawn: Crystals, checked: Check) -> None:
        """Count one round."""
        self.drawn += size
        self.met += int(checked.met.sum())
        self.held = torch.cat([self.held, checked.satisfied.cpu()])
        self.info = self.info or dict(drawn.info)
        cost = drawn.info.get("network_evaluations")
        if self.evaluations is None or cost is None:
            self.evaluations = None
        else:
            self.evaluations += int(cost)

    def counts(self) -> dict[str, int]:
        """Return how many of all drawn meet each constraint."""
        each = self.held.sum(dim=0).tolist()
        parts = self.guide.wanted.parts
        return {str(one): int(k) for one, k in zip(parts, each, strict=True)}

    def failure(self, found: int) -> str:
        """Return the message for a spent budget: counts, and what to loosen."""
        parts = self.guide.wanted.parts
        gains = []
        for k in range(len(parts)):
            others = torch.cat([self.held[:, :k], self.held[:, k + 1 :]], dim=1)
            gains.append(int(others.all(dim=1).sum()))
        best = max(range(len(parts)), key=gains.__getitem__)
        table = "; ".join(f"{name}: {k}" for name, k in self.counts().items())
        return (
            f"{found} of {self.asked} crystals found: {self.met} of {self.drawn} drawn "
            f"met every constraint ({table}). Loosen '{parts[best]}' first (without it "
            f"{gains[best]} of {self.drawn} would do), or raise Guide(..., draws="
            f"{self._estimate()}), or ask for fewer."
        )

    def _estimate(self) -> int:
        """Return a budget that should do, judged from the share met (or 1 more)."""
        return math.ceil(1.5 * self.asked * (self.drawn + 1) / (self.met + 1))

    def result(
        self, kept: list[Crystals], random: torch.Generator, start: float
    ) -> Crystals:
        """Return the kept crystals as one batch with the log attached."""
        made = Crystals.cat(kept) if kept else _none()
        log = {
            "method": self.guide.method,
            "wanted": [str(one) for one in self.guide.wanted.parts],
            "asked": self.asked,
            "drawn": self.drawn,
            "met": self.met,
            "met_each": self.counts(),
            "budget": self.budget,
            "network_evaluations": self.evaluations,
            "seconds": round(time.perf_counter() - start, 3),
        }
        info = {**self.info, "seed": random.initial_seed(), "guide": log}
        if "network_evaluations" in info:
            info["network_evaluations"] = self.evaluations
        if "seconds" in info:
            info["seconds"] = log["seconds"]
        return made.replace(info=info)


def _slots(
    n: int, n_atoms: int | Sequence[int] | Tensor | None
) -> list[tuple[int, int | None]]:
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
