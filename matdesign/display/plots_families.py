"""Plots that belong to one architecture, or that the chapters on them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.display import picture, scene
from matdesign.display.plots import (
    COLORS,
    MARKERS,
    Plot,
    canvas,
    draw_lines,
    plot_histogram,
)
from matdesign.metrics.summary import Metric
from matdesign.tables import render


class Gallery:
    """All crystals of a batch as one grid of still pictures, none left out.

    Args:
        crystals: what to draw; keep it below a hundred.
        caption: text under the grid.
    """

    def __init__(self, crystals: Crystals, *, caption: str = "") -> None:
        self.names, self.caption = crystals.formulas, caption
        self.pictures = []
        for one in crystals:
            symbols = sorted({site.specie.symbol for site in one})
            kinds = {symbol: k for k, symbol in enumerate(symbols)}
            drawn = scene.frame(one, kinds, images="none", with_bonds=False)
            alt = f"{one.composition.reduced_formula}, {len(one)} atoms"
            table = scene.species_table(symbols)
            self.pictures.append(picture.draw(drawn, table, alt, width=120, height=120))

    def __repr__(self) -> str:
        return f"Gallery of {len(self.pictures)}: {', '.join(self.names[:8])} ..."

    def _repr_html_(self) -> str:
        pictures = list(zip(self.pictures, self.names, strict=True))
        return render("gallery", pictures=pictures, caption=self.caption)


gallery = Gallery
"""As a verb, like `explore`."""


def plot_latent_map(
    points: Tensor,
    groups: Sequence[str],
    *,
    share: Sequence[float] = (),
) -> Plot:
    """Return latents in a plane, coloured and marked by group; the six largest are named.

    Args:
        points: shape (crystals, 2).
        groups: name of each crystal's group.
        share: of the variance along both axes.
    """
    figure, axes = canvas(6.4, 4.6)
    names, counts = np.unique(list(groups), return_counts=True)
    order = [str(names[i]) for i in np.argsort(-counts, kind="stable")[:6]]
    label = np.array(list(groups))
    at = points.numpy()
    rest = ~np.isin(label, order)
    if rest.any():
        axes.scatter(at[rest, 0], at[rest, 1], s=6, color="#bbbbbb", label="other")
    for n, name in enumerate(order):
        x, y = at[label == name].T
        look: dict[str, Any] = {"color": COLORS[n], "marker": MARKERS[n], "label": name}
        axes.scatter(x, y, s=16, alpha=0.7, linewidths=0, **look)
    axis = [f" ({float(s):.0%} of the variance)" for s in share] or ["", ""]
    axes.set(xlabel=f"first direction{axis[0]}", ylabel=f"second direction{axis[1]}")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    centre = {n: at[label == n].mean(0) for n in order}
    where = "; ".join(f"{n} around ({x:.1f}, {y:.1f})" for n, (x, y) in centre.items())
    return Plot(figure, f"Map of {len(at)} latents. {where}.")


def plot_draws(curves: dict[str, tuple[Any, Any]], *, xlabel: str, ylabel: str) -> Plot:
    """Return lines through (x, y), one per name, readable in grey.

    Args:
        curves: name -> (x, y).
        xlabel: of the axis.
        ylabel: of the axis.
    """
    figure, _ = draw_lines(curves, xlabel=xlabel, ylabel=ylabel)
    peaks = {
        k: np.asarray(x)[int(np.asarray(y).argmax())] for k, (x, y) in curves.items()
    }
    found = (f"{name} is highest at {float(x):.3g}" for name, x in peaks.items())
    return Plot(figure, f"{ylabel} against {xlabel}: {'; '.join(found)}.")


def plot_price(points: Mapping[str, tuple[float, Metric]]) -> Plot:
    """Return what each model costs against how good its crystals are.

    Args:
        points: name -> (network evaluations per crystal, a rate with its interval).
    """
    figure, axes = canvas(6.4, 3.6)
    for i, (name, (cost, rate)) in enumerate(points.items()):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        spread = [[rate.value - rate.low], [rate.high - rate.value]]
        axes.errorbar(
            cost, rate.value, spread, color=color, marker=marker, capsize=3, label=name
        )
    axes.set_xscale("log")
    axes.set_xlabel("network evaluations per crystal")
    axes.set_ylabel(next(iter(points.values()))[1].name)
    axes.set_ylim(0, 1.05)
    axes.legend(fontsize=9, frameon=False)
    told = "; ".join(
        f"{name}: {rate.figure()} at {cost:.0f}"
        for name, (cost, rate) in points.items()
    )
    return Plot(figure, f"Rate against evaluations per crystal. {told}.")


def plot_uniform(parts: dict[str, Tensor], *, label: str = "latent coordinate") -> Plot:
    """Return histograms of numbers that should be uniform on [0, 1), one per name.

    The grey band holds 95 % of the bars of uniform numbers, as many as the first has.

    Args:
        parts: name -> numbers, any shape.
        label: of the axis.
    """
    made = plot_histogram(parts, label=label, bins=20, span=(0.0, 1.0))
    most = max(1, next(iter(parts.values())).numel())
    low, high = (1 + x * np.sqrt(19 / most) for x in (-1.96, 1.96))
    axes = made.figure.axes[0]
    axes.axhspan(low / 20, high / 20, color="#dddddd", zorder=0, label="uniform, 95 %")
    axes.legend(frameon=False, fontsize=10)
    heights = (
        np.histogram(x.flatten(), 20, (0, 1), density=True)[0] for x in parts.values()
    )
    found = (
        f"{name}: bars from {height.min():.2f} to {height.max():.2f}"
        for name, height in zip(parts, heights, strict=True)
    )
    made.alt = f"{label}; flat would be 1. {'; '.join(found)}."
    return made


def plot_volume_changes(
    changes: dict[str, Tensor], *, names: Sequence[str] = ()
) -> Plot:
    """Return how much each layer of a flow stretches space, added up from the noise.

    Args:
        changes: name -> ln |det| of each layer, data side first, (layers, crystals).
        names: of the layers, data side first.
    """
    totals = {
        name: np.concatenate([[0.0], np.cumsum(each.mean(1).numpy()[::-1])])
        for name, each in changes.items()
    }
    figure, axes = draw_lines(
        {name: (range(len(total)), total) for name, total in totals.items()},
        marked=1,
        size=(6.4, 3.4),
        xlabel="after layer",
        ylabel="log density (nats)",
    )
    ticks = ["noise", *list(names)[::-1]]
    axes.set_xticks(range(len(next(iter(totals.values())))), ticks)
    axes.axhline(0, color="black", lw=0.6)
    found = (f"{name} ends at {total[-1]:.1f} nats" for name, total in totals.items())
    return Plot(figure, f"Log density gained layer by layer: {'; '.join(found)}.")


def plot_next_site(said: Any, *, of: str = "position") -> Plot:
    """Return the ten likeliest choices after some sites as bars, and the crystal's end.

    Args:
        said: a `NextSite`, from `completion.next_site`.
        of: "position" or "element".
    """
    share = said.letters() if of == "position" else said.elements()
    best = sorted(share.items(), key=lambda one: -one[1])[:10]
    names = [name for name, p in best if p > 0.002]
    values = [p for _, p in best if p > 0.002]
    figure, axes = canvas(6.2, 3.0, title=repr(said.partial)[8:-1])
    axes.bar(range(len(names)), values, color=COLORS[0], label=f"next {of}")
    end = len(names)
    look: dict[str, Any] = {"color": COLORS[1], "hatch": "//", "label": "complete"}
    axes.bar([end], [said.stop], edgecolor="white", **look)
    axes.set_xticks(range(end + 1), [*names, "end"])
    axes.set(ylabel="probability", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=10)
    first = f"{names[0]} with {values[0]:.2f}" if names else "nothing"
    return Plot(
        figure,
        f"After {repr(said.partial)[8:-1]}: likeliest {of} {first}; complete with "
        f"{said.stop:.2f}.",
    )


def plot_score_field(
    points: Tensor,
    arrows: Tensor,
    *,
    home: Tensor,
    others: Mapping[str, Tensor],
    moved: str,
    title: str = "",
) -> Plot:
    """Return where a score pushes one atom that stands at each point of a plane.

    The alt text counts at how many points the push leads towards the atom's own place, by
    the shortest way through the periodic boundary.

    Args:
        points: places of the atom in fractions of two cell edges, shape (points, 2).
        arrows: the score there, in the same fractions, shape (points, 2).
        home: where the atom belongs, shape (2,).
        others: symbol -> places of the atoms that stay, shape (atoms, 2).
        moved: symbol of the atom that is moved.
        title: above the axes.
    """
    figure, axes = canvas(5.0, 4.4, title=title)
    axes.grid(False)
    long = arrows.norm(dim=-1)
    shown = arrows / long.max().clamp(min=1e-9)
    axes.quiver(
        *points.numpy().T, *shown.numpy().T, color="#555555", pivot="tail", width=0.004
    )
    edges = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    for n, (symbol, places) in enumerate(others.items(), start=1):
        look: dict[str, Any] = {"color": COLORS[n], "marker": MARKERS[n]}
        x, y = (places.numpy()[:, None] + edges).reshape(-1, 2).T
        axes.scatter(x, y, s=110, label=f"{symbol}, stays", **look)
    x, y = home.numpy()
    axes.scatter(
        x, y, s=130, facecolors="none", edgecolors=COLORS[0], linewidths=2,
        label=f"place of {moved}",
    )  # fmt: skip
    axes.set(
        xlabel="fraction of edge a", ylabel="fraction of edge b", aspect="equal",
        xlim=(-0.05, 1.05), ylim=(-0.05, 1.05),
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    way = home - points
    way = way - way.round()
    away = way.norm(dim=-1) > 1e-6
    right = ((way * arrows).sum(-1) > 0)[away]
    return Plot(
        figure,
        f"Score of one {moved} atom over a plane: at {int(right.sum())} of {len(right)} "
        f"points it leads towards the atom's own place; root mean square "
        f"{float(long.square().mean().sqrt()):.2g} per cell edge.",
    )


def plot_decided(times: Sequence[float], lines: Mapping[str, Sequence[float]]) -> Plot:
    """Return how much of each part of a crystal is decided as noise is taken away.

    Args:
        times: generative time of each frame, from 1 downwards.
        lines: name of a part -> share decided at each time, 0 at the start and 1 at the
            end.
    """
    figure, axes = draw_lines(
        {name: (times, shares) for name, shares in lines.items()},
        marked=4,
        size=(6.2, 3.4),
        xlabel="generative time t (noise left, data right)",
        ylabel="share decided",
        xlim=(1, 0),
        ylim=(-0.1, 1.05),
    )
    axes.axhline(0.5, color="black", lw=0.6)
    half = {name: half_decided(times, shares) for name, shares in lines.items()}
    found = (f"{name} half decided at t = {t:.2f}" for name, t in half.items())
    return Plot(figure, f"How much is decided against time: {'; '.join(found)}.")


def half_decided(times: Sequence[float], shares: Sequence[float]) -> float:
    """Return the time at which a share passes one half for good, going down from 1.

    Example:
        >>> half_decided([1.0, 0.5, 0.0], [0.0, 0.5, 1.0])
        0.5
    """
    below = [i for i, share in enumerate(shares) if share < 0.5]
    if not below or below[-1] + 1 == len(shares):
        return times[0] if not below else times[-1]
    i = below[-1]
    part = (0.5 - shares[i]) / (shares[i + 1] - shares[i])
    return times[i] + part * (times[i + 1] - times[i])
