"""The same numbers on a CUDA device as on the CPU."""

import pytest
import torch

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.data.splits import split
from matdesign.crystals.geometry import distances, min_distance
from matdesign.crystals.lattice_code import from_code, to_code
from matdesign.crystals.wrapped_normal import log_density, score, score_norm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def batch() -> Crystals:
    rng = generator(0)
    species = torch.randint(0, 90, (50, 8), generator=rng)
    species[:, 0] = 26
    lattice = 5 * torch.eye(3) + torch.randn(50, 3, 3, generator=rng)
    return Crystals(
        species,
        torch.rand(50, 8, 3, generator=rng),
        lattice,
        properties={"gap": torch.rand(50, generator=rng)},
        labels={"kind": tuple("ab" * 25)},
    )


def close(gpu: torch.Tensor, cpu: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert gpu.is_cuda
    assert torch.allclose(gpu.cpu(), cpu, rtol=tolerance, atol=tolerance)


def test_batch_indexing_and_quantities() -> None:
    here, there = batch(), batch().to("cuda")
    close(there.density, here.density)
    part = there[there.properties["gap"] > 0.5]
    assert part.labels == here[here.properties["gap"] > 0.5].labels
    assert part.formulas == here[here.properties["gap"] > 0.5].formulas
    assert [len(p) for p in split(there, "composition")] == [
        len(p) for p in split(here, "composition")
    ]


def test_geometry() -> None:
    here, there = batch(), batch().to("cuda")
    close(min_distance(there), min_distance(here), 1e-4)
    close(
        min_distance(there, include_self=True),
        min_distance(here, include_self=True),
        1e-4,
    )
    close(distances(there), distances(here), 1e-4)


def test_lattice_codes() -> None:
    here, there = batch(), batch().to("cuda")
    code = to_code(here.lattice)
    close(to_code(there.lattice), code, 1e-4)
    close(from_code(code.cuda()), from_code(code), 1e-3)


def test_wrapped_normal() -> None:
    x = torch.linspace(-2, 2, 101)
    sigma = torch.tensor([0.01, 0.2, 0.3, 1.0])[:, None]
    close(log_density(x.cuda(), sigma.cuda()), log_density(x, sigma), 1e-4)
    close(sigma.cuda() * score(x.cuda(), sigma.cuda()), sigma * score(x, sigma), 1e-4)
    close(score_norm(sigma.cuda()), score_norm(sigma), 1e-4)
