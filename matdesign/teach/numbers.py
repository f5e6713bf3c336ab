"""Sentences whose numbers are computed: the prose of a chapter that runs as a notebook."""

import re
from collections.abc import Mapping
from typing import Any

NUMBERS: dict[str, Any] = {}
"""What the notebook has computed so far, by name."""
# sentences that are shown, and where
SHOWN: list[tuple[str, Any]] = []


def glue(name: str, value: Any, display: bool = False) -> None:
    """Put a number into the sentences around it; `display` is as in `myst_nb.glue`."""
    NUMBERS[name] = value
    for text, place in [one for one in SHOWN if f"«{name}" in one[0]]:
        place.update({"text/markdown": filled(text, NUMBERS)}, raw=True)


def filled(text: str, numbers: Mapping[str, Any]) -> str:
    """Return the text with `«name»` or `«name:.2f»` replaced by the number of that name.

    A number that is not there yet is shown as `…`.

    Example:
        >>> filled("Of «n» crystals «share:.0%» hold.", {"n": 8, "share": 0.75})
        'Of 8 crystals 75% hold.'
    """

    def value(found: re.Match[str]) -> str:
        name, _, form = found[1].partition(":")
        return format(numbers[name], form) if name in numbers else "…"

    return re.sub("«([^»]+)»", value, text)


def prose(text: str) -> None:
    """Show Markdown with the numbers that the notebook has computed; later ones follow."""
    from IPython.display import display

    shown = {"text/markdown": filled(text, NUMBERS)}
    SHOWN.append((text, display(shown, raw=True, display_id=True)))
