"""Train a shipped property network, resumably, and write its card.

    python scripts/train_property.py mp_20_dev.parquet --properties band_gap \\
        --floor band_gap=0 --aim band_gap=0.4 --name band-gap-mp20 --steps 1500
    python scripts/train_property.py prototypes --name energy-prototypes \\
        --properties formation_energy_per_atom energy_above_hull

Data is a shipped set (design.datasets()), or the table of reduced MP-20, which
scripts/mp20.py splits. Writes data/models/NAME/{model.safetensors, config.json,
training.json, card.json, card.md}. Kill it at any moment and start the same command
again: it continues from build/train/NAME.safetensors. With `--shaken 1` it also learns
from crystals out of their minima, whose energies the default potential gives
(scripts/shaken.py).

A second predictor, to judge crystals that a first one guided, is trained apart: another
seed, every second row, another shape of network, and, where the potential can label them,
crystals that generators made (scripts/made.py).

    python scripts/train_property.py prototypes --name judge-prototypes \\
        --properties formation_energy_per_atom energy_above_hull --half 1 --seed 1 \\
        --apart-from energy-prototypes --made 4000 --shape radius=5 degree=2 --layers 2
"""

import argparse
import json
import sys
import time
from pathlib import Path

import made
import torch
from machine import command, processor
from property_card import numbers, parts, write_card
from shaken import labelled

from matdesign.crystals.batch import Crystals
from matdesign.generators.run import Run, Step
from matdesign.generators.storage import write_atomic
from matdesign.generators.training_state import mean_step
from matdesign.paths import data_dir
from matdesign.predictors.fitting import property_training
from matdesign.predictors.network import PropertyNetwork

ROOT = Path(__file__).resolve().parent.parent


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "data", help="a name of design.datasets(), or mp_20_dev.parquet"
    )
    parser.add_argument("--properties", nargs="+", required=True)
    parser.add_argument("--name", required=True, help="of the model")
    parser.add_argument("--floor", nargs="*", default=[], metavar="NAME=LOWEST")
    parser.add_argument("--aim", nargs="*", default=[], metavar="NAME=MAE")
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--shaken", type=float, default=0.0, help="copies of each")
    parser.add_argument("--made", type=int, default=0, help="crystals of generators")
    parser.add_argument(
        "--made-guided", type=int, default=0, help="guided ones, besides"
    )
    parser.add_argument("--start", help="a model to go on from, instead of new weights")
    parser.add_argument(
        "--shape", nargs="*", default=[], metavar="KEY=VALUE", help="of the network"
    )
    parser.add_argument(
        "--half", type=int, choices=(0, 1), help="every second row only"
    )
    parser.add_argument("--apart-from", help="the predictor that this one will judge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def train(args: argparse.Namespace, sets: dict[str, Crystals]) -> PropertyNetwork:
    """Return the trained network, with its record, saved."""
    relaxed = sets["train"] if args.half is None else sets["train"][args.half :: 2]
    seen = relaxed
    if args.shaken:
        more = labelled(relaxed, copies=args.shaken, seed=args.seed)
        seen = Crystals.cat([relaxed, more])
    shaken = len(seen) - len(relaxed)
    if args.made:
        own = made.labelled(
            args.data,
            count=args.made,
            guides=args.made_guided,
            predictor=args.apart_from or "",
            seed=args.seed,
        )
        seen = Crystals.cat([seen, own])
    if args.start:
        net = PropertyNetwork.load(data_dir() / "models" / args.start)
        net.seen[relaxed.species[relaxed.mask].unique()] = True
    else:
        net = PropertyNetwork.for_data(
            relaxed,
            properties=args.properties,
            floors=numbers(args.floor),
            seed=args.seed,
            members=args.members,
            width=args.width,
            layers=args.layers,
            **shape(args.shape),
        )
    first = dict(net.record)
    print(net, flush=True)
    checkpoint = ROOT / "build" / "train" / f"{args.name}.safetensors"
    log = checkpoint.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    run, window = Run(), list[Step]()
    for step in property_training(
        net,
        seen,
        val=sets["val"],
        steps=args.steps,
        batch_size=args.batch_size,
        seed=args.seed,
        lr=args.lr,
        weight_decay=args.weight_decay,
        checkpoint=checkpoint,
        checkpoint_every=100,
        val_every=250,
        run=run,
    ):
        window.append(step)
        if step.step % 50 == 0 or step.step == args.steps:
            run.history.append(mean_step(window))
            window.clear()
            line = json.dumps(vars(run.history[-1]))
            with log.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)
    print(run)
    net.record = {
        "name": args.name,
        "data": "reduced MP-20" if args.data.endswith(".parquet") else args.data,
        **{k: v for k, v in run.facts().items() if k != "data"},
        "data_sha256": run.data,
        "shaken_crystals": shaken,
        **({"made_crystals": len(seen) - len(relaxed) - shaken} if args.made else {}),
        "saved": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "hardware": processor(),
        "torch": torch.__version__,
        "started_from": first,
        **({"half": args.half} if args.half is not None else {}),
        **({"apart_from": args.apart_from} if args.apart_from else {}),
        "command": command("train_property.py", sys.argv[1:]),
    }
    folder = data_dir() / "models" / args.name
    net.save(folder)
    history = [vars(step) for step in run.history]
    write_atomic(folder / "training.json", (json.dumps(history) + "\n").encode())
    return net


def shape(pairs: list[str]) -> dict[str, int | float]:
    """Return {"radius": 5.0, "degree": 2} of ["radius=5", "degree=2"]."""
    found = numbers(pairs)
    lengths = ("radius", "near")
    return {k: v if k in lengths else int(v) for k, v in found.items()}


def main() -> None:
    """Train, save, judge, write the card."""
    args = arguments()
    torch.set_num_threads(args.threads)
    sets = parts(args.data)
    net = train(args, sets)
    aims = numbers(args.aim)
    write_card(net, sets, aims, data_dir() / "models" / args.name)


if __name__ == "__main__":
    main()
