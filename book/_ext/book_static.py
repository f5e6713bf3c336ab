"""Sphinx extension of the book: static output from every kernel, no script from outside, and
every page to download as a notebook."""

import os
from typing import Any

from matdesign.display.listing import without_docstrings

OUTSIDE = ("THEBE_JS_URL", "sphinx-thebe.js")
"""Marks of scripts that would fetch a live kernel's front end; our pages need none."""


def keep_local_scripts(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop the scripts of sphinx-thebe, which come from outside and are written twice."""

    def ours(script: Any) -> bool:
        body = str(getattr(script, "attributes", {}).get("body", ""))
        return not any(mark in body or mark in str(script) for mark in OUTSIDE)

    context["script_files"] = [s for s in context.get("script_files", []) if ours(s)]


def offer_notebook(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Let the theme's download button name the notebook that `scripts/chapters.py` makes."""
    if pagename.startswith("book/"):
        context["ipynb_source"] = f"{pagename}.ipynb"


def drop_docstrings(app: Any, doctree: Any) -> None:
    """Take docstrings out of included source; numbered listings keep their lines."""
    for node in doctree.findall(lambda one: one.tagname == "literal_block"):
        if str(node.get("source", "")).endswith(".py") and not node.get("linenos"):
            node.rawsource = without_docstrings(node.astext())
            node[0] = type(node[0])(node.rawsource)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx; kernels that it starts inherit the switch to static output."""
    os.environ["MATDESIGN_STATIC"] = "1"
    app.connect("doctree-read", drop_docstrings)
    app.connect("html-page-context", offer_notebook, priority=100)
    app.connect("doctree-read", drop_docstrings)
    app.connect("html-page-context", keep_local_scripts, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
