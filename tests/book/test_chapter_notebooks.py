"""The notebooks that `make lab` makes of the pages: plain, whole, linked and folded."""

import ast
import json
import re
import subprocess
from pathlib import Path

import chapters
import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from plain_markdown import Book, Page

from matdesign.teach.numbers import filled

ROOT = Path(__file__).resolve().parents[2]
PAGES = chapters.read()
BOOK = Book(PAGES)
TEMPLATES = sorted(chapters.WORKBOOK.glob("template-*.ipynb"))


@pytest.fixture(scope="module")
def notebooks():
    made = {n: chapters.convert(n, t, BOOK) for n, t in PAGES.items()}
    for path in sorted(chapters.WORKBOOK.glob("*.ipynb")):
        made[path.stem] = chapters.copied(path)
    return {**made, "index": chapters.index(PAGES, BOOK)}


def prose(notebook) -> list[str]:
    """What a reader reads: Markdown cells, and the sentences that hold numbers."""
    shown = [one.source for one in notebook.cells if one.cell_type == "markdown"]
    results = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return shown + [out.data["text/markdown"] for out in results]


def plain(text: str) -> str:
    """Text without its listings, code and mathematics."""
    text = re.sub(r"^\s*(`{3,}).*?^\s*\1", "", text, flags=re.M | re.S)
    return re.sub(r"\$\$.*?\$\$|\$[^$]+\$|`[^`]*`", "", text, flags=re.S)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_becomes_a_valid_notebook_of_this_kernel(notebooks, name):
    made = notebooks[name]
    nbformat.validate(made)
    assert made.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in made.cells}) == len(made.cells)
    for cell in made.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
            assert "myst_nb" not in cell.source


@pytest.mark.parametrize("name", PAGES)
def test_no_directive_role_or_mark_of_the_book_is_left(notebooks, name):
    for text in prose(notebooks[name]):
        assert not re.search(r"^\s*(`{3,}|:{3,})\s*\{", text, re.M), text
        assert not re.search(r"\{[\w:-]+\}`", text), text
        assert not re.search(r"^\([\w-]+\)=|^\+\+\+|^:\w+:", text, re.M), text
        assert "«" not in text
        for math in re.findall(r"\$\$(.*?)\$\$", text, re.S):
            assert math.count(r"\begin") == math.count(r"\end")


def test_every_code_cell_of_a_page_is_in_its_notebook_in_order(notebooks):
    for name, text in PAGES.items():
        pattern = r"^```\{code-cell\} ipython3\n((?::[^\n]*\n)*)(.*?)^```$"
        shown = [
            body.strip().replace("from myst_nb import glue", chapters.IMPORT)
            for head, body in re.findall(pattern, text, re.M | re.S)
            if "remove-cell" not in head
        ]
        made = [c for c in notebooks[name].cells if c.cell_type == "code"]
        ours = [c.source for c in made if not c.source.startswith("# ")]
        assert [one for one in ours if one in shown] == shown, name
        hidden = [c for c in made if "hide-input" in c.metadata.get("tags", [])]
        assert all(cell.metadata.jupyter["source_hidden"] for cell in hidden)


def test_listings_hold_the_lines_of_the_package(notebooks):
    counted = 0
    for name, text in PAGES.items():
        said = "\n".join(prose(notebooks[name]))
        for file, thing in re.findall(
            r"\{literalinclude\} \.\./(\S+)\n\s*:pyobject: (\S+)", text
        ):
            head = rf"(?:def|class) {thing.split('.')[-1]}\b"
            assert re.search(rf"```python\n(@.*\n)*{head}", _flush(said)), (name, thing)
            assert re.search(head, (ROOT / file).read_text(encoding="utf-8"))
            counted += 1
    assert counted > 40


def _flush(text: str) -> str:
    return re.sub(r"^ +", "", text, flags=re.M)


def test_solutions_are_folded_down_to_the_next_heading(notebooks):
    for name, text in PAGES.items():
        cells = notebooks[name].cells
        folded = [c for c in cells if c.metadata.get("jp-MarkdownHeadingCollapsed")]
        assert len(folded) == text.count("{solution-start}")
        for cell in folded:
            (heading,) = cell.source.splitlines()  # what else it held would stay open
            level = len(re.match("#+", heading)[0])
            rest = cells[cells.index(cell) + 1 :]
            levels = [
                len(found[1])
                for c in rest
                if c.cell_type == "markdown" and (found := re.match(r"(#+) ", c.source))
            ]
            assert levels and levels[0] <= level, "the fold would swallow what follows"


