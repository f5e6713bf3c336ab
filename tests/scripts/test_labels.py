"""Labels of sampled crystals: on shipped crystals they are the shipped labels."""

import build_references
import labels
import pytest
import torch

import matdesign as design
from matdesign.crystals.batch import Crystals


@pytest.fixture
def some(monkeypatch, tmp_path) -> Crystals:
    test = design.load("prototypes", split="test")[:12]
    squeezed = Crystals(test.species, test.frac, 0.55 * test.lattice)
    monkeypatch.setattr(labels, "KEPT", tmp_path)
    monkeypatch.setattr(build_references, "CACHE", tmp_path / "energies")
    monkeypatch.setattr(labels, "unguided", lambda *_: [test, squeezed])
    return test


def test_labels_are_those_of_the_data_set(some):
    found = labels.sampled("prototypes", count=24, seed=3)
    assert len(found) < 24  # what was squeezed to a sixth is no crystal
    first = found[: len(some)]
    assert torch.equal(first.species, some.species[:, : first.species.shape[1]])
    for name in (labels.FORMATION, labels.ABOVE):
        assert found.units[name] == "eV/atom"
        known = some.properties[name].clamp(min=0 if name == labels.ABOVE else -9)
        assert torch.allclose(first.properties[name].float(), known.float(), atol=5e-3)
    assert float(found.properties[labels.ABOVE].max()) < labels.FARTHEST


def test_they_are_kept(some, monkeypatch):
    first = labels.sampled("prototypes", count=24, seed=3)
    monkeypatch.setattr(labels, "unguided", None)
    again = labels.sampled("prototypes", count=24, seed=3)
    assert torch.equal(first.frac, again.frac) and again.units == first.units


def test_another_hull_labels_anew_what_was_kept(some, monkeypatch):
    first = labels.sampled("prototypes", count=24, seed=3)
    other = design.Hull.shipped("chgnet-r2scan")
    monkeypatch.setattr(design.Hull, "shipped", lambda: other)
    again = labels.sampled("prototypes", count=24, seed=3)
    assert not torch.equal(
        first.properties[labels.ABOVE], again.properties[labels.ABOVE][: len(first)]
    )


def test_guided_ones_are_made_beside():
    parts = labels.unguided("perovskites", 5, 0)
    assert [len(one) for one in parts] == [1] * 5
    guided = labels.guided("perovskites", "energy-perovskites", 2, 0)
    assert [len(one) for one in guided] == [1, 1]
    assert all(one.info["guide"]["method"] == "gradient" for one in guided)
