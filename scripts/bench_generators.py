"""Time and weigh all generators beside a reference network, in one run.

    python scripts/bench_generators.py --output FILE.json
    python scripts/bench_generators.py --data mp_20_dev.parquet --models diffusion-mp20

For every shipped model and for a fresh model of every family: sampling (crystals a
second, network evaluations a crystal, memory), growth with the number of crystals and of
sites, one training step; for shipped models also the cold start. Beside them stands the
network of scripts/reference_network.py with its 1,000 steps of predictor and corrector,
of which a few are timed and scaled: every step costs the same. Ratios are to the
reference on crystals of the same sizes, with the same threads.

Crystals to train on are those of reduced MP-20 (--data), else of the shipped prototypes,
drawn so that their sizes are distributed as in MP-20. A fresh model is untrained: its cost
is that of its size, and where it makes its own layouts these are random. Memory is the
growth of resident memory (CPU) or of allocated memory (GPU) to its highest point.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from bench_cost import (
    QUICK,
    Effort,
    cost,
    exponent,
    like_mp20,
    timed_steps,
    training_step,
)
from bench_reference import References
from bench_start import seconds
from machine import fast_products, hardware
from reference_network import STEPS
from train import FAMILIES, family

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import MatdesignError
from matdesign.generators import storage
from matdesign.generators.batching import by_size
from matdesign.generators.contract import Generator
from matdesign.generators.shipped import load_model, models
from matdesign.metrics.summary import text_table
from matdesign.paths import data_dir

BARS = {
    "sampling": (20.0, "times the reference, at least"),
    "training": (5.0, "times the reference, at least"),
    "cold start": (10.0, "s for 8 crystals, at most"),
    "thousand": (60.0, "s for 1,000 crystals of the fastest family, at most"),
}


def training_set(data: str | None, n: int) -> Crystals:
    """Return crystals to train on: those of reduced MP-20, or like them in size."""
    if data is None:
        return like_mp20(design.load("prototypes", split="train"), n)
    from mp20 import load_reduced

    whole = load_reduced(data)["train"]
    return whole[torch.randperm(len(whole), generator=generator(0))[:n]]


def model_training(
    model: Generator, data: Crystals, effort: Effort, device: str
) -> dict[str, Any]:
    """Return the cost of a training step of a generator."""
    some = data[: effort.batch]
    encoded = model.prepare(some)
    groups = by_size(some.n_atoms, torch.arange(len(some)))
    batches = [(encoded[g].to(device), len(g) / len(some)) for g in groups]
    model.train()
    step = training_step(
        [p for p in model.parameters() if p.requires_grad],
        [(lambda b=b: model.loss(b, seed=0).total, w) for b, w in batches],
    )
    out = timed_steps(step, len(some), effort, device)
    model.eval()
    return out


def sampling(model: Generator, effort: Effort, device: str) -> dict[str, Any]:
    """Return the cost of sampling with the model's own settings."""
    model.sample(min(4, effort.samples), seed=1, steps=1)
    made, took = cost(
        lambda: model.sample(effort.samples, seed=0, steps=effort.own_steps), device
    )
    seconds = took.seconds(effort.clock)
    return {
        "crystals": len(made),
        "mean_atoms": float(made.n_atoms.float().mean()),
        "steps": made.info["steps"],
        "seconds_per_crystal": seconds / len(made),
        "crystals_per_second": len(made) / seconds,
        "evaluations_per_crystal": made.info["network_evaluations"] / len(made),
        "memory_MiB": took.memory,
    }


def growth(model: Generator, effort: Effort, device: str) -> dict[str, Any]:
    """Return seconds against crystals and against sites, with fitted exponents.

    Sizes that a model cannot make, such as those without a template, are left out.
    """
    steps = min(effort.steps, model.default_steps)
    out: dict[str, Any] = {"steps": steps}
    counts: dict[int, float] = {}
    for n in effort.crystals:
        counts[n] = cost(lambda n=n: model.sample(n, seed=0, steps=steps), device)[
            1
        ].cpu
    sites: dict[int, float] = {}
    for n in effort.sites:
        try:
            _, took = cost(
                lambda n=n: model.sample(32, seed=0, steps=steps, n_atoms=n), device
            )
        except MatdesignError:
            continue
        sites[n] = took.cpu
    for name, times in (("crystals", counts), ("sites", sites)):
        out[name] = {"cpu_seconds": times, "exponent": exponent(times)}
    return out


