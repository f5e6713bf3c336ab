"""An oracle that looks values up: the best crystal is known, and so is the regret."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.loop.known import Known
from matdesign.loop.results import Column, Results
from matdesign.loop.store import crystal_keys


class TableOracle:
    """Crystals with known values as an oracle, to measure how well a campaign searches.

    A crystal is found by its exact numbers, else by its structure (`Known`); one that the
    table lacks, or has a value of that is NaN, is rejected before a call is spent.

    Args:
        crystals: all that exist in this universe.
        columns: their properties that the oracle tells; the first is what `regret`
            looks at.

    Raises:
        DataError: the crystals lack a property.

    Example:
        >>> import matdesign as design
        >>> some = design.load("perovskites", split="test")[:20]
        >>> oracle = TableOracle(some, "energy_above_hull")
        >>> oracle.regret(oracle.evaluate(some))
        0.0
    """

    def __init__(self, crystals: Crystals, columns: str | Sequence[str]) -> None:
        names = [columns] if isinstance(columns, str) else list(columns)
        if not names or not set(names) <= set(crystals.properties):
            raise DataError(
                f"the table needs properties of its crystals: got {names}, they have "
                f"{', '.join(crystals.properties) or 'none'}."
            )
        self.columns = {name: crystals.units.get(name, "") for name in names}
        self._values = {n: crystals.properties[n].double().cpu() for n in names}
        self._known = Known()
        for i in range(len(crystals)):
            self._known.add(str(i), crystals[[i]])
        values = {name: one.tolist() for name, one in self._values.items()}
        text = repr((crystal_keys(crystals), values))
        self.name = f"table {hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def refusals(self, crystals: Crystals) -> list[str]:
        """Return, per crystal, why nothing would be looked up for it, or ""."""
        return list(self.evaluate(crystals).reason)

    def evaluate(self, crystals: Crystals) -> Results:
        """Return the values of each crystal; what is not in the table fails."""
        found = [self._known.find(crystals[[i]]) for i in range(len(crystals))]
        columns = {}
        for name, unit in self.columns.items():
            held = self._values[name]
            values = [math.nan if i is None else held[int(i)] for i in found]
            columns[name] = Column(torch.tensor(values, dtype=torch.float64), unit)
        known = torch.stack([one.values.isfinite() for one in columns.values()]).all(0)
        reason = [
            "not in the table" if i is None else "" if fine else "no value in the table"
            for i, fine in zip(found, known.tolist(), strict=True)
        ]
        return Results(crystals, columns, tuple(reason), oracle=self.name)

    def regret(self, results: Results) -> float:
        """Return the lowest value of usable results less the lowest of the table."""
        name, values = next(iter(self._values.items()))
        found = getattr(results, name)[results.ok].tolist()
        return min(found, default=math.inf) - float(values.nan_to_num(math.inf).min())

    def __repr__(self) -> str:
        count = len(next(iter(self._values.values())))
        return f"TableOracle({', '.join(self.columns)} of {count} crystals)"
