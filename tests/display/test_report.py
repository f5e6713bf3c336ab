"""The report: every crystal on one page that needs no network, failures counted."""

import dataclasses
import html.parser
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matdesign.constraints.base import Constraint
from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.checks import check
from matdesign.constraints.distance import MinDistance
from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.files import read
from matdesign.display.reporting import report
from matdesign.errors import DataError, ShapeError
from matdesign.loop.results import Column, Results
from matdesign.metrics.evaluator import evaluate

WANTED: Constraint = (
    ChargeNeutral() & MinDistance(1.4) & Between("density", 1, 5, unit="g/cm^3")
)


def salt(cation: str, anion: str, edge: float) -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(edge), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()


@pytest.fixture(scope="module")
def proposed() -> Crystals:
    made = [
        salt("Na", "Cl", 5.6),
        salt("K", "Br", 6.6),
        salt("Na", "O", 5.0),  # not neutral
        salt("Li", "F", 4.0),
        salt("Cs", "I", 4.0),  # too dense
        salt("Mg", "O", 4.2),
    ]
    info = {"seed": 42, "generator": "Toy", "seconds": 1.5, "steps": 10}
    return Crystals.from_structures(made).replace(info=info)


@pytest.fixture(scope="module")
def results(proposed: Crystals) -> Results:
    """Of the four that meet the constraints, the third fails."""
    met = proposed[check(proposed, WANTED).met]
    assert len(met) == 4
    above = torch.tensor([0.05, -0.02, math.nan, 0.3], dtype=torch.float64)
    return Results(
        met,
        {"energy_above_hull": Column(above, "eV/atom")},
        ("", "", "short bond <0.42>", ""),
        oracle="toy oracle",
    )


