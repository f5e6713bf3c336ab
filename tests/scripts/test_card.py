"""scripts/card.py: what a card claims is what was counted."""

import json
import re

import card as script
import numpy as np
import pytest
import torch
from bench import stages
from cards import generator, predictor

import matdesign as design
from matdesign.crystals.symmetry.find import spacegroup
from matdesign.errors import DataError
from matdesign.generators import shipped
from matdesign.generators.autoregressive import Autoregressive
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.trainer import fit
from matdesign.generators.vae import VAE
from matdesign.paths import data_dir
from matdesign.predictors.network import PropertyNetwork


@pytest.fixture
def symmetric(eight):
    """An untrained model in the symmetric representation."""
    return Diffusion.for_data(
        eight, representation="symmetric", width=16, layers=1, heads=2, steps=3
    )


def test_orders_of_space_groups():
    # point groups 1, -1, 4/mmm, -3m, 6/mmm, m-3m
    known = {1: 1, 2: 2, 139: 16, 166: 12, 194: 24, 225: 48}
    assert {n: generator.order(n) for n in known} == known


@pytest.mark.parametrize("maker", [Diffusion, Autoregressive, VAE])
def test_asked_groups_are_those_of_the_layouts(maker, eight):
    small = {"width": 16, "layers": 1, "heads": 2}
    model = maker.for_data(eight, representation="symmetric", **small).eval()
    # several batches and sizes: groups must come back in the order of the crystals
    options = {"steps": 2, "batch_size": 5}
    made, groups = stages.with_groups(model, 16, seed=0, **options)
    flags = generator.symmetry_kept(made, groups["asked_group"])
    # untrained models may put atoms onto each other; where spglib finds a cell, it holds
    seen = spacegroup(made, 0.01) > 0
    assert flags["holds"][seen.numpy()].all() and seen.any()
    same = model.sample(16, seed=0, **options)
    assert torch.equal(same.frac, made.frac)


def test_the_asked_group_is_the_one_asked_for(symmetric):
    conditions = {"spacegroup": 221}
    _, groups = stages.with_groups(symmetric, 6, seed=0, conditions=conditions)
    assert groups["asked_group"].tolist() == [221] * 6


def test_an_atom_that_is_moved_breaks_the_symmetry(eight):
    perovskite = eight[[4]]
    asked = torch.tensor([221.0])
    assert generator.symmetry_kept(perovskite, asked)["exact"].tolist() == [True]
    moved = perovskite.frac.clone()
    moved[0, 2] += torch.tensor([0.01, 0.02, 0.03])
    broken = perovskite.replace(frac=moved)
    flags = generator.symmetry_kept(broken, asked)
    assert not flags["holds"].any() and not flags["exact"].any()


def test_more_symmetry_than_asked_still_holds(eight):
    flags = generator.symmetry_kept(eight[[4, 5]], torch.tensor([1.0, 99.0]))
    assert flags["holds"].all() and not flags["exact"].any()


def test_atoms_on_one_place_hold_nothing(eight):
    same = eight[[4]].replace(frac=torch.zeros(1, 5, 3))
    flags = generator.symmetry_kept(same, torch.tensor([1.0]))
    assert not flags["holds"].any()


def test_bars_say_by_how_much_they_are_missed():
    figures = {
        "structural validity": {"value": 0.97, "count": 97},
        "density distance, valid": {"value": 0.5},
        "COV-R": {"value": 0.96, "count": 96},
        "match rate": {"value": None},
    }
    bars = generator.bars_of("mp20", figures)
    assert bars["structural validity"]["missed_by"] == pytest.approx(0.02)
    assert bars["density distance, valid"]["missed_by"] == pytest.approx(0.15)
    assert bars["COV-R"]["met"] and bars["COV-R"]["missed_by"] == 0
    assert "match rate" not in bars  # not measured: no claim
    assert generator.bars_of("prototypes", figures)["structural validity"]["met"]


def test_a_failed_relaxation_is_never_stable():
    above = np.array([0.05, np.nan, np.nan])
    new = np.array([False, True, True])
    found = generator.stability(above, np.ones(3, dtype=bool), new, [1.0, 1.0, 1.0])
    assert found["near_hull"]["count"] == 1 and found["near_hull"]["n"] == 3
    assert found["within 0.1 eV/atom, unique and novel"]["count"] == 0


