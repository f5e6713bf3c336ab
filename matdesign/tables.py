"""How the package prints: tables as text and as HTML, and the templates of all HTML."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

ASSETS = Path(__file__).resolve().parent / "assets"
"""Templates, styles and scripts of what the package shows."""


@cache
def _templates() -> "jinja2.Environment":
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, /, **values: Any) -> str:
    """Return a template filled in; every value is escaped that is not marked as safe.

    Args:
        name: of a file in `assets/templates`, without its ending.
        **values: what the template names.
    """
    return _templates().get_template(f"{name}.html").render(values)


class Table(ABC):
    """What is a table: with `cells_as_text` written, it prints as text and as HTML."""

    @abstractmethod
    def cells_as_text(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows as text."""

    def __repr__(self) -> str:
        return text_table(*self.cells_as_text())

    def _repr_html_(self) -> str:
        return html_table(*self.cells_as_text())


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as aligned text.

    Args:
        head: names of the columns.
        rows: cells, as many in each row.
    """
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join(lines)


def html_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = ""
) -> str:
    """Return the same table as HTML that scrolls where it is wide.

    Args:
        head: names of the columns; none leaves the header out.
        rows: cells; the first of a row is its header.
        caption: above the table.
    """
    return render("table", head=head, rows=rows, caption=caption)
