"""`FlowMatching` as a whole: exact velocities, symmetries, conditions, learning, saving."""

import math

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import distances, torus_difference
from matdesign.errors import DataError
from matdesign.generators.backbone import Prediction
from matdesign.generators.contract import Generator
from matdesign.generators.flow_matching import TORUS, FlowMatching
from matdesign.generators.trainer import fit

SMALL = {"width": 32, "layers": 2, "heads": 4}


def standard(model: FlowMatching, crystals: Crystals) -> torch.Tensor:
    data = model.prepare(crystals)
    return model.scales.standardize(data.code, data.layout)


class Knowing(torch.nn.Module):
    """A network that knows the one crystal there is, up to where it lies."""

    asked = None

    def __init__(self, model: FlowMatching, truth: Crystals) -> None:
        super().__init__()
        self.model, self.truth = [model], truth

    def about(self, layout, scales, species, u, x, t, condition):
        b = len(species)
        away = u - self.truth.frac[0]
        angle = 2 * math.pi * away
        origin = torch.atan2(angle.sin().mean(1), angle.cos().mean(1)) / (2 * math.pi)
        home = torus_difference(origin[:, None].expand_as(away), away)
        late = t.clamp(min=1e-6)
        velocity = TORUS * home / late[:, None, None]
        clean = standard(self.model[0], self.truth).expand(b, 6)
        logits = torch.full((*species.shape, MASK), -50.0)
        logits.scatter_(-1, self.truth.species.expand(b, -1)[..., None], 50.0)
        return Prediction(velocity, (x - clean) / late[:, None], logits)


@pytest.mark.parametrize("slope", [0.0, 5.0])
def test_a_network_that_knows_the_crystal_makes_it(eight, slope):
    truth = eight[4:5]
    model = FlowMatching.for_data(eight, slope=slope, **SMALL)
    model.network = Knowing(model, truth)
    made = model.sample(20, seed=0, n_atoms=5, steps=20)
    assert (made.species == truth.species).all()
    assert torch.allclose(made.lattice, truth.lattice.expand(20, 3, 3), atol=1e-3)
    gap = (distances(made) - distances(truth)).masked_select(made.mask.any())
    assert gap.abs().max() < 1e-2  # angstrom; straight paths need few steps


def test_an_untrained_model_has_unit_losses(eight):
    model = FlowMatching.for_data(eight, **SMALL)
    many = Crystals.cat([eight[4:6]] * 400)
    terms = model.loss(many, seed=0).terms
    assert float(terms["frac"]) == pytest.approx(1.0, rel=0.04)
    # the target's variance is 2 where the data has variance 1; here k6 alone varies
    data = standard(model, many)
    expected = (1 + data.square().mean()) / 2
    assert float(terms["lattice"]) == pytest.approx(float(expected), rel=0.05)
    seen = len(eight.species.unique()) - 1
    assert float(terms["species"]) == pytest.approx(math.log(seen), abs=1e-4)


@pytest.fixture
def drawn(eight: Crystals) -> FlowMatching:
    """A small model whose every weight is drawn, in float64."""
    model = FlowMatching.for_data(eight, **SMALL).double()
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2, generator=rng)
    return model.eval()


@pytest.fixture
def five(eight: Crystals) -> Crystals:
    """Two perovskites off their ideal sites, in a sheared cell, float64."""
    rng = torch.Generator().manual_seed(5)
    two = eight[4:6]
    frac = two.frac.double()
    frac = frac + 0.05 * torch.randn(frac.shape, generator=rng, dtype=torch.float64)
    shear = 0.3 * torch.randn(2, 3, 3, generator=rng, dtype=torch.float64)
    return two.replace(frac=frac % 1, lattice=two.lattice.double() + shear)


@pytest.mark.parametrize("how", ["permutation", "translation", "rotation"])
def test_log_prob_has_the_declared_symmetries(drawn, five, how):
    assert how in FlowMatching.symmetries
    rng = torch.Generator().manual_seed(3)
    if how == "permutation":
        order = torch.tensor([4, 2, 0, 1, 3])
        other = five.replace(species=five.species[:, order], frac=five.frac[:, order])
    elif how == "translation":
        shift = torch.rand(2, 1, 3, generator=rng, dtype=torch.float64)
        other = five.replace(frac=(five.frac + shift) % 1)
    else:
        turn = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))[0]
        other = five.replace(lattice=five.lattice @ turn)
    a, b = (drawn.log_prob(c, steps=4, trace="exact") for c in (five, other))
    assert torch.allclose(a, b, atol=1e-6)  # float64


