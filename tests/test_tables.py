"""The table printer and the templates: aligned, escaped, and strict about names."""

import jinja2
import pytest

from matdesign.tables import ASSETS, Table, html_table, render, text_table

HEAD = ["name", "figure"]
ROWS = [["rock salt", "1"], ["<b>", "23 (0.1 to 0.2)"]]


class Two(Table):
    def cells_as_text(self):
        return HEAD, ROWS


def test_text_is_aligned():
    lines = text_table(HEAD, ROWS).splitlines()
    assert lines[0] == "name       figure"
    assert (
        len({line.find(cell) for line, cell in zip(lines, ("figure", "1", "23"))}) == 1
    )
    assert text_table(HEAD, []) == "name  figure"


def test_html_is_escaped_and_scrolls():
    page = html_table(HEAD, ROWS, caption="a & b")
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert "<caption>a &amp; b</caption>" in page
    assert page.count("<tr>") == 3 and page.count('scope="col"') == 2
    assert page.count('scope="row"') == 2 and "overflow-x:auto" in page
    assert "<thead>" not in html_table([], ROWS)


def test_what_is_a_table_prints_in_both_forms():
    assert repr(Two()) == text_table(HEAD, ROWS)
    assert Two()._repr_html_() == html_table(HEAD, ROWS)


@pytest.mark.parametrize("path", sorted((ASSETS / "templates").iterdir()), ids=str)
def test_a_template_does_not_forgive_a_missing_value(path):
    with pytest.raises((jinja2.UndefinedError, TypeError)):
        render(path.stem)
