"""The closed loop: propose, check, drop duplicates, evaluate, record, again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from matdesign.constraints.base import Constraint
from matdesign.constraints.checks import check
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.loop import rebuild
from matdesign.loop.iteration import Iteration, iteration_seed, why_stopped
from matdesign.loop.known import Known
from matdesign.loop.oracle import Oracle
from matdesign.loop.rebuild import Objective, Parts, Proposer
from matdesign.loop.results import Results, kind_of
from matdesign.loop.store import Evaluation, Proposal, Store
from matdesign.loop.worker_oracle import unfit

if TYPE_CHECKING:
    import pandas

PATIENCE = 5
"""Iterations in a row that bring nothing to evaluate, after which a campaign ends."""


class Campaign:
    """A search that can be stopped, looked at, edited, killed and continued.

    Iterate over it: each iteration proposes crystals, drops those that break a constraint or
    are known, asks the oracle about the rest within the budget, and writes everything
    into the store.  Iteration i is drawn with a seed made from `seed` and i.

    Args:
        generator: proposes crystals (`sample(n, seed=...)`).
        constraints: what every crystal must meet; several are joined.
        oracle: says how good crystals are.
        store: a file ending in .db or a database URL; new, or use `resume`.
        objective: what is minimised: a numeric column of `Results`, or a function of
            `Results` that gives one value per crystal.
        budget: oracle calls in all; never exceeded.
        batch: most oracle calls in one iteration.
        propose: crystals drawn in each iteration; default twice the batch.
        guide: steers the generator. None lets the constraints mask what can be masked
            (elements, composition, charge, size, symmetry), where the generator can be
            steered; `Guide(wanted, scale=0)` leaves it alone. An iteration
            whose guide finds nothing in its draws is empty and says why.
        seed: of the campaign; None draws one and keeps it in the store.

    Raises:
        DataError: the store holds a campaign already, the oracle does not compute the
            objective, or a number makes no sense.

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
        seed: int | None = 0,
    ) -> None:
        propose = 2 * batch if propose is None else propose
        if budget < 0 or batch < 1 or propose < 1:
            raise DataError(
                "budget must be 0 or more, batch and propose 1 or more; got "
                f"budget={budget}, batch={batch}, propose={propose}."
            )
        if seed is None:
            seed = torch.Generator().seed() % 2**31
        parts = Parts(generator, rebuild.joined(constraints), oracle, objective, guide)
        rebuild.check_objective(oracle, objective)
        steering = rebuild.steering(parts)
        held = store if isinstance(store, Store) else Store(store)
        try:
            if held.settings() is not None:
                raise DataError(
                    f"{held.name} holds a campaign already. Continue it with "
                    f"Campaign.resume({held.name!r}), or choose another store."
                )
            numbers = {"seed": seed, "budget": budget, "batch": batch}
            held.write_settings(
                {**numbers, "propose": propose, **rebuild.describe(parts, held.where)}
            )
        except BaseException:
            held.close()
            raise
        self._open(parts, steering, held)

    @classmethod
    def resume(
        cls,
        store: str | Path | Store,
        *,
        generator: Proposer | None = None,
        constraints: Constraint | Sequence[Constraint] | None = None,
        oracle: Oracle | None = None,
        objective: Objective | None = None,
        guide: Any = None,
        budget: int | None = None,
    ) -> Campaign:
        """Return the campaign of a store, where it was when it ended or was killed.

        What the package itself can make again (its generators, constraints and default
        oracle) need not be given.

        Args:
            store: of the campaign.
            generator: where it is your own.
            constraints: where they are your own.
            oracle: where it is not a `PotentialOracle`; its name must be the same.
            objective: where it is a function.
            guide: where the generator is steered.
            budget: a larger budget, to go on after the old one is spent.

        Raises:
            DataError: the store holds no campaign, a part must be given, or a part given
                is not the one that the store was made with.
        """
        held = store if isinstance(store, Store) else Store(store)
        try:
            settings = held.settings()
            if settings is None:
                raise DataError(
                    f"{held.name} holds no campaign. Start one with "
                    f"Campaign(..., store={held.name!r})."
                )
            given = Parts(
                generator, rebuild.joined(constraints), oracle, objective, guide
            )
            parts = rebuild.make(given, settings, held.where, held.name)
            assert parts.oracle is not None and parts.objective is not None
            rebuild.check_objective(parts.oracle, parts.objective)
            if budget is not None:
                if budget < settings["budget"]:
                    raise DataError(
                        f"a budget can only grow: got {budget}, it was "
                        f"{settings['budget']}. Leave it out, or stop iterating."
                    )
                held.write_settings({**settings, "budget": int(budget)})
            made = cls.__new__(cls)
            made._open(parts, rebuild.steering(parts), held)
        except BaseException:
            held.close()
            raise
        return made

    def _open(self, parts: Parts, steering: Any, store: Store) -> None:
        """Take the parts and read what the store knows."""
        settings = store.settings() or {}
        assert parts.generator is not None and parts.oracle is not None
        assert parts.objective is not None  # `make` has seen to all three
        self.generator, self.constraints = parts.generator, parts.constraints
        self.oracle, self.objective = parts.oracle, parts.objective
        self.guide, self.store = steering, store
        self.seed: int = settings["seed"]
        self.budget: int = settings["budget"]
        self.batch: int = settings["batch"]
        self.propose: int = settings["propose"]
        self._evaluations = {one.key: one for one in store.evaluations()}
        self._known = Known()
        finished = store.iterations()
        self._next = len(finished)
        self._idle = 0
        for row in finished:
            self._idle = 0 if row["selected"] else self._idle + 1
        # what an unfinished iteration has evaluated is not known yet when it is proposed
        originals = store.originals()
        for key, one in self._evaluations.items():
            if one.iteration < self._next:
                self._remember(key, originals[key], one.result)

    # ---- the loop -----------------------------------------------------------------

    def __iter__(self) -> Iterator[Iteration]:
        # an iteration that a kill interrupted has proposals already
        while self.store.proposals(self._next) or (self.left > 0 and not self.stopped):
            yield self.iteration()

    def iteration(self) -> Iteration:
        """Do one iteration, or finish the one that was interrupted; see `stopped`.

        Raises:
            DataError: the budget is spent.
        """
        began = time.monotonic()
        number = self._next
        proposals, nothing = self.store.proposals(number), ""
        if not proposals:
            if self.left <= 0:
                raise DataError(
                    f"the budget of {self.budget} oracle calls is spent. Look at "
                    "best(), or go on with Campaign.resume(store, budget=...)."
                )
            try:
                proposals = self._propose(number)
            except InfeasibleTarget as error:
                nothing = str(error)
            self.store.propose(number, proposals)
        selected = [one for one in proposals if one.decision == "selected"]
        self._evaluate(number, [p for p in selected if p.key not in self._evaluations])
        done = [self._evaluations[one.key].result for one in selected]
        for proposal, result in zip(selected, done, strict=True):
            self._remember(proposal.key, proposal.crystal, result)
        self._check_values()
        decisions = [one.decision for one in proposals]
        surplus, twins = decisions.count("surplus"), decisions.count("duplicate")
        top = next(iter(self._ranked()), None)
        iteration = Iteration(
            number,
            proposed=len(proposals),
            passed=len(selected) + surplus + twins,
            fresh=len(selected) + surplus,
            selected=len(selected),
            usable=sum(bool(result.ok[0]) for result in done),
            failed=dict(
                Counter(kind_of(r.reason[0]) for r in done if not r.ok[0]).most_common()
            ),
            best=top[0] if top else float("nan"),
            best_formula=top[1].result.structures.formulas[0] if top else "",
            spent=self.spent,
            budget=self.budget,
            seconds=time.monotonic() - began,
            nothing=nothing,
        )
        drawn = {"draw": iteration_seed(self.seed, number)}
        self.store.finish(number, iteration.counts | drawn)
        self._next += 1
        self._idle = 0 if selected else self._idle + 1
        return replace(iteration, stopped=self.stopped)

    @property
    def stopped(self) -> str:
        """Why nothing more will be evaluated, and what to loosen; "" while more will."""
        if self._idle < PATIENCE or self.left <= 0:
            return ""
        iterations = range(self._next - PATIENCE, self._next)
        rows = [one for k in iterations for one in self.store.proposals(k)]
        return why_stopped(rows, self.store.iterations()[-PATIENCE:], self.left)

    def _check_values(self) -> None:
        """Raise where a whole batch of usable results has no value of the objective."""
        usable = sum(bool(one.result.ok[0]) for one in self._evaluations.values())
        if usable >= self.batch and not self._ranked():
            raise DataError(
                f"the objective cannot be computed: got NaN for all {usable} usable "
                f"results of {self.oracle.name}. Give an oracle that computes it, or "
                "another `objective` in a new store."
            )

    def _propose(self, number: int) -> list[Proposal]:
        """Draw an iteration's crystals and decide about each, in their order."""
        seed = iteration_seed(self.seed, number)
        steering = {"guide": self.guide} if self.guide is not None else {}
        made = self.generator.sample(self.propose, seed=seed, **steering).to("cpu")
        reasons = getattr(self.oracle, "refusals", unfit)(made)
        sound = [i for i, why in enumerate(reasons) if not why]
        if self.constraints is not None and sound:
            checked = check(made[sound], self.constraints)
            for i, why in zip(sound, checked.reasons(), strict=True):
                reasons[i] = why
        room = min(self.batch, self.left)
        seen = Known()
        proposals = []
        for i, why in enumerate(reasons):
            one = made[[i]].replace(properties={}, units={}, ids=(), info={})
            decision = "rejected" if why else "selected"
            if not why:
                twin = self._known.find(one) or seen.find(one)
                if twin is not None:
                    decision, why = "duplicate", f"like {twin}"
                elif room == 0:
                    decision, why = "surplus", "more than the batch or the budget"
                else:
                    room -= 1
                    seen.add(f"place {i} of this iteration", one)
            proposals.append(Proposal(one, i, decision, why))
        return proposals

    def _evaluate(self, number: int, proposals: Sequence[Proposal]) -> None:
        """Ask the oracle and write down every answer as it comes."""
        if not proposals:
            return
        crystals = Crystals.cat([one.crystal for one in proposals])
        stream = getattr(self.oracle, "stream", None)
        answers: Iterator[tuple[int, Results]]
        if stream is not None:
            answers = stream(crystals)
        else:
            results = self.oracle.evaluate(crystals)
            answers = ((i, results[[i]]) for i in range(len(results)))
        for i, result in answers:
            one = proposals[i]
            n = int(one.crystal.n_atoms[0])
            kept = result.structures
            narrow = kept.replace(species=kept.species[:, :n], frac=kept.frac[:, :n])
            result = replace(result, structures=narrow)
            self.store.evaluated(number, one.place, one.key, result)
            self._evaluations[one.key] = Evaluation(number, one.place, one.key, result)
        silent = [p for p in proposals if p.key not in self._evaluations]
        if silent:
            raise DataError(
                f"the oracle {self.oracle.name} gave {len(silent)} of {len(proposals)} "
                "crystals no result. It must give one row each, failures included."
            )

    def _remember(self, key: str, original: Crystals, result: Results) -> None:
        self._known.add(key, original)
        if result.ok[0]:
            self._known.add(key, result.structures)

    # ---- looking ------------------------------------------------------------------

    @property
    def spent(self) -> int:
        """Oracle calls so far."""
        return len(self._evaluations)

    @property
    def left(self) -> int:
        """Oracle calls that the budget still allows."""
        return self.budget - self.spent

    def _ranked(self) -> list[tuple[float, Evaluation]]:
        """Usable evaluations with their objective, lowest first."""
        rows = []
        for one in self._evaluations.values():
            value = rebuild.value(self.objective, one.result)
            if value == value:
                rows.append((value, one))
        return sorted(rows, key=lambda row: (row[0], row[1].iteration, row[1].place))

    def best(self, k: int = 1) -> Crystals:
        """Return the k best relaxed crystals, all different from each other.

        Returns:
            At most k crystals, lowest objective first, with their energies as
            properties and "iteration-place" as ids.
        """
        found: list[Evaluation] = []
        seen = Known()
        for _, one in self._ranked():
            if len(found) < k and seen.find(one.result.structures) is None:
                seen.add(one.key, one.result.structures)
                found.append(one)
        if not found:
            none = torch.zeros(0, 3, 3)
            return Crystals(none[:, :1, 0].long(), none[:, :1], none)
        table = Results.gather(
            Crystals.cat([one.result.structures for one in found]),
            {i: one.result for i, one in enumerate(found)},
        )
        names = tuple(f"{one.iteration}-{one.place}" for one in found)
        return table.structures.replace(ids=names)

    def table(self) -> pandas.DataFrame:
        """Return every evaluation as a pandas table, in the order of iterations."""
        import pandas

        rows, done = [], self._evaluations.values()
        for one in sorted(done, key=lambda e: (e.iteration, e.place)):
            row = one.result.rows()[0] | {"id": f"{one.iteration}-{one.place}"}
            value = rebuild.value(self.objective, one.result)
            rows.append({"iteration": one.iteration, **row, "objective": value})
        return pandas.DataFrame(rows)

    def close(self) -> None:
        """End the oracle's processes and let others write to the store."""
        if hasattr(self.oracle, "close"):
            self.oracle.close()
        self.store.close()

    def __repr__(self) -> str:
        wanted = f" of crystals with {self.constraints}" if self.constraints else ""
        aim = self.objective if isinstance(self.objective, str) else "own objective"
        return (
            f"Campaign{wanted}: lowest {aim} by {self.oracle.name}; "
            f"{self._next} iterations, oracle calls {self.spent} of {self.budget}; "
            f"store {self.store.name}, seed {self.seed}"
            + (f"\n{self.stopped}" if self.stopped else "")
        )
