"""Time what a reader waits for: a cold start, sampling, training, and the oracle.

    python scripts/bench.py speed --output FILE.json

A cold start is the wall time of a whole new process that loads a model and makes eight
crystals, the median of several, so that nothing that is already loaded helps. Sampling
takes the model's own settings; a training step is forward, backward and AdamW on a batch
of training crystals (for models of MP-20: of the prototypes). To compare two versions of
the package, run both on the same idle machine.

The oracle relaxes crystals that a model made, by one worker process and by two. Its price
is processor time, which a busy machine hardly changes; the efficiency is of wall time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch

import matdesign as design
from matdesign.generators.contract import Generator
from matdesign.tables import text_table

EIGHT = "import matdesign as design; print(design.load_model('{}').sample(8, seed=0))"
FIRST = ("autoregressive-prototypes", "diffusion-prototypes")
"""The model that a reader meets first, and the slowest one."""


def seconds(call: Callable[[], Any], repeat: int) -> float:
    """Return the median wall time of a call, after one that does not count."""
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def cold(program: str, repeat: int) -> float:
    """Return the median wall time of new processes that run a program, in seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run, silent = [sys.executable, "-c", program], subprocess.DEVNULL
    return seconds(
        lambda: subprocess.run(run, check=True, env=environment, stdout=silent), repeat
    )


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
    made = model.sample(n, seed=0)
    drawing = seconds(lambda: model.sample(n, seed=0), args.repeat)
    step = training_step(model.train(), args.batch)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "sampled per second": n / drawing,
        "evaluations per crystal": made.info["network_evaluations"] / n,
        "trained per second": args.batch / seconds(step, args.repeat),
    }


def worked() -> float:
    """Return the processor seconds of all processes that were started from here."""
    times = [one.cpu_times() for one in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def oracle(n: int, repeat: int) -> dict[str, float]:
    """Return the price of the default oracle, and the efficiency of a second worker."""
    some = design.load_model("autoregressive-prototypes").sample(n, seed=0)
    walls: dict[int, list[float]] = {1: [], 2: []}
    price = []
    for _ in range(repeat):
        for workers, wall in walls.items():
            settings = {"workers": workers, "batch": 2, "time_limit": 1000}
            with design.PotentialOracle(**settings) as one:
                one.evaluate(some[:4])  # the processes have started
                before, start = worked(), time.perf_counter()
                one.evaluate(some)
                wall.append(time.perf_counter() - start)
                price.append((worked() - before) / n)
    alone, both = (statistics.median(wall) for wall in walls.values())
    each = statistics.median(price)
    return {
        "processor seconds per crystal": each,
        "efficiency of two workers": alone / both / 2,
        "core hours per million crystals": each * 1e6 / 3600,
    }


def options(add: Callable[..., Any]) -> None:
    """Add what the command line takes."""
    add("--models", nargs="*", help="shipped generators; all if left out")
    add("--samples", type=int, default=64, help="crystals of a sampling")
    add("--batch", type=int, default=128, help="crystals of a training step")
    add("--repeat", type=int, default=3, help="the median counts")
    add("--cold", type=int, default=5, help="processes of a cold start; 0: none")
    add("--oracle", type=int, default=0, help="crystals to relax; 0: none")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what was measured so far."""
    if args.cold:
        times = {name: cold(EIGHT.format(name), args.cold) for name in FIRST}
        yield {"cold": {f"eight crystals of {k}, cold": x for k, x in times.items()}}
    if args.oracle:
        yield {"oracle": oracle(args.oracle, args.repeat)}
    models: dict[str, Any] = {}
    for name in design.models() if args.models is None else args.models:
        models[name] = one_model(name, args)
        print(name, flush=True)
    yield {"models": models}


def table(record: dict[str, Any]) -> str:
    """Return a line for each model, and one for each other figure."""
    plain = record.get("cold", {}) | record.get("oracle", {})
    found = record["models"].items()
    rows = [[name, *(f"{x:,.4g}" for x in row.values())] for name, row in found]
    lines = [f"{what}: {value:,.3g}" for what, value in plain.items()]
    head = ["model", *next(iter(dict(found).values()), {})]
    return "\n".join([*lines, text_table(head, rows)])
