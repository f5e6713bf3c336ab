"""Measure a shipped generator and write its card.

    python scripts/card.py diffusion-prototypes --relax 200
    python scripts/card.py flow-matching-mp20 --mp20 mp_20_dev.parquet --coverage --predict 500

Draws crystals with a fixed seed and judges them (design.evaluate, against the model's
training set). For "symmetric" models it asks spglib whether every crystal has the space
group that it was laid out in; with --relax it relaxes some with the default potential and
measures their distance to the shipped hull; with --predict it asks for the compositions of
held-out crystals and counts how many of their structures come out. Writes
data/models/NAME/card.json and card.md, with what was aimed at and by how much it was
missed. Everything slow is saved as it goes, in build/cards/NAME: start the same command
again and it continues.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from card_parts import (
    bars_of,
    rate,
    sample_with_groups,
    stability,
    symmetry_kept,
    write_card,
)
from machine import command, hardware

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators.contract import Generator
from matdesign.generators.storage import WEIGHTS, write_atomic
from matdesign.metrics.prediction import evaluate_prediction
from matdesign.paths import data_dir

ROOT = Path(__file__).resolve().parent.parent


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="one of design.models()")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--relax", type=int, default=0, help="how many to relax")
    parser.add_argument("--predict", type=int, default=0, help="structures to predict")
    parser.add_argument("--coverage", action="store_true", help="COV-R and COV-P")
    parser.add_argument("--mp20", help="mp_20_dev.parquet, for models trained on it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--rewrite", action="store_true", help="only the page, from the figures it has"
    )
    parser.add_argument("--chunk", type=int, default=50, help="relaxed between savings")
    return parser.parse_args(given)


def parts(data: str, mp20: str | None) -> tuple[Crystals, Crystals]:
    """Return training and test part of the data that a model was trained on."""
    if data != "mp20":
        return design.load(data, split="train"), design.load(data, split="test")
    if mp20 is None:
        raise DataError("this model was trained on reduced MP-20; give --mp20 PATH.")
    from mp20 import load_reduced

    sets = load_reduced(mp20)
    return sets["train"], sets["test"]


def kept(work: Path, stage: str, key: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Return the table of a stage and its facts; empty facts where it is to be made."""
    table, facts = work / f"{stage}.parquet", work / f"{stage}.json"
    if table.exists() and facts.exists():
        known = json.loads(facts.read_text())
        if {k: known.get(k) for k in key} == key:
            return table, known
    for old in work.glob(f"{stage}*"):
        old.unlink()
    return table, {}


def draw(
    model: Generator, name: str, args: argparse.Namespace, work: Path
) -> tuple[Crystals, dict[str, Any]]:
    """Return the samples and how they were made, from the file of an earlier start."""
    key = {**weights_key(name), "samples": args.samples, "seed": args.seed}
    table, known = kept(work, "samples", key)
    if not known:
        print(f"drawing {args.samples} crystals", flush=True)
        if model.representation == "symmetric":
            made, asked = sample_with_groups(model, args.samples, seed=args.seed)
            made = made.replace(properties={"asked_group": asked.float()})
        else:
            made = model.sample(args.samples, seed=args.seed)
        made = made.replace(ids=tuple(f"{name}-{i:04d}" for i in range(len(made))))
        design.write(made, table)
        known = {**key, **made.info, "threads": torch.get_num_threads()}
        write_atomic(work / "samples.json", json.dumps(known).encode())
    # what is judged is what was written
    return design.read(table), known


def weights_key(name: str) -> dict[str, str]:
    """Return the checksum of a model's weights."""
    weights = data_dir() / "models" / name / WEIGHTS
    return {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}


def predict(
    model: Generator, name: str, test: Crystals, args: argparse.Namespace, work: Path
) -> dict[str, Any]:
    """Return how many held-out structures come out of their compositions, at one try.

    A composition that the model cannot make (an unseen element, no template) is a miss.
    """
    some = test[torch.arange(min(args.predict, len(test)))]
    key = {**weights_key(name), "predict": len(some), "seed": args.seed}
    table, known = kept(work, "predicted", key)
    if not known:
        known, made, of = dict(key), [], []
        left = [
            i
            for i in range(len(some))
            if bool(model.known_elements[some.species[i]][some.mask[i]].all())
        ]
        start, evaluations = time.perf_counter(), 0
        for at in range(0, len(left), args.chunk):
            rows = left[at : at + args.chunk]
            for group, batch in asked_for(model, some, rows, args.seed):
                made.append(batch)
                of += group
                evaluations += batch.info["network_evaluations"]
            print(f"predicted {len(of)} of {at + len(rows)}", flush=True)
        if not made:
            raise DataError("not one composition could be asked for; nothing to judge.")
        known |= {
            "of": of,
            "seconds": round(time.perf_counter() - start, 1),
            "evaluations": evaluations,
        }
        design.write(Crystals.cat(made), table)
        write_atomic(work / "predicted.json", json.dumps(known).encode())
    found = evaluate_prediction(
        design.read(table), some, of=torch.tensor(known["of"]), workers=args.workers
    )
    print(found, flush=True)
    return {
        **found.record(),
        "targets": len(some),
        "asked": len(known["of"]),
        "seconds": known["seconds"],
    }


