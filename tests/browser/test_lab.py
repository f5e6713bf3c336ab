"""JupyterLab itself: open a chapter from the list, run it, see numbers and crystals move."""

import contextlib
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import chapters
import nbformat
import numpy as np
import pytest
from plain_markdown import Book

sys.path.insert(0, str(Path(__file__).parent))
from lab_server import IDLE, SHOWN, TOKEN, open_notebook, run_all, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.enable_socket,
]

CELL = """\
from pymatgen.core import Lattice, Structure
import matdesign as design
salt = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
longer = Structure(Lattice.tetragonal(5.64, 9.0), salt.species, salt.frac_coords)
design.view([salt, longer], ["short", "long"])
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running JupyterLab on this machine only, with a few notebooks; gives its address."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "id": "one",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": CELL,
            }
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (folder / "crystal.ipynb").write_text(json.dumps(notebook))
    pages = chapters.read()
    book = Book(pages)
    (folder / "chapters").mkdir()
    nbformat.write(chapters.index(pages, book), folder / "chapters" / "index.ipynb")
    for name in ("welcome", "judging-crystals"):
        made = chapters.convert(name, pages[name], book)
        nbformat.write(made, folder / "chapters" / f"{name}.ipynb")
    with serving(folder, folder) as address:
        yield address


def _answer(page) -> None:
    """Press the proposed answer of a dialog, as a user would, and print what it asked."""
    dialog = page.locator(".jp-Dialog")
    if dialog.count():
        print("JupyterLab asked:", dialog.first.inner_text())
        dialog.first.locator("button.jp-mod-accept").click()
        dialog.first.wait_for(state="detached")


def test_it_asks_for_the_token(lab):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{lab}/api/contents", timeout=10)
    assert refused.value.code == 403


def test_a_crystal_is_live_and_its_slider_moves_it(lab, browser):
    from playwright.sync_api import TimeoutError as TimedOut

    page = browser.page
    page.set_viewport_size({"width": 1300, "height": 1000})
    page.set_default_timeout(180_000)
    page.goto(f"{lab}/lab/tree/crystal.ipynb?token={TOKEN}", wait_until="commit")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    # a cell that is run before its kernel is there makes JupyterLab ask for a kernel
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    started = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]"))
    for _ in range(12):  # JupyterLab drops a key that comes before it is settled
        _answer(page)
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        with contextlib.suppress(TimedOut):
            started.first.wait_for(timeout=15_000)
            break
    # once only: a second run would clear the output of the first
    page.locator(".jp-OutputArea-output canvas").first.wait_for()
    page.wait_for_timeout(4000)
    where = ".jp-OutputArea-output canvas"
    first = browser.pixels(where)
    green = (first[..., 1] > first[..., 0] + 40) & (first[..., 1] > first[..., 2] + 40)
    assert green.mean() > 0.005, "no chlorine in the live viewer"
    assert page.get_by_text("short", exact=True).count() == 1

    box = page.locator(
        ".jp-OutputArea-output .noUi-target:visible"
    ).first.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2)
    page.get_by_text("long", exact=True).wait_for()
    page.wait_for_timeout(4000)
    after = browser.pixels(where)
    changed = (np.abs(after - first).sum(-1) > 60).mean()
    assert changed > 0.01, "the label moved, the atoms did not"
    assert browser.errors == []


def test_a_chapter_opens_from_the_list_and_runs_with_its_numbers(lab, browser):
    page = browser.page
    open_notebook(page, f"{lab}/lab/tree/chapters/index.ipynb")
    page.get_by_role("link", name="Say what a crystal must be").click()
    shown = page.locator(f"{SHOWN} .jp-Notebook")
    shown.get_by_role("heading", name="Ten minutes").wait_for()
    assert shown.locator(".jp-OutputArea-output canvas").count() == 0
    page.locator(IDLE).wait_for()
    run_all(page)
    shown.locator(".jp-OutputArea-output canvas").nth(1).wait_for()
    shown.get_by_text(re.compile(r"drawn again: \d+ of \d+ drawn did")).wait_for()
    page.get_by_text("A still picture.").first.wait_for(state="detached")
    with page.expect_download() as waiting:
        shown.get_by_title("save as a picture (PNG)").first.click()
    assert waiting.value.suggested_filename == "crystal.png"
    assert browser.errors == []


def test_prose_is_rendered_and_solutions_are_folded(lab, browser):
    page = browser.page
    open_notebook(page, f"{lab}/lab/tree/chapters/judging-crystals.ipynb")
    page.get_by_role("menuitem", name="View", exact=True).click()
    page.get_by_text("Table of Contents", exact=True).first.click()
    entry = page.locator(".jp-tocItem-content", has_text="Solution:").first
    entry.click()
    heading = page.locator(".jp-Notebook h3", has_text="Solution:").first
    heading.wait_for()
    inside = page.locator("h3", has_text="Solution:")
    folded = page.locator(".jp-Notebook .jp-MarkdownCell", has=inside)
    button = folded.first.locator(".jp-showHiddenCellsButton")
    button.filter(has_text="cell").wait_for()  # its text comes after it
    text = page.locator(".jp-Notebook").inner_text()
    assert not re.search(r"\{[\w:-]+\}`|:::|```\{", text)
