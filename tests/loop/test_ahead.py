"""Crystals of the next iteration are drawn while the oracle works; nothing else changes."""

import sys
import threading
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys
from test_campaign import Toy
from test_strategies import Shift, tiny

import matdesign as design
from matdesign.constraints.elements import OnlyElements
from matdesign.errors import DataError
from matdesign.guidance.guide import Guide
from matdesign.loop.campaign import Campaign
from matdesign.loop.iteration import iteration_seed

SMALL = {"budget": 12, "batch": 4, "propose": 8, "seed": 4}


class Watched(Alloys):
    """Notes of every draw its seed and whether the main thread made it."""

    def __init__(self):
        super().__init__()
        self.draws = []

    def sample(self, n, *, seed):
        main = threading.current_thread() is threading.main_thread()
        self.draws.append((seed, main))
        return super().sample(n, seed=seed)


class Slow(Toy):
    """Takes its time with each crystal."""

    def stream(self, crystals):
        results = self.evaluate(crystals)
        for i in range(len(results)):
            time.sleep(0.02)
            yield i, results[[i]]


def run(where, oracle=None, model=None, **keywords):
    """Return everything that a campaign tells, without its times, as text."""
    keywords = {"budget": 17, "batch": 6, "propose": 12, "seed": 4} | keywords
    where.mkdir()
    parts = (model or Watched(), None, oracle or Toy(), where / "c.db")
    loop = Campaign(*parts, **keywords)
    versions = [one.version for one in loop]
    table = loop.table().drop(columns="seconds").to_csv()
    lineage = [sorted(row.items()) for row in loop.store.decisions()]
    loop.close()
    return table, repr(lineage), versions


def seeds(k):
    return [iteration_seed(4, i) for i in range(k)]


def test_same_table_and_lineage_with_and_without(tmp_path):
    plain, fast, slow = Watched(), Watched(), Watched()
    plain.ahead = False
    told = [
        run(tmp_path / "plain", Toy(), plain),
        run(tmp_path / "fast", Toy(), fast),
        run(tmp_path / "slow", Slow(), slow),
    ]
    assert told[0] == told[1] == told[2]
    assert plain.draws == [(seed, True) for seed in seeds(3)]
    for model in (fast, slow):  # every iteration once, none after the budget's last
        assert model.draws == [(seed, k == 0) for k, seed in enumerate(seeds(3))]


def test_a_guided_generator_too(tmp_path):
    """Its draws have their own generator: torch's global one is neither read nor moved."""
    model, states = tiny(), []
    guide = Guide(OnlyElements("Cu", "Ni"), "mask")

    class Noisy(Toy):
        def evaluate(self, crystals):
            torch.manual_seed(5)
            for _ in range(50):
                torch.rand(3)
                time.sleep(0.001)
            states.append(torch.rand(4).tolist())
            return super().evaluate(crystals)

    settings = {"model": model, "guide": guide, "budget": 9, "batch": 3}
    beside = run(tmp_path / "a", Noisy(), **settings)
    model.ahead = False
    assert beside == run(tmp_path / "b", Noisy(), **settings)
    assert len(states) >= 6 and all(one == states[0] for one in states)


def test_the_oracle_waits_for_a_draw_that_is_made_beside_it(tmp_path):
    model, met = Watched(), []

    class Waiting(Toy):
        """Answers when the next crystals are being drawn: alone it would wait for ever."""

        def evaluate(self, crystals):
            wanted, end = min(len(met) + 2, 3), time.monotonic() + 60
            while len(model.draws) < wanted and time.monotonic() < end:
                time.sleep(0.01)
            met.append(len(model.draws) == wanted)
            return super().evaluate(crystals)

    run(tmp_path / "a", Waiting(), model, batch=7, propose=14)
    assert len(met) == 3 and all(met)


def test_what_learns_draws_after_it_has_learned(tmp_path):
    model = tiny()
    made = run(tmp_path / "a", Slow(), model, learn=Shift(), learn_every=1, budget=12)
    model.ahead = False
    assert made == run(
        tmp_path / "b", model=model, learn=Shift(), learn_every=1, budget=12
    )
    assert made[2] == list(range(len(made[2])))