def test_a_card_from_end_to_end(symmetric, eight, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "tiny"
    symmetric.record = {"data": "mp20", "command": "train", "seed": 0}
    symmetric.save(folder)
    for module in (script, shipped):
        monkeypatch.setattr(module, "data_dir", lambda: tmp_path)
    iron = eight[[6]].replace(species=torch.full((1, 5), 26) * eight[[6]].mask)
    # the last of the held-out crystals has an element that the model does not know
    test = design.Crystals.cat([eight[[0, 4]], iron])
    sets = {"train": eight, "test": test}
    monkeypatch.setattr(script, "parts", lambda *_: ("mp20", sets))
    words = ["tiny", "--samples", "5", "--predict", "3", "--workers", "1"]
    words += ["--cache", str(tmp_path / "cache")]
    with pytest.raises(DataError, match="give --mp20 PATH"):
        script.main(words)
    words += ["--mp20", "table.parquet"]
    card = script.main(words)
    written = json.loads((folder / "card.json").read_text())
    assert written["symmetry"]["asked space group holds"]["n"] == 5
    assert written["prediction"]["targets"] == 3 and written["prediction"]["asked"] == 2
    assert written["prediction"]["metrics"]["match rate"]["n"] == 3
    page = (folder / "card.md").read_text()
    assert "Materials Project" in page and "1 could not be asked for" in page
    assert "missed by" in page or all(one["met"] for one in card["bars"].values())
    # a second start reads what the first one kept
    (table,) = (tmp_path / "cache" / "samples").glob("*.parquet")
    before = table.stat().st_mtime_ns
    assert script.main(words)["bars"] == card["bars"]
    assert table.stat().st_mtime_ns == before
    # and a page can be written from the figures alone
    (folder / "card.md").unlink()
    script.main(["tiny", "--rewrite"])
    assert f"**Repeat.** `{card['command']}`" in (folder / "card.md").read_text()


@pytest.mark.parametrize(
    "name", ["vae-prototypes", "band-gap-mp20", "judge-prototypes"]
)
def test_shipped_pages_are_those_of_their_figures(name):
    folder = data_dir() / "models" / name
    card = json.loads((folder / "card.json").read_text())
    assert (folder / "card.md").read_text() == page_of(card)
    (repeat,) = re.findall(
        r"\*\*Repeat.\*\* `python scripts/card.py (.*)`", page_of(card)
    )
    assert script.arguments(repeat.split()).name == name


def page_of(card):
    kind = predictor if "test" in card else generator
    return kind.page(card)


def test_a_card_of_a_property_network(eight, tmp_path, monkeypatch):
    gap = torch.tensor([5.0, 4.5, 5.2, 4.0, 2.0, 2.1, 0.0, 0.0])
    data = eight.replace(properties={"band_gap": gap}, units={"band_gap": "eV"})
    small = {"width": 8, "layers": 1, "channels": 4, "mixed": 4, "radial": 4}
    net = PropertyNetwork.for_data(
        data, properties="band_gap", floors={"band_gap": 0.0}, **small
    )
    run = fit(net, data, steps=2, batch_size=4, progress=False)
    facts = {"data": "tiny", "hardware": "", "command": "train", "apart_from": "gaps"}
    net.record = {**run.facts(), "data_sha256": "abc", **facts}
    net.save(tmp_path / "models" / "gaps")
    for module in (script, shipped):
        monkeypatch.setattr(module, "data_dir", lambda: tmp_path)
    sets = {"train": data, "test": data}
    monkeypatch.setattr(script, "parts", lambda *_: ("tiny", sets))
    card = script.main(["gaps", "--aim", "band_gap=0.01"])
    one = card["test"]["band_gap"]
    error = (net.predict(data)["band_gap"] - gap).abs()
    assert one["mae"]["value"] == pytest.approx(float(error.mean()), abs=1e-4)
    assert one["ranges"][0]["n"] == 2 and one["met"] is False
    assert one["apart"]["difference"]["value"] == 0.0
    page = (tmp_path / "models" / "gaps" / "card.md").read_text()
    assert "Gaps of PBE" in page and "| met | False |" in page
    assert "--aim band_gap=0.01" in page and "| at the floor | 2 |" in page
