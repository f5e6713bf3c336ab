"""The package is small: no part, reading chain or cycle grows past its budget."""

from pathlib import Path

import pytest
import size

FIGURES = size.figures()


def test_every_figure_has_a_budget():
    assert set(FIGURES) == set(size.BUDGET)
    assert set(size.TODAY) <= set(size.BUDGET)


@pytest.mark.parametrize("name", size.BUDGET)
def test_no_part_is_larger_than_its_budget_or_than_before(name):
    assert FIGURES[name] <= size.limit(name), "see python scripts/size.py"


def test_there_are_tests_for_what_there_is():
    assert size.tests() >= min(size.TESTS, size.TESTS_TODAY)


def test_lines_are_those_that_are_read(tmp_path: Path):
    path = tmp_path / "some.py"
    path.write_text('"""Doc."""\n\n# a comment\nx = 1  # counts\n')
    assert size.lines(path) == 2


def test_a_chain_follows_local_and_typing_imports_and_finds_cycles(
    monkeypatch, tmp_path
):
    texts = {
        "a": "from matdesign.b import name\n",
        "b": "def f():\n    from matdesign import c\n",
        "c": "if TYPE_CHECKING:\n    import matdesign.b\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    made = {f"matdesign.{name}": tmp_path / f"{name}.py" for name in texts}
    monkeypatch.setattr(size, "modules", lambda: made)
    size.imports.cache_clear()
    assert size.chain(["matdesign.a"]) == set(made)
    assert size.cycles() == [["matdesign.b", "matdesign.c"]]
    size.imports.cache_clear()
