"""`source`: what a page shows is the code that runs."""

from functools import partial
from pathlib import Path

import pytest
import torch

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.display.listing import Source, without_docstrings


def test_source_is_the_file_itself():
    shown = design.source(Crystals.structure)
    lines = Path(design.__file__).parent.joinpath("crystals/batch.py").read_text()
    first = lines.splitlines()[shown.line - 1].strip()
    assert shown.text.splitlines()[0] == first
    assert shown.file == "matdesign/crystals/batch.py"
    assert shown.name == "Crystals.structure"


@pytest.mark.parametrize(
    ("which", "has"),
    [
        (Crystals.volume, "def volume"),  # a property
        (partial(design.scale, cpu=1), "def scale"),
        (Source("a", "b", "c", 1), "class Source"),  # an instance
        (design, "Inverse materials design"),  # a module
    ],
)
def test_source_finds_what_is_wrapped(which, has):
    assert has in str(design.source(which))


def test_source_html_is_highlighted_and_fetches_nothing():
    html = design.source(design.scale)._repr_html_()
    assert "style=" in html
    assert "scale" in html
    assert "http" not in html
    assert "<script" not in html


@pytest.mark.parametrize("builtin", [len, 3, torch.matmul])
def test_source_of_a_builtin_says_what_to_pass(builtin):
    with pytest.raises(TypeError, match="Pass a function, class or module"):
        design.source(builtin)


def test_listings_lose_their_docstrings_and_nothing_else():
    text = '''    @cache
    def f(x: int) -> str:
        """One line.

        Args:
            x: a number.
        """

        def g():
            """Only this."""

        said = """not a docstring"""
        return said + g()
'''
    kept = without_docstrings(text).splitlines()
    assert kept == [
        "    @cache",
        "    def f(x: int) -> str:",
        "        def g():",
        '            """Only this."""',
        "",
        '        said = """not a docstring"""',
        "        return said + g()",
    ]
    plain = "def f(x):\n    return x\n"
    assert without_docstrings(plain) == plain
