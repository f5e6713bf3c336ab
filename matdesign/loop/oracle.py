"""Oracles: what says how good a crystal is.

An oracle takes crystals and gives a table of results, one row each.  A crystal that
cannot be computed, hangs, explodes or kills the interpreter is a failed row with its
reason; `evaluate` raises only where the oracle itself cannot work (no weights, say).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, Literal, Protocol, runtime_checkable

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.loop.guards import Guards
from matdesign.loop.hull import Hull
from matdesign.loop.jobs import ASEJob, Job, PotentialJob
from matdesign.loop.potential import check_weights
from matdesign.loop.relax import VERSION
from matdesign.loop.results import Results
from matdesign.loop.worker_oracle import WorkerOracle, label


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


def stream(oracle: Oracle, crystals: Crystals) -> Iterator[tuple[int, Results]]:
    """Yield place and table of single crystals, as they get ready where it can."""
    if hasattr(oracle, "stream"):
        yield from oracle.stream(crystals)
        return
    results = oracle.evaluate(crystals)
    for i in range(len(results)):
        yield i, results[[i]]


class Experiment:
    """An oracle outside of this computer: a furnace, a colleague, another program.

    A campaign with it is led by `ask` and `tell`.

    Args:
        columns: name -> unit of what will be told.
        name: of the experiment, with what identifies its numbers.

    Example:
        >>> Experiment({"capacity": "mAh/g"}, name="coin cell, C/10").name
        'coin cell, C/10'
    """

    def __init__(self, columns: dict[str, str], name: str = "experiment") -> None:
        self.columns, self.name = dict(columns), name

    def evaluate(self, crystals: Crystals) -> Results:
        """Refuse: nobody here can do the experiment.

        Raises:
            DataError: always; it says what to call instead.
        """
        raise DataError(
            f"{self.name} is not done by this program. Get crystals by `campaign.ask()`, "
            "and give what was measured to `campaign.tell(results)`."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what makes this oracle again."""
        return {"columns": self.columns, "name": self.name}

    @classmethod
    def from_dict(cls, words: dict[str, Any]) -> Experiment:
        """Return the oracle of `to_dict`."""
        return cls(**words)


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
        hull: what competes; the shipped compounds, on whose scale these weights are
            calibrated, unless given; None for energies only.
        executor: see `WorkerOracle`.

    Raises:
        DataError: the weights are unknown.

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
        hull: Hull | Literal["shipped"] | None = "shipped",
        executor: Executor | str | None = None,
    ) -> None:
        check_weights(weights)
        super().__init__(
            workers=workers,
            time_limit=time_limit,
            batch=batch,
            guards=guards,
            hull=f"chgnet-{weights}" if isinstance(hull, str) else hull,
            memory_limit=8.0 if device == "cpu" else None,
            executor=executor,
        )
        self.weights = weights
        self.fmax = fmax
        self.steps = steps
        self.device = device

    def to_dict(self) -> dict[str, Any] | None:
        """Return what makes this oracle again; None with a hull of your own."""
        if isinstance(self._hull, Hull):
            return None
        names = ("weights", "workers", "time_limit", "fmax", "steps", "batch", "device")
        kept = {"guards": dataclasses.asdict(self.guards), "hull": self._hull}
        return {name: getattr(self, name) for name in names} | kept

    @classmethod
    def from_dict(cls, words: dict[str, Any]) -> PotentialOracle:
        """Return the oracle of `to_dict`."""
        bounds: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one
            for name, one in words.get("guards", {}).items()
        }
        return cls(**{**words, "guards": Guards(**bounds)})

    @property
    def name(self) -> str:
        """Weights, method and thresholds; equal names give equal numbers."""
        return (
            f"chgnet/{self.weights} {VERSION} fmax {self.fmax:g} steps {self.steps} "
            f"limit {self.time_limit:g} s{self._judging()}"
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
            hull.calibration.volumes if hull is not None else {},
            self.time_limit,
        )


class ASEOracle(WorkerOracle):
    """Any ASE calculator as an oracle: EMT, MACE, MatterSim, ORB, a DFT code.

    Args:
        factory: gives a calculator; called once in every worker process, so load
            weights inside it. A function defined in a notebook works.
        name: of the method, so that numbers of different ones are never mixed up;
            default: the factory's own name; a lambda has none and needs one.
        workers: processes, one thread each.
        time_limit: seconds per crystal.
        fmax: converged below this force, eV/angstrom.
        steps: most steps of a relaxation; 0 takes the crystals as they stand.
        batch: crystals per task.
        relax_cell: whether the cell is free too; the calculator must give stresses.
        guards: bounds outside which a result is not believed.
        hull: phases by the same calculator, or the known compounds for a calibrated
            one, `Hull.shipped(calibration)`.
        executor: see `WorkerOracle`.

    A second opinion on finalists (`pip install 'matdesign[judge]'`), of an architecture
    that no loop of this package has seen, calibrated to the known compounds::

        def calculator():
            from sevenn.calculator import SevenNetCalculator
            return SevenNetCalculator("7net-l3i5", device="cpu")

        judge = ASEOracle(calculator, name="7net-l3i5", hull=Hull.shipped("7net-l3i5"))

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
        relax_cell: bool = True,
        guards: Guards | None = None,
        hull: Hull | None = None,
        executor: Executor | str | None = None,
    ) -> None:
        if not callable(factory):
            raise DataError(
                f"ASEOracle needs a function that gives a calculator; got {factory!r}. "
                "Write `ASEOracle(lambda: calculator, name=...)` or pass the class."
            )
        super().__init__(
            workers=workers,
            time_limit=time_limit,
            batch=batch,
            guards=guards,
            hull=hull,
            executor=executor,
        )
        self.factory = factory
        self.label = label(factory, name)
        self.fmax = fmax
        self.steps = steps
        self.relax_cell = relax_cell

    @property
    def name(self) -> str:
        """Calculator, method and thresholds; equal names give equal numbers."""
        cell = "free" if self.relax_cell else "fixed"
        return (
            f"{self.label} BFGS fmax {self.fmax:g} steps {self.steps} "
            f"cell {cell} limit {self.time_limit:g} s{self._judging()}"
        )

    def job(self) -> Job:
        """Relaxation one by one with the calculator."""
        return ASEJob(self.factory, self.fmax, self.steps, self.relax_cell, self.guards)
