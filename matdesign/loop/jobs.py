"""What a worker process does with a few crystals: relax them and look at the result.

A job is a small frozen object that can be sent to another process; models and
calculators are loaded there, once per process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from matdesign.loop.guards import Guards


@dataclass(frozen=True)
class Outcome:
    """What became of one crystal.

    Attributes:
        numbers: value of each column, or a pair of value and standard deviation.
        seconds: its share of the worker's time.
        reason: "" when it can be believed, else why not.
        relaxed: the crystal afterwards; None where nothing moved.
    """

    numbers: dict[str, Any]
    seconds: float
    reason: str = ""
    relaxed: Structure | None = None


class Job:
    """What a worker process does with crystals."""

    _one: Callable[[Structure], Outcome]

    def prepare(self) -> None:
        """Load what is needed, once per process and outside of the time limit."""

    def __call__(self, crystals: Sequence[Structure]) -> list[Outcome]:
        """Return one outcome per crystal, one after the other unless a job says more."""
        return [self._one(crystal) for crystal in crystals]


@dataclass(frozen=True)
class PotentialJob(Job):
    """Batched relaxation by the potential; see `relax.relax`.

    Args:
        weights: of the potential.
        device: torch device.
        fmax: eV/angstrom.
        steps: most steps.
        guards: bounds on the result.
        volumes: element -> angstrom^3/atom for the guard on alloys.
        time_limit: seconds for one call; who is not done by then is told so.
    """

    weights: str
    device: str
    fmax: float
    steps: int
    guards: Guards
    volumes: dict[str, float] = field(default_factory=dict)
    time_limit: float | None = None

    def prepare(self) -> None:
        """Load the potential and run it once."""
        from pymatgen.core import Lattice, Structure

        half = 2.8 * (1 - np.eye(3))
        salt = Structure(Lattice(half), ["Na", "Cl"], [[0.0] * 3, [0.5] * 3])
        _potential(self.weights, self.device).evaluate([salt])

    def __call__(self, crystals: Sequence[Structure]) -> list[Outcome]:
        """Return one outcome per crystal, relaxed together."""
        from matdesign.loop.relax import relax

        began = time.monotonic()
        results = relax(
            crystals,
            _potential(self.weights, self.device),
            fmax=self.fmax,
            steps=self.steps,
            time_limit=self.time_limit,
        )
        # a crystal's share of the time is its share of the model's work
        work = np.array([(r.steps + 3) * len(r.numbers) for r in results], dtype=float)
        share = (time.monotonic() - began) * work / work.sum()
        outcomes = []
        for result, seconds in zip(results, share.tolist(), strict=True):
            numbers = {"energy_per_atom": result.energy_per_atom, "steps": result.steps}
            end = result.structure
            reason = result.reason or self.guards.check(
                end, volume_ratio=result.volume_ratio, element_volumes=self.volumes
            )
            outcomes.append(Outcome(numbers, seconds, reason, end))
        return outcomes


@dataclass(frozen=True)
class ASEJob(Job):
    """Relaxation one by one with an ASE calculator.

    Args:
        factory: gives a calculator; called once per process.
        fmax: eV/angstrom.
        steps: most steps.
        relax_cell: whether the cell is free (the calculator must give stresses).
        guards: bounds on the result.
    """

    factory: Callable[[], Any]
    fmax: float
    steps: int
    relax_cell: bool
    guards: Guards

    def prepare(self) -> None:
        """Make the calculator and import what a task will need."""
        import ase.filters
        import ase.optimize  # noqa: F401
        import pymatgen.core  # noqa: F401

        _LOADED["calculator"] = self.factory()

    def _one(self, crystal: Structure) -> Outcome:
        import ase.filters
        import ase.optimize
        from pymatgen.core import Structure

        began = time.monotonic()
        atoms: Any = ase.Atoms(
            numbers=[site.specie.Z for site in crystal],
            scaled_positions=crystal.frac_coords,
            cell=crystal.lattice.matrix,
            pbc=True,
        )
        atoms.calc = _LOADED["calculator"]
        volume = atoms.get_volume()
        filters: Any = ase.filters
        free = filters.FrechetCellFilter(atoms) if self.relax_cell else atoms
        search: Any = ase.optimize.BFGS(free, logfile=None)
        converged = bool(search.run(fmax=self.fmax, steps=self.steps))
        energy = float(atoms.get_potential_energy()) / len(atoms)
        end = Structure(atoms.cell.array, crystal.species, atoms.get_scaled_positions())
        if not np.isfinite(energy) or not np.isfinite(atoms.cell.array).all():
            reason = "energy is not a number"
        elif not converged:
            reason = f"not converged: {self.steps} steps"
        else:
            ratio = float(atoms.get_volume() / volume)
            reason = self.guards.check(end, volume_ratio=ratio)
        numbers = {"energy_per_atom": energy, "steps": int(search.nsteps)}
        return Outcome(numbers, time.monotonic() - began, reason, end)


@dataclass(frozen=True)
class FunctionJob(Job):
    """A function of one crystal at a time, with its failures as reasons.

    Args:
        function: of a pymatgen structure; see `FunctionOracle`.
        columns: that it gives.
    """

    function: Callable[[Structure], Any]
    columns: tuple[str, ...]

    def _one(self, structure: Structure) -> Outcome:
        began, numbers, reason = time.monotonic(), {}, ""
        try:
            got = self.function(structure)
            named = got if isinstance(got, Mapping) else {self.columns[0]: got}
            for name in self.columns:
                one = named[name] if isinstance(named[name], tuple) else (named[name],)
                if not 1 <= len(one) <= 2 or min(one[1:], default=0) < 0:
                    raise ValueError(f"{name} is not a value, or a value and its error")
                numbers[name] = tuple(float(value) for value in one)
                if not np.isfinite(numbers[name][0]):
                    reason = reason or f"{name} is not a number"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        return Outcome(numbers, time.monotonic() - began, reason)


@lru_cache(maxsize=1)
def _potential(weights: str, device: str) -> Any:
    from matdesign.loop.potential import Potential

    return Potential(weights, device=device)


_LOADED: dict[str, Any] = {}
"""The calculator of this process, which serves one oracle."""
