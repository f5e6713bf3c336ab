"""Measure a shipped generator and write its card.

    python scripts/card.py diffusion-prototypes --workers 2

Draws 1,000 crystals with a fixed seed, judges them (design.evaluate, against the model's
training set), relaxes them with the default potential and measures their distance to the
shipped hull. Writes data/models/NAME/card.json and card.md. Everything is saved as it
goes, in build/cards/NAME: start the same command again and it continues.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.generators.storage import WEIGHTS, write_atomic
from matdesign.metrics.intervals import wilson
from matdesign.paths import data_dir

ROOT = Path(__file__).resolve().parent.parent
BARS = {
    "structurally valid": ("structure_valid", 0.95),
    "compositionally valid": ("composition_valid", 0.70),
    "unique": ("unique", 0.90),
    "within 0.1 eV/atom of the hull": ("near_hull", 0.20),
}


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="one of design.models()")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--relax", type=int, help="how many to relax; all if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=50, help="relaxed between savings")
    return parser.parse_args()


def draw(args: argparse.Namespace, work: Path) -> tuple[Crystals, dict[str, Any]]:
    """Return the samples and how they were made, from the file of an earlier start."""
    table, facts = work / "samples.parquet", work / "samples.json"
    weights = data_dir() / "models" / args.name / WEIGHTS
    key = {
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "samples": args.samples,
        "seed": args.seed,
    }
    if table.exists() and facts.exists():
        known = json.loads(facts.read_text())
        if {k: known.get(k) for k in key} == key:
            return design.read(table), known
    for old in work.glob("*"):
        old.unlink()
    print(f"drawing {args.samples} crystals", flush=True)
    model = design.load_model(args.name)
    made = model.sample(args.samples, seed=args.seed)
    made = made.replace(ids=tuple(f"{args.name}-{i:04d}" for i in range(len(made))))
    design.write(made, table)
    known = {**key, **made.info, "threads": torch.get_num_threads()}
    write_atomic(facts, json.dumps(known).encode())
    # what is judged is what was written
    return design.read(table), known


def relax(made: Crystals, args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Return one row per relaxed crystal; rows of an earlier start are kept."""
    path = work / "relaxed.jsonl"
    rows = (
        [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []
    )
    done = {row["index"] for row in rows}
    count = len(made) if args.relax is None else min(args.relax, len(made))
    left = [i for i in range(count) if i not in done]
    # like sizes together: a batch is as slow as its largest crystal
    left.sort(key=lambda i: int(made.n_atoms[i]))
    oracle = design.PotentialOracle(workers=args.workers)
    for start in range(0, len(left), args.chunk):
        some = left[start : start + args.chunk]
        began = time.perf_counter()
        results = oracle.evaluate(made[some])
        with path.open("a") as file:
            for i, row in zip(some, results.rows(), strict=True):
                row = {"index": i, **row, "oracle": results.oracle}
                rows.append(row)
                file.write(json.dumps(row) + "\n")
        took = time.perf_counter() - began
        print(f"relaxed {len(rows)}/{count}, {took / len(some):.2f} s each", flush=True)
    return sorted(rows, key=lambda row: int(row["index"]))


def stability(rows: list[dict[str, Any]], table: dict[str, Any]) -> dict[str, Any]:
    """Return counts over all relaxed crystals; a failed relaxation is never stable."""
    ok = np.array([row["ok"] for row in rows], dtype=bool)
    above = np.array([row["energy_above_hull"] for row in rows], dtype=float)
    rivals = np.array([row["competing"] for row in rows]) > 0
    index = [row["index"] for row in rows]
    new = np.asarray(table["unique"])[index] & np.asarray(table["novel"])[index]
    near = ok & (above <= 0.1)
    return {
        "relaxed": len(rows),
        "converged and believed": _rate(ok),
        "near_hull": _rate(near),
        "on or below the hull": _rate(ok & (above <= 0.0)),
        "within 0.1 eV/atom, a compound competing": _rate(near & rivals),
        "within 0.1 eV/atom, unique and novel": _rate(near & new),
        "median distance to the hull (eV/atom)": round(float(np.median(above[ok])), 4),
        "median seconds per relaxation": round(
            float(np.median([row["seconds"] for row in rows])), 3
        ),
    }


def _rate(flags: np.ndarray) -> dict[str, float]:
    low, high = wilson(int(flags.sum()), len(flags))
    return {
        "value": round(float(flags.mean()), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "count": int(flags.sum()),
        "n": len(flags),
    }


def hardware() -> str:
    """Return the processor and what else a timing depends on."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [x.split(":")[1].strip() for x in text.splitlines() if "model name" in x]
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, no GPU"
    )


def write_card(card: dict[str, Any], folder: Path) -> None:
    """Write card.json and card.md."""
    write_atomic(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    training, drawn = card["training"], card["sampling"]
    lines = [
        f"# {card['name']}",
        "",
        f"{card['model']} Data, labels and hull are those of the potential CHGNet 0.3.0, "
        "an approximation of PBE(+U); no density functional calculation was made.",
        "",
        f"| of {card['samples']:,} samples, seed {drawn['seed']} | figure | 95 % interval "
        "| bar |",
        "| --- | --- | --- | --- |",
    ]
    for name, one in card["bars"].items():
        mark = "met" if one["met"] else "missed"
        lines.append(
            f"| {name} | {100 * one['value']:.1f} % | {100 * one['low']:.1f} to "
            f"{100 * one['high']:.1f} % | {100 * one['bar']:.0f} %: {mark} |"
        )
    for name, one in card["stability"].items():
        if isinstance(one, dict) and name != "near_hull":
            lines.append(
                f"| {name} | {100 * one['value']:.1f} % | {100 * one['low']:.1f} to "
                f"{100 * one['high']:.1f} % | |"
            )
    for name, one in card["evaluation"]["metrics"].items():
        if name in ("novelty", "valid, unique and novel"):
            lines.append(
                f"| {name} | {100 * one['value']:.1f} % | {100 * one['low']:.1f} to "
                f"{100 * one['high']:.1f} % | |"
            )
        if "count" not in one or one["count"] is None:
            lines.append(
                f"| {name} | {one['value']:.3g} {one.get('unit', '')} | "
                f"{one['low']:.3g} to {one['high']:.3g} | |"
            )
    lines += [
        "",
        f"Rates of stability count all {card['stability']['relaxed']:,} relaxed samples; a "
        "failed or unbelievable relaxation counts as not stable. Median distance to the "
        "hull of the rest: "
        f"{card['stability']['median distance to the hull (eV/atom)']} eV/atom. The hull "
        "knows only the phases of the shipped sets, so distances are lower bounds.",
        "",
        f"**Training.** {training.get('crystals', 0):,} crystals of "
        f"`{training.get('data', '')}` (checksum {training.get('data_sha256', '')[:16]}), "
        f"{training.get('steps', 0):,} steps of {training.get('batch_size', 0)} in "
        f"{training.get('seconds', 0) / 60:.0f} minutes on {training.get('device', '')}, "
        f"seed {training.get('seed')}: `{training.get('command', '')}`. Loss at the end "
        f"{training.get('loss')} in training, {training.get('val_loss')} in validation: "
        "where the second is much higher, the model has begun to learn its training set "
        "by heart; novelty above says how far that goes.",
        "",
        f"**Sampling.** {drawn['steps']} steps, {drawn['seconds']:.0f} s for "
        f"{card['samples']:,} crystals on {drawn['threads']} thread(s) of a machine shared "
        f"with other work: {card['hardware']}.",
        "",
        f"**Relaxation.** {card['oracle']}.",
        "",
        f"**Repeat.** `{card['command']}`",
        "",
        "Weights: MIT, like the code.",
    ]
    write_atomic(folder / "card.md", ("\n".join(lines) + "\n").encode())


def main() -> None:
    """Draw, judge, relax, write."""
    args = arguments()
    folder, work = (
        data_dir() / "models" / args.name,
        ROOT / "build" / "cards" / args.name,
    )
    work.mkdir(parents=True, exist_ok=True)
    model = design.load_model(args.name)
    made, drawn = draw(args, work)
    train = design.load(str(model.record["data"]), split="train")
    print("judging", flush=True)
    judged = design.evaluate(made, reference=train)
    print(judged, flush=True)
    rows = relax(made, args, work)
    found = stability(rows, judged.table)
    rates = {k: _rate(np.asarray(judged.table[k], dtype=bool)) for k, _ in BARS.values()
             if k in judged.table}  # fmt: skip
    rates["near_hull"] = found["near_hull"]
    bars = {
        text: {**rates[key], "bar": bar, "met": rates[key]["value"] >= bar}
        for text, (key, bar) in BARS.items()
    }
    card = {
        "name": args.name,
        "model": f"{type(model).__name__}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters.",
        "samples": len(made),
        "bars": bars,
        "stability": found,
        "evaluation": judged.record(),
        "training": model.record,
        "sampling": drawn,
        "oracle": rows[0]["oracle"] if rows else "",
        "hardware": hardware(),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": shlex.join(["python", "scripts/card.py", *sys.argv[1:]]),
        "licence": "MIT",
        "units": {"energy_above_hull": "eV/atom", "seconds": "s"},
    }
    write_card(card, folder)
    print((folder / "card.md").read_text())
    missed = [name for name, one in bars.items() if not one["met"]]
    if missed:
        print(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
