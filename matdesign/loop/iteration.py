"""What an iteration of a campaign is: its record, its seed, and why none follows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matdesign.loop.results import Results, kind_of
from matdesign.loop.store import Proposal, Store

PATIENCE = 5
"""Iterations in a row that bring nothing to evaluate, after which a campaign ends."""


@dataclass(frozen=True)
class Iteration:
    """What one iteration did; prints as one line.

    Attributes:
        number: from 0.
        proposed: crystals that the generator gave. With a guide, what it drew and
            dropped on the way is not counted here.
        passed: of these, sound and within the constraints.
        fresh: of these, not like any crystal seen before.
        selected: of these, given to the oracle; the others were passed over, by the
            selector or for want of room.
        usable: of these, with a result that can be used.
        failed: how many failed, by reason.
        best: lowest objective so far in the whole campaign; NaN when there is none.
        best_formula: of that crystal.
        spent: oracle calls so far.
        budget: oracle calls in all.
        seconds: of this iteration.
        version: of the generator that proposed, 0 before it has learned.
        undone: why the last fine-tuning was undone, such as a collapse; "" where it holds.
        stopped: why the campaign ends with this iteration; "" where it goes on or its budget
            is spent.
        nothing: why the guide found no crystals in this iteration; "" where it found some.
    """

    number: int
    proposed: int
    passed: int
    fresh: int
    selected: int
    usable: int
    failed: dict[str, int]
    best: float
    best_formula: str
    spent: int
    budget: int
    seconds: float
    version: int = 0
    undone: str = ""
    stopped: str = ""
    nothing: str = ""

    @property
    def counts(self) -> dict[str, int | float | str]:
        """What the store keeps of an iteration."""
        names = ("proposed", "passed", "fresh", "selected", "usable", "seconds")
        counts = {name: getattr(self, name) for name in names}
        counts |= {"version": self.version} if self.version else {}
        return {**counts, "nothing": self.nothing} if self.nothing else counts

    def __repr__(self) -> str:
        why = ", ".join(f"{n} {kind}" for kind, n in self.failed.items())
        failed = f" (failed: {why})" if why else ""
        best = f"best {self.best:.3f} {self.best_formula}" if self.best_formula else ""
        undone = f" (fine-tuning undone: {self.undone})" if self.undone else ""
        version = f" by version {self.version}{undone}" if self.version else ""
        return (
            f"iteration {self.number}: {self.proposed} proposed{version}, {self.passed} pass the "
            f"checks, {self.fresh} new, {self.selected} evaluated, {self.usable} usable"
            f"{failed}; {best or 'nothing usable yet'}; oracle calls {self.spent} of "
            f"{self.budget}; {self.seconds:.1f} s"
            + "".join(f"\n{why}" for why in (self.nothing, self.stopped) if why)
        )


def counted(proposals: Sequence[Proposal], done: Sequence[Results]) -> dict[str, Any]:
    """Return what `Iteration` says of all proposals and of the results of those selected."""
    decisions = Counter(one.decision for one in proposals)
    passed = len(proposals) - decisions["rejected"]
    failed = Counter(kind_of(one.reason[0]) for one in done if one.reason[0])
    return {
        "proposed": len(proposals),
        "passed": passed,
        "fresh": passed - decisions["duplicate"],
        "selected": len(done),
        "usable": len(done) - failed.total(),
        "failed": dict(failed.most_common()),
    }


def iteration_seed(seed: int, iteration: int) -> int:
    """Return the seed of an iteration: different for every iteration and campaign seed."""
    digest = hashlib.sha256(f"{seed}/{iteration}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def why_stopped(store: Store, left: int, end: int) -> str:
    """Return why a campaign ends before its budget, and what to loosen; "" if it does not.

    Of the iterations before `end`. Each crystal of a pool must have been proposed once.
    """
    last = (store.iterations(iteration=k) for k in range(end - PATIENCE, end))
    iterations = [one for found in last for one in found]
    idle = len(iterations) == PATIENCE and not any(x["selected"] for x in iterations)
    if not idle or len(store.offered()) < (store.settings() or {}).get("pool", 0):
        return ""
    rows = [x for one in iterations for x in store.proposals(one["iteration"])]
    counts = Counter(unselected(x.decision, x.reason) for x in rows).most_common(4)
    remedy = {
        "duplicate": "Begin one with a generator that makes others, or a larger `propose`.",
        "rejected": "Begin one with looser constraints, a guide (`guide=`), or a larger "
        "`propose`.",
        "passed over": "The selector lets nothing through; loosen its gate.",
    }
    most = Counter(one.decision for one in rows).most_common(1)
    words = (
        f"stopped with {left} oracle calls left: {PATIENCE} iterations in a row "
        "brought nothing to evaluate."
    )
    reasons = [str(one["nothing"]) for one in iterations if one.get("nothing")]
    if most:
        what = "; ".join(f"{n} {kind}" for kind, n in counts)
        words += f" Of {len(rows)} crystals: {what}. {remedy.get(most[0][0], '')}"
    elif not reasons:
        words += " No crystals came: the generator gives none, or a pool has ended."
    if reasons:
        words += f" In {len(reasons)} iterations the guide found nothing, at last: {reasons[-1]}"
    return words


def unselected(decision: str, reason: str) -> str:
    """Return why a crystal was not evaluated, without its figures; "" where it was."""
    if decision == "selected":
        return ""
    if decision == "duplicate":
        return "like one that is known"
    if decision == "passed over":
        return "passed over"
    if reason.startswith("misses: "):
        return "miss: " + reason.removeprefix("misses: ")
    return kind_of(reason)
