"""The case of the battery cathode: elements, constraints, oracle, and its baseline."""

import math
from pathlib import Path

import torch
from torch import Tensor

import matdesign as design
from matdesign.constraints.base import Constraint
from matdesign.constraints.unfinished import amounts_of
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import atomic_number, table

METALS = ("Ti", "Mn", "Fe")
"""What gives the electron: neither rare nor poisonous, as cobalt, nickel, vanadium are."""
OTHERS = ("Li", "Mg", "Al", "P", "O")
LITHIUM, METAL = 3, {atomic_number(one) for one in METALS}
NEUTRAL = design.ChargeNeutral(mixed_valence=True)
"""Cathodes live on metals of several charges: LiMn2O4 holds Mn(3+) and Mn(4+)."""
LARGEST = 14
"""Atoms of a cell, so that a call costs seconds."""

WINDOWS = {
    "average_voltage": (3.0, 4.5),
    "energy_above_hull": (-1.0, 0.1),
    "energy_above_hull_charged": (-1.0, 0.2),
    "volume_change": (-0.2, 0.2),
}
"""A cathode of 3 to 4.5 V that survives to be charged."""
DOUBTS = {
    "average_voltage": 0.5,
    "energy_above_hull": 0.1,
    "energy_above_hull_charged": 0.1,
    "volume_change": 0.1,
}


def charge_left(crystals: Crystals) -> Tensor:
    """Return the charge of the hosts, e; infinite without a metal to give an electron."""
    left = []
    for row in crystals.species.tolist():
        host = {z: n for z, n in amounts_of(row).items() if z != LITHIUM}
        left.append(NEUTRAL.residual(host) if set(host) & METAL else math.inf)
    return torch.tensor(left)


def oxygen(crystals: Crystals) -> Tensor:
    """Return the share of oxygen atoms, half of them in LiMnO2."""
    return (crystals.species == 8).sum(1) / crystals.n_atoms


def known_or_not() -> list[Constraint]:
    """Return what a cathode is made of."""
    return [
        design.OnlyElements(*METALS, *OTHERS),
        design.RequiredElements("Li", "O"),
        design.NumberOfAtoms(4, LARGEST),
        NEUTRAL,
        design.Property(oxygen, 0.5, name="share of oxygen"),
        design.Property(charge_left, high=0, name="charge without lithium", unit="e"),
    ]


def constraints() -> list[Constraint]:
    """Return what a new cathode is made of: a formula that is not known."""
    return [*known_or_not(), design.NovelFormula(design.Hull.shipped().known)]


def oracle(weights: str, cache: Path) -> design.VoltageOracle:
    """Return the voltage by a potential; what it relaxed once is kept."""
    potential = design.PotentialOracle(weights, workers=1, time_limit=60)
    return design.VoltageOracle("Li", design.Cached(potential, cache))


class LithiumSubstitution:
    """Known oxides of an alkali metal, with each element replaced by one that is allowed.

    A chemist's substitution: alkali metals become lithium, transition metals one of
    ours, other elements one of their group; what has no such element is left out.

    Args:
        known: crystals.
    """

    def __init__(self, known: Crystals) -> None:
        self.allowed = torch.tensor([atomic_number(one) for one in METALS + OTHERS])
        group = table("group")
        alkali = (group[known.species] == 1) & (known.species > 1)
        oxide = (known.species == 8).any(1)
        self.known = known[(alkali.any(1) & oxide).nonzero().squeeze(1)]

    def sample(self, n: int, *, seed: int) -> Crystals:
        """Return at most n crystals, each of another known one."""
        rng, group = generator(seed), table("group")
        rows, made = [], []
        for i in torch.randperm(len(self.known), generator=rng).tolist():
            species = self.known.species[i].clone()
            for z in species[species > 0].unique().tolist():
                alike = self.allowed[group[self.allowed] == group[z]]
                if 3 <= group[z] <= 12:
                    alike = torch.tensor(sorted(METAL))
                if z in (8, 3) or not len(alike):
                    continue
                other = alike[torch.randint(len(alike), (1,), generator=rng)]
                species[self.known.species[i] == z] = other
            if torch.isin(species[species > 0], self.allowed).all():
                rows.append(i)
                made.append(species)
        species = torch.stack(made[:n])
        some = self.known[rows[:n]]
        return Crystals(species, some.frac, some.lattice)
