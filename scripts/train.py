"""Train a generator of any family on any data set, resumably.

    python scripts/train.py diffusion prototypes --steps 8000
    python scripts/train.py flow-matching mp20=mp_20_dev.parquet --minutes 60 --bf16
    python scripts/train.py vae perovskites --representation symmetric --set width=96

Data is a name of design.datasets(), a parquet file, or `mp20=PATH`, the table of reduced
MP-20, which scripts/mp20.py splits. Writes data/models/FAMILY-DATA/{model.safetensors,
config.json, training.json}. Kill it at any moment and start the same command again: it
continues from build/train/NAME.safetensors and ends with the same weights.

`--minutes` measures some steps and takes as many as fit; their number is kept beside the
checkpoint, so that a resumed training follows the same schedule. Other `--minutes` or
`--steps` for a training that has begun end it sooner or later than planned; the record
tells. Options of the family go by `--set`, those of design.training by `--fit`.

`--from NAME` starts from the weights of a shipped model instead of random ones, with a
new optimiser; the record names them, their checksum and the steps they had taken.
"""

import argparse
import copy
import hashlib
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from machine import command, fast_products, hardware

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.contract import Generator
from matdesign.generators.run import Run, Step
from matdesign.generators.training_state import mean_step
from matdesign.paths import data_dir

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {
    "autoregressive": "Autoregressive",
    "coupling-flow": "CouplingFlow",
    "diffusion": "Diffusion",
    "flow-matching": "FlowMatching",
    "vae": "VAE",
}
WINDOW = 50
"""Steps that are averaged into one line of the log."""


def family(name: str) -> type[Generator]:
    """Return the class of a family, given its name on the command line."""
    module = import_module(f"matdesign.generators.{name.replace('-', '_')}")
    found: type[Generator] = getattr(module, FAMILIES[name])
    return found


def pairs(given: list[str]) -> dict[str, Any]:
    """Return {"width": 96} of ["width=96"]; what is not JSON is taken as text."""
    out: dict[str, Any] = {}
    for pair in given:
        name, sign, text = pair.partition("=")
        if not sign or not name:
            raise DataError(f"an option reads NAME=VALUE; got {pair!r}.")
        try:
            out[name.replace("-", "_")] = json.loads(text)
        except ValueError:
            out[name.replace("-", "_")] = text
    return out


def parts(data: str) -> tuple[str, dict[str, Crystals]]:
    """Return the short name of a data set, and its parts "train", "val" and "test"."""
    name, sign, path = data.partition("=")
    if sign:
        if name != "mp20":
            raise DataError(f"data is a name, a file or mp20=PATH; got {data!r}.")
        from mp20 import load_reduced

        return name, load_reduced(path)
    splits = ("train", "val", "test")
    if not data.endswith(".parquet"):
        return data, {k: design.load(data, split=k) for k in splits}
    whole = design.read(data)
    if "split" not in whole.labels:
        raise DataError(f"{data} has no column `split` that says train, val or test.")
    at = {k: [i for i, x in enumerate(whole.labels["split"]) if x == k] for k in splits}
    return Path(data).stem, {k: whole[i] for k, i in at.items()}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("data", help="a data set, a parquet file, or mp20=PATH")
    parser.add_argument("--name", help="of the model; FAMILY-DATA when left out")
    parser.add_argument(
        "--from", dest="start", metavar="NAME", help="start from this model's weights"
    )
    parser.add_argument(
        "--representation",
        choices=("cell", "symmetric"),
        help="the family's own choice when left out",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="8000 when left out")
    length.add_argument("--minutes", type=float, help="take as many steps as fit")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--fit", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--mixture", type=int, help="VAE: prior of so many crystals")
    parser.add_argument("--above-hull", type=float, help="keep crystals below, eV/atom")
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", default="cpu")
    return parser.parse_args(given)


