"""Plots of guidance logs say what is in the log."""

import pytest

import matdesign as design
from matdesign.errors import DataError
from matdesign.plots_guidance import plot_guidance, plot_particles


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
    with pytest.raises(DataError, match="no steps of a batch"):
        plot_guidance(made)
    guide = design.Guide(design.Between("density", 1, 20, unit="g/cm^3"), "project")
    with pytest.raises(DataError, match="no particles were used"):
        plot_particles(model.sample(1, seed=0, guide=guide))