def test_every_link_leads_somewhere(notebooks):
    anchors = {
        name: set(re.findall(r'<a id="([^"]+)"', "\n".join(prose(made))))
        for name, made in notebooks.items()
    }
    followed = 0
    for name, made in notebooks.items():
        for text in prose(made):
            for target in re.findall(r"\]\(([^)\s]+)\)", plain(text)):
                if re.match("https?:|mailto:", target):
                    continue
                file, _, place = target.partition("#")
                path = (Path("/") / name).parent / (file or f"{Path(name).name}.ipynb")
                found = str(path.resolve().relative_to("/")).removesuffix(".ipynb")
                known = (
                    found in notebooks or (ROOT / f"notebooks/{found}.ipynb").exists()
                )
                assert known, (name, target)
                assert not place or place in anchors[found], (name, target)
                followed += 1
    assert followed > 200


def test_the_list_names_every_page_once_with_its_minutes(notebooks):
    said = "\n".join(cell.source for cell in notebooks["index"].cells)
    for name, text in PAGES.items():
        assert len(re.findall(rf"\|? ?\[[^\]]+\]\({name}\.ipynb\)", said)) >= 1
        for minutes in re.findall(r"^\*Reading (\d+) minutes", text, re.M):
            row = re.search(rf"^\| \[[^|]*{name}\.ipynb\) \|.*$", said, re.M)[0]
            assert f"| {minutes} min |" in row
    for name in ("quickstart", *(path.stem for path in TEMPLATES)):
        assert f"({name}.ipynb)" in said


def test_numbers_come_from_the_build_where_there_is_one(tmp_path):
    path = tmp_path / "page.glue.json"
    assert filled("«n» of «m»", chapters.numbers(path)) == "… of …"
    glued = {"n": "'8 of 9'", "share": "0.754"}
    path.write_text(
        json.dumps({k: {"data": {"text/plain": v}} for k, v in glued.items()})
    )
    assert filled("«n», «m», «share:.0%»", chapters.numbers(path)) == "8 of 9, …, 75%"


def test_what_a_notebook_computes_stands_in_its_prose_also_what_comes_later():
    cells = [
        "from matdesign.teach.numbers import glue, prose",
        "glue('first', 8)\nprose('Of «first» and «second:.1f», «none».')",
        "glue('second', 3)",
    ]
    book = new_notebook(cells=[new_code_cell(one) for one in cells])
    NotebookClient(book, kernel_name="python3").execute()
    [shown] = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert shown["data"]["text/markdown"] == "Of 8 and 3.0, …."


def test_a_directive_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="no notebook form for the directive 'plume'"):
        Page("welcome", BOOK).blocks("```{plume} x\n```")
    with pytest.raises(ValueError, match="no notebook form for the role 'plume'"):
        Page("welcome", BOOK).blocks("A {plume}`x`.")


def test_work_in_a_notebook_is_kept(notebooks, tmp_path):
    path = tmp_path / "welcome.ipynb"
    first = notebooks["welcome"]
    assert chapters.save(first, path)
    ran = nbformat.read(path, as_version=4)
    code = next(cell for cell in ran.cells if cell.cell_type == "code")
    code.execution_count = 1
    nbformat.write(ran, path)
    assert chapters.save(first, path)  # the same page: what has run stays
    assert any(c.get("execution_count") for c in nbformat.read(path, 4).cells)
    later = chapters.convert("welcome", PAGES["welcome"] + "\nMore.\n", BOOK)
    assert chapters.save(later, path)  # a new page, and nobody has changed the old one
    assert nbformat.read(path, 4).cells[-1].source.endswith("More.")
    mine = nbformat.read(path, as_version=4)
    mine.cells[0].source = "my notes"
    nbformat.write(mine, path)
    assert not chapters.save(first, path)
    assert nbformat.read(path, 4).cells[0].source == "my notes"


def test_a_copy_of_the_workbook_writes_where_the_original_does(notebooks):
    said = "\n".join(cell.source for cell in notebooks["quickstart"].cells)
    assert '"../../build/report.html"' in said and '"../build' not in said


def test_what_is_made_is_not_tracked(notebooks):
    shown = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore"]
        + [f"notebooks/chapters/{name}.ipynb" for name in notebooks],
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode == 128:
        pytest.skip("not a git checkout")
    assert len(shown.stdout.split()) == len(notebooks)