def budget(
    args: argparse.Namespace,
    model: Generator,
    train: Crystals,
    checkpoint: Path,
    options: dict[str, Any],
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many steps to take in all, and every plan made for this training.

    A plan is kept in a file beside the checkpoint and holds as long as the same budget
    is asked for. A new one takes the steps that fit in what is left of the minutes.
    """
    path = checkpoint.with_suffix(".plan.json")
    begun = checkpoint.exists()
    plans = json.loads(path.read_text()) if begun and path.exists() else []
    wish = {"steps": args.steps or 8_000}
    if args.minutes is not None:
        wish = {"minutes": args.minutes}
    if plans and plans[-1]["wish"] == wish:
        return int(plans[-1]["steps"]), plans
    facts = storage.read_checkpoint(checkpoint)[1] if begun else {}
    done, spent = int(facts.get("steps", 0)), float(facts.get("seconds", 0.0))
    steps, each = args.steps or 8_000, None
    if args.minutes is not None:
        # the first steps are slow: tables are made, memory is asked for
        start, trial = 0.0, copy.deepcopy(model)
        some = torch.randperm(len(train), generator=generator(0))[:2_000]
        for step in design.training(trial, train[some], steps=35, **options):
            start = step.seconds if step.step == 5 else start
        each = (step.seconds - start) / 30
        # 5 % for validation, checkpoints and the average
        steps = done + max(1, int(0.95 * (60 * args.minutes - spent) / each))
        print(f"{each:.3f} s a step: {steps:,} steps in all", flush=True)
    plans.append({"wish": wish, "from": done, "steps": steps, "seconds_each": each})
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(path, json.dumps(plans).encode())
    return steps, plans


def started_from(
    name: str | None, model: Generator, made: dict[str, Any]
) -> dict[str, Any]:
    """Return what a record says of the weights that a training starts from."""
    if name is None:
        return {}
    if made:
        raise DataError(
            f"the weights of {name} come with their options; got {', '.join(made)}. "
            "Leave out --set and --representation, or --from."
        )
    kept = ("name", "steps", "seconds", "seed", "batch_size", "command", "data_sha256")
    record = {key: model.record.get(key) for key in kept}
    weights = data_dir() / "models" / name / "model.safetensors"
    record["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    earlier = model.record.get("started_from")
    return {"started_from": record | ({"started_from": earlier} if earlier else {})}


def main(given: list[str] | None = None) -> Path:
    """Train, save, write the record, and return the folder of the model."""
    args = arguments(given)
    torch.set_num_threads(args.threads)
    quick = args.accelerator == "cpu" and fast_products()
    data, sets = parts(args.data)
    if args.above_hull is not None:
        sets = {
            k: v[v.properties["energy_above_hull"] <= args.above_hull]
            for k, v in sets.items()
        }
    name = args.name or f"{args.family}-{data}"
    made = pairs(args.set)
    if args.representation is not None:
        made["representation"] = args.representation
    if args.start is None:
        model = family(args.family).for_data(sets["train"], seed=args.seed, **made)
    else:
        model = family(args.family).load(data_dir() / "models" / args.start)
    before = started_from(args.start, model, made)
    print(model, flush=True)
    checkpoint = ROOT / "build" / "train" / f"{name}.safetensors"
    log = checkpoint.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "batch_size": args.batch_size,
        "seed": args.seed,
        "lr": args.lr,
        "accelerator": args.accelerator,
        "precision": "bf16-mixed" if args.bf16 else "32-true",
        **pairs(args.fit),
    }
    steps, plans = budget(args, model, sets["train"], checkpoint, options)
    run, window = Run(), list[Step]()
    for step in design.training(
        model,
        sets["train"],
        val=sets["val"],
        steps=steps,
        run=run,
        **{"checkpoint": checkpoint, "checkpoint_every": 2 * WINDOW, **options},
    ):
        window.append(step)
        if step.step % WINDOW == 0 or step.step == steps:
            run.history.append(mean_step(window))
            window.clear()
            line = json.dumps(vars(run.history[-1]))
            with log.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)
    print(run)
    if args.mixture:
        some = torch.randperm(len(sets["train"]), generator=generator(args.seed))
        model = model.with_mixture(sets["train"][some[: args.mixture]])
    model.record = {
        "name": name,
        "data": data,
        "representation": model.representation,
        **{k: v for k, v in run.facts().items() if k != "data"},
        "data_sha256": run.data,
        **before,
        "plans": plans,
        "onednn_products": quick,
        "saved": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "hardware": hardware(),
        "torch": torch.__version__,
        "command": command("train.py", sys.argv[1:] if given is None else given),
    }
    folder = model.save(data_dir() / "models" / name)
    history = [vars(step) for step in run.history]
    storage.write_atomic(
        folder / "training.json", (json.dumps(history) + "\n").encode()
    )
    print(f"wrote {folder}")
    return folder


if __name__ == "__main__":
    main()
