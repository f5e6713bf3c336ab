"""Oracles made of oracles: a cheap one before a dear one, and one that remembers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.loop.oracle import Oracle, stream
from matdesign.loop.results import UNITS, Column, Results
from matdesign.loop.store import crystal_keys
from matdesign.loop.worker_oracle import Streamed, unfit
from matdesign.metrics.store import Store as Kept
from matdesign.paths import cache_dir


class Cascade(Streamed):
    """A cheap oracle first; what passes its limits goes on to a dear one.

    A crystal that the cheap one ends is a failed row that says why. Costs of both are
    added. The dear oracle gets the crystals as the cheap one left them (relaxed); where
    both compute a column, its value counts. Of three oracles, nest two.

    Args:
        cheap: asked first.
        then: asked about what passes.
        within: column of the cheap one -> lowest and highest value that passes.

    Example:
        >>> from matdesign.loop.function_oracle import FunctionOracle
        >>> def gold(structure):
        ...     return structure.composition.get_wt_fraction("Au")
        >>> size = FunctionOracle(len, {"atoms": ""})
        >>> share = FunctionOracle(gold, {"gold": ""})
        >>> Cascade(size, share, within={"atoms": (1, 20)}).name
        'len with atoms from 1 to 20, then gold'
    """

    def __init__(
        self, cheap: Oracle, then: Oracle, *, within: Mapping[str, tuple[float, float]]
    ) -> None:
        self.cheap, self.then, self.within = cheap, then, dict(within)
        first, second = (dict(getattr(one, "columns", {})) for one in (cheap, then))
        self.columns = first | second
        if "energy_per_atom" in first:
            first = UNITS | first
        for name, ends in self.within.items() if first else ():
            two = isinstance(ends, Sequence) and len(ends) == 2
            if name not in first or not two or not ends[0] <= ends[1]:
                raise DataError(
                    f"a cascade needs a lowest and a highest value of a column of its first "
                    f"oracle, {', '.join(first)}; got {name}: {ends}."
                )
        if torn := [x for x, unit in second.items() if first.get(x, unit) != unit]:
            raise DataError(f"the oracles of a cascade give {torn} in different units.")
        limits = (f"{name} from {a:g} to {b:g}" for name, (a, b) in within.items())
        self.name = f"{cheap.name} with {', '.join(limits)}, then {then.name}"

    def refusals(self, crystals: Crystals) -> list[str]:
        """Return, per crystal, why one of the oracles would compute nothing, or ""."""
        asked = (self.cheap, self.then)
        each = [getattr(one, "refusals", unfit)(crystals) for one in asked]
        return [first or second for first, second in zip(*each, strict=True)]

    def stream(self, crystals: Crystals) -> Iterator[tuple[int, Results]]:
        """Yield place and table of single crystals, those that fail early first."""
        passed: dict[int, Results] = {}
        none = torch.tensor([torch.nan])
        unknown = {name: Column(none, unit) for name, unit in self.columns.items()}
        for i, row in stream(self.cheap, crystals):
            why = row.reason[0] or self._outside(row)
            if why:
                columns = {**unknown, **row.columns}
                yield i, replace(row, columns=columns, reason=(why,), oracle=self.name)
            else:
                passed[i] = row
        if not passed:
            return
        places = list(passed)
        relaxed = Crystals.cat([one.structures for one in passed.values()])
        for k, row in stream(self.then, relaxed):
            first = passed[places[k]]
            columns = {**first.columns, **row.columns}
            spent = first.seconds + row.seconds
            made = replace(row, columns=columns, seconds=spent, oracle=self.name)
            yield places[k], made

    def _outside(self, row: Results) -> str:
        for name, (low, high) in self.within.items():
            value = float(getattr(row, name)[0])
            if not low <= value <= high:
                return f"{name} outside the limits: {value:.3g}"
        return ""


def computing(oracle: Any, column: str) -> str:
    """Return the name of the method behind a column of an oracle, without its settings."""
    for part, inner in reversed(getattr(oracle, "__dict__", {}).items()):
        own = part == "oracle" or column in getattr(inner, "columns", ())
        if own and hasattr(inner, "evaluate"):
            return computing(inner, column)
    name: str = oracle.name
    return name.split(", then ")[-1].split(" by ")[-1].split(" relax")[0]


class Cached(Streamed):
    """An oracle that looks first whether any campaign on this machine knows the answer.

    Usable results are kept by the oracle's name, its columns with units and the hash of
    the crystal; one that is found costs no seconds. In all else it is the oracle that it
    was given, but a campaign that is resumed must be given it again.

    Args:
        oracle: asked about the others.
        path: file of what is known; in the user's cache folder unless given.
    """

    def __init__(self, oracle: Oracle, path: str | Path | None = None) -> None:
        self.oracle, self.path = oracle, Path(path or cache_dir() / "oracles.db")

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["oracle"], name)

    def to_dict(self) -> None:
        """Return None: what is remembered is on this machine."""

    def stream(self, crystals: Crystals) -> Iterator[tuple[int, Results]]:
        """Yield place and table of single crystals, those that are known first."""
        kept, asked = Kept(self.path), crystal_keys(crystals)
        columns = sorted(getattr(self.oracle, "columns", {}).items())
        words = [f"{self.oracle.name}/{columns}/{key}" for key in asked]
        keys = [hashlib.sha256(one.encode()).digest() for one in words]
        known = kept.read(keys)
        for i in (i for i, key in enumerate(keys) if key in known):
            found = json.loads(str(known[keys[i]]))
            species, frac, lattice = map(torch.tensor, found["crystal"])
            yield i, Results.from_dict(Crystals(species, frac, lattice), found)
        new = [i for i, key in enumerate(keys) if key not in known]
        for k, row in stream(self.oracle, crystals[new]) if new else ():
            one = row.structures
            tensors = [x.tolist() for x in (one.species, one.frac, one.lattice)]
            if not row.reason[0]:
                free = {**row.to_dict(), "seconds": [0.0], "crystal": tensors}
                kept.write(keys[new[k]], json.dumps(free))
            yield new[k], row
