"""The machinery that all oracles share: cheap checks, worker processes, hull, table."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import min_distance, wrap
from matdesign.errors import DataError
from matdesign.loop.guards import Guards
from matdesign.loop.hull import Hull, shipped_key
from matdesign.loop.jobs import Job, Outcome
from matdesign.loop.results import ENERGIES, UNITS, Column, Results
from matdesign.loop.workers import TaskFailed, Workers, isolated

if TYPE_CHECKING:
    from pymatgen.core import Structure

SHORTEST = 0.5
"""Closest two atoms may be before anything is computed, angstrom."""

VOLUME = (1.0, 300.0)
"""Volume per atom outside which nothing is computed, angstrom^3."""

MAX_ATOMS = 500
"""Largest cell that is computed."""


class Streamed(ABC):
    """An oracle that answers crystal by crystal: a table is all its answers."""

    name: Any
    """Method and settings; equal names give equal numbers."""

    @abstractmethod
    def stream(self, crystals: Crystals) -> Iterator[tuple[int, Results]]:
        """Yield (place, Results of that one crystal) as they get ready."""

    def evaluate(self, crystals: Crystals) -> Results:
        """Return one row per crystal, failures included, in the order given.

        Raises:
            MatdesignError: the oracle itself cannot work, whatever the crystal.
        """
        found = dict(self.stream(crystals))
        if not found:
            return Results(crystals, {}, oracle=self.name)
        made = Results.cat([found[place] for place in range(len(crystals))])
        kept = made.structures.replace(info=crystals.info)
        return dataclasses.replace(made, structures=kept)

    def close(self) -> None:
        """End the processes of what it asks; they start again when needed."""
        for one in vars(self).values():
            own = isinstance(one, Workers) or hasattr(one, "evaluate")
            if own and hasattr(one, "close"):
                one.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class WorkerOracle(Streamed):
    """An oracle that computes in worker processes; give it a `Job` and a name.

    Args:
        workers: processes at most.
        time_limit: seconds that one crystal may take.
        batch: crystals per task; they share the time of one crystal and are tried one
            by one when that is not enough or something goes wrong.
        guards: bounds outside which a result is not believed.
        hull: what competes, the name of a shipped calibration, or None for energies
            only.
        memory_limit: GiB per process, None for no limit.
        executor: spreads tasks over a cluster instead of local processes: a
            `concurrent.futures` executor, or the address of a Dask scheduler, such as
            "tcp://host:8786"; each task still has its time limit.
    """

    def __init__(
        self,
        *,
        workers: int,
        time_limit: float,
        batch: int = 1,
        guards: Guards | None = None,
        hull: Hull | str | None = None,
        memory_limit: float | None = None,
        executor: Executor | str | None = None,
    ) -> None:
        if not time_limit > 0 or batch < 1 or workers < 1:
            raise DataError(
                f"workers and batch must be 1 or more and time_limit positive; got "
                f"workers={workers}, batch={batch}, time_limit={time_limit}."
            )
        self.workers = workers
        self.time_limit = float(time_limit)
        self.batch = batch
        self.guards = guards or Guards()
        self._hull = hull
        self._memory_limit = memory_limit
        self.executor = executor
        self._pool: Workers | None = None

    @abstractmethod
    def job(self) -> Job:
        """What the workers do; it is sent to them."""

    @cached_property
    def hull(self) -> Hull | None:
        """What competes, loaded when first needed."""
        return Hull.shipped(self._hull) if isinstance(self._hull, str) else self._hull

    @property
    def columns(self) -> dict[str, str]:
        """The columns that an objective can be, with their units."""
        return ENERGIES if self._hull else {"energy_per_atom": "eV/atom"}

    def _judging(self) -> str:
        """Return the hull, and what of the guards is not as usual, for `name`."""
        hull, words = self._hull, ""
        if isinstance(hull, str):
            words = f" hull {hull} {shipped_key(hull)}"
        elif hull is not None:
            words = f" hull {hull.key}"
        plain = dataclasses.asdict(Guards())
        for name, bound in dataclasses.asdict(self.guards).items():
            words += f" {name} {bound}" if bound != plain[name] else ""
        return words

    def refusals(self, crystals: Crystals) -> list[str]:
        """Return, per crystal, why nothing would be computed for it, or ""."""
        reasons = unfit(crystals)
        if self.hull is None:
            return reasons
        missing = self.hull.missing(crystals)
        return [a or b for a, b in zip(reasons, missing, strict=True)]

    def stream(self, crystals: Crystals) -> Iterator[tuple[int, Results]]:
        """Yield (place, Results of that one crystal) as they get ready."""
        crystals = crystals.to("cpu")
        reasons = self.refusals(crystals)
        for place, why in enumerate(reasons):
            if why:
                yield place, self._table(crystals[[place]], {}, why)
        fit = [i for i, why in enumerate(reasons) if not why]
        fit.sort(key=lambda i: -int(crystals.n_atoms[i]))  # like sizes together
        if not fit:
            return
        items = [crystals.structure(i) for i in fit]
        for k, found in self._computed(items):
            yield fit[k], self._row(crystals[[fit[k]]], found)

    def _computed(
        self, items: list[Structure]
    ) -> Iterator[tuple[int, Outcome | TaskFailed]]:
        """Yield what the worker processes make of each item, or why they cannot."""
        job = self.job()
        if self._pool is None:
            self._pool = Workers(
                self.workers,
                prepare=job.prepare,
                memory_limit=self._memory_limit,
                executor=self.executor,
            )
        return isolated(
            self._pool,
            job,
            items,
            time_limit=self.time_limit * 1.1 + 1.0,  # a job that can stops by itself
            batch=self.batch,
            again=lambda outcome: outcome.reason.startswith("time limit"),
        )

    def _row(self, given: Crystals, found: Outcome | TaskFailed) -> Results:
        """Return the table of one crystal."""
        if isinstance(found, TaskFailed):
            late = found.reason.startswith("time limit")
            reason = f"time limit {self.time_limit:g} s" if late else found.reason
            return self._table(given, {}, reason, self.time_limit if late else 0.0)
        numbers, reason, hull = dict(found.numbers), found.reason, self.hull
        energy = numbers.get("energy_per_atom", math.nan)
        if hull is not None and energy == energy:
            formed = float(hull.formation_energy(given, [energy])[0])
            numbers |= {
                "formation_energy_per_atom": formed,
                "energy_above_hull": float(hull.energy_above_hull(given, [energy])[0]),
                "hull_error": hull.error,
                "competing": int(hull.competing(given)[0]),
            }
            low, high = self.guards.formation_energy
            if not reason and not low < formed < high:
                reason = f"formation energy {formed:.2f}"
        if (end := found.relaxed) is not None:
            frac = given.frac.clone()
            frac[0, : len(end)] = wrap(torch.tensor(end.frac_coords.tolist()).to(frac))
            lattice = torch.tensor([end.lattice.matrix.tolist()]).to(given.lattice)
            given = given.replace(frac=frac, lattice=lattice)
        return self._table(given, numbers, reason, found.seconds)

    def _table(
        self,
        crystal: Crystals,
        numbers: Mapping[str, Any],
        reason: str,
        seconds: float = 0.0,
    ) -> Results:
        """Return the table of one crystal with its values."""
        units, columns = {**UNITS, **self.columns}, {}
        for name, said in {**dict.fromkeys(self.columns, math.nan), **numbers}.items():
            pair: Any = said if isinstance(said, tuple) else (said,)
            columns[name] = Column(pair[:1], units[name], pair[1:] or None)
        spent = torch.tensor([seconds], dtype=torch.float64)
        return Results(crystal, columns, (reason,), spent, self.name)

    def __enter__(self) -> WorkerOracle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unfit(crystals: Crystals) -> list[str]:
    """Return, per crystal, why nothing should be computed for it, or "".

    Source:
        The cheap checks that published loops make before any relaxation (no two atoms
        closer than 0.5 angstrom, a cell with a volume); changed: a volume per atom,
        with an upper bound, and a largest cell.
    """
    finite = crystals.lattice.isfinite().flatten(1).all(1)
    sites: Tensor = crystals.frac.isfinite().all(-1) | ~crystals.mask
    finite &= sites.all(1)
    n = crystals.n_atoms.tolist()
    per_atom = (crystals.volume / crystals.n_atoms.clamp(min=1)).tolist()
    reasons = []
    for i, known in enumerate(finite.tolist()):
        why = ""
        if not n[i]:
            why = "no atoms"
        elif not known:
            why = "coordinates are not numbers"
        elif n[i] > MAX_ATOMS:
            why = f"{n[i]} atoms are more than {MAX_ATOMS}"
        elif per_atom[i] < VOLUME[0]:
            why = f"collapsed cell: {per_atom[i]:.2g} angstrom^3 per atom"
        elif per_atom[i] > VOLUME[1]:
            why = f"empty cell: {per_atom[i]:.4g} angstrom^3 per atom"
        reasons.append(why)
    sound = [i for i, why in enumerate(reasons) if not why]
    apart = min_distance(crystals[sound], include_self=True).tolist() if sound else []
    for i, distance in zip(sound, apart, strict=True):
        if not distance >= SHORTEST:
            reasons[i] = f"atoms too close: {distance:.2f} angstrom"
    return reasons


def label(function: Callable[..., Any], name: str | None) -> str:
    """Return the name that is given, or else that of a function.

    Raises:
        DataError: it is a lambda or a partial, which have none.
    """
    own: str = getattr(function, "__name__", type(function).__name__)
    words = name or own
    if words in ("<lambda>", "partial"):
        raise DataError(f"a {words} has no name of its own: give `name=`.")
    return words
