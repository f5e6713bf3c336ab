"""Compare the quality of generators on reduced MP-20: ours, published ones, baselines.

    python scripts/bench_quality.py --data mp_20_dev.parquet \\
        --published mp20_reference_samples.parquet --output data/measured/quality.json

One run and one table: 1,000 samples (--samples) of each of our five families' MP-20
models, of the published models, of the baselines that need no learning, and the real
validation rows, which no model can beat. A model that is not at hand is named as missing.
Known are the training rows (scripts/mp20.py), distances are taken to our 1,500 held-out
test rows. --predict N asks our models for the structures of N held-out compositions.

Stages, each kept in --cache; start the same command again and it continues:

1. samples: drawn with one seed; of published ones the first N of one random order.
2. judged: validity, uniqueness, novelty, distances, COV where asked for (--coverage).
3. relaxed: CHGNet 0.3.0, --workers processes of one thread. Without any hull.
4. stable: distances to the shipped hull, S.U.N. per crystal, the ledger. A new hull
   repeats this stage only, which takes seconds for the hull and minutes for the ledger.

Published models were trained on the whole official training split of 27,136 rows, ours
on a part of it. Two things are in their favour: some of our held-out rows come from that
split, and what they repeat of its other rows counts as novel here, in S.U.N. and in the
ledger. "S.U.N., new formula" is the figure that compares: the hull knows the formulas of
the Materials Project of 2019. Figures are not those of the papers: another test set,
hull and versions.
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
    stable,
    weights_of,
)

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.storage import write_atomic
from matdesign.loop.hull import Hull
from matdesign.metrics.baselines import SUBSTITUTED, baselines, substituted
from matdesign.metrics.evaluator import Protocol
from matdesign.predictors.shipped import property_networks

ROOT = Path(__file__).resolve().parent.parent

REAL = "validation rows"
FAMILIES = ("vae", "coupling-flow", "flow-matching", "diffusion", "autoregressive")
RIVAL = "DiffCSP"
ENERGY_MODEL = "formation-energy-mp20"

FIGURES = {
    "within 0.1 eV/atom of the hull": ("stability", RIVAL, "rate"),
    "S.U.N.": ("S.U.N.", RIVAL, "rate"),
    "S.U.N., new formula": ("S.U.N., new formula", None, "rate"),
    "S.U.N., on the hull": ("S.U.N., on the hull", None, "rate"),
    "duplicate": ("ledger: duplicate", None, "rate"),
    "element substitution": ("ledger: substitution", None, "rate"),
    "new structure, known formula": ("ledger: new structure", None, "rate"),
    "new": ("ledger: new", None, "rate"),
    "of the stable: duplicate or substitution": (
        "duplicates and substitutions, of the stable",
        None,
        "rate",
    ),
    "structural validity": ("structural validity", 0.99, "rate"),
    "compositional validity": ("compositional validity", 0.83, "rate"),
    "uniqueness": ("uniqueness", None, "rate"),
    "novelty": ("novelty", None, "rate"),
    "COV-R": ("COV-R", 0.95, "rate"),
    "COV-P": ("COV-P", 0.95, "rate"),
    "W(elements)": ("element count distance, valid", RIVAL, "distance"),
    "W(density), g/cm^3": ("density distance, valid", 0.35, "distance"),
    "W(energy), eV/atom": ("energy distance, valid", None, "distance"),
    "match rate": ("match rate", 0.52, "rate"),
    "RMSE": ("RMSE", None, "distance"),
    "METRe": ("METRe", None, "rate"),
    "cRMSE": ("cRMSE", None, "distance"),
}
"""Row -> name of the figure, its bar for the best of ours (a number, or a rival whose
figure it is), and its kind."""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="mp_20_dev.parquet")
    parser.add_argument("--published", type=Path, help="mp20_reference_samples.parquet")
    parser.add_argument(
        "--rivals", nargs="*", help="of the published ones; all if left out"
    )
    parser.add_argument(
        "--models", nargs="*", help="names or folders; the five families if left out"
    )
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--relax", type=int, help="first N of each; all if left out")
    parser.add_argument("--predict", type=int, default=0, help="held-out structures")
    parser.add_argument(
        "--energy", help=f"property network; {ENERGY_MODEL} if left out and at hand"
    )
    parser.add_argument(
        "--coverage", action="store_true", help="add COV, the slowest figure by far"
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
    if name is None and ENERGY_MODEL in property_networks():
        name = ENERGY_MODEL
    if name is None:
        return None, "none"
    from matdesign.predictors.network import PropertyNetwork

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


def chosen(names: list[str] | None) -> tuple[list[str], list[str]]:
    """Return the models to judge, and those of the five families that are missing."""
    if names is not None:
        return names, []
    wanted = [f"{family}-mp20" for family in FAMILIES]
    there = set(design.models())
    return [n for n in wanted if n in there], [n for n in wanted if n not in there]


def gathered(
    args: argparse.Namespace, shop: Workshop, val: Crystals
) -> tuple[dict[str, Crystals], dict[str, Any], list[str]]:
    """Return all batches, how ours were sampled, and the models that are missing."""
    n = args.samples
    batches = {REAL: val[:n]}
    if args.published:
        those = published(args.published, n, args.seed)
        for name in those if args.rivals is None else args.rivals:
            if name not in those:
                known = ", ".join(those)
                raise DataError(f"no published samples of {name!r}; there are {known}.")
            batches[name] = those[name]
    ours, missing = chosen(args.models)
    sampling = {}
    for name in ours:
        batches[name], sampling[name] = drawn(shop, name, n)
    batches |= baselines(shop.train, n, seed=args.seed)
    similar = substituted(shop.train, n, seed=args.seed, similar=True)
    batches[f"{SUBSTITUTED}, same group"] = similar
    return batches, sampling, missing


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
        coverage=args.coverage,
    )
    batches, sampling, missing = gathered(args, shop, parts["val"])
    protocol = Protocol()
    found: dict[str, Any] = {
        "samples": args.samples,
        "seed": args.seed,
        "train": len(parts["train"]),
        "test": len(parts["test"]),
        "energy": energy_key,
        "missing": missing,
        "command": command("bench_quality.py", sys.argv[1:]),
        "hardware": hardware(),
        "versions": protocol.record()["versions"],
        "protocol": protocol.lines() + [protocol.coverage_line()] * args.coverage,
        "batches": {},
    }
    for name, made in batches.items():
        row = {"ours": name in sampling, "crystals": len(made), "figures": {}}
        found["batches"][name] = row
        if name in sampling:
            row["sampling"] = sampling[name]
        record = judged(shop, name, made)
        row["figures"] |= record["metrics"]
        row["failures"] = record["failures"]
        row["notes"] = record["notes"]
        write(args, found)
    for name in sampling if args.predict else ():
        record = predicted(shop, name, args.predict)
        row = found["batches"][name]
        row["figures"] |= record.pop("metrics")
        row["prediction"] = record
        write(args, found)
    for name, made in batches.items() if args.relax != 0 else ():
        rows = relaxed(shop, name, made[: args.relax])
        # the ledger of the relaxed crystals replaces that of the samples
        record = stable(shop, name, rows, Hull.shipped())
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
        if bar == RIVAL:
            rival = found["batches"].get(RIVAL, {"figures": {}})["figures"]
            bar = rival.get(name, {}).get("value")
        if bar is None:
            continue
        met = value >= bar if kind == "rate" else value <= bar
        if kind == "rate":
            text = f"{100 * value:.1f} % against {100 * bar:.1f} %"
        else:
            text = f"{value:.3f} against {bar:.3f}"
        verdict = "met" if met else "missed"
        lines.append(f"* {row}: {verdict}, {text} (best of ours: {best})")
    lines += [f"* {name}: missing, no weights" for name in found.get("missing", [])]
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
    for label, stage, fact in (
        ("of that relaxed", "relaxation", "relaxed"),
        ("of that converged and believed", "relaxation", "converged and believed"),
        ("seconds to relax", "relaxation", "seconds"),
        ("seconds to sample", "sampling", "seconds"),
    ):
        cells = [str(v.get(stage, {}).get(fact, "")) for v in found["batches"].values()]
        if any(cells):
            rows.append([label, *cells])
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
        "Stability, S.U.N. and ledger are those of the relaxed crystals.",
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
