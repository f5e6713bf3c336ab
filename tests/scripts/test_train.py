"""scripts/train.py: any family and property networks on any data; trainings resume."""

import hashlib
import json

import pytest
import torch
import train as script

import matdesign as design
from matdesign.crystals.io.parquet import write_parquet
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.predictors.network import PropertyNetwork

SMALL = ["--batch-size", "4", "--set", "width=16", "layers=1", "heads=2"]


@pytest.fixture
def place(eight, tmp_path, monkeypatch):
    """A project folder of our own; returns a data file with all three parts."""
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "data_dir", lambda: tmp_path / "data")
    split = ("train",) * 6 + ("val", "test")
    gap = {"gap": torch.tensor([5.0, 4.5, 5.2, 4.0, 2.0, 2.1, 0.0, 0.0])}
    crystals = eight.replace(labels={"split": split}, properties=gap)
    return write_parquet(crystals, tmp_path / "tiny.parquet")


def weights(folder):
    return Generator.load(folder).state_dict()


def stop_after(monkeypatch, steps):
    """Make the training end like a killed one: nothing is saved after some steps."""
    real = design.training

    def cut(*args, **options):
        for step in real(*args, **options):
            yield step
            if step.step == steps and "checkpoint" in options:
                raise KeyboardInterrupt

    monkeypatch.setattr(script.design, "training", cut)


def test_every_family_is_one_that_load_finds():
    assert {*script.FAMILIES.values()} <= {*design.__all__}


def test_a_killed_training_continues_to_the_same_weights(place, monkeypatch):
    given = ["diffusion", str(place), "--steps", "6", *SMALL]
    given += ["--fit", "checkpoint_every=2"]
    whole = script.main([*given, "--name", "whole"])
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            script.main([*given, "--name", "cut"])
    resumed = script.main([*given, "--name", "cut"])
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, weights(resumed)[name], rtol=0, atol=0)
    record = Generator.load(resumed).record
    assert record["resumed"] == 1 and record["steps"] == 6


def test_the_record_says_how_to_repeat_it_and_not_where(place):
    folder = script.main(["flow-matching", str(place), "--steps", "2", *SMALL])
    assert folder.name == "flow-matching-tiny"
    record = Generator.load(folder).record
    for key in ("data_sha256", "seed", "seconds", "hardware", "command", "device"):
        assert record[key] not in (None, "")
    assert str(place) not in record["command"] and place.name in record["command"]
    history = json.loads((folder / "training.json").read_text())
    assert history[-1]["step"] == 2 and history[-1]["val"] is not None


def test_a_training_starts_from_shipped_weights(place):
    """One small step from them changes little; the record says where they come from."""
    first = script.main(["vae", str(place), "--name", "first", "--steps", "2", *SMALL])
    given = ["vae", str(place), "--from", "first", "--steps", "1", "--lr", "1e-9"]
    folder = script.main([*given, "--name", "second", "--batch-size", "4"])
    for name, tensor in weights(first).items():
        torch.testing.assert_close(weights(folder)[name], tensor, rtol=1e-4, atol=1e-6)
    record = Generator.load(folder).record["started_from"]
    assert record["name"] == "first" and record["steps"] == 2
    content = (first / "model.safetensors").read_bytes()
    assert record["weights_sha256"] == hashlib.sha256(content).hexdigest()
    third = script.main([*given[:3], "second", *given[4:], "--name", "third"])
    earlier = Generator.load(third).record["started_from"]["started_from"]
    assert earlier["name"] == "first"
    with pytest.raises(DataError, match="come with their options; got width"):
        script.main([*given, "--set", "width=8"])
    with pytest.raises(DataError, match="--name another name"):
        script.main([*given, "--name", "first"])
    # the same name after another start is another training: its checkpoint is not read
    over = script.main([*given[:3], "third", *given[4:], "--name", "second"])
    assert Generator.load(over).record["steps"] == 1
    assert Generator.load(over).record["started_from"]["name"] == "third"


def test_a_training_starts_only_where_all_elements_are_known(place):
    script.main(["vae", str(place), "--name", "first", "--steps", "1", *SMALL])
    with pytest.raises(DataError, match="first does not know all elements"):
        script.main(["vae", "perovskites", "--from", "first", "--name", "other"])


def test_a_property_network_is_trained_by_the_same_script(place, monkeypatch):
    asked = {}

    def shaken(crystals, **options):
        asked.update(options)
        return crystals[:2]

    monkeypatch.setattr(script.labels, "shaken", shaken)
    given = ["property", str(place), "--properties", "gap", "--floor", "gap=0"]
    given += ["--steps", "2", "--batch-size", "4", "--set", "width=8", "layers=1"]
    given += ["channels=4", "mixed=4", "radial=4", "degree=2", "--fit", "warmup=1"]
    folder = script.main([*given, "--name", "gaps", "--half", "1", "--shaken", "1"])
    net = PropertyNetwork.load(folder)
    assert net.floors == (0.0,) and net.config["width"] == 8
    assert asked == {"copies": 1.0, "seed": 0}
    assert net.record["crystals"] == 3 + 2 and net.record["half"] == 1
    assert net.record["shaken_crystals"] == 2 and net.record["steps"] == 2
    again = ["property", str(place), "--from", "gaps", "--name", "more", "--steps", "1"]
    net = PropertyNetwork.load(script.main([*again, "--batch-size", "4"]))
    assert net.record["started_from"]["name"] == "gaps"
    assert bool(net.seen[11]) and bool(net.seen[22])  # of rows that "gaps" never saw


def test_options_are_json_or_text():
    read = script.pairs(["width=96", "representation=cell", "settled=0.1", "a-b=[1]"])
    assert read == {
        "width": 96,
        "representation": "cell",
        "settled": 0.1,
        "a_b": [1],
    }
    with pytest.raises(DataError, match="NAME=VALUE"):
        script.pairs(["width"])
    with pytest.raises(DataError, match="mp20=PATH"):
        script.parts("other=file.parquet")
