"""The built book: pages whole and described, nothing from outside, budgets held.

Reads what `python scripts/build_book.py` left in `_build/html`; skips where no book was
built, unless MATDESIGN_REQUIRE_BOOK=1 is set.
"""

import html
import itertools
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"

pytestmark = pytest.mark.skipif(
    not (HTML / "index.html").exists() and not os.environ.get("MATDESIGN_REQUIRE_BOOK"),
    reason="the book is not built here; run python scripts/build_book.py",
)


def contents() -> list[str]:
    """Names of all pages, in the order of the table of contents."""
    table = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [one["file"] for part in table["parts"] for one in part["chapters"]]
    return [table["root"], *chapters]


PAGES = contents()


class Page(HTMLParser):
    """What a page loads, shows and is called."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images: list[dict] = []
        self.stages: list[dict] = []
        self.headings: list[int] = []
        self.inside = False
        self.language = ""
        self.text = (HTML / f"{name}.html").read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        kind = found.get("class") or ""
        if tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found.get("href") or "")
        if tag == "img":
            self.images.append(found)
        if "cv-stage" in kind.split():
            self.stages.append(found)
        if tag == "article":  # the theme writes hidden headings for printing before it
            self.inside = True
        if self.inside and re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "html":
            self.language = found.get("lang", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self.inside = False


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    return {name: Page(name) for name in PAGES}


def test_every_page_of_the_contents_was_built():
    for name in PAGES:
        assert (HTML / f"{name}.html").is_file(), name


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded_from_outside(pages, name):
    outside = [x for x in pages[name].loads if re.match(r"(https?:)?//", x)]
    assert outside == []
    inline = re.sub(r'href="[^"]*"|http://www\.w3\.org/\S+', "", pages[name].text)
    code = "".join(
        re.findall(r"<script(?![^>]*json)[^>]*>(.*?)</script>", inline, re.S)
    )
    assert not re.findall(r"https?://", code)


@pytest.mark.parametrize("name", PAGES)
def test_local_files_that_are_loaded_exist(pages, name):
    for address in pages[name].loads:
        if address.startswith(("data:", "#")) or not address:
            continue
        path = (HTML / name).parent / address.split("?")[0].split("#")[0]
        assert path.resolve().exists(), address


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_and_viewer_is_described(pages, name):
    page = pages[name]
    for image in page.images:
        assert image.get("alt"), str(image)[:200]
        if (image.get("src") or "").startswith("data:"):
            assert len(image["alt"]) > 20, image["alt"]
    for stage in page.stages:
        assert stage.get("role") == "img"
        assert "rystal" in stage.get("aria-label", "")
        assert "space group" in stage["aria-label"]


@pytest.mark.parametrize("name", PAGES)
def test_no_paragraph_stops_in_the_middle_of_a_sentence(pages, name):
    """A comment swallows a line of its paragraph; what is left ends anywhere."""
    article = re.search(r"<article.*?</article>", pages[name].text, re.S)[0]
    article = re.sub(
        r"<(pre|dl|table|figure|script|style|footer)\b.*?</\1>", "", article, flags=re.S
    )
    for paragraph in re.finditer(
        r"<p(?: [^>]*)?>(.*?)</p>\s*(<[^>]*>)?", article, re.S
    ):
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", paragraph[1])).split())
        goes_on = re.match(r"<ul|<ol|<div class=\"(ams)?math", paragraph[2] or "")
        if len(text.split()) > 6 and not goes_on:
            assert re.search(r"[.:;,?!)…”\]*]\W*$", text), text


@pytest.mark.parametrize("name", PAGES)
def test_headings_go_down_one_level_at_a_time(pages, name):
    levels = pages[name].headings
    assert levels.count(1) == 1 and levels[0] == 1
    for before, after in itertools.pairwise(levels):
        assert after <= before + 1
    assert pages[name].language == "en"


@pytest.mark.parametrize("name", PAGES)
def test_no_dead_widgets_no_errors_no_failed_solutions(pages, name):
    text = pages[name].text
    assert "vnd.jupyter.widget" not in text
    assert "Traceback (most recent call last)" not in text
    solutions = re.findall(r'class="solution.*?</section>', text, re.S)
    for solution in solutions:
        verdicts = re.findall(r"(Right|Not yet): ", solution)
        assert not verdicts or verdicts[-1] == "Right"


def test_chapters_have_exercises_with_solutions_that_ran(pages):
    text = pages["book/crystals-as-data"].text
    assert text.count("Solution to") >= 4
    assert text.count("Right: ") >= 4


def test_the_front_page_has_a_crystal_to_turn(pages):
    assert len(pages["book/welcome"].stages) == 2
    assert 'src="../_static/crystal-view.js' in pages["book/welcome"].text
    script = HTML / "_static" / "vendor" / "ngl.js"
    assert "window.NGL = found" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_offered_as_a_notebook_that_has_run(pages, name):
    assert f'../_sources/{name}.ipynb"' in pages[name].text
    cells = json.loads((HTML / "_sources" / f"{name}.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    source = (ROOT / f"{name}.md").read_text(encoding="utf-8")
    shows = [c for c in code if "# the numbers below" not in "".join(c["source"])]
    if "{code-cell}" in source:
        assert any(cell["outputs"] for cell in shows)
    text = json.dumps([cell["outputs"] for cell in code], ensure_ascii=False)
    assert not re.search(r'"text/markdown": \["[^"]*…', text), "a number is missing"


def test_pages_keep_their_budget():
    """Seconds of the execution table against the budget in each page's own header."""
    table = (HTML / "book" / "execution.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", " ", table)
    seconds = dict(re.findall(r"(book/[\w-]+)\s+[\d-]+ [\d:]+\s+\w+\s+([\d.]+)", text))
    checked = 0
    for name in PAGES:
        source = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        budget = re.search(r"^matdesign: \{budget_s: (\d+)", source, re.M)
        assert ("{code-cell}" in source) == bool(budget), f"{name} states no budget"
        if budget:
            # CI machines differ; a page at twice its budget is too slow on any of them.
            assert float(seconds[name]) < 2 * int(budget.group(1)), name
            checked += 1
    assert checked >= 3
