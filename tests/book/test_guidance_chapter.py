"""The chapter on guidance while sampling builds every method and says how each fails.

Reads the source of the page; nothing is executed.
"""

import re
from pathlib import Path

import pytest

from matdesign.guidance.methods import METHODS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "book" / "guidance-while-sampling.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
SECTIONS = {
    "mask": "Mask",
    "project": "Project",
    "gradient": "Gradient",
    "classifier_free": "Classifier-free guidance",
    "replace": "Replace",
    "steer": "Steer",
    "reject": "Reject",
}


def section(heading):
    return re.split(r"^## ", TEXT.split(f"\n## {heading}\n")[1], flags=re.M)[0]


def test_there_is_a_section_for_every_method_of_the_package():
    assert set(SECTIONS) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_idea_equation_source_measurement_price_and_failure(method):
    text = section(SECTIONS[method])
    for part in ("**Idea.**", "**Equation.**", "fails**", "**the price**"):
        assert part.lower() in text.lower(), part
    assert "{literalinclude}" in text
    assert "judge(" in text
    assert "{glue:text}" in text


def test_source_that_is_shown_exists():
    shown = re.findall(r"\{literalinclude\} (\S+)\n:pyobject: (\S+)", TEXT)
    assert len(shown) >= len(METHODS)
    for file, name in shown:
        source = (ROOT / "book" / file).resolve().read_text(encoding="utf-8")
        found = re.search(rf"^\s*(def|class) {name.split('.')[-1]}\b", source, re.M)
        assert found, name


@pytest.mark.parametrize("heading", [*SECTIONS.values(), "Hits at a price"])
def test_measured_numbers_are_computed_not_typed(heading):
    text = FENCE.sub("", section(heading))
    typed = re.findall(r"\d+(?:\.\d+)?\s*%|\b\d+/\d+\b|\b0\.\d\d\b", text)
    assert not typed, typed


def test_glued_numbers_are_made():
    for key in re.findall(r"\{glue:text\}`(\w+)`", TEXT):
        stem = re.sub(r"_[a-z0-9]+$", "", key.removesuffix("_floor"))
        made = (f'"{key}"', f'f"{stem}_', f'tell("{key.removesuffix("_floor")}"')
        assert any(one in TEXT for one in made), key


def test_every_reference_and_term_is_known():
    bibliography = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    known = set(re.findall(r"^@\w+\{(\w+),", bibliography, re.M))
    groups = re.findall(r"\{cite:[tp]\}`([^`]+)`", TEXT)
    cited = {key.strip() for group in groups for key in group.split(",")}
    assert cited and cited <= known
    lines = (ROOT / "book/glossary.md").read_text(encoding="utf-8").splitlines()
    entries = {line.strip().lower() for line in lines}
    for term in re.findall(r"\{term\}`([^`]+)`", TEXT):
        name = re.sub(r".*<(.+)>$", r"\1", " ".join(term.split()))
        assert name.lower() in entries, name


def test_exercises_have_solutions_that_run():
    named = re.findall(r"\{exercise-start\}[^\n]*\n:label: (\S+)", TEXT)
    assert len(named) >= 5 and len(set(named)) == len(named)
    blocks = re.findall(r"\{solution-start\} (\S+)\n(.*?)\{solution-end\}", TEXT, re.S)
    assert {label for label, _ in blocks} <= set(named)
    assert sum("{code-cell}" in body for _, body in blocks) >= 4
    for name in re.findall(r"exercises_guidance\.(check_\w+)", TEXT):
        from matdesign.teach import exercises_guidance

        assert callable(getattr(exercises_guidance, name))


def test_the_page_has_a_slider_and_a_film():
    assert "design.explore(" in TEXT and "film_guidance(" in TEXT
