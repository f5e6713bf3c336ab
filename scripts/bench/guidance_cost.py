"""What guidance costs: seconds and network evaluations beside the unguided model.

    python scripts/bench.py guidance-cost --output FILE.json
    python scripts/bench.py guidance-cost --models vae-prototypes --pairs 3 --clock cpu

For every shipped model and every way to guide it, the same number of crystals is drawn
with and without the guide, in pairs of one seed, so that both begin with the same layouts:
first with, then without, of the sizes that the guided crystals have where these are others (a
formula pattern decides sizes, and large crystals cost more), then the next seed. One draw
that is not timed comes before each pair, so that neither is the first to work out a layout.
A ratio is that of one pair, so that a busy machine slows both of its parts; the table gives
the median of all pairs and their range. Seeds differ between pairs, so that no mask is
answered from memory that a reader's first call would have to work out; what the very first
call costs is printed too, as "first". Overlapping crystals are not drawn again on either
side: how many rounds that takes is chance. Crystals that miss a constraint are, and count.

The particles of `steer` are paid for one by one: its ratio is divided by their number.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

import matdesign as design
from matdesign.constraints.base import All
from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.composition import Composition
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.crystals.batch import generator
from matdesign.errors import MatdesignError
from matdesign.generators.contract import Generator
from matdesign.guidance.guide import Guide
from matdesign.tables import text_table

KINDS = ("flow-matching", "diffusion", "autoregressive", "coupling-flow", "vae")
MODELS = [f"{kind}-{data}" for kind in KINDS for data in ("prototypes", "perovskites")]
PALETTE = ("Ca", "Sr", "Ba", "Na", "K", "Ti", "Zr", "Fe", "Al", "O", "S", "F", "Cl")
PARTICLES = 4
BAR = 2.0
"""Most that a guide may cost, times the unguided model; for steering, per particle."""


def dense(method: str, **options: Any) -> Guide:
    """Return a guide to a range of density."""
    return Guide(Between("density", 4, 6, unit="g/cm^3"), method, **options)


def mask(*names: str) -> Guide:
    """Return a guide that masks elements."""
    known = {
        "elements": OnlyElements(*PALETTE),
        "required": RequiredElements("O"),
        "ABX3": Composition(pattern="ABX3"),
        "neutral": ChargeNeutral(),
    }
    return Guide(All(*(known[name] for name in names or known)))


WAYS: dict[str, Callable[[], Guide]] = {
    "mask: elements": lambda: mask("elements"),
    "mask: required": lambda: mask("required"),
    "mask: ABX3": lambda: mask("ABX3"),
    "mask: neutral": lambda: mask("neutral"),
    "mask: all of these": mask,
    "project: density": lambda: dense("project"),
    "gradient: density": lambda: dense("gradient", strict="hard"),
    f"steer: density, K = {PARTICLES}": lambda: dense(
        "steer", particles=PARTICLES, strict="hard"
    ),
}


def price(model: Generator, label: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return what one way to guide costs one model; the first pair is told apart."""
    n = args.n
    now = time.process_time if args.clock == "cpu" else time.perf_counter
    particles = PARTICLES if label.startswith("steer") else 1
    ratios, evaluations, plain = [], [], []
    for seed in range(args.pairs + 1):
        # the seed with which the guide begins to draw
        same = int(torch.randint(2**62, (1,), generator=generator(seed)))
        before, guide = model.sample(n, seed=same), WAYS[label]()
        start = now()
        guided = guide.sample(model, n, seed=seed)
        mine = now() - start
        moved = not torch.equal(before.n_atoms, guided.n_atoms)
        sizes = guided.n_atoms.tolist() if moved else None
        start = now()
        bare = model.sample(n, seed=same, n_atoms=sizes)
        plain.append(now() - start)
        asked, spent = (int(x.info["network_evaluations"]) for x in (bare, guided))
        ratios.append(mine / plain[-1] / particles)
        evaluations.append(spent / asked / particles)
    middle = statistics.median(ratios[1:])
    return {
        "plain_seconds": statistics.median(plain[1:]),
        "first": ratios[0],
        "median": middle,
        "low": min(ratios[1:]),
        "high": max(ratios[1:]),
        "evaluations": statistics.median(evaluations[1:]),
        "bar": BAR,
        "met": middle <= BAR,
    }


def options(add: Callable[..., Any]) -> None:
    """Add what the command line takes."""
    add("--models", nargs="*", default=MODELS)
    add("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    add("--n", type=int, default=64, help="crystals of each draw")
    add("--pairs", type=int, default=5)
    add("--clock", default="wall", choices=["wall", "cpu"])


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the price of every way for every model so far; refusals by their message."""
    found: dict[str, Any] = {}
    for name in args.models:
        model = design.load_model(name)
        model.redraws = 0
        if isinstance(model, design.VAE):
            model.min_distance = 0.0
        model.sample(args.n, seed=10**6)  # fills the caches
        found[name] = {}
        for label in args.ways:
            try:
                found[name][label] = price(model, label, args)
            except MatdesignError as wrong:
                found[name][label] = {"error": str(wrong)}
            print("  ".join(row(name, label, found[name][label])), flush=True)
        sizes = {key: getattr(args, key) for key in ("n", "pairs", "clock")}
        yield {**sizes, "prices": found}


def row(name: str, label: str, one: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    if "error" in one:
        return [name, label, "refused: " + one["error"][:60], *[""] * 6]
    span = f"{one['low']:.2f} to {one['high']:.2f}"
    figures = [f"{one[key]:.2f}" for key in ("first", "evaluations", "plain_seconds")]
    end = [f"{one['bar']:g}", "met" if one["met"] else "missed"]
    return [name, label, f"{one['median']:.2f}", span, *figures, *end]


def table(record: dict[str, Any]) -> str:
    """Return all prices as text."""
    head = ["model", "guided by", "times", "range", "first", "evaluations"]
    prices = record["prices"].items()
    body = [row(name, k, one) for name, of in prices for k, one in of.items()]
    return text_table([*head, "unguided s", "bar", ""], body)
