"""Train a shipped generator on a shipped data set, resumably.

    python scripts/train.py prototypes --steps 8000
    python scripts/train.py perovskites --steps 1500 --width 96 --layers 4

Writes data/models/diffusion-NAME/{model.safetensors, config.json}. Kill it at any moment
and start the same command again: it continues from build/train/NAME.safetensors and ends
with the same weights. On a GPU add `--accelerator cuda`; the defaults are sized for one
CPU core.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path

import torch

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.run import Step
from matdesign.generators.storage import write_atomic
from matdesign.paths import data_dir

ROOT = Path(__file__).resolve().parent.parent


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "data", help="a data set of design.datasets(), or a parquet file"
    )
    parser.add_argument("--name", help="of the model; diffusion-DATA when left out")
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--sampling-steps", type=int, default=100)
    parser.add_argument("--corrector", type=float, default=0.2)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--sharpness", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--above-hull", type=float, help="keep crystals below, eV/atom")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--precision", default="32-true")
    return parser.parse_args()


def select(crystals: Crystals, above_hull: float | None) -> Crystals:
    """Return the crystals within a distance of the hull, all where none is given."""
    if above_hull is None:
        return crystals
    return crystals[crystals.properties["energy_above_hull"] <= above_hull]


def processor() -> str:
    """Return the name of the processor and how many cores the machine has."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    names = [x.split(":")[1].strip() for x in text.splitlines() if "model name" in x]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    """Train, save, and write the record."""
    args = arguments()
    torch.set_num_threads(args.threads)
    name = args.name or f"diffusion-{Path(args.data).stem}"
    train = select(design.load(args.data, split="train"), args.above_hull)
    val = select(design.load(args.data, split="val"), args.above_hull)
    model = Diffusion.for_data(
        train,
        seed=args.seed,
        width=args.width,
        layers=args.layers,
        steps=args.sampling_steps,
        corrector=args.corrector,
        temperature=args.temperature,
        sharpness=args.sharpness,
    )
    print(model, flush=True)
    checkpoint = ROOT / "build" / "train" / f"{name}.safetensors"
    log = checkpoint.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)

    run = design.Run()
    window = 100
    sums: dict[str, float] = {}
    for step in design.training(
        model,
        train,
        val=val,
        steps=args.steps,
        batch_size=args.batch_size,
        seed=args.seed,
        lr=args.lr,
        checkpoint=checkpoint,
        checkpoint_every=200,
        val_every=500,
        accelerator=args.accelerator,
        precision=args.precision,
        run=run,
    ):
        for key, value in {**step.terms, "": step.loss}.items():
            sums[key] = sums.get(key, 0.0) + value / window
        if step.step % window == 0:
            total = sums.pop("")
            run.history.append(
                Step(step.step, total, dict(sums), step.lr, step.seconds, step.val)
            )
            line = json.dumps(vars(run.history[-1]) | {"loss": round(total, 4)})
            with log.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)
            sums = {}
    print(run)
    model.record = {
        "name": name,
        "data": args.data,
        **{k: v for k, v in run.facts().items() if k != "data"},
        "data_sha256": run.data,
        "saved": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "hardware": processor(),
        "torch": torch.__version__,
        "command": shlex.join(["python", "scripts/train.py", *sys.argv[1:]]),
    }
    folder = data_dir() / "models" / name
    model.save(folder)
    history = [vars(step) for step in run.history]
    write_atomic(folder / "training.json", (json.dumps(history) + "\n").encode())
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
