"""Live controls under a kernel: sliders and ticks over anything that draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matdesign.display.viewer import CrystalView, LiveViewer


def live_sliders(
    draw: Callable[..., Any], values: dict[str, list[Any]], start: dict[str, int]
) -> Any:
    """Return live sliders over a function that gives a `CrystalView` or a `Plot`."""
    import ipywidgets

    sliders = {
        name: ipywidgets.SelectionSlider(
            options=[(f"{x:.4g}" if isinstance(x, float) else str(x), x) for x in row],
            value=row[start[name]],
            description=name,
            continuous_update=True,
        )
        for name, row in values.items()
    }
    first = draw(**{name: one.value for name, one in sliders.items()})
    if isinstance(first, CrystalView):
        live = LiveViewer(first.data)
        shown = live.box()
    else:
        shown = ipywidgets.HTML(first.to_html())

    def move(_: Any) -> None:
        made = draw(**{name: one.value for name, one in sliders.items()})
        if isinstance(made, CrystalView):
            live.data = made.data
            live.draw(made.data["frames"][0])
        else:
            shown.value = made.to_html()

    for one in sliders.values():
        one.observe(move, "value")
    return ipywidgets.VBox([shown, *sliders.values()])


def live_ticks(
    draw: Callable[[list[str], Any], str],
    names: list[str],
    slider: str,
    values: list[Any],
    start: Any,
) -> Any:
    """Return ticks and one slider over a function that gives HTML.

    Args:
        draw: takes the names that are ticked, at least one, and the slider's value.
        names: of the ticks; the first one is set at the start.
        slider: name of the slider.
        values: its places.
        start: the first of them.
    """
    import ipywidgets

    ticks = [
        ipywidgets.Checkbox(value=not n, description=x) for n, x in enumerate(names)
    ]
    options = [(f"{x:g}", x) for x in values]
    places = ipywidgets.SelectionSlider(
        options=options, value=start, description=slider, continuous_update=False
    )
    shown = ipywidgets.HTML()

    def show(_: Any = None) -> None:
        ticked = [one.description for one in ticks if one.value]
        shown.value = draw(ticked, places.value) if ticked else "<p>Tick one.</p>"

    for one in (*ticks, places):
        one.observe(show, "value")
    show()
    return ipywidgets.VBox([ipywidgets.HBox(ticks), places, shown])
