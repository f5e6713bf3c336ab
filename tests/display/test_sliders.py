"""Sliders: their places, their static twin, their live form."""

import json
import re

import pytest
from pymatgen.core import Lattice, Structure

import matdesign as design
from matdesign.display import plots
from matdesign.display.sliders import Explorer
from matdesign.errors import DataError


def cell(a=3.0, c=4.0):
    return design.view(Structure(Lattice.tetragonal(a, c), ["Po"], [[0, 0, 0]]))


def line(slope=0.5, power=2):
    figure, axes = plots.canvas()
    axes.plot([0, 1], [0, slope**power])
    return plots.Plot(figure, f"{slope} {power}")


def spec(text: str) -> dict:
    found = re.search(r'<script type="application/json">(.*?)</script>', text, re.S)
    return json.loads(found.group(1))


def test_ranges_become_values_that_read_well():
    made = Explorer(line, slope=(0.0, 1.0), power=(1, 4))
    assert made.values["power"] == [1, 2, 3, 4]
    assert len(made.values["slope"]) == 21
    assert made.values["slope"][:3] == [0.0, 0.05, 0.1]
    assert Explorer(line, power=(0, 1000, 5)).values["power"] == [
        0,
        250,
        500,
        750,
        1000,
    ]
    assert Explorer(line, slope=[1, 3, 7]).values["slope"] == [1, 3, 7]


def test_sliders_start_at_the_functions_defaults():
    made = Explorer(line, slope=(0.0, 2.0, 5), power=[1, 2, 3])
    assert made.start == {"slope": 1, "power": 1}
    assert made.places()[made._start_frame()] == {"slope": 0.5, "power": 2}


def test_two_sliders_give_every_combination_last_fastest():
    made = Explorer(line, slope=[0.5, 1.0], power=[1, 2, 3])
    assert made.mode == "grid"
    assert [tuple(one.values()) for one in made.places()] == [
        (0.5, 1), (0.5, 2), (0.5, 3), (1.0, 1), (1.0, 2), (1.0, 3),
    ]  # fmt: skip
    alts = re.findall(r'alt="([^"]+)"', made.to_html())
    assert alts == ["0.5 1", "0.5 2", "0.5 3", "1.0 1", "1.0 2", "1.0 3"]


def test_many_places_give_one_line_per_slider_and_say_so():
    def three(a=0.0, b=0.0, c=0.0):
        return line(a + b, c)

    made = Explorer(three, a=[-1.0, 0.0], b=[0.0, 1.0], c=[0.0, 1.0])
    assert made.mode == "star"
    assert made.places()[:2] == [
        {"a": -1.0, "b": 0.0, "c": 0.0},
        {"a": 0.0, "b": 0.0, "c": 0.0},
    ]
    assert len(made.places()) == 6
    assert "one slider moves at a time" in made.to_html()


def test_crystals_share_one_viewer_with_sliders():
    text = Explorer(cell, a=[3.0, 3.5], c=[4.0, 5.0]).to_html()
    assert text.count('class="crystal-view"') == 1
    data = spec(text)
    assert [one["cell"][0] for one in data["frames"]] == [3.0, 3.0, 3.5, 3.5]
    assert [one["cell"][8] for one in data["frames"]] == [4.0, 5.0, 4.0, 5.0]
    assert data["options"]["sliders"]["mode"] == "grid"
    assert data["options"]["start"] == 0
    assert data["frames"][3]["label"] == "a = 3.5, c = 5"


def test_live_sliders_call_the_function(monkeypatch):
    calls = []

    def tracked(slope=0.5):
        calls.append(slope)
        return line(slope)

    box = Explorer(tracked, slope=[0.0, 0.5, 1.0]).widget()
    shown, slider = box.children
    before = shown.value
    slider.value = 1.0
    assert calls == [0.5, 1.0]
    assert shown.value != before and 'alt="1.0 2"' in shown.value


def test_live_crystal_is_redrawn_in_place():
    box = Explorer(cell, a=[3.0, 3.5]).widget()
    viewer = box.children[0].children[0]
    before = len(viewer._callbacks_before_loaded)
    box.children[1].value = 3.5
    sent = viewer._callbacks_before_loaded[before:]
    assert [one._ngl_msg["methodName"] for one in sent] == [
        "addShape",
        "removeComponent",
    ]


def test_a_plain_figure_is_described_by_its_place():
    def bare(x=1.0):
        return plots.canvas()[0]

    assert 'alt="bare at x = 2."' in Explorer(bare, x=[1.0, 2.0]).to_html()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Explorer(line), "got no ranges"),
        (lambda: Explorer(line, slop=(0, 1)), "no argument 'slop'; choose from slope"),
        (lambda: Explorer(line, slope=(1, 0)), "must rise"),
        (lambda: Explorer(line, slope=[1]), "needs two or more"),
        (lambda: Explorer(line, slope=3), "got 3"),
        (
            lambda: Explorer(lambda a: a, a=[1, 2]).to_html(),
            "must return a CrystalView",
        ),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_explore_is_the_public_door():
    assert repr(design.explore(line, power=[1, 2])) == "Explorer(line: power (2))"
