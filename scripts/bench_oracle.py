"""Measure the default oracle: crystals per second by processes and batch size.

Usage:
    python scripts/bench_oracle.py
    python scripts/bench_oracle.py --crystals 48 --workers 1 2 --batch 1 8

All settings see the same crystals (from the shipped `prototypes`, strained and shaken
by a fixed seed) in one run, after a warm-up, so their ratios can be compared; crystals
per second depend on the machine and on what else it does, crystals per processor second
(Linux only) hardly on the latter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def processor_seconds(oracle: Any) -> float:
    """Return the processor time that the oracle's workers have used so far."""
    ticks = 0
    for process in oracle._pool._all:
        if process.popen is not None:
            stat = Path(f"/proc/{process.popen.pid}/stat").read_text()
            user, system = stat.rsplit(")", 1)[1].split()[11:13]
            ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str] | None = None) -> int:
    """Print one line per setting and, with --json, write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crystals", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)

    import torch

    import matdesign as design
    from matdesign.crystals.geometry import wrap

    rng = torch.Generator().manual_seed(options.seed)
    known = design.load("prototypes", split="test")
    some = known[torch.randperm(len(known), generator=rng)[: options.crystals]]
    strain = 0.03 * torch.randn(len(some), 3, 3, generator=rng)
    shake = 0.01 * torch.randn(some.frac.shape, generator=rng)
    some = some.replace(
        lattice=some.lattice @ (torch.eye(3) + strain), frac=wrap(some.frac + shake)
    )
    print(f"{some}\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    print(
        f"{'workers':>8}{'batch':>7}{'seconds':>9}{'per second':>12}{'ratio':>7}"
        f"{'per processor second':>22}  usable"
    )
    lines = []
    for workers in options.workers:
        for batch in options.batch:
            with design.PotentialOracle(
                workers=workers, batch=batch, time_limit=300
            ) as oracle:
                oracle.evaluate(some[: 2 * workers])  # processes start, models load
                used = processor_seconds(oracle)
                began = time.perf_counter()
                results = oracle.evaluate(some)
                seconds = time.perf_counter() - began
                used = processor_seconds(oracle) - used
            rate = len(some) / seconds
            lines.append(
                {
                    "workers": workers,
                    "batch": batch,
                    "seconds": round(seconds, 2),
                    "crystals_per_second": round(rate, 3),
                    "ratio": round(rate / (lines[0]["rate"] if lines else rate), 3),
                    "crystals_per_processor_second": round(len(some) / used, 3),
                    "usable": int(results.ok.sum()),
                    "mean_steps": round(float(results.steps.double().mean()), 1),
                    "rate": rate,
                }
            )
            last = lines[-1]
            print(
                f"{workers:>8}{batch:>7}{seconds:>9.1f}{rate:>12.2f}"
                f"{last['ratio']:>7.2f}{last['crystals_per_processor_second']:>22.2f}"
                f"  {last['usable']} of {len(some)}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(lines, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
