"""HTML around viewers: the assets they need, legends, and whole pages that stand alone."""

import base64
import gzip
import json
import os
from abc import ABC, abstractmethod
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from matdesign.errors import DataError
from matdesign.tables import ASSETS, render

STATIC = "MATDESIGN_STATIC"
"""Set this environment variable to get the static form also under a kernel."""


class Live(ABC):
    """What a notebook gets as a live widget, with HTML for readers without a kernel."""

    @abstractmethod
    def to_html(self) -> str:
        """Return what stands on a page."""

    @abstractmethod
    def widget(self) -> Any:
        """Return what stands in a notebook that runs."""

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> dict[str, Any]:
        live = {} if os.environ.get(STATIC) else self.widget()._repr_mimebundle_()
        return {**live, "text/plain": repr(self), "text/html": self.to_html()}


@cache
def ngl_script() -> str:
    """Return NGL as one script that sets `window.NGL`, taken from the nglview package.

    Raises:
        DataError: nglview is not installed, or not in the version that this was made for.
    """
    try:
        found = metadata.files("nglview") or []
    except metadata.PackageNotFoundError:
        found = []
    for entry in found:
        if "labextensions" in entry.parts and entry.name.endswith(".js"):
            text = Path(str(entry.locate())).read_text(encoding="utf-8")
            if "Stage:()=>" in text and "SphereBuffer:()=>" in text:
                door = (ASSETS / "ngl-door.js").read_text(encoding="utf-8")
                return door.replace("/*CHUNK*/", text)
    raise DataError(
        "the 3D library NGL was not found inside the package nglview; "
        "install nglview==4.0 (`pip install nglview==4.0`)."
    )


@cache
def standalone_assets() -> str:
    """Return the style and script tags that viewers and sliders need, offline, once a page.

    About 0.5 MB: NGL (MIT licence) travels gzipped and is unpacked by the browser when the
    first viewer comes near the screen.
    """
    packed = base64.b64encode(gzip.compress(ngl_script().encode(), mtime=0)).decode()
    style = (ASSETS / "crystal-view.css").read_text(encoding="utf-8")
    script = (ASSETS / "crystal-view.js").read_text(encoding="utf-8")
    return render("assets", style=style, packed=packed, script=script)


def page(title: str, body: str) -> str:
    """Return a whole HTML document around viewers and figures, assets included."""
    return render("page", title=title, body=body, assets=standalone_assets())


def to_json(data: Any) -> str:
    """Return JSON that is safe inside a script tag; refuses NaN."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
