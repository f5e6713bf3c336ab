"""Oracles: what says how good a crystal is.

An oracle takes crystals and gives a table of results, one row each.  A crystal that
cannot be computed, hangs, explodes or kills the interpreter is a failed row with its
reason; `evaluate` raises only where the oracle itself cannot work (no weights, say).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import min_distance, wrap
from matdesign.errors import DataError
from matdesign.loop.guards import Guards
from matdesign.loop.hull import Hull
from matdesign.loop.jobs import ASEJob, Job, Outcome, Plain, PotentialJob
from matdesign.loop.results import Results
from matdesign.loop.workers import Remote, TaskFailed, Workers, isolated

SHORTEST = 0.5
"""Closest two atoms may be before anything is computed, angstrom."""

VOLUME = (1.0, 300.0)
"""Volume per atom outside which nothing is computed, angstrom^3."""

MAX_ATOMS = 500
"""Largest cell that is computed."""


@runtime_checkable
class Oracle(Protocol):
    """What every oracle has: a name that identifies its numbers, and `evaluate`.

    Oracles of this package also have `stream(crystals)`, which yields (place, Results
    of one crystal) as they get ready; a campaign uses it to lose less when killed.
    """

    @property
    def name(self) -> str:
        """Method and settings; equal names give equal numbers."""

    def evaluate(self, crystals: Crystals) -> Results:
        """Return one row per crystal, failures included; never raise for a crystal."""


class WorkerOracle(ABC):
    """An oracle that computes in worker processes; give it a `Job` and a name.

    Args:
        workers: processes at most.
        time_limit: seconds that one crystal may take.
        batch: crystals per task; they share the time of one crystal and are tried one
            by one when that is not enough or something goes wrong.
        guards: bounds outside which a result is not believed.
        hull: reference phases by the same potential, or None for energies only.
        memory_limit: GiB per process, None for no limit.
        executor: a `concurrent.futures` executor to spread tasks over instead of local
            processes, such as a Dask cluster's; each task still has its time limit.
    """

    def __init__(
        self,
        *,
        workers: int,
        time_limit: float,
        batch: int,
        guards: Guards | None,
        hull: Hull | Literal["shipped"] | None,
        memory_limit: float | None,
        executor: Executor | None,
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
        self._executor = executor
        self._pool: Workers | Remote | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """Method and settings; equal names give equal numbers."""

    @abstractmethod
    def job(self) -> Job:
        """What the workers do; it is sent to them."""

    @property
    def hull(self) -> Hull | None:
        """The reference phases, loaded when first needed."""
        if self._hull == "shipped":
            self._hull = Hull.shipped()
        return self._hull

    def evaluate(self, crystals: Crystals) -> Results:
        """Relax crystals and say how stable they are.

        Args:
            crystals: any crystals, however odd.

        Returns:
            One row per crystal, in the order given.

        Raises:
            MatdesignError: the oracle itself cannot work, whatever the crystal.
        """
        return Results.gather(crystals, dict(self.stream(crystals)), self.name)

    def stream(self, crystals: Crystals) -> Iterator[tuple[int, Results]]:
        """Yield (place, Results of that one crystal) as they get ready."""
        crystals = crystals.to("cpu")
        reasons = unfit(crystals)
        hull = self.hull
        if hull is not None:
            missing = hull.missing(crystals)
            reasons = [a or b for a, b in zip(reasons, missing, strict=True)]
        for place, why in enumerate(reasons):
            if why:
                yield place, self._row(crystals, place, TaskFailed(why))
        fit = [i for i, why in enumerate(reasons) if not why]
        fit.sort(key=lambda i: -int(crystals.n_atoms[i]))  # like sizes together
        if not fit:
            return
        if self._pool is None:
            prepare = self.job().prepare
            self._pool = (
                Remote(self._executor, prepare=prepare, memory_limit=self._memory_limit)
                if self._executor is not None
                else Workers(
                    self.workers, prepare=prepare, memory_limit=self._memory_limit
                )
            )
        items = [_plain(crystals, i) for i in fit]
        for k, found in isolated(
            self._pool,
            self.job(),
            items,
            time_limit=self.time_limit * 1.1 + 1.0,  # a job that can stops by itself
            batch=self.batch,
            again=_late,
        ):
            yield fit[k], self._row(crystals, fit[k], found)

    def _row(
        self, crystals: Crystals, place: int, found: Outcome | TaskFailed
    ) -> Results:
        """Return the table of one crystal."""
        given = crystals[[place]]
        row = Results.empty(given, self.name)
        if isinstance(found, TaskFailed):
            reason = found.reason
            if reason.startswith("time limit"):
                reason = f"time limit {self.time_limit:g} s"
            return _fill(row, given, reason)
        n = int(given.n_atoms[0])
        frac, lattice = given.frac.clone(), given.lattice.clone()
        relaxed = wrap(torch.as_tensor(found.frac).to(frac))
        frac[0, :n], lattice[0] = relaxed, torch.as_tensor(found.lattice).to(lattice)
        energy, reason = found.energy_per_atom, found.reason
        formed = above = float("nan")
        competing = 0
        hull = self.hull
        if hull is not None and energy == energy:
            formed = float(hull.formation_energy(given, [energy])[0])
            above = float(hull.energy_above_hull(given, [energy])[0])
            competing = int(hull.competing(given)[0])
            low, high = self.guards.formation_energy
            if not reason and not low < formed < high:
                reason = f"formation energy {formed:.2f}"
        return _fill(
            row,
            given.replace(frac=frac, lattice=lattice),
            reason,
            energy=energy,
            formed=formed,
            above=above,
            competing=competing,
            steps=found.steps,
            seconds=found.seconds,
        )

    def close(self) -> None:
        """End the worker processes; they start again when needed."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __enter__(self) -> WorkerOracle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class PotentialOracle(WorkerOracle):
    """The default oracle: relaxation by the universal potential CHGNet.

    Args:
        weights: "0.3.0" (labels of the shipped data) or "r2scan", the second opinion
            that a loop should not see.
        workers: processes, one thread each.
        time_limit: seconds per crystal.
        fmax: converged below this force, eV/angstrom.
        steps: most steps of a relaxation.
        batch: crystals relaxed together in one process.
        device: torch device of the potential.
        guards: bounds outside which a result is not believed.
        hull: reference phases by the same weights; "shipped" for 0.3.0. Default: the
            shipped ones for 0.3.0, none for other weights.
        executor: see `WorkerOracle`.

    Example:
        >>> oracle = PotentialOracle(workers=2)
        >>> results = oracle.evaluate(crystals)  # doctest: +SKIP
        >>> results[results.ok].energy_above_hull  # doctest: +SKIP
    """

    def __init__(
        self,
        weights: str = "0.3.0",
        *,
        workers: int = 2,
        time_limit: float = 60.0,
        fmax: float = 0.05,
        steps: int = 200,
        batch: int = 8,
        device: str = "cpu",
        guards: Guards | None = None,
        hull: Hull | Literal["shipped", "default"] | None = "default",
        executor: Executor | None = None,
    ) -> None:
        if hull == "default":
            hull = "shipped" if weights == "0.3.0" else None
        super().__init__(
            workers=workers,
            time_limit=time_limit,
            batch=batch,
            guards=guards,
            hull=hull,
            memory_limit=8.0 if device == "cpu" else None,
            executor=executor,
        )
        self.weights = weights
        self.fmax = fmax
        self.steps = steps
        self.device = device

    @property
    def config(self) -> dict[str, Any]:
        """The plain keywords that make this oracle again."""
        names = ("weights", "workers", "time_limit", "fmax", "steps", "batch", "device")
        return {name: getattr(self, name) for name in names}

    @property
    def name(self) -> str:
        """Weights, method and thresholds; equal names give equal numbers."""
        from matdesign.loop.relax import VERSION

        return (
            f"chgnet/{self.weights} {VERSION} fmax {self.fmax:g} steps {self.steps} "
            f"limit {self.time_limit:g} s"
        )

    def job(self) -> Job:
        """Batched relaxation by the potential."""
        hull = self.hull
        return PotentialJob(
            self.weights,
            self.device,
            self.fmax,
            self.steps,
            self.guards,
            hull.volumes if hull is not None else {},
            self.time_limit,
        )


