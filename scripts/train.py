"""Train a generator of any family, or a property network, on any data set, resumably.

    python scripts/train.py diffusion prototypes --steps 8000
    python scripts/train.py vae perovskites --representation symmetric --set width=96
    python scripts/train.py flow-matching mp20=mp_20_dev.parquet --fit accelerator=cuda
    python scripts/train.py property prototypes --name energy-prototypes --shaken 1 \\
        --properties formation_energy_per_atom energy_above_hull

Data is a name of design.datasets(), a parquet file, or `mp20=PATH`, the table of reduced
MP-20, which scripts/mp20.py splits. Writes data/models/NAME/{model.safetensors,
config.json, training.json}; scripts/card.py writes the card. Kill it at any moment and
start the same command again: it continues from build/train/NAME.safetensors and ends
with the same weights. Options of the model go by `--set`, those of the training by
`--fit`. `--from NAME` starts from the weights of a shipped model instead of random ones,
with a new optimiser; the record names them, their checksum and the steps they had taken.

A property network also learns from crystals that the potential labels (scripts/labels.py):
`--shaken 1` copy of each, `--sampled 4000` that generators made, `--guided 600` more. A
second one, to judge crystals that a first one guided, is trained apart: `--half 1` (every
second row), another `--seed` and shape, and `--apart-from` the first.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import labels
import torch
from bench.stages import checksum
from machine import command, hardware
from mp20 import load_reduced

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.run import Run, Step, mean_step
from matdesign.paths import data_dir
from matdesign.predictors.network import PropertyNetwork

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {
    "autoregressive": "Autoregressive",
    "coupling-flow": "CouplingFlow",
    "diffusion": "Diffusion",
    "flow-matching": "FlowMatching",
    "vae": "VAE",
}
PROPERTY = "property"
WINDOW = 50
"""Steps that are averaged into one line of the log."""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("family", choices=[*FAMILIES, PROPERTY])
    add("data", help="a data set, a parquet file, or mp20=PATH")
    add("--name", help="of the model; FAMILY-DATA when left out")
    add("--from", dest="start", metavar="NAME", help="start from this model's weights")
    ways = ("cell", "symmetric")
    add("--representation", choices=ways, help="the family's own when left out")
    add("--steps", type=int, default=8_000)
    add("--batch-size", type=int, help="128; 64 for a property network")
    add("--lr", type=float, help="1e-3; 2e-3 for a property network")
    add("--seed", type=int, default=0)
    add("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of the model")
    add("--fit", nargs="*", default=[], metavar="NAME=VALUE", help="of the training")
    add = parser.add_argument_group("property networks").add_argument
    add("--properties", nargs="+", help="what to predict")
    add("--floor", nargs="*", default=[], metavar="NAME=LOWEST")
    add("--shaken", type=float, default=0.0, help="shaken copies of each crystal")
    add("--sampled", type=int, default=0, help="crystals of generators")
    add("--guided", type=int, default=0, help="guided ones, besides")
    add("--half", type=int, choices=(0, 1), help="every second row only")
    add("--apart-from", help="the predictor that this one will judge")
    return parser.parse_args(given)


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
        return name, load_reduced(path)
    splits = ("train", "val", "test")
    if not data.endswith(".parquet"):
        return data, {k: design.load(data, split=k) for k in splits}
    whole = design.read(data)
    if "split" not in whole.labels:
        raise DataError(f"{data} has no column `split` that says train, val or test.")
    at = {k: [i for i, x in enumerate(whole.labels["split"]) if x == k] for k in splits}
    return Path(data).stem, {k: whole[i] for k, i in at.items()}


# ---- the model and what it learns from -----------------------------------------------


def untrained(args: argparse.Namespace, train: Crystals) -> tuple[Any, dict[str, Any]]:
    """Return a model to train, and what a record says of the weights it starts from."""
    made: dict[str, Any] = pairs(args.set)
    if args.representation is not None:
        made["representation"] = args.representation
    kind: Any = PropertyNetwork
    if args.family != PROPERTY:
        kind = getattr(design, FAMILIES[args.family])
    if args.start is None:
        if args.family == PROPERTY:
            floors = {name: float(x) for name, x in pairs(args.floor).items()}
            made |= {"properties": args.properties or [], "floors": floors}
        return kind.for_data(train, seed=args.seed, **made), {}
    if made:
        raise DataError(
            f"the weights of {args.start} come with their options; got {', '.join(made)}. "
            "Leave out --set and --representation, or --from."
        )
    folder = data_dir() / "models" / args.start
    model = kind.load(folder)
    present = train.species[train.mask].unique()
    if args.family == PROPERTY:
        model.seen[present] = True
    elif not bool(model.known_elements[present].all()) or int(
        train.n_atoms.max()
    ) >= len(model.size_histogram):
        raise DataError(
            f"{args.start} does not know all elements or sizes of {args.data}: its scales "
            "and templates are of other crystals. Leave out --from."
        )
    keys = ("name", "steps", "seconds", "seed", "batch_size", "command", "data_sha256")
    record = {key: model.record.get(key) for key in keys}
    record["weights_sha256"] = checksum(folder)
    if earlier := model.record.get("started_from"):
        record["started_from"] = earlier
    return model, {"started_from": record}


def labelled(
    args: argparse.Namespace, train: Crystals
) -> tuple[Crystals, dict[str, Any]]:
    """Return what a property network learns from, and what its record says of that."""
    seen, facts = [train], dict[str, Any]()
    if args.shaken:
        seen.append(labels.shaken(train, copies=args.shaken, seed=args.seed))
        facts["shaken_crystals"] = len(seen[-1])
    if args.sampled:
        made = labels.sampled(
            args.data,
            count=args.sampled,
            guides=args.guided,
            predictor=args.apart_from or "",
            seed=args.seed,
        )
        facts["made_crystals"] = len(made)
        seen.append(made)
    own = {"half": args.half, "apart_from": args.apart_from}
    return Crystals.cat(seen), facts | {k: v for k, v in own.items() if v is not None}


def main(given: list[str] | None = None) -> Path:
    """Train, save, write the record, and return the folder of the model."""
    args = arguments(given)
    predicting = args.family == PROPERTY
    torch.set_num_threads(1)
    options: dict[str, Any] = {
        "batch_size": args.batch_size or (64 if predicting else 128),
        "lr": args.lr or (2e-3 if predicting else 1e-3),
        "seed": args.seed,
        "checkpoint_every": 2 * WINDOW,
        "accelerator": "cpu",
    }
    if predicting:
        options |= {"decay": 1.0, "weight_decay": 0.05, "val_every": 250}
        options |= {"ema": min(0.999, max(0.9, 1 - 8 / max(1, args.steps)))}
    options |= pairs(args.fit)
    data, sets = parts(args.data)
    train = sets["train"] if args.half is None else sets["train"][args.half :: 2]
    model, facts = untrained(args, train)
    if predicting:
        train, more = labelled(args, train)
        facts |= more
    print(model, flush=True)
    name = args.name or f"{args.family}-{data}"
    if name == args.start:
        raise DataError(
            f"--from {args.start} would write over the weights that it starts from. Give "
            "--name another name."
        )
    # a checkpoint of another start is another training
    origin = facts["started_from"]["weights_sha256"][:8] if args.start else ""
    stem = f"{name}-from-{origin}" if origin else name
    checkpoint = ROOT / "build" / "train" / f"{stem}.safetensors"
    run, window = Run(), list[Step]()
    for step in design.training(
        model,
        train,
        val=sets["val"],
        steps=args.steps,
        run=run,
        **{"checkpoint": checkpoint, **options},
    ):
        window.append(step)
        if step.step % WINDOW == 0 or step.step == args.steps:
            run.history.append(mean_step(window))
            window.clear()
            print(json.dumps(vars(run.history[-1])), flush=True)
    print(run)
    model.record = {
        "name": name,
        "data": data,
        **({} if predicting else {"representation": model.representation}),
        **{k: v for k, v in run.facts().items() if k != "data"},
        "data_sha256": run.data,
        **facts,
        "saved": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "hardware": hardware(),
        "torch": torch.__version__,
        "command": command("train.py", sys.argv[1:] if given is None else given),
    }
    folder = data_dir() / "models" / name
    model.save(folder)
    history = (json.dumps([vars(step) for step in run.history]) + "\n").encode()
    storage.write_atomic(folder / "training.json", history)
    print(f"wrote {folder}")
    return folder


if __name__ == "__main__":
    main()
