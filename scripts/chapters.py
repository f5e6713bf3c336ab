"""Make a notebook of every page of the book, and one that lists them.

    python scripts/chapters.py

Writes `notebooks/chapters/*.ipynb`, which git ignores, with copies of the workbook's own
notebooks beside them; pages and originals are only read. A copy in which someone has worked
is kept. Nothing is executed here: where the book has been built, the numbers in the prose
are those of that build, elsewhere they appear when the notebook runs.
"""

import argparse
import ast
import hashlib
import json
import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from plain_markdown import Block, Book, Page

from matdesign.teach.numbers import filled

ROOT = Path(__file__).resolve().parent.parent
WORKBOOK = ROOT / "notebooks"
CHAPTERS = WORKBOOK / "chapters"
EXECUTED = ROOT / "_build" / "jupyter_execute" / "book"
DOWNLOADS = ROOT / "_build" / "html" / "_sources" / "book"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
FOLDED = {"jupyter": {"source_hidden": True}}
IMPORT = "from matdesign.teach.numbers import Prose, glue"
DOOR = (
    "[All chapters](index.ipynb) · *Run → Run All Cells* makes the numbers and pictures. "
    "What is folded opens with a click. This notebook is yours to change."
)
JOINED = {("text", "text"), ("heading", "text"), ("prose", "prose")}
LANDING = """\
# Inverse materials design

Open a chapter with a click, then *Run → Run All Cells*. Each one runs in about a minute on
two cores, without a network. Change what you like: all notebooks in this folder are copies,
and what you have changed is kept. To get one back as it was, delete it and start `make lab`
again.

| to work in | |
|---|---|
| [Quickstart](quickstart.ipynb) | new oxides in ten minutes: draw, check, relax, rank |
| [Your own constraint](template-constraint.ipynb) | a template to fill in |
| [Your own oracle](template-oracle.ipynb) | a template to fill in |
"""


def main() -> int:
    """Write all notebooks that can be opened in JupyterLab; return the exit status."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    write()
    return 0


def write() -> None:
    """Write all notebooks that can be opened in JupyterLab."""
    pages = read()
    book = Book(pages)
    made = {name: convert(name, text, book) for name, text in pages.items()}
    made["index"] = index(pages, book)
    for path in WORKBOOK.glob("*.ipynb"):
        made[path.stem] = copied(path)
    for name, notebook in made.items():
        if not save(notebook, CHAPTERS / f"{name}.ipynb"):
            print(f"{name}.ipynb has been worked in and is kept")
    for image in (ROOT / "book").glob("*.svg"):
        shutil.copy(image, CHAPTERS)
    print(f"{len(made)} notebooks: {CHAPTERS}")


def publish() -> None:
    """Put the executed notebooks of the last build where the site offers them."""
    pages = read()
    book = Book(pages)
    for name, text in pages.items():
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        notebook = convert(name, text, book, outputs=True)
        nbformat.write(notebook, DOWNLOADS / f"{name}.ipynb")


def contents() -> dict[str, list[str]]:
    """Return the names of the pages by part; those outside all parts come first."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = {"Start here": [Path(toc["root"]).name]}
    for part in toc["parts"]:
        names = parts.setdefault(part.get("caption", "Start here"), [])
        names += [Path(one["file"]).name for one in part["chapters"]]
    return parts


def read() -> dict[str, str]:
    """Return the text of every page by its name."""
    names = [name for part in contents().values() for name in part]
    return {n: (ROOT / "book" / f"{n}.md").read_text(encoding="utf-8") for n in names}


def convert(name: str, text: str, book: Book, *, outputs: bool = False) -> NotebookNode:
    """Return a page as a notebook.

    Args:
        name: of the page.
        text: of the page.
        book: what its links may lead to.
        outputs: also put in what its cells printed and drew when the book was built.
    """
    page, cells, hidden = Page(name, book), [], []
    ran = _executed(name)
    glued, n_code = numbers(EXECUTED / f"{name}.glue.json"), 0

    def emit(cell: NotebookNode) -> None:
        cell.id = f"{name}-{len(cells)}"
        cells.append(cell)

    def emit_hidden(said: str = "") -> None:
        parts = [*hidden, f'Prose(r"""\n{said}\n""")'] if said else [*hidden]
        hidden.clear()
        if not parts:
            return
        first = "# the numbers below" if said else "# for later"
        source = "\n\n".join([first, *parts])
        shown = {"text/markdown": filled(said, glued)}
        made = [new_output("display_data", shown)] if said else []
        emit(new_code_cell(source, metadata={**FOLDED}, outputs=made))

    if not outputs:
        emit(new_markdown_cell(DOOR))
    for cell in jupytext.reads(text, fmt="md:myst").cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code":
            for kind, said in _runs(page.blocks(cell.source)):
                if kind == "prose":
                    emit_hidden(said)
                else:
                    fold = {"jp-MarkdownHeadingCollapsed": True}
                    emit(
                        new_markdown_cell(
                            said, metadata=fold if kind == "solution" else {}
                        )
                    )
            continue
        source = cell.source.replace("from myst_nb import glue", IMPORT)
        result = ran[n_code] if n_code < len(ran) else None
        n_code += 1
        if "remove-cell" in tags:
            hidden += [kept] if (kept := _without_asserts(source)) else []
            continue
        emit_hidden()
        made = new_code_cell(source, metadata={"tags": tags} if tags else {})
        if "hide-input" in tags:
            made.metadata |= FOLDED
        if outputs and result is not None:
            made.outputs, made.execution_count = result.outputs, result.execution_count
        emit(made)
    emit_hidden()
    return _notebook(cells)


