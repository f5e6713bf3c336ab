"""kill -9 at random moments: nothing is lost, nothing is evaluated twice."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys
from kills import BUDGET, lines, recorded, start, state, survive, undisturbed
from test_campaign import Toy, campaign
from test_strategies import COLUMNS, Richest, Shift, tiny

from matdesign.loop.campaign import Campaign
from matdesign.loop.store import Store


@pytest.mark.slow
@pytest.mark.parametrize("select", [False, True], ids=["as they come", "selected"])
def test_kill_9_at_random_moments(tmp_path, select):
    settings = {"cheap": False, "select": select}
    broken = tmp_path / "broken"
    whole = undisturbed(tmp_path / "whole", **settings)
    assert sorted(lines(whole / "side")) == sorted(recorded(whole))

    chance = random.Random(int(time.time()))  # moments differ from run to run
    kills, asked = 0, Counter()
    for calls in (0, 4, 10, 16):  # real oracle calls after which it is killed
        process = start(broken, pause=0.05, **settings)
        while process.is_alive() and (
            len(lines(broken / "side")) < calls or not (broken / "log").exists()
        ):
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        process.join(60)
        kills += process.exitcode == -signal.SIGKILL
        safe = recorded(broken)
        asked = Counter(lines(broken / "side"))
        assert len(safe) == len(set(safe)) <= BUDGET
        # what is under way when the parent dies is at most one crystal per worker
        assert sum(asked.values()) - len(set(asked)) <= 2 * kills
        before = {name: asked[name] for name in safe}
        resumed_from = (safe, before)
    assert kills >= 2
    assert state(undisturbed(broken, **settings)) == state(whole)
    after = Counter(lines(broken / "side"))
    safe, before = resumed_from
    assert {name: after[name] for name in safe} == before  # never asked again
    final = recorded(broken)
    assert len(final) == len(set(final)) == BUDGET
    assert set(after) == set(final)
    assert sum(after.values()) <= BUDGET + 2 * kills
    draws = Counter(lines(broken / "log"))
    assert set(draws) == set(
        lines(whole / "log")
    )  # the same seeds, iteration by iteration


@pytest.mark.slow
def test_six_campaigns_killed_again_and_again(tmp_path):
    found = survive(6, tmp_path, seed=int(time.time()))
    assert found["kills"] >= 3 and found["equal"] == 6
    assert found["lost"] == found["evaluated twice"] == 0
    assert found["begun again"] <= found["kills"]  # one crystal was under way


class Steady(Toy):
    """Fails crystals with gold, in whatever order it is asked."""

    def evaluate(self, crystals):
        gold = (crystals.species == 79).any(1).tolist()
        reason = tuple("gold" if one else "" for one in gold)
        return replace(super().evaluate(crystals), reason=reason)


FULL = """
import resource, signal, sys
sys.path.insert(0, {here!r})
from test_campaign_kill import *
from matdesign.errors import DataError
store = Path({store!r})
loop = campaign(store.parent, Steady())
loop.iteration()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write that finds no room fails
size = store.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, size + 4096))
try:
    list(loop)
except DataError as error:
    print(error)
"""


def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path):
    for name in ("whole", "full"):
        (tmp_path / name).mkdir()
    whole = campaign(tmp_path / "whole", Steady())
    list(whole)
    where = tmp_path / "full" / "c.db"
    script = FULL.format(here=str(Path(__file__).parent), store=str(where))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True
    )
    assert "nothing more can be written to" in done.stdout, done.stderr
    assert "make room on the disk" in done.stdout
    again = Campaign.resume(where, generator=Alloys(), oracle=Steady())
    assert 0 < again.spent < 17
    list(again)
    assert again.table()[COLUMNS].equals(whole.table()[COLUMNS])
    again.close()
    whole.close()


def test_a_stop_after_any_write_changes_nothing(tmp_path, monkeypatch):
    """Proposals, each result, the version of the model, the end of an iteration."""
    (tmp_path / "b").mkdir()
    settings = {"learn_every": 1, "budget": 10, "batch": 4}
    whole = campaign(
        tmp_path, Steady(), tiny(), learn=Shift(), select=Richest(), **settings
    )
    list(whole)
    oracle, stops = Steady(), 0
    first = {"learn": Shift(), "select": Richest(), **settings}
    campaign(tmp_path / "b", Steady(), tiny(), **first).close()

    class Stop(BaseException):
        pass

    plain = Store._writing

    @contextmanager
    def once(store):
        with plain(store):
            yield
        raise Stop

    while True:
        parts = {"learn": Shift(), "select": Richest()}
        loop = Campaign.resume(tmp_path / "b" / "c.db", oracle=oracle, **parts)
        monkeypatch.setattr(Store, "_writing", once)
        try:
            list(loop)
            break
        except Stop:
            stops += 1
        finally:
            monkeypatch.setattr(Store, "_writing", plain)
            loop.close()
    assert stops >= 10 + 3 * 2  # a result each, proposals and end of three iterations
    assert loop.table()[COLUMNS].equals(whole.table()[COLUMNS])
    whole.close()
