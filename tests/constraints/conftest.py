"""Crystals to check constraints on: random ones, reproducible, of awkward shapes."""

import pytest
import torch

from matdesign.crystals.batch import Crystals


@pytest.fixture(scope="session")
def random_crystals() -> Crystals:
    """400 crystals of 1-8 atoms in skewed cells, from a palette of 12 elements."""
    random = torch.Generator().manual_seed(0)
    palette = torch.tensor([1, 3, 8, 8, 8, 9, 11, 17, 20, 22, 26, 29, 38])
    n, width = 400, 8
    sizes = torch.randint(1, width + 1, (n,), generator=random)
    mask = torch.arange(width) < sizes[:, None]
    # few elements per crystal, so that formulas and neutral ones do occur
    choice = torch.randint(len(palette), (n, 3), generator=random)
    pick = torch.randint(3, (n, width), generator=random)
    species = palette[choice.gather(1, pick)] * mask
    frac = torch.rand(n, width, 3, generator=random) * mask[..., None]
    lattice = 4 * torch.eye(3) + torch.randn(n, 3, 3, generator=random)
    return Crystals(species, frac, lattice)
