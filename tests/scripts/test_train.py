"""scripts/train.py: any family on any data, budgets that hold, trainings that resume."""

import json

import pytest
import torch
import train as script

import matdesign as design
from matdesign.crystals.io.parquet import write_parquet
from matdesign.errors import DataError
from matdesign.generators.contract import KNOWN, Generator

SMALL = ["--batch-size", "4", "--set", "width=16", "layers=1", "heads=2"]


@pytest.fixture
def place(eight, tmp_path, monkeypatch):
    """A project folder of our own; returns a data file with all three parts."""
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "data_dir", lambda: tmp_path / "data")
    split = ("train",) * 6 + ("val", "test")
    return write_parquet(
        eight.replace(labels={"split": split}), tmp_path / "tiny.parquet"
    )


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
    assert set(script.FAMILIES.values()) <= set(KNOWN)


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
    assert len(record["plans"]) == 1


def test_the_record_says_how_to_repeat_it_and_not_where(place):
    folder = script.main(["flow-matching", str(place), "--steps", "2", *SMALL])
    assert folder.name == "flow-matching-tiny"
    record = Generator.load(folder).record
    for key in ("data_sha256", "seed", "seconds", "hardware", "command", "device"):
        assert record[key] not in (None, "")
    assert str(place) not in record["command"] and place.name in record["command"]
    history = json.loads((folder / "training.json").read_text())
    assert history[-1]["step"] == 2 and history[-1]["val"] is not None


def test_minutes_become_steps_once_and_stay(place, monkeypatch, tmp_path):
    given = ["diffusion", str(place), "--name", "timed", *SMALL]
    given += ["--fit", "checkpoint_every=1"]
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            script.main([*given, "--minutes", "0.05"])
    path = tmp_path / "build" / "train" / "timed.plan.json"
    plan = json.loads(path.read_text())[0]
    assert plan["steps"] == int(0.95 * 3 / plan["seconds_each"])
    # a shorter number of steps for the rest is a second plan, and the record shows both
    folder = script.main([*given, "--steps", "5"])
    record = Generator.load(folder).record
    assert [p["from"] for p in record["plans"]] == [0, 2]
    assert record["steps"] == 5


def test_the_same_minutes_keep_the_plan(place, tmp_path):
    path = tmp_path / "build" / "train" / "kept.plan.json"
    given = ["diffusion", str(place), "--name", "kept", "--minutes", "0.01", *SMALL]
    script.main(given)
    before = path.read_text()
    script.main(given)
    assert path.read_text() == before


def test_a_vae_gets_a_prior_of_training_crystals(place):
    given = ["vae", str(place), "--steps", "1", "--batch-size", "4"]
    model = Generator.load(script.main([*given, "--mixture", "3"]))
    assert model.config["components"] == 3
    assert model.record["steps"] == 1


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


def test_fast_products_keep_the_digits_of_float32():
    from machine import fast_products

    rules = torch.backends.mkldnn.matmul
    before = rules.fp32_precision
    try:
        fast_products()
        rng = torch.Generator().manual_seed(1)
        a, b = (torch.randn(64, 512, generator=rng) for _ in range(2))
        off = (a @ b.T).double() - a.double() @ b.double().T
        assert off.abs().max() < 1e-4  # bf16 would be off by 0.1
    finally:
        rules.fp32_precision = before
