"""Plots: the numbers they draw, the words they say, what they refuse."""

import base64
import re

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matdesign.crystals.batch import Crystals
from matdesign.display import plots, plots_families
from matdesign.errors import DataError


@pytest.fixture(scope="module")
def batch() -> Crystals:
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return Crystals.from_structures([salt, salt, iron])


def drawing(plot: plots.Plot) -> str:
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', plot.to_html())
    return base64.b64decode(found.group(1)).decode()


def test_histogram_shares_sum_to_one_and_unknown_values_are_counted():
    values = np.array([1.0, 2.0, 2.0, 3.0, np.nan])
    made = plots.plot_histogram(
        {"a": values}, label="x", unit="eV", span=(0, 4), bins=4
    )
    stairs = made.figure.axes[0].patches[0].get_data()
    assert stairs.values.tolist() == [0, 0.25, 0.5, 0.25]
    assert "a (4, 1 unknown)" in drawing(made)
    assert made.alt == "Histogram of x (eV). a: median 2, middle half 1.75 to 2.25."


def test_the_band_of_uniform_numbers_hides_no_bar():
    numbers = torch.rand(500, generator=torch.Generator().manual_seed(0))
    drawn = plots_families.plot_uniform(
        {"latents": numbers, "coordinates": numbers.square()}
    )
    *bars, band = drawn.figure.axes[0].patches
    assert band.get_label() == "uniform, 95 %" and len(bars) >= 2
    assert band.zorder < min(one.zorder for one in bars)


def test_element_map_counts_crystals_not_atoms(batch):
    made = plots.plot_element_map(batch)
    assert "3 elements occur, most often Na 2, Cl 2, Fe 1" in made.alt.replace(
        "Cl 2, Na 2", "Na 2, Cl 2"
    )
    texts = {(t.get_position(), t.get_text()) for t in made.figure.axes[0].texts}
    places = {text: at for at, text in texts if text.isalpha()}
    assert len(places) == 103
    assert places["Na"][0] == places["K"][0] < places["Mg"][0] < places["Al"][0]
    assert places["Cl"][1] == places["Na"][1] > places["Fe"][1]
    assert len({at for at, text in texts if text.isalpha()}) == 103, "cells overlap"


def test_distances_of_an_ideal_gas_are_flat_and_of_a_crystal_are_shells():
    rng = np.random.default_rng(0)
    gas = Structure(Lattice.cubic(12), ["Ar"] * 400, rng.random((400, 3)))
    made = plots.plot_distances({"gas": Crystals.from_structures([gas])}, bins=12)
    line = made.figure.axes[0].lines[0].get_ydata()
    assert np.abs(line[5:] - 1).max() < 0.1  # 3 % counting noise in these shells
    polonium = Structure(Lattice.cubic(3.35), ["Po"], [[0, 0, 0]])
    made = plots.plot_distances({"Po": Crystals.from_structures([polonium])})
    line = made.figure.axes[0].lines[0]
    assert line.get_xdata()[np.flatnonzero(line.get_ydata())[0]] == pytest.approx(
        3.35, abs=0.05
    )
    assert "Po: shortest distance 3.35 Å" in made.alt


def test_curves_keep_their_ends():
    made = plots.plot_losses({"lattice": [4.0, 2.0, 1.0], "frac": [1.0, 0.5, 0.5]})
    assert "lattice from 4 to 1; frac from 1 to 0.5" in made.alt
    assert made.figure.axes[0].get_yscale() == "log"
    [line] = plots.plot_losses({"a": [4.0, 2.0]}, [10, 20]).figure.axes[0].lines
    assert line.get_ydata().tolist() == [4.0, 2.0]
    assert line.get_xdata().tolist() == [10, 20]


def test_every_series_differs_by_more_than_colour(batch):
    made = plots.plot_losses({name: [3.0, 2.0] for name in "abcdef"})
    lines = made.figure.axes[0].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 6


def test_neighbouring_colours_differ_in_grey():
    grey = [
        0.299 * int(c[1:3], 16) + 0.587 * int(c[3:5], 16) + 0.114 * int(c[5:7], 16)
        for c in plots.COLORS
    ]
    assert abs(grey[0] - grey[1]) > 15


def test_html_is_escaped_described_and_repeatable(batch):
    made = plots.plot_histogram({"all": batch.density}, label="density")
    made.alt, made.caption = 'a "b" <c>', "<i>"
    text = made.to_html()
    assert 'alt="a &#34;b&#34; &lt;c&gt;"' in text
    assert "<figcaption>&lt;i&gt;</figcaption>" in text
    assert made.to_html() == text
    assert made._repr_html_() == text


def test_heavy_drawings_travel_as_pixels():
    figure, axes = plots.canvas()
    rng = np.random.default_rng(0)
    axes.plot(*rng.random((2, 20_000)), ".", ms=1)
    assert 'src="data:image/png;base64,' in plots.Plot(figure, "x").to_html()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plots.plot_histogram({"a": [float("nan")]}, label="x"),
            "a has no finite",
        ),
        (lambda: plots.plot_losses({"a": [float("nan")]}), "a has no finite"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(DataError, match=message):
        call()
