"""`GuideDesk`: choose constraints, slide the scale, see what it buys and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

from matdesign.constraints.base import Constraint
from matdesign.constraints.checks import check
from matdesign.crystals.batch import Crystals
from matdesign.display.live import live, slider, tick
from matdesign.display.pages import Live
from matdesign.display.plots import COLORS, Plot, canvas
from matdesign.display.plots_families import gallery
from matdesign.display.sliders import Explorer
from matdesign.errors import DataError, MatdesignError
from matdesign.generators.contract import Generator
from matdesign.guidance.guide import Guide
from matdesign.metrics.evaluator import evaluate
from matdesign.metrics.intervals import wilson

SHOWN = 8
"""Crystals that are drawn below the plot, the first ones."""

FIGURES = ("meet the constraints", "valid", "unique", "novel")


@dataclass(frozen=True)
class Outcome:
    """What came of one place of the desk.

    Args:
        made: the crystals.
        counts: how many have each of `FIGURES`.
        drawn: crystals drawn for them.
        evaluations: network evaluations per crystal.
    """

    made: Crystals
    counts: Mapping[str, int]
    drawn: int
    evaluations: float


@dataclass(kw_only=True)
class Panel(Plot):
    """A plot with the crystals it counts below it.

    Args:
        made: the crystals.
    """

    made: Crystals

    def to_html(self) -> str:
        """Return the picture and the crystals as HTML."""
        rest = len(self.made) - SHOWN
        note = f"The first {SHOWN}, unselected; {rest} more were counted."
        shown = gallery(self.made[:SHOWN], caption=note if rest > 0 else "")
        return super().to_html() + shown._repr_html_()


class GuideDesk(Live):
    """Constraints to choose from, and a slider for how hard a generator is guided.

    Each place of the sliders is one guided sampling, kept once it was made: the share of
    crystals that meet the chosen constraints, that are valid, unique and novel, each with
    its interval, beside the same without any guide; and the first crystals, unselected.
    Hard constraints (elements, symmetry) always hold once the scale is above 0; soft ones
    (ranges, predictions) may be missed, so that there is something to see.

    Under a kernel any set of constraints can be ticked. A static page holds each one
    alone and all together.

    Args:
        model: any generator.
        constraints: what can be asked for, by a short name.
        train: the training set, for novelty.
        scales: places of the slider; 0, the unguided model, is always among them.
        n: crystals at each place.
        seed: of all samplings.
        **settings: for the sampler (`steps`, ...).

    Raises:
        DataError: no constraint, a scale below 0, or n below 1.
    """

    def __init__(
        self,
        model: Generator,
        constraints: Mapping[str, Constraint],
        train: Crystals,
        *,
        scales: Sequence[float] = (0.0, 1.0, 2.0, 4.0),
        n: int = 16,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        if not constraints:
            raise DataError(
                "a desk needs constraints to choose from; got none. Give some by name, "
                'such as {"dense": Density(6, 7)}.'
            )
        if n < 1 or min(scales, default=0.0) < 0:
            raise DataError(
                f"a desk needs n >= 1 and scales >= 0; got n = {n}, scales {scales}."
            )
        self.model, self.train = model, train
        self.constraints = dict(constraints)
        self.scales = sorted({0.0, *map(float, scales)})
        self.start = self.scales[min(1, len(self.scales) - 1)]
        self.n, self.seed, self.settings = n, seed, settings
        self._kept: dict[tuple[tuple[str, ...], float], Outcome] = {}
        self._free: Crystals | None = None

    def __repr__(self) -> str:
        names = ", ".join(self.constraints)
        return (
            f"GuideDesk of {type(self.model).__name__}: {names}; scales {self.scales}"
        )

    def run(self, names: Sequence[str], scale: float) -> Outcome:
        """Return what comes of guiding by some constraints at a scale.

        Args:
            names: which constraints; at least one.
            scale: of the guide; 0 is the unguided model.

        Raises:
            DataError: a name is unknown, or there is none.
            InfeasibleTarget: the constraints exclude each other or were not met.
        """
        chosen = tuple(name for name in self.constraints if name in names)
        if not chosen or set(names) - set(chosen):
            raise DataError(
                f"choose among {', '.join(self.constraints)}; got {list(names)!r}."
            )
        key = chosen, float(scale)
        if key not in self._kept:
            wanted = reduce(and_, (self.constraints[name] for name in chosen))
            self._kept[key] = self._sample(wanted, float(scale))
        return self._kept[key]

    def panel(self, names: Sequence[str], scale: float) -> Panel:
        """Return the plot and the crystals of one place; arguments as in `run`."""
        free, one = self.run(names, 0.0), self.run(names, scale)
        figure, axes = canvas(6.6, 2.7, title=f"{', '.join(names)}, scale {scale:g}")
        _bars(axes, free, one, self.n)
        shares = ", ".join(f"{k} {one.counts[k]}/{self.n}" for k in FIGURES)
        caption = (
            f"{one.drawn} drawn for {self.n}; {one.evaluations:.0f} network evaluations "
            f"a crystal, {free.evaluations:.0f} without a guide. Bars: 95 % intervals."
        )
        return Panel(figure, f"At scale {scale:g}: {shares}.", caption, made=one.made)

    def to_html(self) -> str:
        """Return the static twin: each constraint alone and all together, every scale."""
        return self._explorer().to_html()

    def widget(self) -> Any:
        """Return the live desk: tick constraints, slide the scale."""
        ticks = {name: tick(name, not n) for n, name in enumerate(self.constraints)}

        def draw(**values: Any) -> str:
            names = [name for name in ticks if values[name]]
            try:
                return self.panel(names, values["scale"]).to_html()
            except MatdesignError as error:
                return f"<p>{error}</p>"

        scale = slider("scale", self.scales, self.start)
        scale.continuous_update = False
        return live(draw, {**ticks, "scale": scale})

    def _explorer(self) -> Explorer:
        choices = {name: [name] for name in self.constraints}
        if len(choices) > 1:
            choices["all"] = list(self.constraints)

        def draw(
            constraint: str = next(iter(self.constraints)), scale: float = self.start
        ) -> Panel:
            return self.panel(choices[constraint], scale)

        which = {"constraint": list(choices)} if len(choices) > 1 else {}
        return Explorer(draw, **which, scale=list(self.scales))

    def _sample(self, wanted: Constraint, scale: float) -> Outcome:
        if scale == 0:
            if self._free is None:
                self._free = self.model.sample(self.n, seed=self.seed, **self.settings)
            made = self._free
        else:
            how = {"guide": self._guide(wanted, scale), **self.settings}
            made = self.model.sample(self.n, seed=self.seed, **how)
        judged = evaluate(made, self.train)
        counts = {name: int(judged.table[name].sum()) for name in FIGURES[1:]}
        counts[FIGURES[0]] = int(check(made, wanted).met.sum())
        log = made.info.get("guide", {})
        cost = made.info.get("network_evaluations") or 0
        return Outcome(made, counts, int(log.get("drawn", self.n)), cost / self.n)

    def _guide(self, wanted: Constraint, scale: float) -> Guide:
        """Return a guide by gradients where a soft constraint can have them."""
        if not wanted.hard:
            with suppress(DataError):
                slopes = Guide(wanted, "gradient", scale=scale, strict="hard")
                slopes.plan(self.model)
                return slopes
        return Guide(wanted, scale=scale, strict="hard")


def _bars(axes: Any, free: Outcome, one: Outcome, n: int) -> None:
    """Draw the shares of two batches with their intervals, one group per figure."""
    for k, (batch, label) in enumerate(((free, "no guide"), (one, "guided"))):
        shares = [batch.counts[name] / n for name in FIGURES]
        ends = [wilson(batch.counts[name], n) for name in FIGURES]
        below = [s - low for s, (low, _) in zip(shares, ends, strict=True)]
        above = [high - s for s, (_, high) in zip(shares, ends, strict=True)]
        axes.bar(
            [i + 0.4 * k - 0.2 for i in range(len(FIGURES))],
            shares,
            0.36,
            yerr=[below, above],
            color=COLORS[k],
            hatch="" if k else "//",
            edgecolor="white",
            ecolor="#333333",
            capsize=3,
            label=label,
        )
    axes.set_xticks(range(len(FIGURES)), FIGURES)
    axes.set(ylim=(0, 1.05), ylabel="share of crystals")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