class Page(html.parser.HTMLParser):
    """Collects what the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.quiet = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.quiet = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.quiet = False

    def handle_data(self, data: str) -> None:
        if not self.quiet:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(
    proposed: Crystals, results: Results, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("report")
    judged = evaluate(results.structures)
    return report(
        proposed, results, judged, folder / "x" / "report.html", wanted=WANTED
    )


def test_every_crystal_is_there_with_viewer_row_and_file(
    written: Path, proposed: Crystals
) -> None:
    page = Page(written.read_text())
    cards = [a["id"] for t, a in page.tags if t == "article"]
    assert sorted(cards) == [f"crystal-{k}" for k in range(1, 7)]
    viewers = [a for t, a in page.tags if a.get("class") == "crystal-view"]
    assert len(viewers) == 6
    links = {a["href"] for t, a in page.tags if t == "a" and "download" in a}
    assert len(links) == 6
    for link in links:
        file = written.parent / str(link)
        number = int(file.name[:4]) - 1
        assert read(file).formulas[0] == proposed.formulas[number]


def test_failures_are_counted_and_explained(written: Path) -> None:
    text = Page(written.read_text()).text
    assert "6 proposed" in text and "4 meet every constraint" in text
    assert "3 evaluated, and still meet every constraint" in text
    assert "2 within 0.1 eV/atom of the hull: candidates" in text
    assert "1 crystals lie more than 0.1 eV/atom above the hull" in text
    assert "1 crystals failed in the oracle" in text and "short bond <0.42>" in text
    assert "2 crystals did not meet the constraints" in text
    assert "1: misses: charge-neutral with common oxidation states" in text
    assert "1: misses: density from 1 to 5 g/cm^3" in text


def test_what_was_asked_seed_version_and_seconds_are_told(written: Path) -> None:
    from matdesign import __version__

    text = Page(written.read_text()).text
    for one in WANTED.parts:
        assert str(one) in text
    assert (
        "seed 42" in text
        and "toy oracle" in text
        and "seconds for sampling 1.5" in text
    )
    assert f"matdesign {__version__}" in text and "torch" in text


def test_candidates_come_best_first(written: Path) -> None:
    cards = re.findall(r'id="crystal-(\d)"', written.read_text())
    assert cards[:3] == ["2", "1", "6"], "what lies too far above comes after them"


def test_what_lies_far_below_the_hull_is_no_candidate(
    proposed: Crystals, results: Results, tmp_path: Path
) -> None:
    """0.929 eV/atom below all that is known was once the best crystal of a report."""
    above = torch.tensor([0.05, -0.929, math.nan, -0.08], dtype=torch.float64)
    found = dataclasses.replace(
        results, columns={"energy_above_hull": Column(above, "eV/atom")}
    )
    page = report(proposed, found, path=tmp_path / "r.html", wanted=WANTED)
    text = Page(page.read_text()).text
    assert "1 over 0.1 eV/atom below the hull: look again" in text
    assert "2 within 0.1 eV/atom of the hull: candidates" in text
    assert re.findall(r'id="crystal-(\d)"', page.read_text())[:3] == ["6", "1", "2"]
    assert "0.93 eV/atom below all that is known" in text


def test_the_ledger_of_an_evaluation_is_a_column(
    proposed: Crystals, tmp_path: Path
) -> None:
    judged = evaluate(proposed)
    kinds = np.array(
        ["new", "substitution", "", "new", "new", "duplicate"], dtype=object
    )
    judged = dataclasses.replace(judged, table={**judged.table, "ledger": kinds})
    text = Page(report(proposed, None, judged, tmp_path / "r.html").read_text()).text
    assert "ledger" in text and "substitution" in text and "duplicate" in text


def test_nothing_is_fetched(written: Path) -> None:
    """No tag points anywhere but to the CIF files; the browser test sees the rest."""
    page = Page(written.read_text())
    for _, attributes in page.tags:
        for name in ("src", "href", "data", "action", "poster", "srcset"):
            target = attributes.get(name)
            if target is not None:
                assert target.startswith(("#", "crystals/")), target
    assert "@import" not in written.read_text()


def test_text_from_outside_is_escaped(proposed: Crystals, tmp_path: Path) -> None:
    named = proposed.replace(ids=("<script>alert(1)</script>", *"abcde"))
    page = report(named, path=tmp_path / "r.html", title="<b>x</b>", facts={"<i>": "&"})
    text = page.read_text()
    assert "<script>alert" not in text and "<b>x</b>" not in text
    assert "&lt;i&gt;" in text


def test_a_second_report_leaves_no_old_files(
    proposed: Crystals, written: Path, tmp_path: Path
) -> None:
    page = report(proposed, path=tmp_path / "r.html")
    keep = tmp_path / "crystals" / "mine.cif"
    keep.write_text("data_mine")
    report(proposed[:2], path=page)
    names = sorted(p.name for p in (tmp_path / "crystals").iterdir())
    assert names == ["0001-NaCl.cif", "0002-KBr.cif", "mine.cif"]


def test_a_relaxed_crystal_that_left_the_range_is_a_failure(
    proposed: Crystals, results: Results, tmp_path: Path
) -> None:
    blown = results.structures.replace(lattice=results.structures.lattice * 2)
    moved = dataclasses.replace(results, structures=blown)
    page = report(proposed, moved, path=tmp_path / "r.html", wanted=WANTED)
    text = Page(page.read_text()).text
    assert "0 evaluated, and still meet every constraint" in text
    assert "after relaxing misses: density from 1 to 5 g/cm^3" in text
    assert "None is left" in text


def test_a_broken_crystal_is_a_row_like_any_other(
    proposed: Crystals, tmp_path: Path
) -> None:
    frac, lattice = proposed.frac.clone(), proposed.lattice.clone()
    frac[0, 0, 0] = math.nan
    lattice[1] = 0
    broken = proposed.replace(frac=frac, lattice=lattice)
    page = Page(report(broken, path=tmp_path / "r.html").read_text())
    assert "the cell or a coordinate is broken" in page.text
    assert len([t for t, _ in page.tags if t == "article"]) == 6
    assert len(list((tmp_path / "crystals").iterdir())) == 4


def test_without_constraints_or_oracle(proposed: Crystals, tmp_path: Path) -> None:
    text = Page(report(proposed, path=tmp_path / "r.html").read_text()).text
    assert "6 proposed" in text and "not evaluated by an oracle" in text
    assert "Nothing failed" in text


def test_errors_speak(proposed: Crystals, results: Results, tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"all 6 crystals or of the 4 .* got 3 rows"):
        report(proposed, results[:3], path=tmp_path / "r.html", wanted=WANTED)
    with pytest.raises(DataError, match="got no crystals"):
        report(proposed[:0], path=tmp_path / "r.html")
    with pytest.raises(DataError, match="is a folder"):
        report(proposed, path=tmp_path)


def test_a_crystal_whose_process_died_and_one_without_a_hull(tmp_path: Path) -> None:
    two = Crystals.from_structures([salt("Na", "Cl", 5.6), salt("K", "Cl", 6.3)])
    competing = Column(torch.tensor([3.0, math.nan]))  # so joined by `Results.cat`
    near = Column(torch.tensor([0.02, math.nan]), "eV/atom")
    why = ("", "worker died: SIGKILL")
    found = Results(two, {"competing": competing, "energy_above_hull": near}, why)
    text = report(two, found, path=tmp_path / "a.html").read_text(encoding="utf-8")
    assert "worker died: SIGKILL" in text and "1</b> within 0.1 eV/atom" in text
    found = Results(two, {"capacity": Column(torch.ones(2), "mAh/g")})
    text = report(two, found, path=tmp_path / "b.html").read_text(encoding="utf-8")
    assert "2</b> not compared with the hull: candidates" in text
    assert "2 crystals, not compared with the hull." in text
