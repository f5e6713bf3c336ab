"""What a reader can replace in a campaign: who proposes, who selects, who learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.loop.results import Results


class Proposer(Protocol):
    """What proposes crystals: any generator of this package, or anything with this.

    One with `ahead = True` is also called from another thread, while the oracle works on
    the crystals before these. Leave it out where it looks at the results, must stay in
    its thread, or draws from a global generator. For `candidate_keys` see `Pool`.
    """

    def sample(self, n: int, *, seed: int) -> Crystals:
        """Return n crystals, the same ones for the same seed."""


@dataclass(frozen=True)
class Chosen:
    """Which candidates the oracle shall evaluate, and why.

    Args:
        order: places of the chosen ones among the candidates, the best first.
        reason: one text per candidate, why it was chosen or not; "" says nothing.
        predicted: mean and standard deviation of each candidate's objective, or nothing.

    Raises:
        DataError: a place is there twice, or is none.
    """

    order: Sequence[int]
    reason: Sequence[str]
    predicted: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        known = set(range(len(self.reason)))
        if len(set(self.order)) != len(self.order) or not set(self.order) <= known:
            raise DataError(
                f"the choice does not fit: got the places {list(self.order)} for "
                f"{len(known)} candidates. Name each chosen one once, from 0."
            )


class Selector(Protocol):
    """What decides which new crystals deserve the oracle.

    It never hears of evaluations that failed: nothing is learned from them.
    """

    def select(
        self,
        candidates: Crystals,
        results: Results,
        values: Tensor,
        room: int,
        *,
        seed: int,
    ) -> Chosen:
        """Return at most `room` of the candidates; fewer is a gate.

        Args:
            candidates: sound, within the constraints and new.
            results: usable evaluations so far, in the order of their iterations; the
                crystals as proposed, since candidates are not relaxed either.
            values: the objective of each, lower is better, shape (results,).
            room: most crystals that the oracle evaluates now.
            seed: of this choice.
        """


class Learner(Protocol):
    """What makes a better generator from the results so far.

    One with `on_policy = True` gets the crystals since the last fine-tuning, which the
    generator made as it is; others get all, also those of earlier versions.
    """

    def learn(
        self,
        generator: Any,
        crystals: Crystals,
        rewards: Tensor,
        *,
        seed: int,
        prior: Any,
    ) -> Any:
        """Return a new generator; the given one stays as it is.

        Args:
            generator: that proposed last.
            crystals: as proposed, all that were evaluated, failures too.
            rewards: of each, in [0, 1]: the share of the others whose objective is worse;
                0 for a failure.
            seed: of this fine-tuning.
            prior: the generator that the campaign began with, to stay near.
        """


def decisions(
    selector: Selector | None,
    new: Crystals,
    so_far: Callable[[], tuple[Results, Tensor]],
    room: int,
    *,
    seed: int,
) -> list[tuple[Any, ...]]:
    """Return decision, reason, and where it says so mean and standard deviation, of each.

    Without a selector they are taken as they come; see `Selector.select`, to which
    `so_far` gives the usable results and their values.

    Raises:
        DataError: the selector chose too many, or gave too few reasons.
    """
    if selector is None:
        late = [("passed over", "more than the batch or the budget")] * len(new)
        return [("selected", "")] * min(room, len(new)) + late[room:]
    chosen = selector.select(new, *so_far(), room, seed=seed)
    if len(chosen.reason) != len(new) or len(chosen.order) > room:
        raise DataError(
            f"{type(selector).__name__} chose {len(chosen.order)} crystals and gave "
            f"{len(chosen.reason)} reasons; it was asked for at most {room} of "
            f"{len(new)} crystals, with a reason each."
        )
    predicted: Sequence[Any] = chosen.predicted or [()] * len(new)
    return [
        ("selected" if i in chosen.order else "passed over", why, *predicted[i])
        for i, why in enumerate(chosen.reason)
    ]
