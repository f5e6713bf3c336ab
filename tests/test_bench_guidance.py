"""The benchmark of guides: resumable cells, and bars that can be missed."""

import json
from dataclasses import replace
from pathlib import Path

import bench_guidance as bench
import pytest

from matdesign.teach.guide_rows import Batch, Cell

FREE = Batch(100, 10, 10, 100, 90, 100, 100, 0.2, 100, 0, 1.0)


def cell(met: int, valid: int = 90, best: float = 0.2, *, hard: bool = False) -> Cell:
    guided = replace(FREE, met=met, believed=met, valid=valid)
    return Cell(
        "dense", hard, "a model", "VAE", "steer", guided, FREE, (best, 0.1, 0.3), 2
    )


@pytest.mark.parametrize(
    ("one", "good"),
    [
        (cell(30), True),
        (cell(29), False),  # gains less than three times
        (cell(40, best=0.4), False),  # not above the best of N
        (cell(40, valid=85), False),  # costs five points of validity
        (cell(40, valid=86), True),
    ],
)
def test_every_bar_can_be_missed(one: Cell, good: bool) -> None:
    assert bench.meets(one) is good
    lines = bench.verdicts([one])
    assert lines[0].startswith(f"soft: {int(good)} of 1 cells")
    assert any("missed" in line for line in lines) is not good


def test_a_hard_constraint_must_hold_for_every_crystal() -> None:
    lines = bench.verdicts([cell(100, hard=True), cell(99, hard=True)])
    assert lines == ["hard: 1 of 2 cells hold for every crystal, 0 refused beforehand"]
    refused = replace(cell(0, hard=True), guided=None, refused="no room")
    lines = bench.verdicts([refused])
    assert "1 refused" in lines[0] and "no room" in lines[1]


def test_cells_are_kept_and_come_back_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--sets", "hard", "--cases", "contains O", "--families", "coupling-flow"]
    words += ["--n", "4", "--pool", "6", "--cache", str(tmp_path)]
    assert bench.main(words) == 0
    first = json.loads((tmp_path / "guidance.json").read_text())
    assert "unguided" in capsys.readouterr().out
    assert bench.main(words) == 0
    assert "unguided, given" not in capsys.readouterr().out  # nothing is drawn again
    again = json.loads((tmp_path / "guidance.json").read_text())
    assert again["cells"] == first["cells"] and len(first["cells"]) == 2
    assert all(one["guided"]["met"] == 4 for one in first["cells"])
    assert "2 of 2 cells hold" in first["verdicts"][0]


def test_the_gap_needs_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--sets", "gap"]) == 2
    assert "--data" in capsys.readouterr().err
