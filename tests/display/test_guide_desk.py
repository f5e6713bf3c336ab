"""The desk: what it shows is what was sampled, live and on a static page."""

import re
from functools import cache

import pytest

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.display.desk import FIGURES, GuideDesk
from matdesign.errors import DataError
from matdesign.generators.contract import Generator

DENSE, OXIDES = "dense", "oxides"


@cache
def model() -> Generator:
    return design.load_model("coupling-flow-perovskites")


@cache
def train() -> Crystals:
    return design.load("perovskites", split="train")


def desk(**options: object) -> GuideDesk:
    wanted = {DENSE: design.Density(6, 7), OXIDES: design.RequiredElements("O")}
    settings = {"scales": (1.0, 4.0), "n": 6} | options
    return GuideDesk(model(), wanted, train(), **settings)


def test_every_place_is_one_sampling_and_is_kept() -> None:
    made = desk()
    one = made.run([DENSE], 1.0)
    assert made.run([DENSE], 1.0) is one
    guide = design.Guide(design.Density(6, 7), "gradient", strict="hard")
    again = model().sample(6, seed=0, guide=guide)
    assert one.counts[FIGURES[0]] == int(design.Density(6, 7).satisfied(again).sum())
    judged = design.evaluate(again, train())
    assert one.counts["unique"] == judged["uniqueness"].count
    assert one.counts["novel"] == judged["novelty"].count
    free = made.run([DENSE], 0.0)
    assert free.made.formulas == model().sample(6, seed=0).formulas
    assert made.run([OXIDES], 0.0).made is free.made  # drawn once for all


def test_hard_constraints_hold_and_nothing_is_moved_for_them() -> None:
    one = desk().run([OXIDES], 1.0)
    assert one.counts[FIGURES[0]] == 6 and one.drawn == 6


def test_the_static_page_holds_every_place() -> None:
    made = desk()
    text = made.to_html()
    places = re.findall(r'alt="At scale ([^:"]+):', text)
    assert places == ["0", "1", "4"] * 3  # dense, oxides, all
    assert text.count("<svg") >= 9 * 6 and "unselected" not in text
    assert "http" not in re.sub(r"http://www.w3.org/\S+", "", text)


def test_more_crystals_than_are_drawn_are_announced() -> None:
    text = desk(n=10, scales=(0.0, 1.0)).panel([OXIDES], 1.0).to_html()
    assert "The first 8, unselected; 2 more were counted." in text


def test_the_live_desk_follows_ticks_and_slider() -> None:
    made = desk()
    box = made.widget()
    shown, *ticks, slider = box.children
    assert "At scale 1" in shown.value
    slider.value = 4.0
    assert "At scale 4" in shown.value
    ticks[0].value = False
    assert "choose among" in shown.value
    ticks[1].value = True
    assert f"{FIGURES[0]} 6/6" in shown.value


def test_a_contradiction_is_shown_and_not_raised() -> None:
    wanted = {"light": design.Density(1, 2), "heavy": design.Density(8, 9)}
    box = GuideDesk(model(), wanted, train(), n=2).widget()
    box.children[2].value = True
    assert "no crystal can meet these constraints together" in box.children[0].value


def test_one_constraint_has_one_slider() -> None:
    alone = GuideDesk(
        model(), {DENSE: design.Density(6, 7)}, train(), n=2, scales=(1.0,)
    )
    assert len(re.findall('alt="At scale', alone.to_html())) == 2


@pytest.mark.parametrize(
    ("wanted", "options", "words"),
    [
        ({}, {}, "needs constraints"),
        ({DENSE: design.Density(6, 7)}, {"n": 0}, "n >= 1"),
        ({DENSE: design.Density(6, 7)}, {"scales": (-1.0,)}, "scales >= 0"),
    ],
)
def test_bad_desks_are_refused(
    wanted: dict[str, design.Constraint], options: dict[str, object], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        GuideDesk(model(), wanted, train(), **options)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(DataError, match="choose among dense, oxides"):
        desk().run(["blue"], 1.0)
