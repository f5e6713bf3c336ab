"""An oracle that looks values up: the best crystal is known, and so is the regret."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

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
        seconds: what a call is said to cost.
        name: default: a checksum of the table.

    Raises:
        DataError: the crystals lack a property.

    Example:
        >>> import matdesign as design
        >>> some = design.load("perovskites", split="test")[:20]
        >>> oracle = TableOracle(some, "energy_above_hull")
        >>> oracle.regret(oracle.evaluate(some))
        0.0
    """

    def __init__(
        self,
        crystals: Crystals,
        columns: str | Sequence[str],
        *,
        seconds: float = 0.0,
        name: str | None = None,
    ) -> None:
        names = [columns] if isinstance(columns, str) else list(columns)
        if not names or not set(names) <= set(crystals.properties):
            raise DataError(
                f"the table needs properties of its crystals: got {names}, they have "
                f"{', '.join(crystals.properties) or 'none'}."
            )
        self.columns = {name: crystals.units.get(name, "") for name in names}
        self.seconds = seconds
        self._values = {n: crystals.properties[n].double().cpu() for n in names}
        self._known = Known()
        keys = crystal_keys(crystals)
        for i in range(len(crystals)):
            self._known.add(str(i), crystals[[i]])
        if name is None:
            text = repr((keys, {n: v.tolist() for n, v in self._values.items()}))
            name = f"table {hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self.name = name

    def refusals(self, crystals: Crystals) -> list[str]:
        """Return, per crystal, why nothing would be looked up for it, or ""."""
        return [self._missing(i) for i in self._places(crystals)]

    def evaluate(self, crystals: Crystals) -> Results:
        """Return the values of each crystal; what is not in the table fails."""
        places = self._places(crystals)
        columns = {
            name: Column(
                torch.tensor(
                    [math.nan if i is None else float(values[i]) for i in places],
                    dtype=torch.float64,
                ),
                self.columns[name],
            )
            for name, values in self._values.items()
        }
        reason = tuple(self._missing(i) for i in places)
        seconds = torch.full((len(crystals),), self.seconds)
        return Results(crystals, columns, reason, seconds, self.name)

    def regret(self, results: Results) -> float:
        """Return the lowest value of usable results less the lowest of the table."""
        name, values = self._first
        found = getattr(results, name)[results.ok]
        return (
            float(found.min() - values.nan_to_num(math.inf).min())
            if len(found)
            else math.inf
        )

    def __repr__(self) -> str:
        _, values = self._first
        return f"TableOracle({', '.join(self.columns)} of {len(values)} crystals)"

    def _missing(self, place: int | None) -> str:
        if place is None:
            return "not in the table"
        known = all(math.isfinite(values[place]) for values in self._values.values())
        return "" if known else "no value in the table"

    @property
    def _first(self) -> tuple[str, Tensor]:
        return next(iter(self._values.items()))

    def _places(self, crystals: Crystals) -> list[int | None]:
        found = [self._known.find(crystals[[i]]) for i in range(len(crystals))]
        return [None if name is None else int(name) for name in found]
