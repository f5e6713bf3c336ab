"""Plots of guidance logs say what is in the log."""

import json
import re

import pytest
import torch

import matdesign as design
from matdesign.display.guided_film import film_guidance
from matdesign.display.plots_guidance import plot_guidance, plot_particles
from matdesign.errors import DataError
from matdesign.guidance.guided_sampler import EACH
from matdesign.teach.plots_toys import plot_tilted
from matdesign.teach.torus_toy import TorusToy

DENSE = design.Between("density", 6.3, 6.6, unit="g/cm^3")


@pytest.fixture(scope="module")
def steered():
    """Six crystals of four particles each, in five steps."""
    model = design.load_model("flow-matching-perovskites")
    guide = design.Guide(DENSE, "steer", particles=4, strict="hard")
    return model.sample(6, seed=0, steps=5, guide=guide)


def test_both_plots_of_a_steered_sampling():
    wanted = design.Between("density", 5, 6, unit="g/cm^3")
    model = design.load_model("coupling-flow-perovskites")
    guide = design.Guide(wanted, "steer", particles=4, strict="hard")
    made = model.sample(4, seed=0, guide=guide)
    rows = made.info["guide"]["log"]["steps"][0]
    first, last = (rows[k]["violation"][str(wanted)]["mean"] for k in (0, -1))
    way = plot_guidance(made)
    assert f"{first:.3g} to {last:.3g}" in way.alt
    line = way.figure.axes[0].lines[0]
    assert len(line.get_xdata()) == len(rows)
    crowd = plot_particles(made)
    assert "of 4 particles" in crowd.alt
    assert list(crowd.figure.axes[0].lines[0].get_ydata()) == [
        row["ess"] for row in rows if "ess" in row
    ]


def test_without_a_log_there_is_no_plot():
    model = design.load_model("coupling-flow-perovskites")
    made = model.sample(1, seed=0)
    with pytest.raises(DataError, match="no steps were written down"):
        plot_guidance(made)
    guide = design.Guide(design.Between("density", 1, 20, unit="g/cm^3"), "project")
    with pytest.raises(DataError, match="no particles were used"):
        plot_particles(model.sample(1, seed=0, guide=guide))


# ---- film ------------------------------------------------------------------------------


def test_a_film_shows_each_step_that_the_log_holds(steered):
    rows = steered.info["guide"]["log"]["steps"][0]
    film = film_guidance(steered)
    assert len(film.structures) == len(rows) == 6
    for row, one, frame in zip(rows, film.structures, film.data["frames"], strict=True):
        assert one.composition.reduced_formula in frame["label"]
        assert f"t = {row['t']:.2f}" in frame["label"]
        if "ess" in row:
            assert f"{row['ess']:.1f} particles count" in frame["label"]
    assert film.structures[0] != film.structures[-1]


def test_bars_are_as_long_as_violations_and_ticks_mark_what_is_met(steered):
    rows = steered.info["guide"]["log"]["steps"][0]
    film = film_guidance(steered)
    name = str(DENSE)
    largest = max(v for row in rows for v in row["violation"][name]["each"])
    room = None
    for n, row in enumerate(rows):
        each = row["violation"][name]["each"]
        assert len(each) == EACH
        strip = film.strip(n)
        wide = [float(w) for w in re.findall(r'width="([\d.]+)"', strip)]
        missed = [v for v in each if v > 0]
        assert len(wide) == len(missed)
        assert strip.count("✓") == len(each) - len(missed)
        room = room or max(wide) / (max(missed) / largest)
        assert wide == pytest.approx([room * v / largest for v in missed], abs=0.2)
        assert f"{len(each) - len(missed)} of {len(each)} met" in strip
        numbers = re.findall(r'text-anchor="end"[^>]*>(\d+)<', strip)
        assert numbers == ["1", "2", "3", "4"]  # populations of four


def test_a_film_is_whole_without_a_kernel_and_live_with_one(steered):
    film = film_guidance(steered, start=2)
    text = film.to_html()
    assert f'<div class="cv-beside">{film.strip(2)}</div>' in text
    data = re.search(r'<script type="application/json">(.*?)</script>', text, re.S)
    carried = [one["beside"] for one in json.loads(data.group(1))["frames"]]
    assert carried == [film.strip(n) for n in range(len(film.steps))]
    box = film.widget()
    slider, below = box.children[1].children[1], box.children[2]
    assert film.strip(2) in below.value
    slider.value = 4
    assert film.strip(4) in below.value and film.strip(2) not in below.value


def test_the_log_stays_plain_and_small(steered):
    log = steered.info["guide"]["log"]
    assert json.loads(json.dumps(log)) == log
    assert len(json.dumps(log)) < 2_500 * len(log["steps"][0])


def test_only_the_first_batch_is_written_down_one_by_one():
    model = design.load_model("flow-matching-perovskites")
    guide = design.Guide(DENSE, "gradient", strict="hard")
    made = model.sample(4, seed=0, steps=2, batch_size=2, guide=guide)
    first, second = made.info["guide"]["log"]["steps"]
    assert all("preview" in row for row in first)
    assert not any("preview" in row for row in second)
    assert all("each" not in row["violation"].get(str(DENSE), {}) for row in second)


def test_without_previews_there_is_no_film(steered):
    info = json.loads(json.dumps(steered.info))
    for row in info["guide"]["log"]["steps"][0]:
        del row["preview"]
    with pytest.raises(DataError, match="holds no previews"):
        film_guidance(steered.replace(info=info))
    with pytest.raises(DataError, match="no steps were written down"):
        film_guidance(steered.replace(info={}))


# ---- the torus -------------------------------------------------------------------------


def test_points_from_the_exact_density_leave_few_marks_and_others_many():
    toy = TorusToy()
    exact = toy.tilted(lambda x: 0 * x[:, 0], 8)
    right = plot_tilted(toy.sample(1_500, seed=0, steps=30), exact, title="right")
    flat = torch.rand(1_500, 2, generator=torch.Generator().manual_seed(0))
    wrong = plot_tilted(flat, exact)
    assert right.alt.startswith("right against the exact density")

    def marks(picture):
        return len(picture.figure.axes[2].texts)

    assert marks(right) <= 3
    assert marks(wrong) > 30
    most = wrong.figure.axes[2].texts
    assert {one.get_text() for one in most} == {"+", "\u2212"}
    many, few = re.search(r"(\d+) hold too many points and (\d+)", wrong.alt).groups()
    assert int(many) + int(few) == marks(wrong)
