"""A guide that fools its predictor is caught, an honest one is not, on known answers."""

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor

import matdesign as design
from matdesign.constraints.predicted import Property
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, UnitError
from matdesign.loop.second_opinion import judge
from matdesign.predictors.shipped import held_out_error, load_predictor

# ---- a toy whose truth is known: the first edge of a cell with one atom --------------


def cells(n: int, seed: int) -> Crystals:
    random = torch.Generator().manual_seed(seed)
    edges = 4 + 0.4 * torch.randn(n, 3, generator=random)
    frac = torch.rand(n, 1, 3, generator=random)
    return Crystals(torch.full((n, 1), 11), frac, torch.diag_embed(edges))


def edges(crystals) -> Tensor:
    return crystals.lattice.diagonal(dim1=1, dim2=2)


def truth(crystals) -> Tensor:
    return edges(crystals)[:, 0]


def honest(crystals) -> Tensor:
    """Wrong by a tenth of an angstrom, by what no guide of cells can move."""
    return truth(crystals) + 0.1 * torch.sin(50 * crystals.frac[:, 0, 0])


def second(crystals) -> Tensor:
    """As wrong as `honest`, elsewhere."""
    return truth(crystals) + 0.1 * torch.sin(50 * crystals.frac[:, 0, 1])


def foolable(crystals) -> Tensor:
    """As good as `honest` on usual cells, and wrong where the third edge is long."""
    return honest(crystals) + 0.5 * (edges(crystals)[:, 2] - 4) ** 3


def pushed(crystals: Crystals, wanted: Property, turns: int = 20) -> Crystals:
    """Follow the gradient as a guide does, in the metric of a belief about the edges.

    The generator is surer of the first two edges than of the third.
    """
    spread = torch.diag(torch.tensor([0.1, 0.1, 1.0]))
    lattice = crystals.lattice
    for _ in range(turns):
        lattice = lattice.detach().requires_grad_()
        v = wanted.violation(dataclasses.replace(crystals.soft(), lattice=lattice))
        (g,) = torch.autograd.grad(v.sum(), lattice)
        eta = v / (spread * g.square()).sum((1, 2)).clamp(min=1e-9)
        lattice = lattice - eta[:, None, None] * spread * g
    return crystals.replace(lattice=lattice.detach())


def wish(predictor) -> Property:
    return Property(predictor, 4.8, math.inf, name="first_edge", unit="angstrom")


@pytest.mark.parametrize("seed", range(4))
def test_a_guide_that_exploits_its_predictor_is_caught(seed):
    wanted, free = wish(foolable), cells(2_000, seed)
    made = pushed(cells(80, 50 + seed), wanted)
    found = judge(made, wanted, second, unguided=free, error=0.1)
    assert found.guided.accepted > 70
    assert found.fooled and found.verdict.startswith("Fooled: on guided accepted")
    # the truth agrees with the judge: most of the hits are none
    assert found.gap > 0.5
    assert float((truth(made) >= 4.8).float().mean()) < 0.4


@pytest.mark.parametrize("seed", range(4))
def test_an_honest_guide_is_not_caught(seed):
    wanted, free = wish(honest), cells(2_000, seed)
    made = pushed(cells(80, 50 + seed), wanted)
    found = judge(made, wanted, second, unguided=free, error=0.1)
    assert found.guided.accepted > 70 and found.unguided.accepted < 100
    assert not found.fooled and found.verdict.startswith("Not caught")


def test_the_same_predictor_twice_leaves_no_gap():
    wanted, free = wish(foolable), cells(200, 0)
    found = judge(pushed(free, wanted), wanted, foolable, unguided=free)
    assert found.gap == 0 and found.p_value == 1 and not found.fooled
    assert found.guided.refused == found.guided.apart == 0
    assert found.guided.correlation == pytest.approx(1.0)
    assert found.verdict.startswith("No second opinion")


