"""What pages promise exists, and no sentence is swallowed on the way to the reader.

Reads the sources of pages and notebooks; nothing is executed.
"""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

import matdesign as design

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)


def pages() -> dict[str, str]:
    """Return the prose of every chapter and notebook, and of the README."""
    found = {}
    for path in [*sorted((ROOT / "book").glob("*.md")), ROOT / "README.md"]:
        found[path.name] = FENCE.sub("", path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = ("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        found[path.name] = "\n\n".join(text)
    return found


PAGES = pages()
TITLES = {
    title
    for path in (ROOT / "book").glob("*.md")
    for title in re.findall(r"^# (.+)$", path.read_text(encoding="utf-8"), re.M)
}


@pytest.fixture(params=sorted(PAGES))
def page(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param, PAGES[request.param]


def test_no_line_is_a_comment_by_accident(page: tuple[str, str]) -> None:
    """A line that begins with % is a comment in MyST: its sentence loses the rest."""
    swallowed = re.findall(r"^\s*%.*$", page[1], re.M)
    assert not swallowed, swallowed


def test_linked_pages_exist(page: tuple[str, str]) -> None:
    name, text = page
    folder = ROOT if name == "README.md" else ROOT / "book"
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        labels = {target, target.replace("-", "_")}
        known = any(
            f"({label})=" in p.read_text(encoding="utf-8")
            for p in (ROOT / "book").glob("*.md")
            for label in labels
        )
        assert (folder / target).exists() or known, f"{name}: {target}"


def test_named_files_commands_and_names_exist(page: tuple[str, str]) -> None:
    name, text = page
    commands = (ROOT / "matdesign" / "cli.py").read_text(encoding="utf-8")
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for code in re.findall(r"`([^`\n]+)`", text):
        for path in re.findall(
            r"\b(?:notebooks|scripts|data|matdesign|tests)/[\w./-]*\w", code
        ):
            assert (ROOT / path).exists(), f"{name}: {path}"
        for target in re.findall(r"^make (\w+)", code):
            assert re.search(rf"^{target}:", targets, re.M), f"{name}: make {target}"
        for command in re.findall(r"^matdesign (\w+)", code):
            known = f"def {command}(" in commands or f'name="{command}"' in commands
            assert known, f"{name}: matdesign {command}"
        for public in re.findall(r"\bdesign\.(\w+)", code):
            assert hasattr(design, public), f"{name}: design.{public}"
        for dotted in re.findall(r"^matdesign(?:\.\w+)+$", code):
            module, _, last = dotted.rpartition(".")
            try:
                found = hasattr(importlib.import_module(module), last)
            except ModuleNotFoundError:
                found = False
            assert found or importlib.import_module(dotted), f"{name}: {dotted}"


def test_nothing_is_promised_that_is_not_in_the_contents(page: tuple[str, str]) -> None:
    name, text = page
    vague = re.findall(
        r"\b(?:next part|later (?:chapter|part)|the closed loop (?:does|has)|comes with "
        r"(?:the closed loop|constraints)|not (?:yet )?written)\b",
        " ".join(text.split()),
    )
    assert not vague, f"{name}: {vague}"


def test_chapters_named_by_title_are_in_the_contents(page: tuple[str, str]) -> None:
    name, text = page
    words = " ".join(text.split())
    for named in re.findall(r"[Cc]hapters? \*([^*]+)\*(?: and \*([^*]+)\*)?", words):
        for title in filter(None, named):
            assert title in TITLES, f"{name}: there is no chapter {title!r}"
    for title, target in re.findall(r"\[([^\]]+)\]\((\w[\w-]*\.md)\)", words):
        if title in TITLES:
            path = ROOT / "book" / target
            assert f"# {title}\n" in path.read_text(encoding="utf-8"), (
                f"{name}: {title}"
            )


def test_every_page_of_the_contents_has_a_file() -> None:
    table = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [c["file"] for part in table["parts"] for c in part["chapters"]]
    for file in [table["root"], *files]:
        assert (ROOT / f"{file}.md").is_file(), file