class ASEOracle(WorkerOracle):
    """Any ASE calculator as an oracle: EMT, MACE, MatterSim, ORB, a DFT code.

    Args:
        factory: gives a calculator; called once in every worker process, so load
            weights inside it. A function defined in a notebook works.
        name: of the method, so that numbers of different ones are never mixed up;
            default: the factory's own name.
        workers: processes, one thread each.
        time_limit: seconds per crystal.
        fmax: converged below this force, eV/angstrom.
        steps: most steps of a relaxation; 0 takes the crystals as they stand.
        batch: crystals per task.
        optimizer: "BFGS" or "FIRE" of `ase.optimize`.
        relax_cell: whether the cell is free too; the calculator must give stresses.
        guards: bounds outside which a result is not believed.
        hull: reference phases by the same calculator, if any.
        memory_limit: GiB per process, None for no limit.
        executor: see `WorkerOracle`.

    Example:
        >>> from ase.calculators.emt import EMT
        >>> oracle = ASEOracle(EMT)
        >>> oracle
        ASEOracle(EMT BFGS fmax 0.05 steps 200 cell free limit 60 s)
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        *,
        name: str | None = None,
        workers: int = 2,
        time_limit: float = 60.0,
        fmax: float = 0.05,
        steps: int = 200,
        batch: int = 1,
        optimizer: Literal["BFGS", "FIRE"] = "BFGS",
        relax_cell: bool = True,
        guards: Guards | None = None,
        hull: Hull | None = None,
        memory_limit: float | None = None,
        executor: Executor | None = None,
    ) -> None:
        if not callable(factory):
            raise DataError(
                f"ASEOracle needs a function that gives a calculator; got {factory!r}. "
                "Write `ASEOracle(lambda: calculator)` or pass the class."
            )
        if optimizer not in ("BFGS", "FIRE"):
            raise DataError(f"optimizer must be BFGS or FIRE; got {optimizer!r}.")
        super().__init__(
            workers=workers,
            time_limit=time_limit,
            batch=batch,
            guards=guards,
            hull=hull,
            memory_limit=memory_limit,
            executor=executor,
        )
        self.factory = factory
        self.label = name or getattr(factory, "__name__", type(factory).__name__)
        self.fmax = fmax
        self.steps = steps
        self.optimizer = optimizer
        self.relax_cell = relax_cell

    @property
    def name(self) -> str:
        """Calculator, method and thresholds; equal names give equal numbers."""
        cell = "free" if self.relax_cell else "fixed"
        return (
            f"{self.label} {self.optimizer} fmax {self.fmax:g} steps {self.steps} "
            f"cell {cell} limit {self.time_limit:g} s"
        )

    def job(self) -> Job:
        """Relaxation one by one with the calculator."""
        return ASEJob(
            self.factory,
            self.fmax,
            self.steps,
            self.optimizer,
            self.relax_cell,
            self.guards,
        )


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
        else:
            apart = float(min_distance(crystals[[i]], include_self=True)[0])
            if not apart >= SHORTEST:
                why = f"atoms {apart:.2f} angstrom apart"
        reasons.append(why)
    return reasons


def _late(outcome: Outcome) -> bool:
    return outcome.reason.startswith("time limit")


def _plain(crystals: Crystals, i: int) -> Plain:
    keep = crystals.mask[i]
    return Plain(
        crystals.species[i][keep].numpy(),
        crystals.frac[i].detach().double()[keep].numpy(),
        crystals.lattice[i].detach().double().numpy(),
    )


def _fill(
    row: Results,
    structures: Crystals,
    reason: str,
    *,
    energy: float = float("nan"),
    formed: float = float("nan"),
    above: float = float("nan"),
    competing: int = 0,
    steps: int = 0,
    seconds: float = 0.0,
) -> Results:
    """Return a table of one crystal with its values."""

    def one(value: float, like: Tensor) -> Tensor:
        return torch.tensor([value], dtype=like.dtype)

    return Results(
        structures.replace(properties={}, units={}),
        one(energy, row.energy_per_atom),
        one(formed, row.energy_per_atom),
        one(above, row.energy_per_atom),
        one(competing, row.competing),
        torch.tensor([not reason]),
        (reason,),
        one(steps, row.steps),
        one(seconds, row.seconds),
        row.oracle,
    )
