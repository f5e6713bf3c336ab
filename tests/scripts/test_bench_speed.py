"""The benchmark of speed: whole processes, sampling and training of shipped models."""

import json
from pathlib import Path

from bench import engine, speed


def test_a_record_holds_what_was_measured(tmp_path, capsys):
    path = tmp_path / "speed.json"
    words = ["--models", "vae-perovskites", "--samples", "3", "--batch", "4", "--cold"]
    assert (
        engine.run("speed", [*words, "0", "--repeat", "1", "--output", str(path)]) == 0
    )
    found = json.loads(path.read_text())
    row = found["models"]["vae-perovskites"]
    assert row["sampled per second"] > 0 and row["trained per second"] > 0
    assert row["evaluations per crystal"] > 0 and "cold" not in found
    assert "vae-perovskites" in capsys.readouterr().out


def test_the_price_of_the_oracle_is_that_of_a_million():
    found = speed.oracle(4, 1)
    each, two, million = found.values()
    assert 0.05 < each < 60 and 0.2 < two < 3
    assert million == each * 1e6 / 3600


def test_the_readme_says_what_was_measured():
    root = Path(__file__).parents[2]
    found = json.loads((root / "data/measured/oracle.json").read_text())["oracle"]
    hours = found["core hours per million crystals"]
    readme = (root / "README.md").read_text()
    assert f"costs {hours:.0f} core-hours" in readme
    assert f"| {found['processor seconds per crystal']:.2f} s | |" in readme
    assert round(hours / 2 / 24) == 3 and 0.4 < hours / 320 < 0.6  # days, hours
    assert found["efficiency of two workers"] > 0.8


def test_a_training_step_moves_the_weights():
    model = speed.design.load_model("vae-perovskites").train()
    before = [p.detach().clone() for p in model.parameters()]
    speed.training_step(model, 4)()
    assert any((a != b).any() for a, b in zip(before, model.parameters(), strict=True))


def test_a_cold_start_is_a_whole_process():
    assert speed.cold("pass", 1) > 0.005
