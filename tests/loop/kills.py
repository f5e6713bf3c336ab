"""kill -9 a small campaign at random moments, again and again; what is lost, what is paid twice?

python tests/loop/kills.py 100
"""

import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import ase.db  # noqa: F401
import pymatgen.analysis.structure_matcher  # noqa: F401
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys, CountingOracle, fingerprint
from test_campaign import Toy
from test_strategies import Richest

from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import RequiredElements
from matdesign.loop.campaign import Campaign
from matdesign.loop.store import Store

BUDGET = 20
FRESH = multiprocessing.get_context("forkserver")  # imports once, for all campaigns
FRESH.set_forkserver_preload(["kills"])  # found by PYTHONPATH only


class Cheap(Toy):
    """Answers at once, one crystal after the other; fails those with gold and notes each."""

    def __init__(self, side, pause):
        self.side, self.pause = side, pause

    def stream(self, crystals):
        for i in range(len(crystals)):
            with open(self.side, "a") as file:
                file.write(fingerprint(crystals[i]) + "\n")
            time.sleep(self.pause)
            bad = 79 in crystals.species[i]
            row = self.evaluate(crystals[[i]])
            yield i, replace(row, reason=("gold",) if bad else ("",))


def work(folder, cheap, pause, select):
    """Go on with the campaign of a folder, or begin it."""
    store, model = folder / "c.db", Alloys(log=str(folder / "log"))
    oracle = (Cheap if cheap else CountingOracle)(str(folder / "side"), pause)
    parts = {"oracle": oracle, "select": Richest(1) if select else None}
    wanted = MinDistance(1.5) & RequiredElements("Cu")
    settings = {"budget": BUDGET, "batch": 8, "propose": 16, "seed": 11}
    try:
        loop = Campaign.resume(store, generator=model, **parts)
    except ValueError as error:
        if "holds no campaign" not in str(error):
            raise
        store.unlink(missing_ok=True)
        loop = Campaign(model, wanted, store=store, **parts, **settings)
    list(loop)
    loop.close()


def start(folder, cheap=True, pause=0.0, select=False):
    """Return a process that works on a campaign."""
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join(p for p in sys.path if p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        forkserver.ensure_running()
    process = FRESH.Process(target=work, args=(folder, cheap, pause, select))
    process.start()
    return process


def undisturbed(folder, **settings):
    """Let a campaign end undisturbed."""
    process = start(folder, **settings)
    process.join(300)
    assert process.exitcode == 0
    return folder


def lines(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []


def state(folder):
    """Everything that the store holds, without times, as text: NaN is not NaN."""
    store = Store(folder / "c.db", read_only=True)
    iterations = [
        {k: v for k, v in row.items() if k != "seconds"} for row in store.iterations()
    ]
    loop = Campaign.view(folder / "c.db")
    found = loop.table().drop(columns="seconds").to_csv(), str(store.decisions())
    loop.close()
    rows = [p for one in iterations for p in store.proposals(one["iteration"])]
    assert store.count("crystal") == len(rows)  # none outside a whole iteration
    return str(iterations), *found


def recorded(folder):
    """Fingerprints of the crystals whose evaluation is in the store."""
    if not (folder / "c.db").exists():
        return []
    store = Store(folder / "c.db", read_only=True)
    originals = store.originals()
    return [fingerprint(originals[e.key][0]) for e in store.evaluations()]


def disturbed(folder, chance, longest):
    """Kill a campaign until it ends before its time; return kills, lost and paid twice."""
    kills, safe, paid = 0, [], Counter()
    lost = twice = 0
    while True:
        process = start(folder, pause=0.01)
        process.join(chance.uniform(0.0, longest))
        process.kill()
        process.join()
        assert process.exitcode in (0, -9), process.exitcode
        now, asked = recorded(folder), Counter(lines(folder / "side"))
        lost += len(set(safe) - set(now))
        twice += len(now) - len(set(now)) + sum(asked[x] > paid[x] for x in safe)
        safe, paid = now, asked
        if process.exitcode == 0:
            again = asked.total() - len(asked)  # was under way when it was killed
            return kills, lost + len(set(asked) - set(now)), twice, again
        kills += 1


def survive(n, folder, seed):
    """Return what n campaigns, each killed at random moments, lost and paid twice."""
    first, began = state(undisturbed(folder / "whole")), time.monotonic()
    undisturbed(folder / "timed", pause=0.01)
    longest, chance = time.monotonic() - began, random.Random(seed)
    found = dict.fromkeys(("kills", "lost", "evaluated twice", "begun again"), 0)
    found["equal"] = 0
    for k in range(n):
        run = disturbed(folder / str(k), chance, longest)
        for name, count in zip(found, run, strict=False):
            found[name] += count
        found["equal"] += state(folder / str(k)) == first
    return found


if __name__ == "__main__":
    n, seed = int(sys.argv[1]), int(time.time())
    with tempfile.TemporaryDirectory() as folder:
        found = survive(n, Path(folder), seed)
    print(
        f"{n} campaigns of {BUDGET} evaluations, {found['kills']} times kill -9 (seed {seed}):\n"
        f"crystals lost: {found['lost']}\n"
        f"evaluated again after their result was there: {found['evaluated twice']}\n"
        f"begun again, since under way at a kill: {found['begun again']}\n"
        f"final tables equal to the undisturbed one, as text: {found['equal']} of {n}"
    )
