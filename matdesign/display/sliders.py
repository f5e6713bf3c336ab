"""Sliders over anything that draws: live under a kernel, complete without one."""

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from matdesign.display.live import live, slider
from matdesign.display.pages import Live, to_json
from matdesign.display.plots import Plot
from matdesign.display.viewer import CrystalView
from matdesign.errors import DataError
from matdesign.tables import render

PLACES = 21
"""Places of a slider that is given as (low, high)."""

MOST_FRAMES = 231
"""Most pictures that a static page carries for one explorer."""


class Explorer(Live):
    """Sliders over a function that draws: live under a kernel, complete without one.

    With one or two sliders the static page holds every combination. With more it holds
    each slider's own line through the start: moving one slider puts the others back, and
    the page says so. Under a kernel all sliders move freely.

    Args:
        plot_function: takes the slider values by name, gives a `CrystalView` of one
            crystal, a `Plot` or a matplotlib figure. Defaults in its signature are the
            sliders' start.
        ranges: per argument `(low, high)`, `(low, high, places)` or a list of values.
            Two whole numbers make a slider of whole numbers.

    Raises:
        DataError: no range, a name that the function does not take, or an empty range.
    """

    def __init__(self, plot_function: Callable[..., Any], **ranges: Any) -> None:
        if not ranges:
            raise DataError(
                "nothing to explore: got no ranges. Give one per slider, like a=(0, 1)."
            )
        takes = inspect.signature(plot_function).parameters
        free = any(one.kind is one.VAR_KEYWORD for one in takes.values())
        for name in ranges:
            if name not in takes and not free:
                raise DataError(
                    f"{plot_function.__name__} takes no argument {name!r}; "
                    f"choose from {', '.join(takes)}."
                )
        self.plot_function = plot_function
        self.values = {name: _values(name, given) for name, given in ranges.items()}
        self.start = {
            name: _nearest(values, takes[name].default if name in takes else None)
            for name, values in self.values.items()
        }
        self.home = {name: self.values[name][n] for name, n in self.start.items()}
        whole = math.prod(len(values) for values in self.values.values())
        self.mode: Literal["grid", "star"] = (
            "grid" if len(ranges) <= 2 and whole <= MOST_FRAMES else "star"
        )
        alone = "Without a kernel one slider moves at a time; the others return."
        self.note = "" if self.mode == "grid" else alone

    def __repr__(self) -> str:
        sliders = ", ".join(f"{k} ({len(v)})" for k, v in self.values.items())
        return f"Explorer({self.plot_function.__name__}: {sliders})"

    def places(self) -> list[dict[str, Any]]:
        """Return the slider values of every frame of the static page, in its order."""
        names = list(self.values)
        if self.mode == "grid":
            product = itertools.product(*self.values.values())
            return [dict(zip(names, one, strict=True)) for one in product]
        return [
            {**self.home, name: value} for name in names for value in self.values[name]
        ]

    def draw(self, **values: Any) -> "CrystalView | Plot":
        """Return the drawing at one place of the sliders."""
        made = self.plot_function(**values)
        if isinstance(made, CrystalView | Plot):
            return made
        if hasattr(made, "savefig"):
            text = ", ".join(f"{k} = {_text(v)}" for k, v in values.items())
            return Plot(made, f"{self.plot_function.__name__} at {text}.")
        raise DataError(
            f"{self.plot_function.__name__} must return a CrystalView, a Plot or a "
            f"matplotlib figure; got {type(made).__name__}."
        )

    def to_html(self) -> str:
        """Return the static twin: every place of the sliders drawn beforehand."""
        drawn = [self.draw(**values) for values in self.places()]
        views = [one for one in drawn if isinstance(one, CrystalView)]
        plots = [one for one in drawn if isinstance(one, Plot)]
        if views and plots:
            raise DataError(
                f"{self.plot_function.__name__} must always return the same kind of "
                "drawing; got crystals at some places and plots at others."
            )
        return self._crystals(views) if views else self._plots(plots)

    def widget(self) -> Any:
        """Return the live sliders."""
        places = {k: slider(k, v, self.home[k]) for k, v in self.values.items()}
        return live(self.draw, places)

    def _spec(self) -> dict[str, Any]:
        sliders = [
            {"name": k, "values": [_text(x) for x in v], "start": self.start[k]}
            for k, v in self.values.items()
        ]
        return {"mode": self.mode, "sliders": sliders}

    def _start_frame(self) -> int:
        return self.places().index(self.home)

    def _crystals(self, views: list[CrystalView]) -> str:
        labels = [
            ", ".join(f"{k} = {_text(v)}" for k, v in values.items())
            for values in self.places()
        ]
        first = views[0]
        options = {
            k: v for k, v in first.data["options"].items() if k in CrystalView.OPTIONS
        }
        options.update(sliders=self._spec(), start=self._start_frame())
        whole = CrystalView(
            [one.structures[0] for one in views],
            labels,
            caption=" ".join(filter(None, [first.caption, self.note])),
            images=first.images,
            bonds=first.bonds,
            **options,
        )
        return whole.to_html()

    def _plots(self, plots: list[Plot]) -> str:
        return render(
            "explorer",
            start=self._start_frame(),
            data=to_json(self._spec()),
            plots=[one.to_html() for one in plots],
            note=self.note,
        )


explore = Explorer
"""As a verb, like `view`: `explore(draw, a=(0, 1))`."""


def _values(name: str, given: Any) -> list[Any]:
    """The values of one slider."""
    if isinstance(given, list | range):
        values = list(given)
    elif isinstance(given, tuple) and len(given) in (2, 3):
        low, high = given[:2]
        if not low < high:
            raise DataError(
                f"the range of {name} must rise; got ({low}, {high}). Swap its ends."
            )
        whole = isinstance(low, int) and isinstance(high, int)
        places = given[2] if len(given) == 3 else PLACES
        if whole and (len(given) == 2 and high - low < 2 * PLACES):
            return list(range(low, high + 1))
        line = np.linspace(low, high, places)
        values = sorted({round(x) for x in line}) if whole else _round(line)
    else:
        raise DataError(
            f"the range of {name} must be (low, high), (low, high, places) or a list; "
            f"got {given!r}."
        )
    if len(values) < 2:
        raise DataError(f"{name} has {len(values)} value; a slider needs two or more.")
    return values


def _round(line: Any) -> list[float]:
    """Round to what the spacing can tell apart, so that labels stay short."""
    spacing = float(line[1] - line[0])
    digits = max(0, 2 - math.floor(math.log10(spacing)))
    return [round(float(x), digits) + 0.0 for x in line]


def _nearest(values: list[Any], wanted: Any) -> int:
    """Place of the value nearest to the start that the function's default asks for."""
    if wanted is None or wanted is inspect.Parameter.empty:
        return len(values) // 2
    if wanted in values:
        return values.index(wanted)
    if all(isinstance(x, int | float) for x in [*values, wanted]):
        return int(np.argmin([abs(x - wanted) for x in values]))
    return 0


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
