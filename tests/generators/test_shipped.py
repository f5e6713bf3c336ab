"""Trained models by name: found, listed, and clear when they are not there."""

import subprocess
import sys

import pytest

from matdesign.errors import DataError, ShapeError
from matdesign.generators import shipped
from matdesign.generators.diffusion import Diffusion
from matdesign.paths import data_dir


@pytest.fixture
def place(eight, tmp_path, monkeypatch):
    """A data folder of our own with one saved model."""
    monkeypatch.setattr(shipped, "data_dir", lambda: tmp_path)
    model = Diffusion.for_data(eight, width=32, layers=1, heads=4)
    model.save(tmp_path / "models" / "diffusion-tiny")
    return tmp_path


def test_models_are_listed_and_loaded(place):
    listed = shipped.models()
    assert list(listed) == ["diffusion-tiny"] and len(listed) == 1
    assert "diffusion-tiny" in listed
    assert "Diffusion on 8 crystals" in repr(listed)
    model = shipped.load_model("diffusion-tiny")
    assert model.record["name"] == "diffusion-tiny"
    assert not model.training


def test_a_folder_can_be_named(place):
    model = shipped.load_model(place / "models" / "diffusion-tiny")
    assert isinstance(model, Diffusion)


def test_an_unknown_name_gets_the_nearest(place):
    with pytest.raises(DataError, match=r"no model 'difusion-tiny'.*'diffusion-tiny'"):
        shipped.load_model("difusion-tiny")
    with pytest.raises(DataError, match="Known: diffusion-tiny;"):
        shipped.load_model("zzz")


def test_missing_weights_say_how_to_get_them(place):
    with pytest.raises(DataError, match=r"safetensors.*git checkout.*train\.py"):
        shipped.load_model("diffusion-prototypes")


@pytest.mark.parametrize("name", ["", ".", "..", "../models/diffusion-tiny", "a/b"])
def test_names_that_are_paths_stay_inside(place, name):
    with pytest.raises(DataError):
        shipped.load_model(name)


def test_a_damaged_model_is_listed_as_such(place):
    (place / "models" / "diffusion-tiny" / "config.json").write_text("{")
    assert "cannot be read" in repr(shipped.models())


def test_an_empty_folder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "data_dir", lambda: tmp_path)
    assert "scripts/train.py" in repr(shipped.models())


SHIPPED = list(shipped.models())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_make_crystals(name):
    model = shipped.load_model(name)
    made = model.sample(4, seed=0, steps=10)
    assert len(made) == 4 and (made.volume > 1).all()
    size = (data_dir() / "models" / name / "model.safetensors").stat().st_size
    assert size < 12e6
    assert model.record["steps"] > 0 and model.record["data_sha256"]
    assert len(model.sample(0)) == 0
    with pytest.raises(ShapeError, match="at least 1 crystal; got 0"):
        next(model.trajectory(0))


def test_the_first_lines_of_the_readme_work():
    if "diffusion-prototypes" not in SHIPPED:
        pytest.skip("weights of diffusion-prototypes are not in this checkout")
    code = (
        "import matdesign as design\n"
        "print(design.load_model('diffusion-prototypes').sample(8, steps=3))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("Crystals(8 of ")
