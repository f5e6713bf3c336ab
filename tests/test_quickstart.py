"""The main job: the quickstart from end to end, as `make design` runs it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import matdesign as design
from matdesign.teach import workbook

QUICKSTART = workbook.notebooks() / "quickstart.ipynb"


def test_the_committed_notebook_has_no_outputs() -> None:
    book = nbformat.read(QUICKSTART, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert 8 <= len(code) <= 14
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any("widgets" in key for key in book.metadata)


def test_the_wish_of_the_notebook_is_feasible_and_reads_as_a_sentence() -> None:
    """A contradiction would be refused when the guide is made."""
    book = nbformat.read(QUICKSTART, as_version=4)
    [known] = [c.source for c in book.cells if c.get("id") == "known"]
    [conditions] = [c.source for c in book.cells if c.get("id") == "conditions"]
    ask = "design.Guide(chemistry)\nprint(wanted)"
    code = f"import matdesign as design\n{known}\n{conditions}\n{ask}"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("only harmless elements, and without Br")
    assert "a formula that is not known" in shown.stdout


def test_versions_and_machine_come_last() -> None:
    """The first page begins with a chemist's question."""
    code = nbformat.read(QUICKSTART, as_version=4).cells
    code = [c.source for c in code if c.cell_type == "code"]
    assert "design.about()" in code[-1] and not any("about" in c for c in code[:-1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quickstart_makes_the_report(tmp_path: Path) -> None:
    """The command of `make design`, on a copy: the checkout's own build is left alone."""
    copy = tmp_path / "notebooks" / "quickstart.ipynb"
    copy.parent.mkdir()
    shutil.copy(QUICKSTART, copy)
    saved = tmp_path / "build" / "quickstart.ipynb"
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    [words] = re.findall(r"^design: .*\n\t\$\(BIN\)/python (.*)$", makefile, re.M)
    command = [sys.executable, *words.split(), str(copy)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    page = (tmp_path / "build" / "report.html").read_text()
    files = sorted((tmp_path / "build" / "crystals").glob("*.cif"))
    proposed = design.read(files)
    assert page.count('class="md-card"') == len(files) == 48
    assert len(proposed) == 48
    assert "ranked by distance to the hull" in page and "None is left" not in page
    assert "lie more than 0.1 eV/atom above the hull" in page
    done = json.loads(saved.read_text())
    outputs = [
        o for c in done["cells"] if c["cell_type"] == "code" for o in c["outputs"]
    ]
    assert not any(o["output_type"] == "error" for o in outputs)
    shown_html = [o for o in outputs if "text/html" in o.get("data", {})]
    assert any("crystal-view" in "".join(o["data"]["text/html"]) for o in shown_html)
