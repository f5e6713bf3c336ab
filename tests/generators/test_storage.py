"""Saved models: what is missing, cut short or altered is named."""

import json

import pytest
import torch

from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.contract import Generator
from matdesign.generators.diffusion import Diffusion


@pytest.fixture
def folder(eight, tmp_path):
    model = Diffusion.for_data(eight, width=32, layers=1, heads=4)
    model.record = {"name": "tiny", "steps": 0}
    return model.save(tmp_path / "tiny")


def test_a_saved_model_is_two_plain_files(folder):
    assert {p.name for p in folder.iterdir()} == {storage.WEIGHTS, storage.FACTS}
    facts = json.loads((folder / storage.FACTS).read_text())
    assert facts["class"] == "Diffusion" and facts["config"]["width"] == 32
    again = Generator.load(folder)
    assert again.record == {"name": "tiny", "steps": 0}
    assert not again.training


@pytest.mark.parametrize("name", [storage.WEIGHTS, storage.FACTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing"):
        Generator.load(folder)


def test_truncated_weights_are_named(folder):
    path = folder / storage.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"model\.safetensors.*cut short or altered"):
        Generator.load(folder)


def test_one_changed_byte_is_noticed(folder):
    path = folder / storage.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.safetensors.*checksum"):
        Generator.load(folder)


def test_facts_that_are_no_json_are_named(folder):
    path = folder / storage.FACTS
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match=r"config\.json is not JSON"):
        Generator.load(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "format"),
        ({"class": "Unheard"}, "Unheard"),
        ({"config": {}}, "does not fit"),
        ({"config": {"width": "wide"}}, "does not fit"),
        ({"config": None}, "does not fit"),
    ],
)
def test_altered_facts_are_refused(folder, change, says):
    path = folder / storage.FACTS
    facts = json.loads(path.read_text()) | change
    path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match=says) as caught:
        Generator.load(folder)
    assert "config.json" in str(caught.value)


def test_weights_of_another_size_are_refused(folder):
    path = folder / storage.FACTS
    facts = json.loads(path.read_text())
    facts["config"]["width"] = 64
    path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match="does not fit its weights"):
        Generator.load(folder)


def test_another_generators_folder_is_refused(folder):
    class Other(Diffusion):
        """A generator of another name."""

    with pytest.raises(DataError, match="holds a Diffusion, not a Other"):
        Other.load(folder)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    storage.write_atomic(path, b"old")

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(storage.os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        storage.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_keeps_tensors_and_facts(tmp_path):
    path = tmp_path / "deep" / "c.safetensors"
    tensors = {"a": torch.arange(3), "b": torch.rand(2, 2, dtype=torch.float64)}
    storage.write_checkpoint(path, tensors, {"step": 3, "history": [{"x": 0.1}]})
    again, facts = storage.read_checkpoint(path)
    assert facts["step"] == 3 and facts["history"] == [{"x": 0.1}]
    assert all(torch.equal(again[k], v) for k, v in tensors.items())
    storage.write_checkpoint(path, tensors, {"format": 0})
    with pytest.raises(DataError, match="not written as a checkpoint"):
        storage.read_checkpoint(path)