def test_an_error_of_a_draw_belongs_to_its_iteration(tmp_path):
    class Broken(Watched):
        tired = True

        def sample(self, n, *, seed):
            if seed == iteration_seed(4, 1) and self.tired:
                raise RuntimeError("no more ideas")
            return super().sample(n, seed=seed)

    whole = run(tmp_path / "whole")
    model = Broken()
    loop = Campaign(
        model, None, Toy(), tmp_path / "c.db", budget=17, batch=6, propose=12, seed=4
    )
    loop.iteration()
    assert loop.spent == 6 == len(loop.store.evaluations())
    with pytest.raises(RuntimeError, match="no more ideas"):
        loop.iteration()
    model.tired = False
    list(loop)
    assert loop.table().drop(columns="seconds").to_csv() == whole[0]
    loop.close()


def test_what_was_edited_is_drawn_anew(tmp_path):
    model = Watched()
    loop = Campaign(model, None, Toy(), tmp_path / "c.db", batch=6, propose=12, seed=4)
    loop.iteration()
    loop.propose = 9
    assert loop.iteration().proposed == 9
    assert [seed for seed, _ in model.draws][1:3] == [iteration_seed(4, 1)] * 2
    loop.close()


def test_weights_changed_in_place_are_drawn_anew(tmp_path):
    """Nothing drawn with other weights comes under the name of these."""
    told = []
    for name, ahead in (("a", True), ("b", False)):
        model = tiny()
        model.ahead = ahead
        loop = Campaign(model, None, Toy(), tmp_path / f"{name}.db", **SMALL)
        loop.iteration()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.05)
        loop.iteration()
        told.append(repr([sorted(row.items()) for row in loop.store.decisions()]))
        loop.close()
    assert told[0] == told[1]


DRAWS = []


class Counted(design.Diffusion):
    """Notes of every draw whether the main thread made it."""

    def sample(self, n, **options):
        DRAWS.append(threading.current_thread() is threading.main_thread())
        return super().sample(n, **options)


@pytest.mark.parametrize("guided", [False, True])
def test_a_generator_draws_every_iteration_once(tmp_path, guided):
    """Counters and tables of a model change while it draws; nothing was edited."""
    DRAWS.clear()
    model = tiny()
    model.__class__ = Counted
    guide = Guide(OnlyElements("Cu", "Ni"), "mask") if guided else None
    _, _, versions = run(tmp_path / "a", Toy(), model, guide=guide, **SMALL)
    beside = DRAWS.count(False)  # a guide draws through the model, so counts twice
    assert DRAWS.count(True) * (len(versions) - 1) == beside > 1
    assert sorted(DRAWS, reverse=True) == DRAWS


@pytest.mark.parametrize("setting", ["scale", "default_steps"])
def test_settings_changed_in_place_are_drawn_anew(tmp_path, setting):
    told = []
    for name, ahead in (("a", True), ("b", False)):
        model, guide = tiny(), Guide(OnlyElements("Cu", "Ni"), "mask")
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.05)
        model.ahead = ahead
        where = tmp_path / f"{name}.db"
        loop = Campaign(model, None, Toy(), where, guide=guide, **SMALL)
        loop.iteration()
        if setting == "scale":
            guide.scale = 0
        else:
            model.default_steps = 5
        loop.iteration()
        told.append(repr([sorted(row.items()) for row in loop.store.decisions()]))
        made = loop.store.proposals(1)
        told[-1] += repr([one.crystal.frac.tolist() for one in made])
        loop.close()
    assert told[0] == told[1]


def test_a_proposer_that_says_nothing_is_not_called_ahead(tmp_path):
    class Plain:
        def __init__(self):
            self.threads = []

        def sample(self, n, *, seed):
            self.threads.append(threading.current_thread())
            return Alloys().sample(n, seed=seed)

    plain = Plain()
    run(tmp_path / "a", Toy(), plain)
    assert {*plain.threads} == {threading.main_thread()}


def test_a_store_whose_guide_has_another_setting_is_refused(tmp_path):
    where = tmp_path / "a.db"
    guide = Guide(OnlyElements("Cu", "Ni"), "mask")
    loop = Campaign(tiny(), None, Toy(), where, guide=guide, **SMALL)
    settings = loop.store.settings()
    settings["guide"]["settings"]["noise"] = 0.5
    loop.store.write_settings(settings)
    loop.close()
    with pytest.raises(DataError, match="made with other guide"):
        Campaign.resume(where, oracle=Toy())