def one_model(
    model: Generator, data: Crystals, references: References, effort: Effort
) -> dict[str, Any]:
    """Return every figure of one model, with its ratios to the reference."""
    device = references.device
    model = model.to(device).eval()
    row: dict[str, Any] = {
        "family": type(model).__name__,
        "representation": model.representation,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sampling": sampling(model, effort, device),
        "growth": growth(model, effort, device),
        "training": model_training(model, data, effort, device),
    }
    beside = references.sampling(model.size_histogram)
    row["sampling_ratio"] = {
        name: one["seconds_per_crystal"] / row["sampling"]["seconds_per_crystal"]
        for name, one in beside.items()
    }
    row["training_ratio"] = {
        name: row["training"]["crystals_per_second"] / one["crystals_per_second"]
        for name, one in references.training(data).items()
    }
    return row


def shipped_generators() -> list[str]:
    """Return the names of the shipped models that make crystals."""
    names = []
    for name in models():
        path = data_dir() / "models" / name / storage.FACTS
        if json.loads(path.read_text()).get("class") in FAMILIES.values():
            names.append(name)
    return names


def untrained(kind: str, representation: str, data: Crystals) -> Generator:
    """Return a model without training; its overlapping crystals are not drawn again."""
    model = family(kind).for_data(data, representation=representation, seed=0)
    model.redraws = 0
    return model


def measure(
    effort: Effort,
    *,
    data: Crystals,
    shipped: Sequence[str],
    fresh: Sequence[tuple[str, str]],
    device: str = "cpu",
    threads: int = 2,
    output: Path | None = None,
) -> dict[str, Any]:
    """Return all figures.

    Args:
        effort: how much is measured.
        data: crystals of the training steps and of fresh models.
        shipped: names of shipped models.
        fresh: family and representation of the models that are built here.
        device: "cpu" or "cuda".
        threads: of torch, here and in new processes.
        output: the record; figures of each model are kept beside it as they come.
    """
    references = References(effort, device)
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, make: Callable[[], Generator], trained: bool) -> None:
        try:
            row = one_model(make(), data, references, effort)
        except MatdesignError as wrong:
            print(f"{name}: {wrong}", flush=True)
            rows[name] = {"trained": trained, "error": str(wrong)}
            return
        rows[name] = {"trained": trained, **row}
        if output is not None:  # what was measured is kept, should the rest be cut off
            part = output.with_suffix(".part.json")
            part.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{name}: {row['sampling']['crystals_per_second']:.1f}/s", flush=True)

    for name in shipped:
        add(name, lambda name=name: load_model(name), True)
        if effort.cold:
            code = (
                "import matdesign as design\n"
                f"print(design.load_model({name!r}).sample(8, seed=0))"
            )
            seconds(code, 1, threads)  # fills the file cache
            rows[name]["cold_start_seconds"] = statistics.median(
                seconds(code, effort.cold, threads)
            )
    for kind, representation in fresh:
        add(
            f"fresh {kind} ({representation})",
            lambda kind=kind, representation=representation: untrained(
                kind, representation, data
            ),
            False,
        )
    pick = [k for k in shipped if "error" not in rows[k]]
    pick = pick or [k for k in rows if "error" not in rows[k]]
    fastest = max(pick, key=lambda k: rows[k]["sampling"]["crystals_per_second"])
    model = (
        load_model(fastest)
        if fastest in shipped
        else untrained(fastest.split()[1], fastest.rpartition("(")[2][:-1], data)
    ).to(device)
    _, took = cost(
        lambda: model.sample(effort.thousand, seed=0, steps=effort.own_steps), device
    )
    return {
        "models": rows,
        "reference": {
            "parameters": references.parameters,
            "steps": STEPS,
            "sampling": list(references.known_sampling.values()),
            "training": references.training(data),
        },
        "thousand": {
            "model": fastest,
            "crystals": effort.thousand,
            "seconds": took.seconds(effort.clock),
        },
    }


