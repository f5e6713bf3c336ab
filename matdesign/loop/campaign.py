"""The closed loop: propose, check, select, evaluate, record, learn, again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matdesign.constraints.base import Constraint
from matdesign.constraints.checks import check
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.loop import rebuild
from matdesign.loop.history import History
from matdesign.loop.iteration import Iteration, counted, iteration_seed, why_stopped
from matdesign.loop.oracle import Oracle, stream
from matdesign.loop.rebuild import Objective, Parts
from matdesign.loop.results import Results
from matdesign.loop.store import Proposal, Store
from matdesign.loop.strategies import Learner, Proposer, Selector, decisions
from matdesign.loop.worker_oracle import unfit

if TYPE_CHECKING:
    import pandas


class Campaign:
    """A search that can be stopped, looked at, edited, killed and continued.

    Iterate over it: each iteration proposes crystals, drops those that break a constraint or
    are known, asks the oracle about the rest within the budget, and writes everything
    into the store.  Iteration i is drawn with a seed made from `seed` and i: by a `Generator`,
    where nothing is learned in between, while the oracle still works on iteration i - 1.

    It ends with an error where no evaluation has given a value: after two batches, 10 calls
    at least, and after as many again where it goes on. `tell` never ends it.

    Args:
        generator: proposes crystals (`sample(n, seed=...)`).
        constraints: what every crystal must meet; several are joined.
        oracle: says how good crystals are.
        store: a file ending in .db or a database URL; new, or use `resume`.
        objective: what is minimised: a column that the oracle computes, "-column" to
            raise it, or a function of `Results` that gives one value per crystal.
        budget: oracle calls in all; never exceeded.
        batch: most oracle calls in one iteration.
        propose: crystals drawn in each iteration; default twice the batch.
        guide: steers the generator. None lets the constraints mask what can be masked
            (elements, composition, charge, size, symmetry), where the generator can be
            steered; `Guide(wanted, scale=0)` leaves it alone. An iteration
            whose guide finds nothing in its draws is empty and says why.
        select: which new crystals are evaluated, a `Selector`; None: as they come.
        learn: makes a better generator from the results, a `Learner`.
        learn_every: iterations between two versions of the generator; each is saved
            beside the store.
        seed: of the campaign.

    Raises:
        DataError: the store holds a campaign already, the oracle does not compute the
            objective, the generator cannot learn, or a column or number makes no sense.

    Example:
        >>> loop = Campaign(model, wanted, oracle, budget=200)  # doctest: +SKIP
        >>> for iteration in loop:  # doctest: +SKIP
        ...     print(iteration)
        >>> loop.best(4)  # doctest: +SKIP
    """

    def __init__(
        self,
        generator: Proposer,
        constraints: Constraint | Sequence[Constraint] | None,
        oracle: Oracle,
        store: str | Path | Store = "campaign.db",
        *,
        objective: Objective = "energy_above_hull",
        budget: int = 200,
        batch: int = 20,
        propose: int | None = None,
        guide: Any = None,
        select: Selector | None = None,
        learn: Learner | None = None,
        learn_every: int = 5,
        seed: int = 0,
    ) -> None:
        propose = 2 * batch if propose is None else propose
        numbers = {"seed": seed, "budget": budget, "batch": batch, "propose": propose}
        numbers |= {"learn_every": learn_every}
        wanted = rebuild.joined(constraints)
        parts = Parts(generator, wanted, oracle, objective, guide, select, learn)
        rebuild.check_new(parts, numbers)
        steering = rebuild.steering(parts)
        with rebuild.opened(store) as held:
            rebuild.begin(held, parts, numbers)
            self._open(parts, steering, held)

    @classmethod
    def resume(
        cls, store: str | Path | Store, *, budget: int | None = None, **parts: Any
    ) -> Campaign:
        """Return the campaign of a store, where it was when it ended or was killed.

        What the package itself can make again (its generators, constraints, guides,
        strategies, potential, experiment) need not be given.

        Args:
            store: of the campaign.
            budget: a larger budget, to go on after the old one is spent.
            **parts: those of your own, under the names that `Campaign` has for them: the
                same as before, which names of oracles and settings of others must show.

        Raises:
            DataError: the store holds no campaign, a part must be given, or a part given
                is not the one that the store was made with.
        """
        made = cls.__new__(cls)
        with rebuild.opened(store) as held:
            again = rebuild.reopen(held, Parts(**parts), budget)
            made._open(again, rebuild.steering(again), held)
        return made

    @classmethod
    def view(cls, store: str | Path, **parts: Any) -> Campaign:
        """Return the campaign of a store to look at, also while another process runs it.

        Nothing can be proposed or recorded: the generator is not loaded, and what is your
        own need not be given, but for an objective that is a function.

        Args:
            store: of the campaign.
            **parts: as for `resume`.

        Raises:
            DataError: the store holds no campaign, or the objective must be given.
        """
        return cls.resume(Store(store, read_only=True), **parts)

    def _open(self, parts: Parts, steering: Any, store: Store) -> None:
        """Take the parts and read what the store knows."""
        settings = store.settings() or {}
        self.generator = self._prior = parts.generator
        self.oracle, self.objective = parts.oracle, parts.objective
        self.guide, self.store = steering, store
        self.constraints, self.select = parts.constraints, parts.select
        self.learn = parts.learn
        self.seed: int = settings["seed"]
        self.budget: int = settings["budget"]
        self.batch: int = settings["batch"]
        self.propose: int = settings["propose"]
        self.learn_every: int = settings.get("learn_every", 1)
        self.unread: str = settings.get("unread", "")  # of a pool
        self.history = History(parts, store)
        self._ahead: Any = (None, None, b"")  # a call, its future, and what drew
        self._next = store.count("iteration")
        self.version = 0
        for one in store.evaluations():
            self.history.add(one)

    # ---- the loop -----------------------------------------------------------------

    def __iter__(self) -> Iterator[Iteration]:
        # an iteration that a kill interrupted has proposals already
        while self._more():
            yield self.iteration()

    def _more(self) -> bool:
        waiting = self.store.proposals(self._next)
        return bool(waiting) or (self.left > 0 and not self.stopped)

    def iteration(self) -> Iteration:
        """Do one iteration, or finish the one that was interrupted; see `stopped`.

        Raises:
            DataError: the budget is spent, or nothing that came back can be used.
        """
        began = time.monotonic()
        proposals, nothing = self._proposals(self.batch)
        self._evaluate(self._waiting(proposals))
        self.history.check_failures(self.batch)
        return self._finish(proposals, nothing, began)

    def ask(self, n: int | None = None) -> Crystals:
        """Return crystals to evaluate by hand: the same ones until all are told.

        Args:
            n: most of them, at most `propose`; the batch where left out.

        Returns:
            Crystals with "iteration-place" as ids, and as label `parent` what a pool
            calls them; none where the campaign has ended.
        """
        while self._more():
            proposals, nothing = self._proposals(n or self.batch)
            if waiting := self._waiting(proposals):
                crystals = Crystals.cat([one.crystal for one in waiting])
                names = tuple(f"{self._next}-{one.place}" for one in waiting)
                parents = tuple(one.parent for one in waiting)
                labels = {"parent": parents} if any(parents) else {}
                return crystals.replace(ids=names, labels=labels)
            self._finish(proposals, nothing, time.monotonic())
        return self.best(0)

    def tell(self, results: Results) -> None:
        """Record what was found of crystals that `ask` gave, some or all of them.

        Args:
            results: a row for each, under the ids of `ask`; see `Results`. What could not
                be made or measured is a row with a `reason`.

        Raises:
            DataError: an id is not asked about, or the crystal is another one, or the
                objective is missing; nothing is recorded then.
        """
        self._learn(self._next // self.learn_every)
        proposals = self.store.proposals(self._next)
        waiting = {f"{self._next}-{p.place}": p for p in self._waiting(proposals)}
        told = rebuild.told(results, waiting, self.oracle, self.history)
        for i, name in enumerate(told.structures.ids):
            self.history.add(self.store.evaluated(self._next, waiting[name], told[[i]]))
        if proposals and not self._waiting(proposals):
            self._finish(proposals, "", time.monotonic())

    def _proposals(self, room: int) -> tuple[list[Proposal], str]:
        """Return the crystals of the iteration that is open, and why there are none."""
        self._learn(self._next // self.learn_every)
        found, nothing = self.store.proposals(self._next), ""
        if not found:
            if self.left <= 0:
                raise DataError(
                    f"the budget of {self.budget} oracle calls is spent. Look at "
                    "best(), or go on with Campaign.resume(store, budget=...)."
                )
            try:
                found = self._propose(self._next, min(room, self.left))
            except InfeasibleTarget as error:
                nothing = str(error)
            made_by = {"draw": iteration_seed(self.seed, self._next)}
            made_by |= rebuild.made_by(self.generator, self.guide)
            self.store.propose(self._next, found, **made_by)
        return found, nothing

    def _waiting(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Return the selected crystals that have no result yet."""
        selected = (one for one in proposals if one.decision == "selected")
        return [one for one in selected if one.key not in self.history.by_key]

    def _finish(
        self, proposals: Sequence[Proposal], nothing: str, began: float
    ) -> Iteration:
        """Close the iteration, all of whose selected crystals have a result."""
        selected = [one for one in proposals if one.decision == "selected"]
        done = [self.history.by_key[one.key].result for one in selected]
        self.history.check(self.batch)
        best, lowest = self.history.lowest()
        iteration = Iteration(
            self._next,
            **counted(proposals, done),
            best=lowest,
            best_formula=best,
            spent=self.spent,
            budget=self.budget,
            seconds=time.monotonic() - began,
            version=self.version,
            undone=rebuild.undone(self.generator) if self.version else "",
            nothing=nothing,
        )
        drawn = {"draw": iteration_seed(self.seed, self._next)}
        self.store.finish(self._next, iteration.counts | drawn)
        self._next += 1
        return replace(iteration, stopped=self.stopped)

    @property
    def stopped(self) -> str:
        """Why nothing more will be evaluated, and what to loosen; "" while more will."""
        return why_stopped(self.store, self.left, self._next) if self.left > 0 else ""

    def _propose(self, number: int, room: int) -> list[Proposal]:
        """Draw an iteration's crystals and decide about each, in their order."""
        sample, n, how = call = self._drawing(number)
        (ahead, drawn, by), self._ahead = self._ahead, (None, None, b"")
        kept = by and ahead == call and by == rebuild.state(self.generator, self.guide)
        made = (drawn.result() if kept else sample(n, **how)).to("cpu")
        parents = made.ids or ("",) * len(made)
        made = Crystals(made.species, made.frac.float(), made.lattice.float())
        wrong = list(getattr(self.oracle, "refusals", unfit)(made))
        sound = [i for i, why in enumerate(wrong) if not why]
        if self.constraints is not None and sound:
            reasons = check(made[sound], self.constraints).reasons()
            for i, why in zip(sound, reasons, strict=True):
                wrong[i] = why
        decided: list[Any] = [("rejected", why) for why in wrong]
        fit = [i for i in sound if not wrong[i]]
        twins = self.history.twins(made, fit, number)
        for i, twin in twins.items():
            decided[i] = ("duplicate", f"like {twin}")
        if new := [i for i in fit if i not in twins]:
            so_far, seed = self.history.usable, iteration_seed(self.seed, number)
            said = decisions(self.select, made[new], so_far, room, seed=seed)
            for i, one in zip(new, said, strict=True):
                decided[i] = one
        return [
            Proposal(made[[i]], i, said, why, parents[i], *predicted)
            for i, (said, why, *predicted) in enumerate(decided)
        ]

    def _drawing(self, number: int) -> tuple[Any, int, dict[str, Any]]:
        """Return the call that draws an iteration's crystals."""
        how = {"guide": self.guide} if self.guide is not None else {}
        how["seed"] = iteration_seed(self.seed, number)
        if hasattr(self.generator, "candidate_keys"):
            how["known"] = self.store.offered()
        return self.generator.sample, self.propose, how

    def _learn(self, version: int) -> None:
        """Bring the generator to a version, each made from the results before it."""
        while self.learn is not None and self.version < version:
            last, number = self.generator, self.version + 1
            end = number * self.learn_every
            if (better := rebuild.load_version(self.store, number, last)) is None:
                own = getattr(self.learn, "on_policy", False)
                first = end - self.learn_every if own else 0
                keys, rewards = self.history.rewards(first, end)
                better = last
                if keys:
                    crystals = self.history.proposed(keys).replace(ids=())
                    seed = iteration_seed(self.seed, -end)
                    how = {"seed": seed, "prior": self._prior}
                    better = self.learn.learn(better, crystals, rewards, **how)
                better = rebuild.keep_version(better, self.store, number)
            self.generator, self.version = better, number

    def _evaluate(self, proposals: Sequence[Proposal]) -> None:
        """Ask the oracle and write down every answer as it comes; draw ahead meanwhile."""
        if not proposals:
            return
        crystals = Crystals.cat([one.crystal for one in proposals])
        number, fixed = self._next, rebuild.state(self.generator, self.guide)
        if self.learn is not None and (number + 1) // self.learn_every > self.version:
            fixed = b""  # what shall draw is learned from these results
        with ThreadPoolExecutor(1) as thread:  # nothing of it is written down before
            if fixed and self.left > len(proposals):
                sample, n, how = call = self._drawing(number + 1)
                self._ahead = call, thread.submit(sample, n, **how), b""
            for i, result in stream(self.oracle, crystals):
                rebuild.check_row(i, result, proposals, self.oracle, self.history)
                self.history.add(self.store.evaluated(number, proposals[i], result))
        self._ahead = *self._ahead[:2], rebuild.state(self.generator, self.guide)
        if silent := self._waiting(proposals):
            raise DataError(
                f"the oracle {self.oracle.name} gave {len(silent)} of {len(proposals)} "
                "crystals no result. It must give one row each, failures included."
            )

    @property
    def spent(self) -> int:
        """Oracle calls so far."""
        return len(self.history.by_key)

    @property
    def left(self) -> int:
        """Oracle calls that the budget still allows."""
        return self.budget - self.spent

    def best(self, k: int = 1) -> Crystals:
        """Return the k best relaxed crystals, all different from each other.

        Returns:
            At most k crystals, lowest objective first, with their energies as properties
            and "iteration-place" as ids. Of several `objectives` of the selector: before
            the others, those that none beats in all of them.
        """
        return self.history.results(k).structures

    def table(self) -> pandas.DataFrame:
        """Return every evaluation as a pandas table, in the order of iterations."""
        return self.history.table()

    def close(self) -> None:
        """End the oracle's processes and let others write to the store."""
        if hasattr(self.oracle, "close"):
            self.oracle.close()
        self.store.close()

    def __repr__(self) -> str:
        wanted = f" of crystals with {self.constraints}" if self.constraints else ""
        parts = ((" selected by", self.select), (" learning by", self.learn))
        words = "".join(f"{how} {part!r}" for how, part in parts if part is not None)
        aim = self.objective if isinstance(self.objective, str) else "own objective"
        return (
            f"Campaign{wanted}{words}: lowest {aim} by {self.oracle.name}; "
            f"{self._next} iterations, oracle calls {self.spent} of {self.budget}; "
            f"store {self.store.name}, seed {self.seed}"
            + "".join(f"\n{why}" for why in (self.unread, self.stopped) if why)
        )
