"""The benchmark of guides: what is asked, and cells that are kept."""

import json
from pathlib import Path

import pytest
from bench import engine
from bench import guidance as bench

import matdesign as design


def test_cells_are_kept_and_come_back_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--sets", "hard", "--cases", "contains O", "--families", "coupling-flow"]
    words += ["--n", "4", "--pool", "6", "--cache", str(tmp_path)]
    assert engine.run("guidance", words) == 0
    first = json.loads((tmp_path / "guidance.json").read_text())
    assert "unguided" in capsys.readouterr().out
    assert engine.run("guidance", words) == 0
    assert "unguided, given" not in capsys.readouterr().out  # nothing is drawn again
    again = json.loads((tmp_path / "guidance.json").read_text())
    assert again["cells"] == first["cells"] and len(first["cells"]) == 2
    assert all(one["guided"]["met"] == 4 for one in first["cells"])
    assert first["command"].startswith("python scripts/bench.py guidance --sets hard")


def test_the_gap_needs_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.run("guidance", ["--sets", "gap"]) == 2
    assert "--data" in capsys.readouterr().err


def test_an_energy_is_judged_by_another_predictor_than_the_one_that_guides() -> None:
    cases = [*bench.soft(design.load("prototypes", split="train")), *bench.fresh()]
    named = [case.name for case in cases if case.name]
    assert len(named) == 4 and "(judge: the potential)" in named[2]
    assert named[3].startswith(
        "formation energy from -1.2 to -1 eV/atom, by energy-pro"
    )
    assert all(case.judge is not None for case in cases if case.name)
