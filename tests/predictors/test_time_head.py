"""The time-aware head: exact where the answer is known, itself a predictor like others."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from matdesign.constraints.predicted import Property
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError
from matdesign.generators.coupling_flow import CouplingFlow
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.flow_matching import FlowMatching
from matdesign.generators.planning import take
from matdesign.guidance.guide import Guide
from matdesign.predictors.network import PropertyNetwork
from matdesign.predictors.shipped import load_predictor
from matdesign.predictors.time_head import TimeHead, least_deviation

ENERGY = "formation_energy_per_atom"
MEAN, STD, NOISE = 4.0, 0.3, 0.6


class Edge:
    """A predictor that reads the first edge off, with a line that knows nothing."""

    properties, units = ("edge",), ("angstrom",)
    baseline = torch.zeros(104, 1)

    def __init__(self):
        self.record = {"name": "edge"}

    def named(self, name):
        return name or "edge"

    def predict_soft(self, soft, name):
        return soft.lattice[:, 0, 0]

    def predict(self, crystals):
        return {"edge": crystals.lattice[:, 0, 0]}


class Blurred:
    """Previews whose edge is the final one plus normal noise that grows with time."""

    def __init__(self):
        self.record = {"name": "blurred"}

    def trajectory(self, n, *, seed, steps):
        random = torch.Generator().manual_seed(seed)
        final = MEAN + STD * torch.randn(n, generator=random)
        for step in range(steps + 1):
            t = 1 - step / steps
            edge = final + t * NOISE * torch.randn(n, generator=random)
            lattice = 4 * torch.eye(3) * torch.ones(n, 1, 1)
            lattice[:, 0, 0] = edge
            species = torch.nn.functional.one_hot(torch.full((n, 1), 11), 104).float()
            mask = torch.ones(n, 1, dtype=torch.bool)
            soft = SoftCrystals(species, torch.zeros(n, 1, 3), lattice, mask, t)
            yield SimpleNamespace(t=t, step=step, soft=soft)


def soft_edges(edges: list[float], t: float) -> SoftCrystals:
    lattice = torch.diag_embed(torch.tensor([[a, 4.0, 4.0] for a in edges]))
    n = len(edges)
    made = Crystals(torch.full((n, 1), 11), torch.zeros(n, 1, 3), lattice)
    return dataclasses.replace(made.soft(), t=t)


def test_the_head_of_a_normal_toy_is_the_exact_posterior_mean():
    """E[y | x] = m + s^2 / (s^2 + (t NOISE)^2) (x - m); its median is the same."""
    head = TimeHead.fit(Blurred(), Edge(), n=16_000, seed=0, steps=4)
    for t in (0.25, 0.5, 1.0):
        share = STD**2 / (STD**2 + (t * NOISE) ** 2)
        edges = [3.0, 4.0, 5.0]
        exact = [MEAN + share * (x - MEAN) for x in edges]
        assert head(soft_edges(edges, t)).tolist() == pytest.approx(exact, abs=0.05)
        (row,) = [row for row in head.table if row.t == t]
        left = STD * math.sqrt(1 - share)  # of y given x
        assert row.mae == pytest.approx(left * math.sqrt(2 / math.pi), rel=0.06)
        assert row.plain_mae == pytest.approx(
            t * NOISE * math.sqrt(2 / math.pi), rel=0.06
        )
        assert row.r == pytest.approx(math.sqrt(share), abs=0.04)  # 3 sigma
        assert row.r == pytest.approx(row.plain_r, abs=0.01)  # one line cannot reorder
        assert row.n == 4_000


def test_finished_crystals_are_judged_by_the_network_alone():
    head = TimeHead.fit(Blurred(), Edge(), n=100, seed=0, steps=4)
    soft = soft_edges([3.0, 5.0], 0.0)
    assert head(soft).tolist() == head(soft.harden()).tolist() == [3.0, 5.0]


def test_weights_are_linear_between_the_knots():
    times = torch.tensor([0.0, 0.2, 0.8])
    weights = torch.tensor([[0.0, 0, 0], [1, 0, 0], [4, 2, 1]])
    head = TimeHead(Edge(), "edge", times, weights)
    for t, a in (
        (0.0, 0.0),
        (0.1, 0.5),
        (0.2, 1.0),
        (0.5, 2.5),
        (0.8, 4.0),
        (1.0, 4.0),
    ):
        assert float(head.at(t)[0]) == pytest.approx(a)
    assert head(soft_edges([3.0], 0.8)).tolist() == pytest.approx([3 + 4 + 2 * 3])


def test_gross_errors_do_not_bend_the_fit():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=random)
    true = torch.tensor([2.0, -1.0, 0.5])
    y = x @ true
    y[:80] += 30
    robust = least_deviation(x, y)
    squares = torch.linalg.lstsq(x, y).solution
    assert torch.allclose(robust.float(), true, atol=0.05)
    assert not torch.allclose(squares, true, atol=0.5)


# ---- with real samplers and networks -------------------------------------------------


@pytest.fixture(scope="module", params=[FlowMatching, Diffusion])
def model(request, eight):
    return request.param.for_data(
        eight, representation="cell", width=16, heads=2, layers=1
    )


@pytest.fixture(scope="module")
def network() -> PropertyNetwork:
    return load_predictor("judge-prototypes")


def test_previews_know_their_time(model):
    for state in model.trajectory(3, seed=0, steps=4):
        assert state.soft.t == state.t == state.preview.t
        some = take(state.preview, torch.tensor([0, 0, 2]))
        assert some.t == some.soft().t == state.t


def test_a_guide_tells_constraints_the_time(model, eight):
    class Watch(Property):
        def violation(self, crystals):
            seen.append(getattr(crystals, "t", None))
            return super().violation(crystals)

    for method in ("gradient", "steer"):
        seen: list[float | None] = []
        watch = Watch(lambda c: c.volume, 30, 40, name="volume", unit="angstrom^3")
        guide = Guide(watch, method, strict="hard", particles=2)
        guide.sample(model, 4, seed=0, steps=4)
        assert {1.0, 0.75, 0.5, 0.25, 0.0} <= set(seen)


def test_a_head_is_a_predictor(model, network):
    head = TimeHead.fit(model, network, name=ENERGY, n=16, seed=0, steps=4)
    assert [round(row.t, 2) for row in head.table] == [0.25, 0.5, 0.75, 1.0]
    wanted = Property(head, high=-1.0)
    assert str(wanted) == "predicted formation energy per atom of at most -1 eV/atom"
    made = Guide(wanted, "gradient", strict="hard").sample(model, 4, seed=1, steps=4)
    plain = Property(network, high=-1.0, name=ENERGY)
    assert torch.equal(wanted.satisfied(made), plain.satisfied(made))
    assert made.info["guide"]["predictor_calls"] > 0
    soft = dataclasses.replace(made.soft(), t=0.5)
    lattice = soft.lattice.clone().requires_grad_()
    head(dataclasses.replace(soft, lattice=lattice)).nansum().backward()
    assert bool(lattice.grad.any())
    text = repr(head)
    assert ENERGY in text and "judge-prototypes" in text and "head MAE" in text


def test_what_cannot_be_fitted_says_so(network, eight):
    flow = CouplingFlow.for_data(
        eight, representation="cell", width=16, heads=2, couplings=3
    )
    with pytest.raises(DataError, match="do not tell their time"):
        TimeHead.fit(flow, network, name=ENERGY, n=16)
    with pytest.raises(DataError, match="at least 16"):
        TimeHead.fit(flow, network, name=ENERGY, n=8)
    with pytest.raises(DataError, match="Name one of them"):
        TimeHead.fit(flow, network, n=16)
