"""Measure what a reader waits for: importing the package, a cold start to 8 crystals.

    python scripts/bench_start.py --repeat 5

Each figure is the wall time of a whole new process, the median of several, so that
nothing that is already loaded helps. The package loads its names when they are first
used: `import matdesign` alone costs next to nothing, and the fourth line uses four of
them. Ratios are to `import torch` on the same machine, which is the part that the
package cannot change.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "python alone": "pass",
    "import torch": "import torch",
    "import matdesign": "import matdesign",
    "torch and matdesign": (
        "import torch, matdesign as design\n"
        "design.Crystals, design.load_model, design.Diffusion, design.evaluate"
    ),
    "8 crystals": (
        "import matdesign as design\n"
        "print(design.load_model({model!r}).sample(8, seed=0))"
    ),
}


def seconds(program: str, repeat: int, threads: int) -> list[float]:
    """Return wall times of new processes that run a program.

    Args:
        program: Python code.
        repeat: number of processes, one after another.
        threads: what OMP_NUM_THREADS is set to.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=5, help="processes per figure")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--model", default="diffusion-prototypes")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    args = parser.parse_args()

    medians: dict[str, float] = {}
    for name, program in PROGRAMS.items():
        code = program.format(model=args.model)
        seconds(code, 1, args.threads)  # fills the file cache
        medians[name] = statistics.median(seconds(code, args.repeat, args.threads))

    torch = medians["import torch"]
    if args.json:
        print(json.dumps({"seconds": medians, "threads": args.threads}, indent=2))
        return
    print(
        f"{'':20} {'seconds':>8} {'/ torch':>8}   (median of {args.repeat} processes)"
    )
    for name, value in medians.items():
        print(f"{name:20} {value:8.2f} {value / torch:8.2f}")
    print(f"{'matdesign - torch':20} {medians['torch and matdesign'] - torch:8.2f}")


if __name__ == "__main__":
    main()