def index(pages: dict[str, str], book: Book) -> NotebookNode:
    """Return the notebook that JupyterLab opens first: what there is, and what it takes."""
    cells = [LANDING]
    for caption, names in contents().items():
        rows = [_row(name, pages[name], book) for name in names]
        if any(cell for row in rows for cell in row[1:]):
            rows = [
                ("chapter", "reading", "exercises", "you need"),
                ("---",) * 4,
                *rows,
            ]
            lines = [f"| {' | '.join(row)} |" for row in rows]
        else:
            lines = [f"* {title}" for title, *_ in rows]
        cells.append("\n".join([f"## {caption}\n", *lines]))
    made = [new_markdown_cell(text, id=f"index-{n}") for n, text in enumerate(cells)]
    return _notebook(made)


def copied(path: Path) -> NotebookNode:
    """Return a notebook of the workbook as it is one folder further down."""
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        cell.source = cell.source.replace('"../build', '"../../build')
    return _notebook(cells)


def save(notebook: NotebookNode, path: Path) -> bool:
    """Write a notebook, unless someone has worked in the one that is there."""
    if path.exists():
        old = nbformat.read(path, as_version=4)
        same = _digest(old) == _digest(notebook)
        ran = any(cell.get("execution_count") for cell in old.cells)
        if same and ran:
            return True
        if not same and _digest(old) != old.metadata.get("matdesign", {}).get("digest"):
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return True


def _row(name: str, text: str, book: Book) -> tuple[str, ...]:
    """Return a page in the list: title, minutes and needs as the page says."""
    reading = re.search(r"^\*Reading (\d+) minutes", text, re.M)
    exercises = re.search(r"exercises (\d+) minutes\.\*$", text, re.M)
    needs = re.search(r"^You need (.*?)\.\s+Afterwards", text, re.M | re.S)
    words = Page(name, book).blocks(needs[1])[0].text if needs else ""
    words = " ".join(words.split())
    minutes = (f"{found[1]} min" if found else "" for found in (reading, exercises))
    return f"[{book.titles[name]}]({name}.ipynb)", *minutes, words


def _runs(blocks: list[Block]) -> list[tuple[str, str]]:
    """Join neighbours of a kind; a heading begins a piece, and one that folds is alone."""
    made: list[tuple[str, str]] = []
    for block in blocks:
        kind = block.kind
        if kind == "text" and "«" in block.text:
            kind = "prose"
        joins = made and (made[-1][0], kind) in JOINED
        if joins:
            before, said = made.pop()
            made.append((before, f"{said}\n\n{block.text}"))
        else:
            made.append((kind, block.text))
    return made


def _without_asserts(source: str) -> str:
    """Return a hidden cell without the book's own checks; a reader may change numbers."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assert):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (
                node.end_lineno - node.lineno + 1
            )
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip()


def _executed(name: str) -> list[NotebookNode]:
    """Return the code cells of a page as the last build of the book ran them."""
    path = EXECUTED / f"{name}.ipynb"
    if not path.exists():
        return []
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def numbers(path: Path) -> dict[str, object]:
    """Return what a page glued when the book was built, by name (`page.glue.json`)."""
    made: dict[str, object] = {}
    if path.exists():
        for name, output in json.loads(path.read_text(encoding="utf-8")).items():
            text = output["data"]["text/plain"]
            try:
                made[name] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                made[name] = text
    return made


def _notebook(cells: list[NotebookNode]) -> NotebookNode:
    made = new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    made.metadata["language_info"] = {"name": "python"}
    made.metadata["matdesign"] = {"digest": _digest(made)}
    return made


def _digest(notebook: NotebookNode) -> str:
    sources = "\0".join(cell.source for cell in notebook.cells)
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


if __name__ == "__main__":
    raise SystemExit(main())