def asked_for(
    model: Generator, targets: Crystals, rows: list[int], seed: int
) -> list[tuple[list[int], Crystals]]:
    """Return crystals of the targets' compositions and sizes; halves where one fails."""
    some = targets[rows]
    try:
        made = model.sample(
            len(rows),
            seed=seed + rows[0],
            conditions={"composition": list(some.formulas)},
            n_atoms=some.n_atoms,
        )
        return [(rows, made)]
    except (DataError, InfeasibleTarget):
        if len(rows) == 1:
            return []
        middle = len(rows) // 2
        return asked_for(model, targets, rows[:middle], seed) + asked_for(
            model, targets, rows[middle:], seed
        )


def relax(made: Crystals, args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Return one row per relaxed crystal; rows of an earlier start are kept."""
    path = work / "relaxed.jsonl"
    seal = hashlib.sha256(made.frac.numpy().tobytes()).hexdigest()
    rows = (
        [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []
    )
    rows = [row for row in rows if row.get("samples") == seal]
    count = min(args.relax, len(made))
    rows = [row for row in rows if row["index"] < count]
    done = {row["index"] for row in rows}
    left = [i for i in range(count) if i not in done]
    # like sizes together: a batch is as slow as its largest crystal
    left.sort(key=lambda i: int(made.n_atoms[i]))
    oracle = design.PotentialOracle(workers=args.workers) if left else None
    for start in range(0, len(left), args.chunk):
        some = left[start : start + args.chunk]
        began = time.perf_counter()
        results = oracle.evaluate(made[some])
        with path.open("a") as file:
            for i, row in zip(some, results.rows(), strict=True):
                row = {"index": i, "samples": seal, **row, "oracle": results.oracle}
                rows.append(row)
                file.write(json.dumps(row) + "\n")
        took = time.perf_counter() - began
        print(f"relaxed {len(rows)}/{count}, {took / len(some):.2f} s each", flush=True)
    return sorted(rows, key=lambda row: int(row["index"]))


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Draw, judge, relax, predict, write, and return the card."""
    args = arguments(given)
    torch.set_num_threads(args.threads)
    folder = data_dir() / "models" / args.name
    if args.rewrite:
        old: dict[str, Any] = json.loads((folder / "card.json").read_text())
        write_card(old, folder)
        return old
    work = ROOT / "build" / "cards" / args.name
    work.mkdir(parents=True, exist_ok=True)
    model = design.load_model(args.name)
    data = str(model.record["data"])
    train, test = parts(data, args.mp20)
    made, drawn = draw(model, args.name, args, work)
    print("judging", flush=True)
    judged = design.evaluate(
        made,
        reference=train,
        held_out=test if data == "mp20" else None,
        coverage=args.coverage,
        workers=args.workers,
        cache=ROOT / "build" / "cards" / "fingerprints.sqlite",
    )
    print(judged, flush=True)
    evaluation = judged.record()
    figures = dict(evaluation["metrics"])
    symmetry = {}
    if "asked_group" in made.properties:
        flags = symmetry_kept(made, made.properties["asked_group"])
        symmetry = {
            "asked space group holds": rate(flags["holds"]),
            "asked space group is exact": rate(flags["exact"]),
        }
    rows = relax(made, args, work) if args.relax else []
    found = stability(rows, judged.table) if rows else {}
    prediction = predict(model, args.name, test, args, work) if args.predict else {}
    figures |= symmetry | prediction.get("metrics", {})
    if found:
        figures["within 0.1 eV/atom of the hull"] = found["near_hull"]
    weights = sum(p.numel() for p in model.parameters())
    card = {
        "name": args.name,
        "model": f"{type(model).__name__}, {weights:,} parameters, representation "
        f'"{model.representation}".',
        "samples": len(made),
        "bars": bars_of(data, figures),
        "symmetry": symmetry,
        "stability": found,
        "prediction": prediction,
        "evaluation": evaluation,
        "training": model.record,
        "sampling": drawn,
        "oracle": rows[0]["oracle"] if rows else "",
        "hardware": hardware(),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": command("card.py", sys.argv[1:] if given is None else given),
        "licence": "MIT",
        "units": {"energy_above_hull": "eV/atom", "seconds": "s"},
    }
    write_card(card, folder)
    print((folder / "card.md").read_text())
    return card


if __name__ == "__main__":
    main()
