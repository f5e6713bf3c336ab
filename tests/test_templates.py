"""The templates for a researcher's own work: clean as committed, and they run."""

import ast
import json
from pathlib import Path

import nbformat
import pytest

from matdesign.teach import workbook

TEMPLATES = sorted(workbook.notebooks().glob("template-*.ipynb"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_a_template_is_clean_and_says_what_it_needs(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert {"budget_s", "data", "needs"} <= set(book.metadata["matdesign"])
    assert book.cells[0].source.startswith("# Template: ")
    assert not any("widgets" in key for key in book.metadata)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        assert not cell.outputs and not cell.execution_count
        ast.parse(cell.source)


def shown(name: str, folder: Path) -> str:
    """Run a template from top to bottom, and return what it printed."""
    saved = folder / "ran.ipynb"
    workbook.run(workbook.notebooks() / f"{name}.ipynb", saved, say=lambda _: None)
    texts = []
    for cell in json.loads(saved.read_text())["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            data = output.get("data", {})
            texts.append("".join(output.get("text") or data.get("text/plain", "")))
    return "\n".join(texts)


@pytest.mark.slow
def test_the_template_of_a_constraint_runs(tmp_path: Path) -> None:
    """What it makes keeps its rule."""
    text = shown("template-constraint", tmp_path)
    assert "0 checks failed" in text
    assert "8 of 8 crystals meet every constraint" in text
    assert text.count(".cif") == 8


@pytest.mark.slow
def test_the_template_of_a_pool_runs(tmp_path: Path) -> None:
    """One row of the list is refused, a lost sample is kept, the budget is spent."""
    text = shown("template-pool", tmp_path)
    assert "1 could not be read" in text and "sample lost" in text
    assert "3 iterations, oracle calls 24 of 24" in text


@pytest.mark.slow
def test_the_template_of_a_campaign_runs(tmp_path: Path) -> None:
    """It spends its budget, goes on with a larger one, and counts confirmed hits."""
    text = shown("template-campaign", tmp_path)
    assert "oracle calls 12 of 12" in text and "oracle calls 18 of 18" in text
    assert text.count("confirmed ") == 2
