"""Time what a reader waits for: a cold start, sampling and training, model by model.

    python scripts/bench.py speed --output FILE.json
    python scripts/bench.py speed --models diffusion-prototypes --clock cpu

A cold start is the wall time of a whole new process, the median of several, so that
nothing that is already loaded helps; its last line makes eight crystals. The package
loads its names when they are first used: `import matdesign` alone costs next to nothing.
Sampling takes the model's own settings; a training step is forward, backward and AdamW
on a batch of training crystals (for models of MP-20: of the prototypes). To compare two
versions of the package, run both on the same idle machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import command, hardware

import matdesign as design
from bench.stages import write_record
from matdesign.generators.contract import Generator
from matdesign.tables import text_table

PROGRAMS = {
    "python alone": "pass",
    "import torch": "import torch",
    "import matdesign": "import matdesign",
    "torch and matdesign": (
        "import torch, matdesign as design\n"
        "design.Crystals, design.load_model, design.Diffusion, design.evaluate"
    ),
    "eight crystals": (
        "import matdesign as design\n"
        "print(design.load_model('diffusion-prototypes').sample(8, seed=0))"
    ),
}


def cold(program: str, repeat: int, threads: int) -> float:
    """Return the median wall time of new processes that run a program, in seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    run, times = [sys.executable, "-c", program], list[float]()
    for _ in range(repeat + 1):  # the first fills the file cache
        start = time.perf_counter()
        subprocess.run(run, check=True, env=environment, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def seconds(call: Callable[[], Any], repeat: int, clock: str) -> float:
    """Return the median time of a call, after one that does not count."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    call()
    times = []
    for _ in range(repeat):
        start = now()
        call()
        times.append(now() - start)
    return statistics.median(times)


def training_step(model: Generator, n: int) -> Callable[[], None]:
    """Return one step as a call: forward, backward, clip, AdamW."""
    data = str(model.record.get("data", ""))
    known = data if data in ("prototypes", "perovskites") else "prototypes"
    batch = model.prepare(design.load(known, split="train")[:n])
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)

    def step() -> None:
        model.loss(batch, seed=0).total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def one_model(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Return what was measured of a shipped generator."""
    model, n = design.load_model(name), args.samples
    made = model.sample(n, seed=0, steps=args.steps)
    drawing = seconds(
        lambda: model.sample(n, seed=0, steps=args.steps), args.repeat, args.clock
    )
    step = training_step(model.train(), args.batch)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "sampled per second": n / drawing,
        "evaluations per crystal": made.info["network_evaluations"] / n,
        "trained per second": args.batch / seconds(step, args.repeat, args.clock),
    }


def arguments(given: list[str]) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        "bench.py speed", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--models", nargs="*", help="shipped generators; all if left out")
    add("--samples", type=int, default=64, help="crystals of a sampling")
    add("--steps", type=int, help="sampling steps; each model's own")
    add("--batch", type=int, default=128, help="crystals of a training step")
    add("--repeat", type=int, default=3, help="the median counts")
    add("--cold", type=int, default=5, help="processes of a cold start; 0: none")
    add("--threads", type=int, default=1)
    add("--clock", default="wall", choices=["wall", "cpu"])
    add("--output", type=Path, help="JSON record to write")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Measure, print, and write a record where asked."""
    args = arguments(given)
    torch.set_num_threads(args.threads)
    record: dict[str, Any] = {
        "command": command("bench.py", ["speed", *given]),
        "hardware": hardware(),
        "load": os.getloadavg()[0],
        "cold": {},
        "models": {},
    }
    for name, program in PROGRAMS.items() if args.cold else ():
        record["cold"][name] = cold(program, args.cold, args.threads)
        print(f"{name:<20}{record['cold'][name]:8.2f} s", flush=True)
    for name in design.models() if args.models is None else args.models:
        record["models"][name] = one_model(name, args)
        print(name, flush=True)
        if args.output:
            write_record(args.output, record)
    rows = [
        [k, *(f"{x:,.4g}" for x in v.values())] for k, v in record["models"].items()
    ]
    head = next(iter(record["models"].values()), {})
    print(text_table(["model", *head], rows))
    print(f"{record['hardware']}, load {record['load']:.1f} at the start")
    return 0
