"""Known places: at every time a noised copy, at the end the places themselves."""

import pytest
import torch

from matdesign.constraints.motif import Motif
from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import torus_difference
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.generators.coupling_flow import CouplingFlow
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.flow_matching import FlowMatching
from matdesign.guidance.guide import Guide


@pytest.fixture(scope="module")
def layers() -> Crystals:
    """Cells of five and six atoms, so that a net of three has company."""
    random = torch.Generator().manual_seed(0)
    species = torch.tensor([[26, 26, 26, 50, 8, 0], [26, 26, 26, 50, 8, 8]] * 4)
    frac = torch.rand(8, 6, 3, generator=random) * (species > 0)[..., None]
    lattice = torch.eye(3) * (5 + torch.rand(8, 1, 1, generator=random))
    lattice = lattice + 0.3 * torch.randn(8, 3, 3, generator=random)
    return Crystals(species, frac, lattice)


@pytest.mark.parametrize("family", [FlowMatching, Diffusion])
@pytest.mark.parametrize("bond", [None, 2.7])
def test_a_kagome_net_is_in_every_crystal(
    family: type[Generator], bond: float | None, layers: Crystals
) -> None:
    """Also of an untrained network: the net is given, only the rest is its own."""
    model = family.for_data(layers, width=16, layers=1, heads=2)
    wanted = Motif("kagome", element="Fe", bond=bond)
    guide = Guide(wanted, "replace")
    made = model.sample(4, seed=0, steps=6, guide=guide)
    assert bool(wanted.satisfied(made).all())
    assert made.info["guide"]["drawn"] <= 8
    known = wanted.known()
    assert known is not None
    away = torus_difference(known.frac.to(made.frac), made.frac[:, :3])
    assert float(away.abs().max()) < 1e-4
    assert bool((made.species[:, :3] == 26).all())
    if bond is not None:
        assert torch.allclose(
            made.lattice[:, 0].norm(dim=-1), torch.tensor(2 * bond), atol=1e-2
        )


def test_a_family_without_steps_refuses(layers: Crystals) -> None:
    model = CouplingFlow.for_data(layers, width=16, heads=2, couplings=2)
    with pytest.raises(DataError, match="no steps between which"):
        Guide(Motif("kagome"), "replace").sample(model, 1)
