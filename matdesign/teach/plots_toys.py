"""Plots of the toys: samples against the density they should have."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from matdesign.display.plots import Plot, canvas
from matdesign.metrics.distances import total_variation
from matdesign.teach.torus_toy import cells

SURE = 3.0
"""Standard errors by which a cell must be off to be marked."""


def plot_tilted(points: Tensor, exact: Tensor, *, title: str = "") -> Plot:
    """Return the exact probabilities of cells, those of points, and where they differ.

    Cells with too many points (+) or too few (-) are marked where the difference is
    larger than three standard errors of the count.

    Args:
        points: on the torus, shape (n, 2).
        exact: probability of each cell, shape (bins, bins); first axis x, second y.
        title: above the pictures.
    """
    bins, n = exact.shape[0], len(points)
    at = cells(points, bins).numpy()
    p = exact.double().numpy()
    share = np.bincount(at, minlength=bins * bins).reshape(bins, bins) / n
    error = np.sqrt(np.maximum(p, 1 / n) / n)
    off = np.where(np.abs(share - p) > SURE * error, np.sign(share - p), 0)
    metric = total_variation(at, p.ravel())
    figure, first = canvas(7.2, 2.9, title=title)
    first.remove()
    panels = figure.subplots(1, 3)
    top = max(p.max(), share.max())
    most = max(np.abs(share - p).max(), top / 3)
    density = {"cmap": "cividis", "vmin": 0, "vmax": top}
    difference = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    shown: dict[str, tuple[Any, dict[str, Any]]] = {
        "exact": (p, density),
        f"{n:,} points": (share, density),
        "too many (+), too few (-)": (share - p, difference),
    }
    for axes, (name, (values, look)) in zip(panels, shown.items(), strict=True):
        axes.imshow(values.T, origin="lower", extent=(0, 1, 0, 1), **look)
        axes.set_title(name, fontsize=10)
        axes.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel="x", ylabel="y")
        axes.tick_params(labelsize=9)
    for i, j in np.argwhere(off != 0):
        sign = "+" if off[i, j] > 0 else "\u2212"
        centre = ((i + 0.5) / bins, (j + 0.5) / bins)
        panels[2].annotate(sign, centre, ha="center", va="center", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    words = (
        f"total variation {metric.value:.2f} ({metric.low:.2f} to {metric.high:.2f}; "
        f"exact draws {metric.floor:.2f})"
    )
    return Plot(
        figure,
        f"{title or 'Points'} against the exact density: {words}; of {bins * bins} cells "
        f"{(off > 0).sum()} hold too many points and {(off < 0).sum()} too few.",
        words[0].upper() + words[1:] + ".",
    )
