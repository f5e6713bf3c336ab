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
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import yaml
from jupyter_cache import get_cache
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
IMPORT = "from matdesign.teach.numbers import glue, prose"
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
| [Quickstart](quickstart.ipynb) | new oxides: draw, check, relax, rank |
| [Your own constraint](template-constraint.ipynb) | a template to fill in |
| [Your own oracle](template-oracle.ipynb) | a template to fill in |
| [Your own campaign](template-campaign.ipynb) | a template to fill in |
| [Your own candidates](template-pool.ipynb) | a template to fill in |
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
    page, hidden = Page(name, book), list[str]()
    cells = [] if outputs else [new_markdown_cell(DOOR)]
    ran = _executed(name) if outputs else iter(())
    glued = numbers(EXECUTED / f"{name}.glue.json")
    for cell in jupytext.reads(text, fmt="md:myst").cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code":
            for kind, said in _runs(page.blocks(cell.source)):
                if kind == "prose":
                    cells.append(_prose(said, hidden, glued))
                    hidden = []
                else:
                    folds = {"jp-MarkdownHeadingCollapsed": True}
                    look = folds if kind == "solution" else {}
                    cells.append(new_markdown_cell(said, metadata=look))
            continue
        source = cell.source.replace("from myst_nb import glue", IMPORT)
        result = next(ran, None)
        if "remove-cell" in tags:
            hidden += [kept] if (kept := _without_asserts(source)) else []
            continue
        cells += _for_later(hidden)
        hidden = []
        look = {"tags": tags} if tags else {}
        look |= FOLDED if "hide-input" in tags else {}
        made = new_code_cell(source, metadata=look)
        if result is not None:
            made.outputs, made.execution_count = result.outputs, result.execution_count
        cells.append(made)
    return _notebook(name, [*cells, *_for_later(hidden)])


def _prose(said: str, hidden: list[str], glued: dict[str, object]) -> NotebookNode:
    """Return a folded cell that computes numbers and shows the sentences they are in."""
    parts = ["# the numbers below", *hidden, f'prose(r"""\n{said}\n""")']
    shown = new_output("display_data", {"text/markdown": filled(said, glued)})
    return new_code_cell("\n\n".join(parts), metadata={**FOLDED}, outputs=[shown])


def _for_later(hidden: list[str]) -> list[NotebookNode]:
    """Return a folded cell of what later cells need, if anything."""
    source = "\n\n".join(["# for later", *hidden])
    return [new_code_cell(source, metadata={**FOLDED})] if hidden else []


def index(pages: dict[str, str], book: Book) -> NotebookNode:
    """Return the notebook that JupyterLab opens first: what there is, and what it takes."""
    cells = [LANDING]
    for caption, names in contents().items():
        rows = [_row(name, pages[name], book) for name in names]
        if any(cell for row in rows for cell in row[1:]):
            head = ("chapter", "reading", "exercises", "you need")
            lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * 4, *rows)]
        else:
            lines = [f"* {title}" for title, *_ in rows]
        cells.append("\n".join([f"## {caption}\n", *lines]))
    return _notebook("index", [new_markdown_cell(text) for text in cells])


def copied(path: Path) -> NotebookNode:
    """Return a notebook of the workbook as it is one folder further down."""
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        cell.source = cell.source.replace('"../build', '"../../build')
    return _notebook("cell", cells)


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
    words = Page(name, book).blocks(needs[1])[0][1] if needs else ""
    words = " ".join(words.split())
    minutes = (f"{found[1]} min" if found else "" for found in (reading, exercises))
    return f"[{book.titles[name]}]({name}.ipynb)", *minutes, words


def _runs(blocks: list[Block]) -> list[tuple[str, str]]:
    """Join neighbours of a kind; a heading begins a piece, and one that folds is alone."""
    made: list[tuple[str, str]] = []
    for kind, said in blocks:
        kind = "prose" if kind == "text" and "«" in said else kind
        if made and (made[-1][0], kind) in JOINED:
            kind, before = made.pop()
            said = f"{before}\n\n{said}"
        made.append((kind, said))
    return made


def _without_asserts(source: str) -> str:
    """Return a hidden cell without the book's own checks; a reader may change numbers."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assert):
            rows = slice(node.lineno - 1, node.end_lineno)
            lines[rows] = [""] * len(lines[rows])
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip()


def _executed(name: str) -> Iterator[NotebookNode]:
    """Yield the code cells of a page as the last build of the book ran them."""
    cache = get_cache(ROOT / "_build" / ".jupyter_cache")
    page = cache.get_cached_project_nb(f"{ROOT}/book/{name}.md")
    if page is not None:  # the cache keeps code cells only
        yield from cache.get_cache_bundle(page.pk).nb.cells


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


def _notebook(name: str, cells: list[NotebookNode]) -> NotebookNode:
    for n, cell in enumerate(cells):
        cell.id = f"{name}-{n}"
    made = new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    made.metadata["language_info"] = {"name": "python"}
    made.metadata["matdesign"] = {"digest": _digest(made)}
    return made


def _digest(notebook: NotebookNode) -> str:
    sources = "\0".join(cell.source for cell in notebook.cells)
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


if __name__ == "__main__":
    raise SystemExit(main())
