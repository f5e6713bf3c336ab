"""Relax many crystals at once: batched BFGS over positions and cell.

Each crystal keeps its own step, Hessian and fate; one model call a step serves all
of them.  A crystal that goes wrong (exploding cell, lone atom, energy that is not a
number) leaves with a reason, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from matdesign.loop.potential import Potential, Prediction, chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

VERSION = "relax-1"
"""Changes whenever the outcome of a relaxation would."""

SCAN = (0.7, 0.84, 1.0, 1.17, 1.37, 1.6)
"""Volume factors of the isotropic scan before a relaxation."""

STIFF_ATOM = 30.0  # eV/angstrom^2, first guess of the Hessian for positions
STIFF_CELL = 30.0  # eV, first guess for the cell is this over the number of atoms
LONGEST_STEP = 0.2  # angstrom, largest move of an atom in one step
VOLUME_CHANGE = 2.0  # a crystal whose volume changes by more than this factor leaves


def relax(
    structures: Sequence[Structure],
    potential: Potential,
    *,
    fmax: float = 0.05,
    steps: int = 200,
    time_limit: float | None = None,
) -> list[Relaxation]:
    """Relax crystals to the nearest minimum of the potential.

    Args:
        structures: Ordered crystals; each may have its own size.
        potential: Gives energies, forces and stress.
        fmax: Converged when no generalised force is larger, eV/angstrom. The cell's
            is the virial over the number of atoms.
        steps: Largest number of steps per crystal.
        time_limit: Seconds for the whole call; who is not done by then is told so.

    Returns:
        One result per structure, in the order given. Never raises for a bad crystal.

    Source:
        BFGS after ASE's `BFGS` with the cell treated as in ASE's `UnitCellFilter`
        (deformation gradient times the number of atoms); changed: many crystals
        at once, a softer first Hessian for the cell, a volume scan before.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    walkers = [Relaxation(structure) for structure in structures]
    _prescan([w for w in walkers if not w.reason], potential, deadline)
    queue = [w for w in walkers if not w.reason]
    for walker in queue:
        walker.start()
    queue.sort(key=lambda w: len(w.numbers))  # like sizes together; big ones last
    active: list[Relaxation] = []
    while queue or active:  # as many as one model call takes; the next in line follows
        room = potential.batch_atoms - sum(len(w.numbers) for w in active)
        while queue and (not active or len(queue[0].numbers) <= room):
            active.append(queue.pop(0))
            room -= len(active[-1].numbers)
        if deadline is not None and time.monotonic() > deadline:
            for walker in active + queue:
                walker.reason = f"time limit {time_limit:g} s"
            break
        movable = [w for w in active if w.place()]
        if movable:
            prediction = potential.evaluate_arrays(
                [w.numbers for w in movable],
                [w.frac for w in movable],
                np.stack([w.lattice for w in movable]),
            )
            for k, walker in enumerate(movable):
                walker.learn(prediction, k)
                if prediction.isolated[k]:
                    walker.reason = "isolated atoms"
                if walker.reason or walker.fmax < fmax:
                    continue
                if walker.steps >= steps:
                    walker.reason = f"not converged: {steps} steps"
                else:
                    walker.move()
        active = [w for w in active if not w.reason and not w.fmax < fmax]
    return walkers


def _prescan(
    walkers: Sequence[Relaxation], potential: Potential, deadline: float | None
) -> None:
    """Scale each cell to the nearest minimum: a dense one behind a barrier does not win."""
    for part in chunks([len(w.numbers) for w in walkers], 512):
        if deadline is not None and time.monotonic() > deadline:
            return
        some = walkers[part]
        energy = potential.evaluate_arrays(
            [w.numbers for w in some for _ in SCAN],
            [w.frac for w in some for _ in SCAN],
            np.stack([w.lattice * x ** (1 / 3) for w in some for x in SCAN]),
            forces=False,
        ).energy_per_atom.reshape(len(some), len(SCAN))
        for walker, curve in zip(some, energy, strict=True):
            if np.isfinite(curve).all():
                walker.lattice = walker.lattice * _lowest(curve) ** (1 / 3)
            else:
                walker.reason = "energy is not a number"


def _lowest(curve: NDArray[np.float64]) -> float:
    """Volume factor of the local minimum reached downhill from 1, refined."""
    k = SCAN.index(1.0)
    while 0 < k and curve[k - 1] < curve[k]:
        k -= 1
    while k < len(SCAN) - 1 and curve[k + 1] < curve[k]:
        k += 1
    if not 0 < k < len(SCAN) - 1:
        return SCAN[k]
    x = np.log(SCAN[k - 1 : k + 2])
    a, b, _ = np.polyfit(x, curve[k - 1 : k + 2], 2)
    return float(np.exp(np.clip(-b / (2 * a), x[0], x[2]))) if a > 0 else SCAN[k]