def test_log_prob_changes_with_the_crystal(drawn, five):
    moved = five.replace(frac=(five.frac * 1.1) % 1)
    a, b = (drawn.log_prob(c, steps=4, trace="exact") for c in (five, moved))
    assert (a - b).abs().min() > 1e-3


def test_log_prob_refuses_an_unknown_trace(drawn, five):
    with pytest.raises(DataError, match="trace"):
        drawn.log_prob(five, trace="guess")


# ---- learning and sampling ----------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(eight: Crystals) -> tuple[FlowMatching, float]:
    labelled = eight.replace(
        properties={"volume_per_atom": eight.volume / eight.n_atoms}
    )
    model = FlowMatching.for_data(labelled, width=64, layers=2, heads=4)
    fit(model, labelled, steps=250, batch_size=64, lr=2e-3, warmup=20, ema=0.97)
    return model, model.loss(Crystals.cat([eight] * 32), seed=0).total.item()


def test_it_learns_eight_crystals(learned, eight):
    model, loss = learned
    assert loss < 3.2  # untrained: about 1 + 1 + ln 11 = 4.4
    made = model.sample(64, seed=0, steps=25)
    known = {tuple(sorted(z for z in row if z)) for row in eight.species.tolist()}
    found = [
        tuple(sorted(z for z in row if z)) in known for row in made.species.tolist()
    ]
    assert sum(found) > 25  # noise: below one in a hundred


def test_same_seed_same_crystals_and_save(learned, tmp_path):
    model, _ = learned
    again = FlowMatching.load(model.save(tmp_path / "m"))
    a, b, c = (
        m.sample(6, seed=s, steps=6) for m, s in ((model, 1), (again, 1), (model, 2))
    )
    assert torch.equal(a.species, b.species)
    assert torch.equal(a.frac, b.frac) and torch.equal(a.lattice, b.lattice)
    assert not torch.equal(a.frac, c.frac)
    assert type(Generator.load(tmp_path / "m")) is FlowMatching
    redrawn = a.info["network_evaluations"] - 6 * 6
    assert redrawn % 6 == 0 and (redrawn > 0) == (a.info["redrawn"] > 0)


def test_asked_compositions_are_made(learned):
    model, _ = learned
    made = model.sample(5, seed=0, steps=4, conditions={"composition": "SrTiO3"})
    assert set(made.formulas) == {"SrTiO3"}
    made = model.sample(20, seed=0, steps=4, conditions={"composition": "ABX3"})
    for row in made.species.tolist():
        counts = sorted(row.count(z) for z in set(row) - {0})
        assert [3 * k for k in counts[:1]] + counts[:2] == [
            counts[2],
            counts[0],
            counts[1],
        ]


def test_scale_zero_is_the_unconditional_model(learned):
    model, _ = learned
    wish = {"volume_per_atom": (10.0, 14.0)}
    free = model.sample(6, seed=0, steps=6)
    off = model.sample(6, seed=0, steps=6, conditions=wish, scale=0.0)
    on = model.sample(6, seed=0, steps=6, conditions=wish, scale=2.0)
    assert torch.equal(free.frac, off.frac) and torch.equal(free.lattice, off.lattice)
    assert not torch.equal(free.lattice, on.lattice)


def test_trajectory_previews_become_the_result(learned):
    model, _ = learned
    states = list(model.trajectory(3, steps=10, seed=0))
    assert [s.step for s in states] == list(range(11))
    assert states[0].t == 1.0 and states[-1].t == 0.0
    for state in states:
        soft = state.soft
        assert torch.allclose(soft.species.sum(-1), soft.mask.float(), atol=1e-5)
        assert (soft.frac >= 0).all() and (soft.frac < 1).all()
    assert states[-1].soft.species.max(-1).values[states[-1].soft.mask].min() == 1.0


def test_unknown_conditions_are_refused(learned):
    with pytest.raises(DataError, match="volume_per_atom"):
        learned[0].sample(1, conditions={"volum_per_atom": 3.0})
