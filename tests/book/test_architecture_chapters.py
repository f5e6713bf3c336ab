"""The chapters on architectures are built alike, so that they can be read in columns.

Reads the sources of the four pages; nothing is executed.
"""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHAPTERS = (
    "variational-autoencoder",
    "normalizing-flow",
    "autoregressive",
    "diffusion",
)
HEADINGS = (
    "The design question",
    "Where we stand",
    "The idea in one dimension",
    "The equation",
    "Repairs for crystals",
    "The parts",
    "The whole class",
    "Train",
    "Sample",
    "Judge",
    "Look inside",
    "Steer",
    "Where it fails",
    "The real ones",
    "Exercises",
    "Summary",
    "Further reading",
)
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
CELL = re.compile(r"^```\{code-cell\}.*?^```$", re.M | re.S)
SOLUTION = re.compile(r"\{solution-start\} (\S+)\n.*?\{solution-end\}", re.S)


@pytest.fixture(params=CHAPTERS)
def page(request):
    path = ROOT / "book" / f"{request.param}.md"
    assert path.is_file(), f"the chapter {path.name} is not written"
    return path.read_text(encoding="utf-8")


def prose(text):
    """What a reader reads between cells and listings; exercises keep their text."""
    return FENCE.sub("", text)


def section(text, heading):
    """The text below a heading, down to the next of the same level."""
    return re.split(r"^## ", text.split(f"\n## {heading}\n")[1], flags=re.M)[0]


def test_sections_come_in_one_order(page):
    assert tuple(re.findall(r"^## (.+)$", prose(page), re.M)) == HEADINGS


def test_the_header_says_who_it_is_for(page):
    top = page.split("\n## ")[0]
    assert re.search(
        r"^matdesign: \{budget_s: \d+, needs: \w+, data: \S+\}$", top, re.M
    )
    assert re.search(r"^\*Reading \d+ minutes", top, re.M)
    assert "You need" in top
    assert re.search(r"Afterwards\s+you\s+can\n\n\* ", top)
    assert 4 <= len(re.findall(r"^\* ", top, re.M)) <= 6


def test_one_question_and_one_set_of_baselines_for_all(page):
    cells = "".join(CELL.findall(page))
    for shared in (
        "chapters.data()",
        "chapters.TARGET",
        "chapters.judge(",
        "chapters.steer(",
    ):
        assert shared in cells, shared
    assert "chapters.neighbours(" in cells
    assert "measure(" in cells, "the row of the table of all architectures"
    assert "plots_families.gallery(" in cells
    assert "design.film(" in cells
    assert "design.explore(" in section(page, "The idea in one dimension")


def test_source_is_shown_by_reference(page):
    shown = re.findall(r"\{literalinclude\} (\S+)\n:pyobject: (\S+)", page)
    assert shown
    for file, name in shown:
        source = (ROOT / "book" / file).resolve().read_text(encoding="utf-8")
        assert re.search(rf"^\s*(def|class) {name.split('.')[-1]}\b", source, re.M), (
            name
        )


def test_exercises_are_there_and_most_have_solutions_that_run(page):
    named = re.findall(r"\{exercise-start\}[^\n]*\n:label: (\S+)", page)
    assert len(named) >= 6
    assert len(set(named)) == len(named)
    solved = {m[1] for m in SOLUTION.finditer(page) if "{code-cell}" in m[0]}
    assert len(solved) >= 4
    assert solved <= set(named)
    for label in re.findall(r"\{solution-start\} (\S+)\n([^\n]*)", page):
        assert "dropdown" in label[1], f"the solution of {label[0]} is not folded"
    assert "exercises_" in "".join(CELL.findall(section(page, "Exercises")))


@pytest.mark.parametrize("heading", ["Judge", "Steer"])
def test_measured_numbers_are_computed_not_typed(page, heading):
    text = prose(section(page, heading))
    typed = re.findall(r"\d+(?:\.\d+)?\s*(?:%|percent)|\b\d+/\d+\b|\d+ of \d+", text)
    assert not typed, f"{heading}: {typed}"
    glued = re.findall(r"\{glue:text\}`(\w+)`", text)
    for key in glued:
        assert re.search(rf'glue\(\s*f?"({key}"|[^"]*\{{)', page), f"{key} is not glued"


def test_every_reference_is_in_the_bibliography(page):
    known = set(
        re.findall(r"^@\w+\{(\w+),", (ROOT / "book/references.bib").read_text(), re.M)
    )
    cited = {
        key.strip()
        for group in re.findall(r"\{cite:[tp]\}`([^`]+)`", page)
        for key in group.split(",")
    }
    assert cited
    assert cited <= known
    further = re.findall(r"^\* .*\{cite:t\}", section(page, "Further reading"), re.M)
    assert 3 <= len(further) <= 5


def test_terms_are_in_the_glossary(page):
    glossary = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    entries = {line.strip().lower() for line in glossary.splitlines()}
    for term in re.findall(r"\{term\}`([^`]+)`", page):
        name = re.sub(r".*<(.+)>$", r"\1", " ".join(term.split()))
        assert name.lower() in entries, f"{name} is not in the glossary"


def test_the_contents_list_the_chapters_in_order():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    files = [c["file"].removeprefix("book/") for p in parts for c in p["chapters"]]
    at = [files.index(name) for name in (*CHAPTERS, "side-by-side")]
    assert at == sorted(at)
