"""The report in a browser, from disk: it sorts, unfolds, draws, and fetches nothing."""

from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from matdesign.constraints.elements import OnlyElements
from matdesign.crystals.batch import Crystals
from matdesign.display.reporting import report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three candidates and one crystal that was refused."""
    made = [
        Structure(Lattice.cubic(edge), pair, [[0, 0, 0], [0.5, 0.5, 0.5]])
        for pair, edge in (
            (["Cs", "Cl"], 4.1),
            (["Ag", "Br"], 3.3),
            (["Na", "Cl"], 3.4),
            (["Tl", "I"], 4.2),
        )
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    wanted = OnlyElements.without("Tl")
    return report(Crystals.from_structures(made), path=path, wanted=wanted)


def _formulas(page: Any) -> list[str]:
    return list(
        page.locator("table.md-sortable")
        .first.locator("td:nth-child(2)")
        .all_inner_texts()
    )


def test_sorts_by_a_click_both_ways(browser: Any, page: Path) -> None:
    browser.page.goto(page.as_uri())
    assert _formulas(browser.page) == ["CsCl", "AgBr", "NaCl"]
    head = browser.page.get_by_role("button", name="formula").first
    head.click()
    assert _formulas(browser.page) == ["AgBr", "CsCl", "NaCl"]
    head.click()
    assert _formulas(browser.page) == ["NaCl", "CsCl", "AgBr"]
    cell = browser.page.locator("table.md-sortable th").nth(1)
    assert cell.get_attribute("aria-sort") == "descending"
    browser.page.get_by_role("button", name="shortest distance").first.click()
    assert _formulas(browser.page) == ["AgBr", "NaCl", "CsCl"], (
        "as numbers, not as words"
    )
    browser.clean()


def test_crystals_are_drawn_and_nothing_is_fetched(browser: Any, page: Path) -> None:
    browser.page.goto(page.as_uri())
    browser.page.locator("#crystal-1 canvas").first.wait_for(timeout=60_000)
    assert browser.pixels("#crystal-1 .cv-stage").std() > 5, "more than one colour"
    browser.clean()


def test_a_refused_crystal_unfolds_from_its_link(browser: Any, page: Path) -> None:
    browser.page.goto(page.as_uri())
    assert not browser.page.locator("#crystal-4").is_visible()
    browser.page.goto(page.as_uri() + "#crystal-4")
    browser.page.locator("#crystal-4").wait_for(state="visible", timeout=20_000)
    assert "misses: without Tl" in browser.page.locator("#crystal-4").inner_text()
    browser.clean()
