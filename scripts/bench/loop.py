"""Oracle calls until the best crystals of a table are found, by rule of choosing.

All crystals of a set are the universe and their labels the oracle, so that the best ten
are known. Rules choose ten at a time among all that are left; each is run with ten seeds.
Random order is a thousand permutations. The control is expected improvement with labels
shuffled before the surrogate sees them.

The gate is measured on a stream: every crystal is proposed once, a hundred at a time in
random order, and the surrogate decides which are evaluated at all.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import matdesign as design
from bench.stages import code, kept
from matdesign.crystals.batch import Crystals
from matdesign.loop.results import Results

TOP, BATCH, PROPOSED, MOST, FIRST = 10, 10, 100, 320, 100
"""Best crystals, calls at once, proposals of a stream, calls in all, calls of a screening."""
SET, OBJECTIVE, SEEDS, GATES = "perovskites", "energy_above_hull", 10, (0.01, 0.001)

CONTROL = "shuffled labels"
"""Rules that end after 200 calls."""
ENDS = (0.025, 0.975)

RULES: dict[str, dict[str, Any]] = {
    "expected improvement": {"acquisition": "expected_improvement"},
    "upper confidence bound": {"acquisition": "upper_confidence_bound"},
    "Thompson": {"acquisition": "thompson"},
    "lowest mean": {"acquisition": "mean"},
    "screening": {"acquisition": "mean"},
    CONTROL: {"acquisition": "expected_improvement"},
}


class Universe:
    """A set whose labels are the oracle."""

    def __init__(self) -> None:
        self.crystals = design.load(SET)
        self.values = self.crystals.properties[OBJECTIVE].double()
        self.top = set(self.values.argsort()[:TOP].tolist())

    def plain(self, rows: list[int]) -> Crystals:
        """Return crystals without their labels."""
        return self.crystals[rows].replace(properties={}, units={}, labels={})

    def choose(
        self,
        chooser: Any,
        left: list[int],
        done: list[int],
        room: int,
        seed: int,
        mix: bool,
    ) -> list[int]:
        """Return what a selector chooses among crystals that are left."""
        values, seed = self.values[done], seed + SEEDS * len(done)  # new for each batch
        if mix:
            rng = torch.Generator().manual_seed(seed)
            values = values[torch.randperm(len(done), generator=rng)]
        seen = Results(self.plain(done), {})
        chosen = chooser.select(self.plain(left), seen, values, room, seed=seed)
        return [left[i] for i in chosen.order]

    def hits(self, done: list[int]) -> list[int]:
        """Return at which calls the best were found."""
        return [k + 1 for k, i in enumerate(done) if i in self.top]


def search(world: Universe, rule: str, seed: int) -> dict[str, Any]:
    """Return what one run found and what it took."""
    chooser = design.Bayesian(**RULES[rule])
    order = np.random.default_rng(seed).permutation(len(world.values)).tolist()
    done, slowest = order[: chooser.start], 0.0
    if rule == "screening":
        done = order[:FIRST]
        left = [i for i in order if i not in set(done)]
        done = done + world.choose(chooser, left, done, MOST - FIRST, seed, False)
    most = 200 if rule == CONTROL else MOST
    while len(done) < most and len(world.hits(done)) < TOP:
        before = set(done)
        left = [i for i in order if i not in before]
        began = time.process_time()
        mix = rule == CONTROL
        done = done + world.choose(chooser, left, done, BATCH, seed, mix)
        slowest = max(slowest, time.process_time() - began)
    return {"hits": world.hits(done), "calls": len(done), "slowest": round(slowest, 2)}


def stream(world: Universe, gate: float, seed: int) -> dict[str, Any]:
    """Return what a gate let through of all crystals, and what that found."""
    chooser = design.Bayesian(gate=gate)
    order = np.random.default_rng(seed).permutation(len(world.values)).tolist()
    done: list[int] = []
    for at in range(0, len(order), PROPOSED):
        some = order[at : at + PROPOSED]
        done = done + world.choose(chooser, some, done, PROPOSED, seed, False)
    best = world.values[done].sort().values[:TOP]
    return {"hits": world.hits(done), "calls": len(done), "best": best.tolist()}


def in_random_order(n: int) -> np.ndarray[Any, Any]:
    """Return at which calls the best are found in random order, (1,000, TOP)."""
    rng = np.random.default_rng(0)
    return np.stack([np.sort(rng.permutation(n)[:TOP]) + 1 for _ in range(1_000)])


def middle(calls: Any, chance: Any = None) -> list[float | None]:
    """Return the median of calls over seeds, or that of chance divided by it.

    With the 95 % bootstrap interval over seeds. A run that did not find them counts as
    infinite, which is written as None; a ratio over it is 0.
    """
    rng = np.random.default_rng(0)
    few = np.asarray(calls, dtype=float)
    below = np.median(rng.choice(few, (2_000, len(few))), 1)
    figures = np.append(np.median(few), np.quantile(below, ENDS, method="nearest"))
    if chance is not None:
        above = np.median(rng.choice(chance, (2_000, len(chance))), 1)
        ends = np.quantile(above / below, ENDS, method="nearest")
        figures = np.append(np.median(chance) / figures[0], ends)
    return [round(float(x), 3) if np.isfinite(x) else None for x in figures]


def summary(runs: list[dict[str, Any]], chance: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return calls to half and to all of the best, and how much earlier than at random."""
    found: dict[str, Any] = {}
    for name, share in (("half", TOP // 2), ("all", TOP)):
        calls = [
            run["hits"][share - 1] if len(run["hits"]) >= share else np.inf
            for run in runs
        ]
        found[f"calls to {name}"] = middle(calls)
        found[f"acceleration, {name}"] = middle(calls, chance[:, share - 1])
    for calls in (50, 100, 200):
        count = [sum(k <= calls for k in run["hits"]) for run in runs]
        found[f"found after {calls}"] = [float(np.mean(count)), min(count), max(count)]
    return found


def options(add: Callable[..., Any]) -> None:
    """Add nothing: a measurement has no options."""


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield all runs, made where they are not kept yet."""
    world = Universe()
    base = {"set": SET, "objective": OBJECTIVE, "n": len(world.values), "draws": "own"}
    base["code"] = code("loop/surrogate.py", "loop/acquisition.py")

    def run(kind: str, what: Any, seed: int, make: Callable[..., Any]) -> Any:
        key = {**base, kind: what, "seed": seed}
        made = kept(args.cache, key, lambda: make(world, what, seed))
        print(f"{what}, seed {seed}: {made['calls']} calls, {made['hits']}", flush=True)
        return made

    rules: dict[str, Any] = {name: [] for name in RULES}
    gates: dict[str, Any] = {f"{gate:g}": [] for gate in GATES}
    for seed in range(SEEDS):
        for name in RULES:
            rules[name].append(run("rule", name, seed, search))
        for gate in GATES:
            gates[f"{gate:g}"].append(run("gate", gate, seed, stream))
    chance = in_random_order(len(world.values))
    best = world.values.argsort()[:TOP].tolist()
    yield {
        "set": SET,
        "objective": OBJECTIVE,
        "seeds": SEEDS,
        "crystals": len(world.values),
        "best": dict(zip(world.crystals[best].formulas, world.values[best].tolist())),
        "random": summary([{"hits": row.tolist()} for row in chance], chance),
        "rules": {
            name: {"summary": summary(runs, chance), "runs": runs}
            for name, runs in rules.items()
        },
        "gates": gates,
    }


def table(record: dict[str, Any]) -> str:
    """Return what every rule and gate found, as text."""
    lines = []
    for name, one in {
        "random": {"summary": record["random"]},
        **record["rules"],
    }.items():
        lines.append(f"\n{name}")
        for what, (value, low, high) in one["summary"].items():
            lines.append(f"  {what:<20}{value} ({low} to {high})")
    for name, runs in record["gates"].items():
        calls = np.mean([run["calls"] for run in runs])
        found = np.mean([len(run["hits"]) for run in runs])
        lines.append(f"\ngate {name}: {calls:.0f} calls, {found:.1f} of {TOP} found")
    return "\n".join(lines)
