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


@pytest.mark.slow
def test_the_template_of_a_constraint_runs(tmp_path: Path) -> None:
    """From top to bottom, and what it makes keeps its rule."""
    saved = tmp_path / "constraint.ipynb"
    path = workbook.notebooks() / "template-constraint.ipynb"
    workbook.run(path, saved, say=lambda _: None)
    shown = ""
    for cell in json.loads(saved.read_text())["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            shown += "".join(text) + "\n"
    assert "0 checks failed" in shown
    assert "8 of 8 crystals meet every constraint" in shown
    assert shown.count(".cif") == 8
