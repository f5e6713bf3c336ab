"""The quality benchmark: what it keeps, and what its table says."""

import argparse
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bench import quality, stages

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError


@pytest.fixture
def salts():
    n = 12
    frac = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]]).repeat(n, 1, 1)
    species = torch.stack([torch.arange(21, 21 + n), torch.full((n,), 8)], dim=1)
    edge = 3.5 + 0.05 * torch.arange(n)
    return Crystals(species, frac, edge[:, None, None] * torch.eye(3))


@pytest.fixture
def shop(salts, tmp_path):
    return quality.Workshop(tmp_path, salts[:6], salts[6:], 1)


def test_a_stage_is_made_once_per_key(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"value": len(calls)}

    first = stages.kept(tmp_path, {"a": 1}, make)
    assert stages.kept(tmp_path, {"a": 1}, make) == first
    assert stages.kept(tmp_path, {"a": 2}, make)["value"] == 2


def test_the_checksum_is_that_of_the_content(salts):
    same = Crystals.cat([salts, Crystals(
        torch.full((1, 4), 6), torch.rand(1, 4, 3), torch.eye(3)[None])])  # fmt: skip
    assert stages.digest(same[:12]) == stages.digest(salts)
    moved = salts.replace(frac=salts.frac + 1e-4)
    assert stages.digest(moved) != stages.digest(salts)


def test_fewer_published_samples_are_the_first_of_more(salts, tmp_path):
    rows = {
        "model": ["A"] * 12,
        "num_atoms": [2] * 12,
        "numbers": salts.species.tolist(),
        "frac_coords": salts.frac.reshape(12, -1).tolist(),
        "lattice": salts.lattice.reshape(12, -1).tolist(),
    }
    path = tmp_path / "samples.parquet"
    pq.write_table(pa.table(rows), path)
    few = stages.published(path, 4)["A"]
    more = stages.published(path, 9)["A"]
    assert torch.equal(few.species, more.species[:4])
    assert len(stages.published(path, 100)["A"]) == 12


def test_an_unknown_model_is_refused():
    with pytest.raises(DataError, match="no model 'nothing-mp20'"):
        stages.checksum("nothing-mp20")


@pytest.fixture
def found():
    def rate(value):
        return {"value": value, "low": value - 0.02, "high": value + 0.01}

    ours = {
        "structural validity": rate(0.991),
        "COV-R": rate(0.9),
        "density distance, valid": rate(0.2),
        "stability": rate(0.6),
        "S.U.N.": rate(0.3),
    }
    theirs = {
        "structural validity": rate(1.0),
        "stability": rate(0.7),
        "S.U.N.": rate(0.25),
    }
    return {
        "test": 6,
        "train": 6,
        "missing": ["vae-mp20"],
        "command": "python scripts/bench.py quality",
        "hardware": "here",
        "protocol": ["so"],
        "batches": {
            "DiffCSP": {"ours": False, "crystals": 10, "figures": theirs},
            "ours": {"ours": True, "crystals": 2_000, "figures": ours},
        },
    }


def test_models_that_are_not_at_hand_are_named():
    there, missing = quality.chosen(None)
    assert len(there) + len(missing) == len(quality.FAMILIES)
    assert set(there) <= set(design.models())
    assert quality.chosen(["a"]) == (["a"], [])


