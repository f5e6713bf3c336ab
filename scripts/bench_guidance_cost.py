"""What guidance costs: seconds and network evaluations beside the unguided model.

    python scripts/bench_guidance_cost.py --output FILE.json
    python scripts/bench_guidance_cost.py --models vae-prototypes --pairs 3 --clock cpu

For every shipped model and every way to guide it, the same number of crystals is drawn
with and without the guide, in pairs of one seed, so that both begin with the same layouts:
first with, then without, of the sizes that the guided crystals have where these are others (a
formula pattern decides sizes, and large crystals cost more), then the next seed. One draw
that is not timed comes before each pair, so that neither is the first to work out a layout.
A ratio is that of one pair, so that a busy machine slows both of its parts; the table gives
the median of all pairs and their range. Seeds differ between pairs, so that no mask is
answered from memory that a reader's first call would have to work out; what the very first
call costs is printed too, as "first". Overlapping crystals are not drawn again on either
side, unless --redraws is given: how many rounds that takes is chance. Crystals that miss a
constraint are, and count.

The particles of `steer` are paid for one by one: its ratio is divided by their number.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import command, hardware

import matdesign as design
from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.composition import Composition
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import MatdesignError
from matdesign.generators.contract import Generator
from matdesign.guidance.guide import Guide
from matdesign.metrics.summary import text_table

KINDS = ("flow-matching", "diffusion", "autoregressive", "coupling-flow", "vae")
MODELS = tuple(
    f"{kind}-{data}" for kind in KINDS for data in ("prototypes", "perovskites")
)
PALETTE = ("Ca", "Sr", "Ba", "Na", "K", "Ti", "Zr", "Fe", "Al", "O", "S", "F", "Cl")
PARTICLES = 4


@dataclass(frozen=True)
class Way:
    """One way to guide, and how much it may cost.

    Args:
        make: the guide.
        bar: largest ratio of seconds, per particle.
        particles: for each crystal.
    """

    make: Callable[[], Guide]
    bar: float
    particles: int = 1


def dense() -> Between:
    """Return the range of density that is projected, pulled at or steered to."""
    return Between("density", 4, 6, unit="g/cm^3")


WAYS = {
    "mask: elements": Way(lambda: Guide(OnlyElements(*PALETTE)), 1.2),
    "mask: required": Way(lambda: Guide(RequiredElements("O")), 1.2),
    "mask: ABX3": Way(lambda: Guide(Composition(pattern="ABX3")), 1.2),
    "mask: neutral": Way(lambda: Guide(ChargeNeutral()), 1.2),
    "mask: all of these": Way(
        lambda: Guide(
            OnlyElements(*PALETTE)
            & RequiredElements("O")
            & Composition(pattern="ABX3")
            & ChargeNeutral()
        ),
        1.2,
    ),
    "project: density": Way(lambda: Guide(dense(), "project"), 1.2),
    "gradient: density": Way(lambda: Guide(dense(), "gradient", strict="hard"), 2.0),
    f"steer: density, K = {PARTICLES}": Way(
        lambda: Guide(dense(), "steer", particles=PARTICLES, strict="hard"),
        1.2,
        PARTICLES,
    ),
}


def timed(draw: Callable[[], Crystals], clock: str) -> tuple[float, Crystals]:
    """Return the seconds that drawing takes, and what was drawn."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    start = now()
    made = draw()
    return now() - start, made


def price(
    model: Generator, way: Way, *, n: int, pairs: int, steps: int | None, clock: str
) -> dict[str, Any]:
    """Return what one way to guide costs one model.

    Args:
        model: any generator.
        way: how it is guided.
        n: crystals of each draw.
        pairs: draws with and without the guide; one more comes before, for "first".
        steps: sampling steps; None takes the model's own number.
        clock: "wall" or "cpu".
    """
    seconds, evaluations, plain = [], [], []
    for seed in range(pairs + 1):
        # the seed with which the guide begins to draw
        same = int(torch.randint(2**62, (1,), generator=generator(seed)))
        before = model.sample(n, seed=same, steps=steps)
        drawn = partial(way.make().sample, model, n, seed=seed, steps=steps)
        mine, guided = timed(drawn, clock)
        moved = not torch.equal(before.n_atoms, guided.n_atoms)
        sizes = guided.n_atoms.tolist() if moved else None
        bare = partial(model.sample, n, seed=same, n_atoms=sizes, steps=steps)
        free, unguided = timed(bare, clock)
        asked, spent = (
            int(made.info["network_evaluations"]) for made in (unguided, guided)
        )
        plain.append(free)
        seconds.append(mine / free / way.particles)
        evaluations.append(spent / asked / way.particles)
    middle = statistics.median(seconds[1:])
    return {
        "plain_seconds": statistics.median(plain[1:]),
        "first": seconds[0],
        "median": middle,
        "low": min(seconds[1:]),
        "high": max(seconds[1:]),
        "evaluations": statistics.median(evaluations[1:]),
        "bar": way.bar,
        "met": middle <= way.bar,
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the price of every way for every model; refusals by their message."""
    found: dict[str, Any] = {}
    for name in args.models:
        model = design.load_model(name).to(args.device)
        if not args.redraws:
            model.redraws = 0
            if isinstance(model, design.VAE):
                model.apart = 0.0
        model.sample(args.n, seed=10**6, steps=args.steps)  # fills the caches
        found[name] = {}
        for label in args.ways:
            try:
                found[name][label] = price(
                    model,
                    WAYS[label],
                    n=args.n,
                    pairs=args.pairs,
                    steps=args.steps,
                    clock=args.clock,
                )
            except MatdesignError as wrong:
                found[name][label] = {"error": str(wrong)}
            print("  ".join(row(name, label, found[name][label])), flush=True)
    return found


def row(name: str, label: str, one: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    if "error" in one:
        return [name, label, "refused: " + one["error"][:60]]
    return [
        name,
        label,
        f"{one['median']:.2f}",
        f"{one['low']:.2f} to {one['high']:.2f}",
        f"{one['first']:.2f}",
        f"{one['evaluations']:.2f}",
        f"{one['plain_seconds']:.3f}",
        f"{one['bar']:g}",
        "met" if one["met"] else "missed",
    ]


def report(found: dict[str, Any]) -> str:
    """Return all prices as a table."""
    head = ["model", "guided by", "times", "range", "first", "evaluations"]
    head += ["unguided s", "bar", ""]
    body = [row(name, k, one) for name, of in found.items() for k, one in of.items()]
    return text_table(head, [line + [""] * (len(head) - len(line)) for line in body])


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--n", type=int, default=64, help="crystals of each draw")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, help="sampling steps; each model's own")
    parser.add_argument(
        "--redraws", action="store_true", help="of overlapping crystals"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path, help="JSON record to write")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write a record where asked."""
    args = arguments(given)
    torch.set_num_threads(args.threads)
    words = sys.argv[1:] if given is None else given
    record = {
        "command": command("bench_guidance_cost.py", words),
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "hardware": hardware(),
        "load": os.getloadavg()[0],
        **{
            k: getattr(args, k)
            for k in ("n", "pairs", "steps", "redraws", "threads", "clock")
        },
        "device": args.device,
    }
    record["prices"] = measure(args)
    print(report(record["prices"]))
    print(
        f"{record['hardware']}, {args.threads} threads, {args.clock} seconds, load "
        f"{record['load']:.1f} at the start; {args.n} crystals, {args.pairs} pairs"
    )
    if args.output:
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    return record


if __name__ == "__main__":
    main()
