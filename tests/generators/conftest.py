"""Crystals to learn from: eight small cells of four structure types."""

import pytest
import torch

from matdesign.crystals.batch import Crystals


@pytest.fixture(scope="session")
def eight() -> Crystals:
    """Rock salt, caesium chloride, perovskite and simple metals, 1 to 5 atoms."""
    fcc = [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    cube = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    half = [0.5, 0.5, 0.5]
    faces = [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
    rows = [
        (5.64, fcc, [11, 17], [[0, 0, 0], half]),
        (4.21, fcc, [12, 8], [[0, 0, 0], half]),
        (4.12, cube, [55, 17], [[0, 0, 0], half]),
        (3.87, cube, [55, 35], [[0, 0, 0], half]),
        (3.90, cube, [38, 22, 8, 8, 8], [[0, 0, 0], half, *faces]),
        (4.00, cube, [56, 22, 8, 8, 8], [[0, 0, 0], half, *faces]),
        (3.61, fcc, [29], [[0, 0, 0]]),
        (4.05, fcc, [13], [[0, 0, 0]]),
    ]
    species = torch.zeros(8, 5, dtype=torch.long)
    frac = torch.zeros(8, 5, 3)
    lattice = torch.zeros(8, 3, 3)
    for i, (edge, shape, numbers, sites) in enumerate(rows):
        species[i, : len(numbers)] = torch.tensor(numbers)
        frac[i, : len(numbers)] = torch.tensor(sites, dtype=torch.float32)
        lattice[i] = edge * torch.tensor(shape)
    return Crystals(species, frac, lattice)
