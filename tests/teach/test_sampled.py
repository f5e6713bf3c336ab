"""The engine of the tables: what it counts is what the crystals are."""

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.evaluator import evaluate
from matdesign.teach.sampled import recorded, sampled, source


class Twice:
    """A generator of one good crystal and one whose atoms overlap."""

    def sample(self, n, **settings):
        self.settings = settings
        frac = torch.zeros(n, 2, 3)
        frac[::2, 1] = 0.5
        species, cells = torch.tensor([[55, 17]]), 4.1 * torch.eye(3)
        info = {"network_evaluations": 7 * n}
        return Crystals(species.repeat(n, 1), frac, cells.repeat(n, 1, 1), info=info)


def test_a_sample_is_judged_timed_and_counted():
    model = Twice()
    known = model.sample(1)
    one = sampled(model, 4, known, seed=3, steps=5)
    assert model.settings == {"seed": 3, "steps": 5}
    assert one.count("structure_valid") == 2 and one.count("unique") == 1
    assert one.count("novel") == evaluate(one.made, known)["novelty"].count == 0
    assert one.evaluations == 28 and one.seconds > 0
    with pytest.raises(KeyError):
        sampled(model, 2).count("novel")  # nothing to be novel against


def test_a_generator_that_counts_nothing_has_cost_nothing():
    one = sampled(Twice(), 2)
    assert type(one)(one.made.replace(info={}), one.judged, 1.0).evaluations == 0


def test_what_was_measured_names_its_command(tmp_path, monkeypatch):
    run = recorded("quality", "bench.py quality")
    assert run["command"] in source(run) and run["written"] in source(run)
    monkeypatch.setattr("matdesign.teach.sampled.data_dir", lambda: tmp_path)
    with pytest.raises(DataError, match=r"Run scripts/bench.py quality --output"):
        recorded("quality", "bench.py quality")