def test_a_new_hull_needs_no_new_relaxation(shop, salts):
    """Stability and the ledger come from kept energies; a refused row is not stable."""

    class Flat:
        def __init__(self, level):
            self.level, self.key = level, str(level)
            self.calibration = argparse.Namespace(volumes={})

        def formation_energy(self, crystals, energy):
            return np.asarray(energy)

        def energy_above_hull(self, crystals, energy):
            return np.asarray(energy) - self.level

        def known(self, crystals):
            return np.ones(len(crystals), dtype=bool)

    rows = [
        {
            "numbers": one.species[0].tolist(),
            "frac": one.frac[0].tolist(),
            "lattice": one.lattice[0].tolist(),
            "energy": energy,
            "reason": reason,
            "seconds": 1.0,
            "oracle": "by hand",
        }
        for one, energy, reason in (
            (salts[[6]], -1.0, ""),
            (salts[[7]], -0.5, ""),
            (salts[[8]], -1.0, "time limit"),
            (salts[[9]], -9.0, ""),  # beyond what the guards believe
        )
    ]
    first = quality.stable(shop, "salts", rows, Flat(-1.0))
    assert first["metrics"]["stability"]["count"] == 1
    assert first["converged and believed"] == 2
    assert first["metrics"]["ledger: substitution"]["count"] == 4
    second = quality.stable(shop, "salts", rows, Flat(-0.5))
    assert second["metrics"]["stability"]["count"] == 2
    assert second["metrics"]["S.U.N."]["count"] == 2
    assert second["metrics"]["S.U.N., new formula"]["count"] == 0


def test_the_table_has_a_row_per_figure_and_empty_cells_where_none_is(found):
    lines = quality.table(found).splitlines()
    assert lines[0].split() == ["DiffCSP", "ours"]
    (row,) = [line for line in lines if line.startswith("COV-R")]
    assert row.split(maxsplit=1)[1] == "0.900 (0.880 to 0.910)"
    assert not any("RMSE" in line for line in lines)


def test_a_judge_whose_code_changed_judges_again(shop, salts, monkeypatch):
    made = []

    def evaluate(crystals, *_, **__):
        made.append(len(crystals))
        return argparse.Namespace(record=dict, notes=())

    monkeypatch.setattr(quality, "evaluate", evaluate)
    for _ in range(2):
        quality.judged(shop, "salts", salts)
    assert made == [12]
    monkeypatch.setattr(stages, "code", lambda *places: f"changed {places}")
    later = quality.Workshop(shop.cache, shop.train, shop.test, 1)
    quality.judged(later, "salts", salts)
    assert made == [12, 12]
    assert "metrics" in later.keys["code"] and "keys" in quality.SAME


def test_held_out_rows_are_predicted_once(shop, salts, monkeypatch):
    asked = []

    def predict(crystals):
        asked.append(len(crystals))
        return {quality.ENERGY: torch.zeros(len(crystals))}

    network = argparse.Namespace(predict=predict)
    monkeypatch.setattr(quality, "load_predictor", lambda _: network)
    for _ in range(3):
        shop.predict(shop.test)
        shop.predict(salts[:2])
    assert sorted(asked) == [2, 2, 2, 6]


def test_whole_batches_of_an_earlier_output_are_kept(
    shop, salts, tmp_path, monkeypatch
):
    """The same crystals in the same way on the same hull: not measured again."""
    made = []

    def judged(shop, name, crystals):
        made.append(name)
        metrics = {"novelty": {"value": 0.5, "low": 0.4, "high": 0.6}}
        return {"metrics": metrics, "failures": {}, "notes": []}

    monkeypatch.setattr(quality, "judged", judged)
    facts = dict.fromkeys(quality.SAME, 0) | {"hull": "one", "protocol": []}
    args, path = argparse.Namespace(samples=6, relax=0, predict=0), tmp_path / "a.json"

    def measure(batches, **other):
        made.clear()
        old = quality.earlier(path, facts | other)
        *_, found = quality.filled(args, shop, old, batches)
        path.write_text(json.dumps({**facts, **other, "batches": found}))
        return list(made)

    batches = {"a": salts[:6], "b": salts[6:]}
    assert measure(batches) == ["a", "b"]
    assert measure(batches) == []
    assert measure({"a": salts[:6], "b": salts[3:9]}) == ["b"]
    assert measure(batches, hull="another") == ["a", "b"]
    assert list(json.loads(path.read_text())["batches"]) == ["a", "b"]
