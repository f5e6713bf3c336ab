"""Sentences whose numbers are computed: the prose of a chapter that runs as a notebook."""

import re
from collections.abc import Mapping
from typing import Any

NUMBERS: dict[str, Any] = {}
"""What the notebook has computed so far, by name."""


def glue(name: str, value: Any, display: bool = False) -> None:
    """Keep a number for the sentences that follow; `display` is as in `myst_nb.glue`."""
    NUMBERS[name] = value


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


class Prose:
    """Markdown with the numbers that the notebook has computed, as they stand when shown."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return filled(self.text, NUMBERS)

    def _repr_markdown_(self) -> str:
        return repr(self)