def test_figures_are_counts_of_crystals():
    """Four cells of first edges 4, 5, 6 and 7, judged half an angstrom lower."""
    lattice = torch.diag_embed(torch.tensor([[a, 4.0, 4.0] for a in (4, 5, 6, 7)]))
    made = Crystals(torch.full((4, 1), 11), torch.zeros(4, 1, 3), lattice)
    wanted = Property(truth, 5, 6, name="first_edge", unit="angstrom")

    def lower(crystals):
        return truth(crystals) - torch.tensor([0.5, 0.5, 0.5, 1.5])[: len(crystals)]

    found = judge(made, wanted, lower, unguided=made, error=0.2)
    one = found.guided
    assert (one.n, one.accepted, one.confirmed, one.refused) == (4, 2, 2, 1)
    assert one.apart == pytest.approx(0.75) and one.apart_accepted == pytest.approx(0.5)
    assert found.among == "all" and found.guided == found.unguided
    assert judge(made, wanted, lower, unguided=made, error=0.6).guided.refused == 0
    assert judge(made, wanted, lower, unguided=made).error == 0


def test_what_a_predictor_cannot_tell_counts_as_missed():
    made = cells(20, 0)
    wanted = Property(truth, 0, 9, name="first_edge")

    def shy(crystals):
        value = truth(crystals).clone()
        value[:5] = math.nan
        return value

    found = judge(made, wanted, shy, unguided=made)
    assert found.guided.accepted == 20
    assert found.guided.confirmed == 15 and found.guided.refused == 5
    assert found.guided.apart == 0
    with pytest.raises(DataError, match="0 of 5"):
        judge(made[:5], wanted, shy, unguided=made)


def test_nobody_accepted_is_nothing_to_judge():
    made = cells(20, 0)
    found = judge(made, Property(truth, 90, 99, name="edge"), second, unguided=made)
    assert found.verdict.startswith("Nothing to judge")
    assert "none" in repr(found) and math.isnan(found.guided.apart_accepted)


def test_it_prints_and_can_be_kept():
    wanted, free = wish(foolable), cells(200, 0)
    found = judge(pushed(free, wanted), wanted, second, unguided=free, error=0.1)
    text = repr(found)
    assert str(wanted) in text and found.verdict in text
    assert f"{found.guided.accepted}/200" in text and "over 0.1 angstrom" in text
    assert found.verdict in found._repr_html_() and "<th" in found._repr_html_()
    kept = json.loads(json.dumps(found.record()))
    assert kept["fooled"] is found.fooled and kept["guided"]["n"] == 200
    again = judge(pushed(free, wanted), wanted, second, unguided=free, error=0.1)
    assert again == found


def test_a_wish_needs_one_property():
    made = cells(4, 0)
    salt = design.OnlyElements("Na")
    assert judge(made, salt & wish(honest), second, unguided=made).wanted == str(
        wish(honest)
    )
    with pytest.raises(DataError, match="got 0"):
        judge(made, salt, second, unguided=made)
    with pytest.raises(DataError, match="got 2"):
        judge(made, wish(honest) & wish(foolable), second, unguided=made)


# ---- the shipped judges --------------------------------------------------------------


@pytest.mark.parametrize(
    ("guide", "second", "name"),
    [
        ("energy-prototypes", "judge-prototypes", "formation_energy_per_atom"),
        ("energy-prototypes", "judge-prototypes", "energy_above_hull"),
        ("band-gap-mp20", "judge-band-gap", "band_gap"),
    ],
)
def test_shipped_judges_know_their_error_and_are_others(guide, second, name):
    network = load_predictor(second)
    assert network.record["apart_from"] == guide
    assert network.record["seed"] != load_predictor(guide).record["seed"]
    made = design.load("prototypes", split="test")[:40]
    found = judge(made, Property(guide, high=9, name=name), second, unguided=made)
    assert found.error == held_out_error(network, name) > 0
    assert 0 < found.guided.apart < 0.5 and found.guided.correlation > 0.8
    assert not found.fooled
    with pytest.raises(UnitError):
        judge(made, Property(truth, 1, 2, name=name, unit="kJ"), network, unguided=made)


def test_a_network_without_card_has_no_known_error():
    network = load_predictor("judge-prototypes")
    assert held_out_error(None, "band_gap") is None
    assert held_out_error(network, "band_gap") is None
    network.record["name"] = "energy-prototypes"
    assert held_out_error(network, "energy_above_hull") is None
