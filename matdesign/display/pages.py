"""HTML around viewers: the assets they need, legends, and whole pages that stand alone."""

import base64
import gzip
import html
import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from matdesign.errors import DataError

ASSETS = Path(__file__).resolve().parents[1] / "assets"


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
    return (
        f"<style>{style}</style>\n"
        "<!-- NGL Viewer, (c) Alexander Rose and contributors, MIT licence -->\n"
        f'<script type="application/octet-stream" id="matdesign-ngl">{packed}</script>\n'
        f"<script>{script}</script>\n"
    )


def page(title: str, body: str, *, language: str = "en") -> str:
    """Return a whole HTML document around viewers and figures, assets included."""
    return (
        f'<!DOCTYPE html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title></head>\n<body>\n"
        f"{standalone_assets()}{body}\n</body></html>\n"
    )


def legend(species: list[dict[str, Any]], *, inline: bool = False) -> str:
    """Return coloured dots with element symbols and names; `inline` carries its style."""
    box = ' style="display:flex;gap:1em;flex-wrap:wrap"' if inline else ""
    dot = "padding:0 .4em;border-radius:1em;border:1px solid #333;" if inline else ""
    rows = "".join(
        f'<span><i style="{dot}background:{kind["color"]};color:{kind["ink"]}">'
        f"{kind['symbol']}</i> {kind['name']}</span>"
        for kind in species
    )
    return f'<div class="cv-legend"{box}>{rows}</div>'


def beside(frame: dict[str, Any]) -> str:
    """Return what a frame of a viewer shows under the legend: a drawing, or nothing."""
    drawing = frame.get("beside", "")
    return f'<div class="cv-beside">{drawing}</div>' if drawing else ""


def to_json(data: Any) -> str:
    """Return JSON that is safe inside a script tag; refuses NaN."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
