"""A quick closed loop for tests: fcc alloys, and EMT as a real oracle."""

import hashlib
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from ase.calculators.emt import EMT

from matdesign.crystals.batch import Crystals, generator
from matdesign.loop.hull import Hull
from matdesign.loop.jobs import ASEJob
from matdesign.loop.oracle import ASEOracle

METALS = (13, 28, 29, 46, 47, 78, 79)
CUBIC = torch.tensor([[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
ELEMENTS = {
    "Al": -0.0049,
    "Ni": -0.0133,
    "Cu": -0.0070,
    "Pd": -0.0003,
    "Ag": -0.0004,
    "Pt": -0.0001,
    "Au": -0.0001,
}
"""Energies of the fcc metals by EMT, eV/atom."""


class Alloys:
    """Draws four-atom fcc alloys with shaken atoms; some are broken on purpose."""

    ahead = True

    def __init__(self, bad=0.15, log=None):
        self.bad = bad
        self.log = log

    def sample(self, n, *, seed):
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"draw {n} {seed}\n")
        rng = generator(seed)
        species = torch.tensor(METALS)[
            torch.randint(len(METALS), (n, 4), generator=rng)
        ]
        frac = CUBIC + 0.02 * torch.randn(n, 4, 3, generator=rng)
        lattice = torch.eye(3) * (3.7 + 0.3 * torch.rand(n, 1, 1, generator=rng))
        broken = torch.rand(n, generator=rng) < self.bad
        frac[broken, 1] = frac[broken, 0] + 0.01
        return Crystals(species, frac % 1, lattice)


def fingerprint(structure):
    """A short name of a crystal that worker and test compute alike."""
    parts = [
        np.asarray(structure.atomic_numbers, np.int64),
        np.asarray(structure.frac_coords, np.float32),
        np.asarray(structure.lattice.matrix, np.float32),
    ]
    return hashlib.sha256(b"".join(p.tobytes() for p in parts)).hexdigest()[:16]


@dataclass(frozen=True)
class CountingJob(ASEJob):
    """Writes one line to a side file for every crystal it begins with."""

    side: str
    pause: float

    def __call__(self, crystals):
        for one in crystals:
            line = fingerprint(one) + "\n"
            file = os.open(self.side, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, line.encode())
            os.close(file)
            time.sleep(self.pause)
        return super().__call__(crystals)


class CountingOracle(ASEOracle):
    """EMT that counts its real calls in a side file."""

    def __init__(self, side, pause=0.0, **keywords):
        keywords = {"hull": Hull(ELEMENTS), "workers": 2, "fmax": 0.1} | keywords
        super().__init__(EMT, **keywords)
        self.side = str(side)
        self.pause = pause

    def job(self):
        return CountingJob(
            self.factory,
            self.fmax,
            self.steps,
            self.relax_cell,
            self.guards,
            self.side,
            self.pause,
        )
