"""Compare the quality of generators on reduced MP-20, published samples beside ours.

    python scripts/bench_quality.py --data mp_20_dev.parquet \\
        --published mp20_reference_samples.parquet --models diffusion-mp20 --samples 2000

One table: validity, coverage, distances, uniqueness and novelty of samples of our models
(--models) and of the published ones, and the same of real validation rows, which no
model can beat. All are judged by our evaluator in one run, against our 1,500 held-out
test rows, and known are the training rows (scripts/mp20.py). --relax N relaxes the
first N of each by the default potential, for S.U.N.; --predict N asks our models for
the structures of N held-out compositions, one sample each.

Published models were trained on the whole official training split, ours on a part of
it; some of our held-out rows come from that split, which is in their favour. Figures are
not those of the papers: another test set, and other versions of the libraries behind the
fingerprints. COV-R grows with the number of samples: compare equal numbers. --ceiling
adds as many real training rows as there are samples, whose COV no model can beat.

Every stage is kept in --cache: start the same command again and it continues.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from machine import command, hardware
from mp20 import load_reduced
from quality_stages import (
    ENERGY,
    Predict,
    Workshop,
    checksum,
    drawn,
    judged,
    predicted,
    published,
    relaxed,
    weights_of,
)

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError
from matdesign.evaluate import Protocol
from matdesign.generators.shipped import predictors
from matdesign.generators.storage import write_atomic

ROOT = Path(__file__).resolve().parent.parent

REAL = "validation rows"
KNOWN = "training rows"
ENERGY_MODEL = "formation-energy-mp20"

FIGURES = {
    "structural validity": ("structural validity", 0.99, "rate"),
    "compositional validity": ("compositional validity", 0.83, "rate"),
    "COV-R": ("COV-R", 0.95, "rate"),
    "COV-P": ("COV-P", 0.95, "rate"),
    "W(density), g/cm^3": ("density distance, valid", 0.35, "distance"),
    "W(elements)": ("element count distance, valid", 0.30, "distance"),
    "W(energy), eV/atom": ("energy distance, valid", None, "distance"),
    "uniqueness": ("uniqueness", None, "rate"),
    "novelty": ("novelty", None, "rate"),
    "valid, unique and novel": ("valid, unique and novel", None, "rate"),
    "stability": ("stability", None, "rate"),
    "S.U.N.": ("S.U.N.", None, "rate"),
    "S.U.N., a compound competing": ("S.U.N., a compound competing", None, "rate"),
    "S.U.N., on the hull": ("S.U.N., on the hull", None, "rate"),
    "match rate": ("match rate", 0.45, "rate"),
    "RMSE": ("RMSE", None, "distance"),
    "METRe": ("METRe", None, "rate"),
    "cRMSE": ("cRMSE", None, "distance"),
}
"""Row -> name of the figure, its bar for the best of ours, and its kind."""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="mp_20_dev.parquet")
    parser.add_argument("--published", type=Path, help="mp20_reference_samples.parquet")
    parser.add_argument(
        "--rivals", nargs="*", help="of the published ones; all if left out"
    )
    parser.add_argument(
        "--models", nargs="*", help="names or folders; every *-mp20 if left out"
    )
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--relax", type=int, default=0, help="first N of each")
    parser.add_argument("--predict", type=int, default=0, help="held-out structures")
    parser.add_argument(
        "--energy", help=f"property network; {ENERGY_MODEL} if left out and at hand"
    )
    parser.add_argument(
        "--ceiling", action="store_true", help="judge training rows as well"
    )
    parser.add_argument(
        "--no-coverage", action="store_true", help="leave out COV, the slowest figure"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "quality")
    parser.add_argument(
        "--output", type=Path, help="JSON file; in the cache if left out"
    )
    return parser.parse_args(given)


def predictor(name: str | None) -> tuple[Predict | None, str]:
    """Return a predictor of formation energies and the checksum of its weights."""
    if name is None and ENERGY_MODEL in predictors():
        name = ENERGY_MODEL
    if name is None:
        return None, "none"
    from matdesign.generators.property_network import PropertyNetwork

    folder = weights_of(name)
    net = PropertyNetwork.load(folder)
    return lambda crystals: net.predict(crystals)[ENERGY], checksum(folder)


def remembered(predict: Predict, test: Crystals) -> Predict:
    """Return the predictor, which asks its network about the held-out rows once."""
    kept: list[torch.Tensor] = []

    def ask(crystals: Crystals) -> torch.Tensor:
        if crystals is not test:
            return predict(crystals)
        if not kept:
            kept.append(predict(test))
        return kept[0]

    return ask


def chosen(names: list[str] | None) -> list[str]:
    """Return the models to judge."""
    if names is not None:
        return names
    return [name for name in design.models() if name.endswith("-mp20")]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return all figures, written after every stage."""
    parts = load_reduced(args.data)
    energy, energy_key = predictor(args.energy)
    if energy is not None:
        energy = remembered(energy, parts["test"])
    shop = Workshop(
        args.cache,
        parts["train"],
        parts["test"],
        args.workers,
        args.seed,
        energy,
        energy_key,
        coverage=not args.no_coverage,
    )
    found: dict[str, Any] = {
        "samples": args.samples,
        "seed": args.seed,
        "train": len(parts["train"]),
        "test": len(parts["test"]),
        "energy": energy_key,
        "command": command("bench_quality.py", sys.argv[1:]),
        "hardware": hardware(),
        "protocol": [*Protocol().lines(), Protocol().coverage_line()],
        "batches": {},
    }
    batches: dict[str, tuple[Crystals, bool]] = {REAL: (parts["val"], False)}
    if args.ceiling:
        order = torch.randperm(len(parts["train"]), generator=generator(args.seed))
        batches[KNOWN] = (parts["train"][order[: args.samples]], False)
    if args.published:
        those = published(args.published, args.samples, args.seed)
        for name in those if args.rivals is None else args.rivals:
            if name not in those:
                known = ", ".join(those)
                raise DataError(f"no published samples of {name!r}; there are {known}.")
            batches[name] = (those[name], False)
    sampling: dict[str, Any] = {}
    for name in chosen(args.models):
        made, facts = drawn(shop, name, args.samples)
        batches[name] = (made, True)
        sampling[name] = facts
    for name, (made, ours) in batches.items():
        found["batches"][name] = {"ours": ours, "crystals": len(made), "figures": {}}
        if name in sampling:
            found["batches"][name]["sampling"] = sampling[name]
    for name, (made, _) in batches.items():
        row = found["batches"][name]
        record = judged(shop, name, made)
        row["figures"] |= record["metrics"]
        row["failures"] = record["failures"]
        row["notes"] = record["notes"]
        write(args, found)
    for name, (_, ours) in batches.items():
        if args.predict and ours:
            record = predicted(shop, name, args.predict)
            row = found["batches"][name]
            row["figures"] |= record.pop("metrics")
            row["prediction"] = record
            write(args, found)
    for name, (made, _) in batches.items():
        if args.relax:
            record = relaxed(shop, name, made[: args.relax])
            row = found["batches"][name]
            row["figures"] |= record.pop("metrics")
            row["relaxation"] = record
            write(args, found)
    return found


