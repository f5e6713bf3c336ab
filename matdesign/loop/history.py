"""All evaluations of a campaign so far, with their values of the objective."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.loop.known import Known
from matdesign.loop.rebuild import Objective, Parts, value
from matdesign.loop.results import COUNTS, Results, kind_of
from matdesign.loop.store import Evaluation, Store

if TYPE_CHECKING:
    import pandas

FAILURES = 10
"""Fewest evaluations of which all must fail for a campaign to end."""


class History:
    """Evaluations by the key of their crystal; see `Campaign` for what is public."""

    def __init__(self, parts: Parts, store: Store) -> None:
        self.objective: Objective = parts.objective
        self.oracle, self._store = parts.oracle.name, store
        # of the selector, columns
        self.objectives: list[str] = (store.settings() or {}).get("objectives", [])
        self._originals: dict[str, Crystals] = {}
        self._known, self._in_known = Known(), set[str]()
        self.by_key: dict[str, Evaluation] = {}
        self._values: dict[str, float] = {}
        self.units: dict[str, str] = {}  # of every column so far

    def add(self, one: Evaluation) -> None:
        """Remember one evaluation."""
        self.by_key[one.key] = one
        self.units |= {name: x.unit for name, x in one.result.columns.items()}
        self._values[one.key] = value(self.objective, one.result)

    def check_failures(self, batch: int) -> None:
        """Raise, once each time, where two batches have brought no value of anything."""
        rows, settings = self._ordered(), self._store.settings() or {}
        columns = (x for one in rows for x in one.result.columns.items())
        known = any(bool(x.values.isfinite()[0]) for k, x in columns if k not in COUNTS)
        tried = len(rows) - settings.get("failed", 0)
        if known or tried < max(FAILURES, 2 * batch):
            return
        self._store.write_settings({**settings, "failed": len(rows)})
        reasons = [one.result.reason[0] for one in rows]
        [(kind, n)] = Counter(map(kind_of, reasons)).most_common(1)
        first = next(one for one in reasons if kind_of(one) == kind)
        raise DataError(
            f"all {len(reasons)} oracle calls failed, {n} of them like this: {first}. "
            f"Try {self.oracle} on a crystal that you know. If it is wrong, mend it and "
            "begin in a new store, since no crystal is evaluated twice; if it is right, "
            "Campaign.resume (`matdesign campaign resume`) goes on with other crystals."
        )

    def check(self, batch: int) -> None:
        """Raise where a batch of usable results or more have no value of the objective."""
        usable = sum(not one.result.reason[0] for one in self.by_key.values())
        if usable >= batch and not self._ranked():
            raise DataError(
                f"the objective cannot be computed: got NaN for all {usable} usable "
                f"results of {self.oracle}. Give an oracle that computes it, or "
                "another `objective` in a new store."
            )

    def usable(self) -> tuple[Results, Tensor]:
        """Return results that have a value, by iteration and place, and the values.

        Returns:
            Results of the crystals as proposed, their keys as ids, and (results,).
        """
        rows = [one for one in self._ordered() if not isnan(self._values[one.key])]
        ids = [one.key for one in rows]
        values = torch.tensor([self._values[key] for key in ids], dtype=torch.float64)
        table = self._joined(rows, ids)
        if ids:  # candidates are not relaxed either
            table = replace(table, structures=self.proposed(ids))
        return table, values

    def proposed(self, keys: Sequence[str]) -> Crystals:
        """Return evaluated crystals as they were proposed, their keys as ids."""
        if any(key not in self._originals for key in keys):
            self._originals = self._store.originals()
        found = [self._originals[key] for key in keys]
        return Crystals.cat(found).replace(ids=tuple(keys))

    def twins(
        self, made: Crystals, places: Sequence[int], number: int
    ) -> dict[int, str]:
        """Return place -> what is like it: evaluated before an iteration, or before it here."""
        known, seen, found = self._before(number), Known(), {}
        for i in places:
            twin = known.find(made[[i]]) or seen.find(made[[i]])
            if twin is not None:
                found[i] = twin
            else:
                seen.add(f"place {i} of this iteration", made[[i]])
        return found

    def _before(self, end: int) -> Known:
        """Return what was evaluated in the iterations before `end`, also as relaxed."""
        for one in self._ordered():
            if one.iteration < end and one.key not in self._in_known:
                self._in_known.add(one.key)
                self._known.add(one.key, self.proposed([one.key]))
                if not one.result.reason[0]:
                    self._known.add(one.key, one.result.structures)
        return self._known

    def rewards(self, first: int, end: int) -> tuple[list[str], Tensor]:
        """Return keys and rewards of what was evaluated in the iterations [first, end).

        Equation:
            reward = share of the others whose objective is worse; 0 for a failure
        """
        rows = [one for one in self._ordered() if first <= one.iteration < end]
        values = torch.tensor(
            [self._values[one.key] for one in rows], dtype=torch.float64
        )
        values = values.nan_to_num(torch.inf)
        worse = len(rows) - torch.searchsorted(values.sort().values, values, right=True)
        return [one.key for one in rows], worse / max(1, len(rows) - 1)

    def lowest(self) -> tuple[str, float]:
        """Return formula and value of the best crystal; "" and NaN where there is none."""
        for one in self._ranked():
            return one.result.structures.formulas[0], self._values[one.key]
        return "", float("nan")

    def results(self, k: int, failed: int = 0, least: float = -float("inf")) -> Results:
        """Return up to `failed` below `least`, the k best from it, all different, and failures."""
        low, found = list[Evaluation](), list[Evaluation]()
        believed, others = Known(), Known()
        for one in self._front_first(least):
            fine = self._values[one.key] >= least
            some, most, seen = (found, k, believed) if fine else (low, failed, others)
            if len(some) < most and seen.find(one.result.structures) is None:
                seen.add(one.key, one.result.structures)
                some.append(one)
        found = low + found
        bad = [one for one in self._ordered() if one.result.reason[0]]
        found += bad[len(bad) - failed if failed < len(bad) else 0 :] if failed else []
        return self._joined(found, [one.name for one in found])

    def table(self) -> pandas.DataFrame:
        """Return every evaluation as a row, by iteration and place."""
        rows = self._ordered()
        table = self._joined(rows, [one.name for one in rows]).to_pandas()
        table.insert(0, "iteration", [one.iteration for one in rows])
        table["objective"] = [self._values[one.key] for one in rows]
        return table

    def _ordered(self) -> list[Evaluation]:
        return sorted(self.by_key.values(), key=lambda one: (one.iteration, one.place))

    def _ranked(self) -> list[Evaluation]:
        """Evaluations with a value of the objective, the lowest first."""
        worth = self._values
        known = (one for one in self._ordered() if not isnan(worth[one.key]))
        return sorted(known, key=lambda one: worth[one.key])

    def _front_first(self, least: float) -> list[Evaluation]:
        """Return `_ranked`, before the rest what no other from `least` beats in all objectives."""
        rows, aims = self._ranked(), self.objectives
        if not rows or not aims:
            return rows
        from botorch.utils.multi_objective.pareto import is_non_dominated

        each = [[-value(x, one.result) for x in aims] for one in rows]
        values = torch.tensor(each, dtype=torch.float64)
        wrong = torch.tensor([self._values[one.key] < least for one in rows])
        values[wrong | values.isnan().any(1)] = -torch.inf
        first = is_non_dominated(values, deduplicate=False)
        return [rows[i] for i in (~first).int().argsort(stable=True).tolist()]

    def _joined(self, rows: Sequence[Evaluation], ids: Sequence[str]) -> Results:
        """Return evaluations as one table, under these ids."""
        if not rows:
            none = torch.zeros(0, 3, 3)
            return Results(Crystals(none[:, :1, 0].long(), none[:, :1], none), {})
        table = Results.cat([one.result for one in rows])
        return replace(table, structures=table.structures.replace(ids=tuple(ids)))
