"""kill -9 at random moments: nothing is lost, nothing is evaluated twice."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from alloys import fingerprint

from matdesign.loop.store import Store

BUDGET = 20

SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from alloys import Alloys, CountingOracle
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import RequiredElements
from matdesign.loop.campaign import Campaign
store, side, log = Path({store!r}), {side!r}, {log!r}
oracle = CountingOracle(side, pause={pause})
model = Alloys(log=log)
settings = dict(budget={budget}, batch=8, propose=16, seed=11)
wanted = MinDistance(1.5) & RequiredElements("Cu")
try:
    loop = Campaign.resume(store, generator=model, oracle=oracle)
except ValueError as error:
    if "holds no campaign" not in str(error):
        raise
    store.unlink(missing_ok=True)
    loop = Campaign(model, wanted, oracle, store, **settings)
for iteration in loop:
    print(iteration, flush=True)
loop.close()
"""


def start(folder, pause):
    script = SCRIPT.format(
        here=str(Path(__file__).parent),
        store=str(folder / "c.db"),
        side=str(folder / "side"),
        log=str(folder / "log"),
        pause=pause,
        budget=BUDGET,
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdout=subprocess.DEVNULL
    )


def lines(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []


def state(folder):
    """Everything the store holds, without times."""
    store = Store(folder / "c.db")
    iterations = [
        {k: v for k, v in row.items() if k != "seconds"} for row in store.iterations()
    ]
    proposals = [
        (row["iteration"], p.place, p.key, p.decision, p.reason)
        for row in iterations
        for p in store.proposals(row["iteration"])
    ]
    results = [
        (
            e.iteration,
            e.place,
            e.key,
            e.result.reason[0],
            float(e.result.energy_per_atom[0]),
        )
        for e in store.evaluations()
    ]
    assert store.count("crystal") == len(proposals)  # no row outside a whole iteration
    store.close()
    return iterations, proposals, results


def recorded(folder):
    """Fingerprints of the crystals whose evaluation is in the store."""
    store = Store(folder / "c.db")
    originals = store.originals()
    found = [
        fingerprint(c.species[0], c.frac[0], c.lattice[0])
        for c in (originals[e.key] for e in store.evaluations())
    ]
    store.close()
    return found


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert start(whole, 0.0).wait(timeout=300) == 0
    assert sorted(lines(whole / "side")) == sorted(recorded(whole))

    chance = random.Random(int(time.time()))  # moments differ from run to run
    kills, asked = 0, Counter()
    for calls in (0, 4, 10, 16):  # real oracle calls after which it is killed
        process = start(broken, 0.05)
        while process.poll() is None and (
            len(lines(broken / "side")) < calls or not (broken / "log").exists()
        ):
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        kills += process.wait(timeout=60) == -signal.SIGKILL
        safe = recorded(broken)
        asked = Counter(lines(broken / "side"))
        assert len(safe) == len(set(safe)) <= BUDGET
        # what is under way when the parent dies is at most one crystal per worker
        assert sum(asked.values()) - len(set(asked)) <= 2 * kills
        before = {name: asked[name] for name in safe}
        resumed_from = (safe, before)
    assert kills >= 2
    assert start(broken, 0.0).wait(timeout=300) == 0

    assert state(broken) == state(whole)
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