def cell(one: dict[str, Any] | None, kind: str) -> str:
    """Return a figure with its interval, percent for rates."""
    if not one or "value" not in one:
        return ""
    if kind == "rate":
        low, high = 100 * one["low"], 100 * one["high"]
        return f"{100 * one['value']:.1f} ({low:.1f} to {high:.1f})"
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"


def verdicts(found: dict[str, Any]) -> list[str]:
    """Return, per bar, whether the best of our models meets it, and by how much."""
    ours = {k: v["figures"] for k, v in found["batches"].items() if v["ours"]}
    lines = []
    for row, (name, bar, kind) in FIGURES.items():
        values = {
            k: f[name]["value"] for k, f in ours.items() if "value" in f.get(name, {})
        }
        if not values:
            continue
        best = (max if kind == "rate" else min)(values, key=values.__getitem__)
        value = values[best]
        if name == "S.U.N.":
            rivals = {
                k: v["figures"][name]["value"]
                for k, v in found["batches"].items()
                if k in ("DiffCSP", "DiffCSP++") and name in v["figures"]
            }
            if not rivals:
                continue
            bar = max(rivals.values())
        if bar is None:
            continue
        met = value >= bar if kind == "rate" else value <= bar
        if kind == "rate":
            text = f"{100 * value:.1f} % against {100 * bar:.1f} %"
        else:
            text = f"{value:.3f} against {bar:.3f}"
        verdict = "met" if met else "missed"
        lines.append(f"* {row}: {verdict}, {text} (best of ours: {best})")
    return lines


def table(found: dict[str, Any]) -> str:
    """Return the table as Markdown, one column per batch."""
    names = list(found["batches"])
    head = ["", *names]
    rows = [["crystals", *(f"{v['crystals']:,}" for v in found["batches"].values())]]
    for row, (name, _, kind) in FIGURES.items():
        cells = [cell(v["figures"].get(name), kind) for v in found["batches"].values()]
        if any(cells):
            rows.append([row + (", %" if kind == "rate" else ""), *cells])
    count = [
        str(v.get("relaxation", {}).get("relaxed", ""))
        for v in found["batches"].values()
    ]
    if any(count):
        rows.append(["of that relaxed", *count])
    lines = ["| " + " | ".join(line) + " |" for line in [head, *rows]]
    lines.insert(1, "|" + " --- |" * len(head))
    return "\n".join(lines)


def write(args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write the figures so far, as JSON and as a page."""
    found["written"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    path = args.output or args.cache / "quality.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(found, indent=1) + "\n").encode())
    page = [
        "# Quality on reduced MP-20",
        "",
        f"Against {found['test']:,} held-out rows; {found['train']:,} training rows count "
        "as known. 95 % intervals in brackets. The validation rows are real crystals: "
        "what no model can beat. Some held-out rows were in the published models' training. "
        "COV-R grows with the number of crystals: compare equal numbers.",
        "",
        table(found),
        "",
        *verdicts(found),
        "",
        *(f"* {line}" for line in found["protocol"]),
        "",
        f"`{found['command']}`, {found['hardware']}, {found['written']}.",
    ]
    write_atomic(path.with_suffix(".md"), ("\n".join(page) + "\n").encode())


def main(given: list[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    args = arguments(given)
    torch.set_num_threads(min(args.workers, torch.get_num_threads()))
    try:
        found = run(args)
    except DataError as error:
        print(f"cannot compare: {error}", file=sys.stderr)
        return 2
    print(table(found))
    print("\n".join(verdicts(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
