"""The plots of the book and the reports: readable in grey, each with words for its finding."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.tables import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette in an order whose neighbours also differ in grey."""

LINES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))
"""Line styles: colour is never the only code."""

HATCHES = ("", "//", "..", "xx", "\\\\", "++")
MARKERS = ("o", "s", "^", "D", "v", "P")

HEAVY_SVG = 80_000
"""A drawing larger than this (bytes) travels as pixels instead, where those are lighter."""


@dataclass
class Plot:
    """A matplotlib figure with the sentence that says what it shows.

    Args:
        figure: the figure; change it as you like before it is shown.
        alt: the finding, for people who do not see the picture.
        caption: text under the picture.
    """

    figure: "Figure"
    alt: str
    caption: str = ""

    def __repr__(self) -> str:
        return f"Plot: {self.alt}"

    def to_html(self) -> str:
        """Return the picture as one HTML figure with its data inside."""
        width = round(96 * self.figure.get_figwidth())  # pixels in CSS, also of a PNG
        return render(
            "plot", uri=self._uri(), width=width, alt=self.alt, caption=self.caption
        )

    def _uri(self) -> str:
        import matplotlib as mpl

        rc: Any = {"svg.fonttype": "none", "svg.hashsalt": "matdesign"}
        with mpl.rc_context(rc):
            svg = self._bytes("svg", metadata={"Date": None})
        kind, data = "svg+xml", svg
        if len(svg) > HEAVY_SVG:
            png = self._bytes("png", dpi=180)
            if len(png) < len(svg):
                kind, data = "png", png
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    def _bytes(self, form: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        self.figure.savefig(stream, format=form, **options)
        return stream.getvalue()

    def _repr_html_(self) -> str:
        return self.to_html()


def canvas(
    width: float = 6.0, height: float = 3.4, *, title: str = ""
) -> tuple["Figure", "Axes"]:
    """Return a figure and its axes in the book's style, without global settings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, fontsize=11, loc="left")
    return figure, axes


def draw_lines(
    curves: Mapping[str, tuple[Any, Any]],
    *,
    marked: int = 0,
    size: tuple[float, float] = (6.0, 3.4),
    title: str = "",
    **axis: Any,
) -> tuple["Figure", "Axes"]:
    """Return lines through (x, y), one per name, that differ by more than their colour.

    Args:
        curves: name -> (x, y).
        marked: each how many points bear a marker; 0 for none.
        size: of the figure, inches.
        title: above the axes.
        **axis: settings of the axes, such as `xlabel`.
    """
    figure, axes = canvas(*size, title=title)
    for n, (name, (x, y)) in enumerate(curves.items()):
        look: dict[str, Any] = {"color": COLORS[n % 6], "linestyle": LINES[n % 6]}
        if marked:
            look |= {"marker": MARKERS[n % 6], "markevery": marked, "ms": 5}
        axes.plot(x, y, lw=1.8, label=name, **look)
    axes.set(**axis)
    axes.legend(frameon=False, fontsize=10)
    return figure, axes


# ---- distributions --------------------------------------------------------------------


def plot_histogram(
    samples: Mapping[str, ArrayLike | torch.Tensor],
    *,
    label: str,
    unit: str = "",
    bins: int = 30,
    span: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
) -> Plot:
    """Return overlaid histograms of several sets, each normalised to its own size.

    Args:
        samples: name -> values; NaN is left out and counted in the legend.
        label: what the values are.
        unit: their unit.
        bins: number of bars over the shared span.
        span: range to show; the middle 99 % of all values when left out.
        marks: name -> value, drawn as upright lines.

    Raises:
        DataError: a set has no finite value.
    """
    finite = {name: _finite(name, values) for name, values in samples.items()}
    everything = np.concatenate(list(finite.values()))
    low, high = span or tuple(np.percentile(everything, [0.5, 99.5]))
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    figure, axes = canvas()
    for n, (name, values) in enumerate(finite.items()):
        share = np.histogram(values, edges)[0] / len(values)
        missing = np.asarray(samples[name]).size - len(values)
        text = f"{name} ({len(values):,}" + (
            f", {missing} unknown)" if missing else ")"
        )
        axes.stairs(
            share, edges, fill=n == 0, color=COLORS[n], alpha=0.3 if n == 0 else 1
        )
        axes.stairs(share, edges, color=COLORS[n], linestyle=LINES[n], lw=2, label=text)
    for name, value in (marks or {}).items():
        axes.axvline(value, color="#333333", linestyle="--", linewidth=1)
        over = axes.get_xaxis_transform()  # above the frame, clear of the legend
        axes.text(value, 1.01, name, transform=over, ha="center", fontsize=9)
    full = f"{label} ({unit})" if unit else label
    axes.set(xlabel=full, ylabel="share of crystals", xlim=(low, high))
    axes.legend(frameon=False, fontsize=10)
    found = "; ".join(
        f"{name}: median {np.median(v):.3g}, middle half {np.percentile(v, 25):.3g} to "
        f"{np.percentile(v, 75):.3g}"
        for name, v in finite.items()
    )
    return Plot(figure, f"Histogram of {full}. {found}.")


def plot_distances(
    batches: Mapping[str, Crystals], *, reach: float = 6.0, bins: int = 120
) -> Plot:
    """Return the radial distribution function g(r), averaged over each batch.

    How often another atom sits at distance r, compared with the same number of atoms
    strewn evenly: g = 1 is no order. The first rise is the shortest bond of the batch.

    Equation:
        g(r) = (1/B) sum_b [pairs_b(r, r + dr) / (n_b 4 pi r^2 dr n_b / V_b)]

    Args:
        batches: name -> crystals.
        reach: largest distance, angstrom.
        bins: number of steps up to it.
    """
    edges = np.linspace(0.0, reach, bins + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    shell = 4 * np.pi / 3 * (edges[1:] ** 3 - edges[:-1] ** 3)
    curves, found = {}, []
    for name, batch in batches.items():
        total = np.zeros(bins)
        shortest = np.inf
        for one in batch:
            distance = one.get_neighbor_list(r=reach, exclude_self=True)[3]
            seen = np.histogram(distance, edges)[0]
            total += seen / (len(one) * shell * len(one) / one.volume)
            shortest = min(shortest, float(distance.min(initial=np.inf)))
        found.append(f"{name}: shortest distance {shortest:.2f} Å")
        curves[f"{name} ({len(batch):,})"] = middle, total / max(len(batch), 1)
    axis: dict[str, Any] = {"xlim": (0, reach), "ylim": (0, None)}
    figure, axes = draw_lines(curves, xlabel="distance r (Å)", ylabel="g(r)", **axis)
    axes.axhline(1, color="#333333", linewidth=0.8)
    return Plot(figure, f"Radial distribution function. {'; '.join(found)}.")


# ---- elements and training ------------------------------------------------------------


def plot_element_map(crystals: Crystals) -> Plot:
    """Return a periodic table that says in how many crystals each element occurs.

    The number stands in the cell, so that the shade (logarithmic) is never the only code.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, to_rgba
    from matplotlib.patches import Rectangle

    present = torch.zeros(len(crystals), elements.MAX_Z + 1, dtype=torch.bool)
    present.scatter_(1, crystals.species.cpu(), True)
    counts = [0, *present.sum(0).tolist()[1:]]  # entry 0 is padding
    if not any(counts):
        raise DataError("nothing to count: got no crystals. Give at least one.")
    figure, axes = canvas(8.4, 4.6)
    norm, shades = LogNorm(1, max(*counts, 2)), colormaps["cividis_r"]
    for z in range(1, elements.MAX_Z + 1):
        column, row = _place(z)
        color = shades(0.05 + 0.9 * float(norm(counts[z]))) if counts[z] else "#f2f2f2"
        red, green, blue, _ = to_rgba(color)
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        if not counts[z]:
            ink = "#767676"
        axes.add_patch(
            Rectangle(
                (column, -row), 0.94, 0.94, facecolor=color, edgecolor="#999999", lw=0.5
            )
        )
        axes.text(
            column + 0.47, -row + 0.6, elements.symbols()[z],
            ha="center", va="center", fontsize=9.5, color=ink, weight="bold",
        )  # fmt: skip
        if counts[z]:
            axes.text(
                column + 0.47, -row + 0.24, f"{counts[z]}",
                ha="center", va="center", fontsize=6.8, color=ink,
            )  # fmt: skip
    axes.set(xlim=(0.9, 19.1), ylim=(-9.6, 0.1), aspect="equal")
    axes.axis("off")
    occur = [z for z, count in enumerate(counts) if count]
    often = sorted(occur, key=lambda z: -counts[z])[:5]
    found = ", ".join(f"{elements.symbols()[z]} {counts[z]:,}" for z in often)
    return Plot(
        figure,
        f"Periodic table of {len(crystals):,} crystals: "
        f"{len(occur)} elements occur, most often {found}.",
    )


def plot_losses(
    curves: Mapping[str, Sequence[float]],
    steps: Sequence[float] | None = None,
) -> Plot:
    """Return loss terms against training steps, on a logarithmic axis.

    Args:
        curves: name of the term -> its values.
        steps: the step of each value; 1, 2, 3 ... when left out.
    """
    drawn = {name: _finite(name, values) for name, values in curves.items()}
    most = max(map(len, drawn.values()))
    at = np.arange(1, most + 1) if steps is None else np.asarray(steps)
    figure, axes = draw_lines(
        {name: (at[: len(line)], line) for name, line in drawn.items()},
        marked=max(1, most // 8),
        xlabel="step",
        ylabel="loss",
    )
    if all(line.min() > 0 for line in drawn.values()):
        axes.set_yscale("log")
    found = (f"{k} from {line[0]:.3g} to {line[-1]:.3g}" for k, line in drawn.items())
    return Plot(figure, f"Training curves: {'; '.join(found)}.")


# ---- small things ---------------------------------------------------------------------


def _finite(name: str, values: Any) -> NDArray[np.float64]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    flat: NDArray[np.float64] = np.asarray(values, dtype=np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        raise DataError(
            f"{name} has no finite value to draw; drop it or compute it first."
        )
    return flat


def _place(z: int) -> tuple[float, float]:
    """Column and row of an element in the long drawing of the table, f block below."""
    if 57 <= z <= 70 or 89 <= z <= 102:
        return 3.0 + (z - 57 if z <= 70 else z - 89), 8.5 if z <= 70 else 9.5
    return elements.table("group")[z].item(), elements.table("row")[z].item()
