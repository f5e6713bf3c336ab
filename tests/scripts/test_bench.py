"""One door to the benchmarks: each explains itself, and an unknown one is refused."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from matdesign.crystals.batch import Crystals

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench.py"
FOLDER = SCRIPT.with_suffix("")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True)


NAMES = [p.stem for p in FOLDER.glob("*.py") if "def measure(" in p.read_text()]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_benchmark_is_named_and_explains_itself(name):
    word = name.replace("_", "-")
    assert f"    {word} " in run().stdout
    shown = run(word, "--help")
    assert shown.returncode == 0, shown.stderr[-1000:]
    assert f"usage: bench.py {word}" in shown.stdout


def test_an_unknown_name_is_refused():
    shown = run("nothing")
    assert shown.returncode == 2 and "usage: bench.py NAME" in shown.stdout


RECORDS = {
    "learning": "measured/learning.json",
    "guidance": "measured/guidance.json",
    "guidance_cost": "measured/guidance-cost.json",
    "loop": "measured/loop.json",
    "quality": "measured/quality.json",
    "speed": "measured/oracle.json",
    "cases": "runs/solar-absorber.json",
}


@pytest.mark.parametrize(("name", "file"), RECORDS.items())
def test_what_was_recorded_can_be_printed_as_a_table(name, file, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    found = json.loads((FOLDER.parents[1] / "data" / file).read_text())
    for record in [found] if name == "cases" else found.get("runs", [found]):
        lines = import_module(f"bench.{name}").table(record).splitlines()
        assert len(lines) > 2 and sum(map(str.isdigit, "".join(lines))) > 9
    assert record["command"].startswith("python scripts/bench.py ")


def test_substituted_crystals_get_cells_of_the_right_volume(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    from bench.learning import scaled

    species = torch.tensor([[3, 9, 0], [3, 3, 9], [11, 9, 0], [11, 0, 0]])
    sizes = {0: 0.0, 3: 10.0, 9: 12.0, 11: 30.0}
    volume = torch.tensor([sum(sizes[z] for z in row) for row in species.tolist()])
    cells = volume.pow(1 / 3)[:, None, None] * torch.eye(3)
    train = Crystals(species, torch.zeros(4, 3, 3), cells)
    wrong = train.replace(lattice=cells * torch.tensor([0.5, 1, 1.3, 2])[:, None, None])
    assert torch.allclose(scaled(wrong, train).lattice, cells, atol=1e-4)


def test_every_batch_of_a_search_has_random_numbers_of_its_own(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    from bench import loop

    seeds = []

    class Chooser:
        start = 10

        def select(self, candidates, results, values, room, *, seed):
            seeds.append(seed)
            return SimpleNamespace(order=range(room))

    world = loop.Universe()
    world.crystals, world.top = world.crystals[:100], {-1}
    world.values = world.values[:100]
    monkeypatch.setattr(loop, "MOST", 100)
    monkeypatch.setattr(loop.design, "Bayesian", lambda **_: Chooser())
    for seed in range(loop.SEEDS):
        loop.search(world, "Thompson", seed)
    assert len(seeds) == len(set(seeds)) == 9 * loop.SEEDS


def test_every_step_of_a_trial_learns_with_random_numbers_of_its_own(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    from bench import learning

    seeds = []
    made = Crystals(
        torch.full((4, 1), 3), torch.zeros(4, 1, 3), torch.eye(3).expand(4, 3, 3)
    )

    class Model:
        def __init__(self):
            self.record = {"learned": {"stopped": ""}}

        def sample(self, n, *, seed):
            seeds.append(seed)
            return made

    class Learner:
        on_policy = True

        def learn(self, model, crystals, rewards, *, seed, prior):
            seeds.append(seed)
            return model

    yes = SimpleNamespace(satisfied=lambda some: torch.ones(len(some)).bool())
    monkeypatch.setattr(learning, "WAYS", {"own": ("a model", Learner(), {})})
    monkeypatch.setattr(learning.design, "load_model", lambda name: Model())
    monkeypatch.setattr(learning, "reward", lambda some: torch.ones(len(some)))
    monkeypatch.setattr(learning, "limit", lambda name: yes)
    monkeypatch.setattr(learning, "figures", lambda *_: {})
    for seed in (0, 1, 2):
        learning.trial("own", seed, True)
    # what is judged before and after is drawn with one seed; a step samples and learns
    assert len(seeds) == 3 * (2 + 2 * learning.ITERATIONS)
    assert len(set(seeds)) == 3 * (1 + 2 * learning.ITERATIONS)
