"""The viewers' HTML: complete, described, safe, with nothing from outside."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from pymatgen.core import Lattice, Structure

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.display import pages
from matdesign.display.pages import standalone_assets
from matdesign.display.viewer import CrystalView
from matdesign.errors import DataError, ShapeError


@pytest.fixture
def salt():
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


@pytest.fixture
def batch(salt):
    iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return Crystals.from_structures([salt, iron, salt])


def scene_of(text: str) -> dict:
    found = re.search(r'<script type="application/json">(.*?)</script>', text, re.S)
    return json.loads(found.group(1))


def test_one_crystal_is_described_and_drawn(salt):
    text = design.view(salt).to_html()
    assert 'aria-label="Crystal structure of NaCl: cubic, space group Fm-3m' in text
    assert 'role="img"' in text and "<svg" in text
    assert ">Na</i> Sodium" in text and ">Cl</i> Chlorine" in text
    data = scene_of(text)
    assert len(data["frames"]) == 1
    assert [one["symbol"] for one in data["species"]] == ["Cl", "Na"]


def test_a_batch_becomes_one_frame_per_crystal_in_order(batch):
    made = design.view(batch)
    assert [one["label"] for one in made.data["frames"]] == [
        "1/3  NaCl, Fm-3m",
        "2/3  Fe, Im-3m",
        "3/3  NaCl, Fm-3m",
    ]
    assert "First: Crystal structure of NaCl" in made.alt
    assert scene_of(made.to_html())["frames"][1]["cell"][0] == pytest.approx(2.87)


def test_labels_and_ids_are_shown(batch):
    made = design.view(batch, ["a", "b", "c"])
    assert [one["label"] for one in made.data["frames"]] == ["a", "b", "c"]
    named = design.view(batch.replace(ids=("x-1", "x-2", "x-3")))
    assert named.data["frames"][1]["label"].endswith("(x-2)")


def test_supercell_draws_all_cells_but_describes_one(salt):
    made = design.view(salt, supercell=(2, 1, 1), images="none")
    assert len(made.data["frames"][0]["kind"]) == 16
    assert made.alt.endswith("Drawn as 2 x 1 x 1 cells.")
    assert "8 atoms in a cell" in made.alt


def test_a_long_batch_says_what_it_leaves_out(salt):
    rows = [Structure(Lattice.cubic(3), ["Po"], [[0, 0, 0]])] * 203
    made = design.view(Crystals.from_structures(rows))
    assert len(made.data["frames"]) == 200
    assert "First 200 of 203 crystals." in made.to_html()


def test_film_keeps_every_so_many_states_and_the_last(batch):
    def states():
        for n in range(8):
            moved = batch.replace(frac=batch.frac * (1 - n / 50))
            yield SimpleNamespace(t=1 - n / 7, crystals=moved)

    made = design.film(states(), every=3, which=1)
    assert [one["label"] for one in made.data["frames"]] == [
        "t = 1.00  Fe",
        "t = 0.57  Fe",
        "t = 0.14  Fe",
        "t = 0.00  Fe",
    ]
    assert made.data["frames"][0]["xyz"] != made.data["frames"][3]["xyz"]
    with pytest.raises(DataError, match="no states"):
        design.film(iter(()))


def test_text_of_labels_cannot_break_out_of_the_page(salt):
    bad = '</script><script>alert("x")</script>'
    made = CrystalView([salt], [bad], caption=bad, name='"><b>')
    text = made.to_html()
    assert "<script>alert" not in text
    assert text.count("</script>") == 1
    assert scene_of(text)["frames"][0]["label"] == bad


def test_a_saved_file_is_whole_and_loads_nothing(tmp_path, batch):
    path = design.view(batch).save(tmp_path / "crystals.html")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and '<html lang="en">' in text
    assert 'id="matdesign-ngl"' in text
    markup = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!data:)', markup)
    ours = (pages.ASSETS / "crystal-view.js").read_text(encoding="utf-8")
    assert "http" not in ours and "http" not in markup.replace(
        "http://www.w3.org/2000/svg", ""
    )
    assert path.stat().st_size < 700_000


def test_assets_are_the_same_every_time_and_hold_ngl():
    pages.standalone_assets.cache_clear()
    first = standalone_assets()
    pages.standalone_assets.cache_clear()
    assert standalone_assets() == first
    script = pages.ngl_script()
    assert "window.NGL = found" in script and "Stage:()=>" in script


def test_static_switch_leaves_out_the_widget(salt, monkeypatch):
    monkeypatch.setenv("MATDESIGN_STATIC", "1")
    made = design.view(salt)._repr_mimebundle_()
    assert set(made) == {"text/plain", "text/html"}
    assert made["text/plain"] == "CrystalView(NaCl)"


def test_live_widget_sends_the_same_atoms(batch, monkeypatch):
    monkeypatch.delenv("MATDESIGN_STATIC", raising=False)
    made = design.view(batch)
    box = made.widget()
    viewer, row, legend = box.children
    calls = [one._ngl_msg for one in viewer._callbacks_before_loaded]
    drawn = next(one for one in calls if one["methodName"] == "addShape")
    shapes = drawn["args"][1]
    frame = made.data["frames"][0]
    spheres = [one for one in shapes if one[0] == "sphere" and one[3] > 0.01]
    middle = frame["cell"][0] / 2  # a cube: frames are drawn around their middle
    drawn_at = [x + middle for one in spheres for x in one[1]]
    assert drawn_at == pytest.approx(frame["xyz"], abs=2e-3)
    rods = [one for one in shapes if one[0] == "cylinder"]
    assert len(rods) == len(frame["bonds"]) + 12
    archive = len(viewer._ngl_msg_archive)
    row.children[1].value = 1
    assert row.children[2].value == "2/3  Fe, Im-3m"
    assert len(viewer._ngl_msg_archive) == archive, "redraws must not pile up"
    assert "Iron" in legend.value
    assert "application/vnd.jupyter.widget-view+json" in made._repr_mimebundle_()


def test_a_still_picture_stands_until_nglview_has_loaded(batch):
    viewer, row, below = design.view(batch).widget().children
    assert "<svg" in below.value and "A still picture." in below.value
    row.children[1].value = 1  # without nglview the player still moves the picture
    assert "Fe" in below.value and "<svg" in below.value
    viewer.loaded = True
    assert "<svg" not in below.value and "A still picture." not in below.value
    assert "Iron" in below.value
    row.children[1].value = 0
    assert "<svg" not in below.value


def test_front_end_of_nglview_is_the_one_that_its_widget_asks_for():
    """Version 4.0.1 asks for a front end that its own package does not carry."""
    from importlib import metadata
    from pathlib import Path

    from nglview import _frontend

    for entry in metadata.files("nglview") or []:
        if entry.name == "package.json" and "labextensions" in entry.parts:
            carried = json.loads(Path(str(entry.locate())).read_text())["version"]
            assert carried == _frontend.__frontend_version__
            return
    pytest.fail("nglview carries no JupyterLab extension")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: design.view([]), DataError, "got no crystals"),
        (lambda s: design.view(s, ["a", "b"]), ShapeError, "got 2 for 1"),
        (lambda s: design.view(s, supercell=(2, 0, 1)), ShapeError, r"\(2, 0, 1\)"),
        (lambda s: design.view(s, colour="red"), DataError, "no option 'colour'"),
        (lambda s: design.view([s, 3]), DataError, "got int"),
        (lambda s: design.film([], every=0), DataError, "every must be 1 or more"),
    ],
)
def test_errors_say_what_to_do(salt, call, error, message):
    with pytest.raises(error, match=message):
        call(salt)


def test_nan_is_refused_before_it_reaches_a_page():
    with pytest.raises(ValueError, match="JSON compliant"):
        pages.to_json({"x": float(torch.tensor(float("nan")))})


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    pages.ngl_script.cache_clear()
    monkeypatch.setattr(pages.metadata, "files", lambda name: [])
    with pytest.raises(DataError, match=r"install nglview==4\.0"):
        pages.ngl_script()
    pages.ngl_script.cache_clear()