def bars(found: dict[str, Any]) -> list[str]:
    """Return one sentence for each bar and model: met, or missed by how much."""
    lines = []

    def say(what: str, name: str, value: float, least: bool) -> None:
        bar, unit = BARS[what]
        met = value >= bar if least else value <= bar
        lines.append(
            f"{what}: {name} {value:.3g} (bar {bar:g} {unit}): "
            + ("met" if met else "missed")
        )

    for name, row in found["models"].items():
        if "error" in row:
            continue
        say("sampling", name, row["sampling_ratio"]["published"], True)
        say("training", name, row["training_ratio"]["published"], True)
        if "cold_start_seconds" in row:
            say("cold start", name, row["cold_start_seconds"], False)
    last = found["thousand"]
    say("thousand", last["model"], last["seconds"], False)
    return lines


def report(found: dict[str, Any]) -> str:
    """Return the figures as tables."""

    def short(value: float | None, digits: int = 3) -> str:
        return "" if value is None else f"{value:.{digits}g}"

    body = []
    for name, row in found["models"].items():
        if "error" in row:
            body.append([name, *[""] * 9, row["error"][:40]])
            continue
        made, step, grown = row["sampling"], row["training"], row["growth"]
        body.append(
            [
                name,
                f"{row['parameters'] / 1e6:.2f}",
                short(made["crystals_per_second"]),
                short(made["evaluations_per_crystal"], 4),
                short(made["memory_MiB"]),
                short(row["sampling_ratio"]["published"]),
                short(row["sampling_ratio"]["factored"]),
                short(step["crystals_per_second"]),
                short(step["memory_MiB"]),
                short(row["training_ratio"]["published"]),
                f"{short(grown['crystals']['exponent'], 2)}, "
                f"{short(grown['sites']['exponent'], 2)}",
            ]
        )
    for name in ("published", "factored"):
        made = found["reference"]["sampling"][0][name]
        step = found["reference"]["training"][name]
        body.append(
            [
                f"reference, {name}",
                f"{found['reference']['parameters'] / 1e6:.2f}",
                short(1 / made["seconds_per_crystal"]),
                short(made["evaluations_per_crystal"], 4),
                short(made["memory_MiB"]),
                *["", ""],
                short(step["crystals_per_second"]),
                short(step["memory_MiB"]),
            ]
        )
    head = ["model", "M weights", "made/s", "evaluations", "MiB", "x published"]
    head += ["x factored", "trained/s", "MiB", "x published", "growth: crystals, sites"]
    body = [row + [""] * (len(head) - len(row)) for row in body]
    return text_table(head, body)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="mp_20_dev.parquet")
    parser.add_argument("--models", nargs="*", help="shipped ones; all if left out")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), help="fresh")
    parser.add_argument(
        "--representations", nargs="*", default=["cell", "symmetric"], help="fresh"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--onednn", action="store_true", help="float32 products by oneDNN, for all"
    )
    parser.add_argument("--quick", action="store_true", help="figures of no worth")
    parser.add_argument("--output", type=Path, help="JSON record to write")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write a record where asked."""
    args = arguments(given)
    torch.set_num_threads(args.threads)
    effort = replace(QUICK if args.quick else Effort(), clock=args.clock)
    found = {
        "hardware": hardware(),
        "threads": args.threads,
        "device": args.device,
        "onednn": args.onednn and fast_products(),
        "load": os.getloadavg()[0],
        "effort": asdict(effort),
        "data": "reduced MP-20" if args.data else "prototypes, sizes as in MP-20",
    }
    found |= measure(
        effort,
        data=training_set(args.data, effort.train),
        shipped=shipped_generators() if args.models is None else args.models,
        fresh=[(f, r) for f in args.families for r in args.representations],
        device=args.device,
        threads=args.threads,
        output=args.output,
    )
    found["bars"] = bars(found)
    print(report(found))
    print("\n".join(found["bars"]))
    print(
        f"{found['hardware']}, {args.threads} threads, {args.clock} seconds, load "
        f"{found['load']:.1f} at the start; the reference's "
        f"sampling is {effort.levels} of {STEPS:,} levels, scaled"
    )
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n")
        args.output.with_suffix(".part.json").unlink(missing_ok=True)
    return found


if __name__ == "__main__":
    main()
