"""Live controls under a kernel, over anything that draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matdesign.display.viewer import CrystalView, LiveViewer


def live(draw: Callable[..., Any], controls: Mapping[str, Any]) -> Any:
    """Return widgets over a function that gives a `CrystalView`, a `Plot` or HTML.

    Args:
        draw: takes the value of each control by its name.
        controls: name -> a widget with a value.
    """
    import ipywidgets

    def made() -> Any:
        one = draw(**{name: control.value for name, control in controls.items()})
        return one.to_html() if hasattr(one, "figure") else one

    first = made()
    if isinstance(first, CrystalView):
        viewer = LiveViewer(first.data)
        shown = viewer.box()
    else:
        shown = ipywidgets.HTML(first)

    def move(_: Any) -> None:
        now = made()
        if isinstance(now, CrystalView):
            viewer.data = now.data
            viewer.draw(now.data["frames"][0])
        else:
            shown.value = now

    for control in controls.values():
        control.observe(move, "value")
    return ipywidgets.VBox([shown, *controls.values()])


def slider(name: str, values: Sequence[Any], start: Any) -> Any:
    """Return a slider over a list of values."""
    import ipywidgets

    texts = [f"{x:.4g}" if isinstance(x, float) else str(x) for x in values]
    return ipywidgets.SelectionSlider(
        options=[*zip(texts, values, strict=True)], value=start, description=name
    )


def tick(name: str, on: bool) -> Any:
    """Return a box to tick."""
    import ipywidgets

    return ipywidgets.Checkbox(value=on, description=name)


def stack(text: str, views: Sequence[CrystalView], box: Any = None) -> Any:
    """Return HTML above viewers, in a new box or in the one that is shown already."""
    import ipywidgets

    parts = [ipywidgets.HTML(text), *(LiveViewer(one.data).box() for one in views)]
    box = box or ipywidgets.VBox()
    box.children = parts
    return box