class Relaxation:
    """One crystal on its way down, and what became of it.

    The generalised coordinates are the positions pulled back to the starting cell
    and the deformation gradient times the number of atoms, (n_atoms + 3, 3).

    Attributes:
        energy_per_atom: eV/atom; NaN when never evaluated.
        fmax: Largest generalised force at the end, eV/angstrom.
        steps: Model calls spent after the volume scan.
        reason: "" when converged, else why not.
        magmoms: (n_atoms,) size of the magnetic moments, Bohr magnetons.
    """

    def __init__(self, structure: Structure) -> None:
        self.original = structure
        self.numbers = np.array([site.specie.Z for site in structure], dtype=np.int64)
        frac = np.asarray(structure.frac_coords, dtype=float)
        self.frac = frac - np.floor(frac)
        self.lattice = np.array(structure.lattice.matrix, dtype=float)
        self.energy_per_atom = self.fmax = float("nan")
        self.magmoms: NDArray[np.float64] = np.zeros(0)
        self.steps = 0
        self.reason = _unfit(self)
        self.previous: tuple[NDArray[Any], NDArray[Any]] | None = None

    @property
    def structure(self) -> Structure:
        """Where it ended; the start, if it could not be evaluated at all."""
        from pymatgen.core import Lattice, Structure

        if not np.isfinite(self.energy_per_atom):
            return self.original
        return Structure(Lattice(self.lattice), self.original.species, self.frac)

    @property
    def volume_ratio(self) -> float:
        """Volume over the volume after the scan."""
        if not np.isfinite(self.energy_per_atom):
            return 1.0
        return abs(float(np.linalg.det(self.lattice))) / self.volume0

    def start(self) -> None:
        """Fix the reference cell and the first Hessian."""
        n = len(self.numbers)
        self.cell0 = self.lattice.copy()
        self.volume0 = abs(float(np.linalg.det(self.cell0)))
        self.x = np.vstack([self.frac @ self.cell0, n * np.eye(3)])
        stiff = np.full((n + 3, 3), STIFF_ATOM, dtype=float)
        stiff[-3:] = STIFF_CELL / max(n, 1)
        self.hessian = np.diag(stiff.ravel())

    def place(self) -> bool:
        """Turn the coordinates into a cell; False when it has gone astray."""
        n = len(self.numbers)
        deform = self.x[-3:] / n
        self.lattice = self.cell0 @ deform.T
        ratio = abs(float(np.linalg.det(self.lattice))) / self.volume0
        if not 1 / VOLUME_CHANGE < ratio < VOLUME_CHANGE:
            self.reason = "volume change"
            return False
        frac = self.x[:-3] @ np.linalg.inv(self.cell0)
        self.frac = frac - np.floor(frac)
        self.reason = _unfit(self)
        return not self.reason

    def learn(self, prediction: Prediction, k: int) -> None:
        """Take in row k of a model call as a gradient of the generalised coordinates."""
        energy, stress = float(prediction.energy_per_atom[k]), prediction.stress[k]
        n = len(self.numbers)
        deform = self.x[-3:] / n
        pull = prediction.forces[k] @ deform
        pull = pull - pull.mean(0)
        virial = -abs(float(np.linalg.det(self.lattice))) * (stress + stress.T) / 2
        virial = np.linalg.solve(deform, virial).T / n
        self.gradient = np.vstack([pull, virial])
        if not (np.isfinite(self.gradient).all() and np.isfinite(energy)):
            self.reason = "energy is not a number"
            return
        self.energy_per_atom, self.magmoms = energy, prediction.magmoms[k]
        self.fmax = float(np.sqrt((self.gradient**2).sum(1).max()))

    def move(self) -> None:
        """One BFGS step, capped in length."""
        x, g = self.x.ravel(), self.gradient.ravel()
        if self.previous is not None:
            dx, dg = x - self.previous[0], g - self.previous[1]
            stretch = float(dx @ dg)
            if np.abs(dx).max() > 1e-7 and abs(stretch) > 1e-12:
                bent = self.hessian @ dx
                self.hessian -= np.outer(dg, dg) / stretch
                self.hessian -= np.outer(bent, bent) / float(dx @ bent)
        self.previous = (x.copy(), g.copy())
        values, vectors = np.linalg.eigh(self.hessian)
        step = vectors @ ((vectors.T @ g) / np.maximum(np.abs(values), 1e-3))
        step = step.reshape(-1, 3)
        longest = float(np.sqrt((step**2).sum(1).max()))
        self.x = self.x + step * min(1.0, LONGEST_STEP / max(longest, 1e-12))
        self.steps += 1


def _unfit(crystal: Relaxation) -> str:
    """Why a crystal cannot be evaluated, or ""."""
    numbers, lattice = crystal.numbers, crystal.lattice
    if len(numbers) == 0:
        return "no atoms"
    if not (np.isfinite(crystal.frac).all() and np.isfinite(lattice).all()):
        return "coordinates are not numbers"
    if numbers.min() < 1 or numbers.max() > 94:
        return "element unknown to the potential"
    volume = abs(float(np.linalg.det(lattice)))
    areas = np.linalg.norm(np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]]), axis=1)
    height = float((volume / np.maximum(areas, 1e-12)).min())
    if volume / len(numbers) < 1.0 or height < 0.7:
        return "collapsed cell"
    if volume / len(numbers) > 300.0:
        return "exploding cell"
    return ""
