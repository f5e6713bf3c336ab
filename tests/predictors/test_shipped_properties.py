"""The shipped property networks say what their cards say, and know simple crystals."""

import json

import pytest
import torch
from labels import shake

import matdesign as design
from matdesign.paths import data_dir
from matdesign.predictors.network import PropertyNetwork

MODELS = data_dir() / "models"
NAMES = (
    "formation-energy-mp20",
    "band-gap-mp20",
    "energy-prototypes",
    "energy-perovskites",
    "judge-prototypes",
    "judge-band-gap",
)


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_card_belong_together(name):
    folder = MODELS / name
    net = PropertyNetwork.load(folder)
    card = json.loads((folder / "card.json").read_text())
    assert (folder / "model.safetensors").stat().st_size < 12e6
    assert card["training"] == net.record
    assert set(card["test"]) == set(net.properties)
    for one in card["test"].values():
        assert one["mae"]["low"] < one["mae"]["value"] < one["mae"]["high"]
        assert one["mae"]["value"] < 0.6 * one["mae_of_composition_line"]
        assert one.get("met", True) == (one["mae"]["value"] <= one.get("aim", 9))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("energy-prototypes", "prototypes"),
        ("energy-perovskites", "perovskites"),
        ("judge-prototypes", "prototypes"),
    ],
)
def test_errors_on_the_card_are_those_of_the_weights(network, name):
    folder = MODELS / network
    net = PropertyNetwork.load(folder)
    card = json.loads((folder / "card.json").read_text())
    test = design.load(name, split="test")
    for key, values in net.predict(test).items():
        error = (values - test.properties[key]).abs().mean()
        assert float(error) == pytest.approx(
            card["test"][key]["mae"]["value"], abs=1e-4
        )


def test_energies_of_simple_crystals(eight):
    """Materials Project, PBE: NaCl, MgO, CsCl, SrTiO3, Cu and Al, eV/atom."""
    net = PropertyNetwork.load(MODELS / "formation-energy-mp20")
    found = net.predict(eight)["formation_energy_per_atom"]
    for index, known in (
        (0, -2.1),
        (1, -3.0),
        (2, -2.2),
        (4, -3.5),
        (6, 0.0),
        (7, 0.0),
    ):
        assert float(found[index]) == pytest.approx(known, abs=0.3)


def test_gaps_of_simple_crystals(eight):
    """Salts insulate, copper and aluminium conduct; SrTiO3 is far too low, but no metal."""
    net = PropertyNetwork.load(MODELS / "band-gap-mp20")
    gap = net.predict(eight)["band_gap"]
    assert float(gap[:3].min()) > 3.0
    assert 0.1 < float(gap[4]) < 3.0  # PBE: 1.8 eV
    assert float(gap[6:].max()) < 0.1


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("energy-prototypes", "prototypes"),
        ("energy-perovskites", "perovskites"),
        ("judge-prototypes", "prototypes"),
    ],
)
def test_energies_rise_when_atoms_are_shaken(network, name):
    net = PropertyNetwork.load(MODELS / network)
    rested = design.load(name, split="test")[:60]
    moved, size = shake(rested, 7)
    far = size > 0.15
    key = "formation_energy_per_atom"
    rise = net.predict(moved)[key] - net.predict(rested)[key]
    assert float((rise[far] > 0).float().mean()) > 0.75
    assert float(rise[far].mean()) > 0.2


def test_shaking_does_what_it_says():
    rested = design.load("perovskites", split="test")[:40]
    once, size = shake(rested, 3)
    again, _ = shake(rested, 3)
    assert torch.equal(once.frac, again.frac)
    assert torch.equal(once.species, rested.species)
    assert 0.02 <= float(size.min()) and float(size.max()) <= 0.4
    step = once.frac - rested.frac
    step = (step - step.round()) @ rested.lattice
    spread = step[rested.mask].square().mean(1).sqrt()
    expected = size[:, None].expand(rested.mask.shape)[rested.mask]
    assert float((spread / expected).square().mean()) == pytest.approx(1.0, abs=0.2)
    change = once.volume / rested.volume - 1
    assert 0.0 < float(change.abs().max()) < 0.4


def test_judges_err_elsewhere_than_those_they_judge():
    for name in ("judge-prototypes", "judge-band-gap"):
        card = json.loads((MODELS / name / "card.json").read_text())
        text = (MODELS / name / "card.md").read_text()
        assert (
            f"A judge of crystals that `{card['training']['apart_from']}` guided"
            in text
        )
        for one in card["test"].values():
            assert one["apart"]["correlation_of_errors"] < 0.9
            assert one["apart"]["n"] == one["n"]


def test_the_judge_of_energies_knows_what_generators_make():
    card = json.loads((MODELS / "judge-prototypes/card.json").read_text())
    for one in card["test"].values():
        assert one["made"]["mae"]["high"] < 0.6 * one["made"]["guide_mae"]["low"]
        assert one["made"]["correlation_of_errors"] < 0.6
