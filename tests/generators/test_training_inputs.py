"""What a model is shown in training: times, sizes, elements, and every crystal equally.

A loss can look healthy while crystals of one size never see one part of the noise.
"""

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.generators.autoregressive import Autoregressive
from matdesign.generators.contract import Loss
from matdesign.generators.coupling_flow import CouplingFlow
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.flow_matching import FlowMatching
from matdesign.generators.trainer import fit
from matdesign.generators.vae import VAE

PASSES = 12


@pytest.fixture(scope="module")
def many() -> Crystals:
    """320 crystals in order of size, 1 to 20 atoms; elements grow heavier with size."""
    rng = torch.Generator().manual_seed(0)
    n_atoms = torch.arange(320) // 16 + 1
    mask = torch.arange(20) < n_atoms[:, None]
    heavier = (3 + 4 * n_atoms)[:, None]
    species = (heavier + torch.randint(0, 5, (320, 20), generator=rng)) * mask
    frac = torch.rand(320, 20, 3, generator=rng) * mask[..., None]
    edge = 3.0 + torch.arange(320) / 100  # every crystal has a cell of its own
    return Crystals(species, frac, edge[:, None, None] * torch.eye(3))


def shown(family: type, crystals: Crystals) -> dict[str, torch.Tensor]:
    """Train for some passes; return what each crystal of each batch was shown as."""
    seen: dict[str, list[torch.Tensor]] = {}

    class Watched(family):  # type: ignore[misc]
        def loss(self, crystals, *, seed=None):
            data = self.prepare(crystals)
            self.rows = data
            return super().loss(data, seed=seed)

        def prediction(self, lay, species, u, x, t, asked, scale):
            row = {
                "time": t,
                "size": lay.n_atoms,
                "element": self.rows.species.max(1).values,
                "position": torch.arange(len(t)) / len(t),
                "cell": self.rows.code[:, -1],
            }
            for name, value in row.items():
                seen.setdefault(name, []).append(value.detach().clone())
            return super().prediction(lay, species, u, x, t, asked, scale)

    model = Watched.for_data(crystals, width=8, layers=1, heads=2, seed=0)
    # 48 does not divide 320: passes begin and end within batches
    fit(model, crystals, steps=PASSES * 320 // 48, batch_size=48, seed=3)
    return {name: torch.cat(parts).double() for name, parts in seen.items()}


@pytest.mark.parametrize("family", [FlowMatching, Diffusion])
def test_time_depends_on_nothing_and_every_crystal_is_seen_equally_often(family, many):
    rows = shown(family, many)
    time, n = rows["time"], len(rows["time"])
    assert n == PASSES * 320
    assert 0 <= time.min() and time.max() < 1

    for name in ("size", "element", "position"):
        both = torch.stack([time, rows[name]])
        # five standard deviations of the correlation of independent numbers
        assert torch.corrcoef(both)[0, 1].abs() < 5 / n**0.5, name
    for size in range(1, 21):  # each size sees all times, from nearly 0 to nearly 1
        of_size = time[rows["size"] == size]
        assert len(of_size) == 16 * PASSES
        in_quarters = torch.histc(of_size, bins=4, min=0, max=1) / len(of_size)
        assert (in_quarters - 0.25).abs().max() < 5 * (0.1875 / len(of_size)) ** 0.5

    times_seen = torch.unique(rows["cell"], return_counts=True)[1]
    assert len(times_seen) == 320
    assert (times_seen == PASSES).all()


@pytest.mark.parametrize("family", [VAE, CouplingFlow, Autoregressive])
def test_every_crystal_is_seen_equally_often(family, many):
    seen = []

    class Watched(family):
        def loss(self, crystals, *, seed=None):  # the weights do not matter here
            seen.append(self.prepare(crystals).code[:, -1])
            return Loss(0.0 * sum(w.sum() for w in self.parameters()), {})

    model = Watched.for_data(many, width=8, heads=2, seed=0)
    fit(model, many, steps=PASSES * 320 // 48, batch_size=48, seed=3)
    times_seen = torch.unique(torch.cat(seen), return_counts=True)[1]
    assert times_seen.tolist() == [PASSES] * 320
