"""Plots of what a guide did: violations step by step, and how even particles stayed."""

from __future__ import annotations

from typing import Any

from matdesign.crystals.batch import Crystals
from matdesign.display.plots import COLORS, Plot, draw_lines
from matdesign.errors import DataError


def plot_guidance(made: Crystals) -> Plot:
    """Return how far previews were from each constraint, from noise to data.

    Every constraint has its own unit, so each curve is drawn as a share of its largest
    value, which the legend gives.

    Args:
        made: what a guided sampling returned; its first batch is shown.

    Raises:
        DataError: the crystals carry no log of steps.
    """
    steps = logged_steps(made)
    names = list(dict.fromkeys(name for row in steps for name in row["violation"]))
    curves, found = {}, []
    for name in names:
        rows = [row for row in steps if name in row["violation"]]
        values = [row["violation"][name]["mean"] for row in rows]
        largest = max(values)
        shares = [value / largest if largest else 0.0 for value in values]
        curves[f"{name} (1 = {largest:.3g})"] = [row["t"] for row in rows], shares
        found.append(f"{name} goes from {values[0]:.3g} to {values[-1]:.3g}")
    figure, _ = draw_lines(
        curves,
        marked=1,
        size=(6.4, 3.6),
        title="Mean violation of the previews",
        xlabel="time t, from noise to data",
        ylabel="share of the largest",
        xlim=(1.02, -0.02),
    )
    return Plot(figure, f"Mean violation on the way: {'; '.join(found)}.")


def plot_particles(made: Crystals) -> Plot:
    """Return the effective number of particles at each step, and where they were resampled.

    Args:
        made: what a sampling guided by `steer` returned; its first batch is shown.

    Raises:
        DataError: the crystals carry no log of particles.
    """
    rows = [row for row in logged_steps(made) if "ess" in row]
    if not rows:
        raise DataError(
            "no particles were used for these crystals; sample them with "
            'Guide(wanted, "steer").'
        )
    size = made.info["guide"]["particles"]
    t, ess = [row["t"] for row in rows], [row["ess"] for row in rows]
    figure, axes = draw_lines(
        {"before drawing again": (t, ess)},
        marked=1,
        size=(6.4, 3.2),
        title="Effective number of particles",
        xlabel="time t, from noise to data",
        ylabel=f"of {size}",
        xlim=(1.02, -0.02),
        ylim=(0, size * 1.05),
    )
    axes.axhline(size / 2, color="#555555", lw=1, ls="--", label="resampled below")
    again = [row for row in rows if row["resampled"]]
    at, few = [row["t"] for row in again], [row["ess"] for row in again]
    axes.plot(at, few, color=COLORS[1], marker="D", ls="", label="resampled in part")
    axes.legend(frameon=False, fontsize=9)
    return Plot(
        figure,
        f"Effective number of {size} particles over {len(rows)} steps: at least "
        f"{min(ess):.2g}; in {len(again)} steps some crystals were resampled.",
    )


def logged_steps(made: Crystals) -> list[dict[str, Any]]:
    """Return the steps of the first batch of a guided sampling."""
    batches = made.info.get("guide", {}).get("log", {}).get("steps") or [[]]
    if not batches[0]:
        raise DataError(
            "no steps were written down with these crystals. Sample with a guide that "
            "acts between steps: print guide.plan(model)."
        )
    return list(batches[0])
