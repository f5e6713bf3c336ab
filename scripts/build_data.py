"""Build the shipped data sets; every step can be stopped and started again.

Usage:
    python scripts/build_data.py perovskites --workers 2
    python scripts/build_data.py prototypes --workers 2 --target 6600
    python scripts/build_data.py assemble
    python scripts/build_data.py relabel

Working shards go to build/data/, the finished sets to data/.  `relabel` renews formation
energies and distances to the hull when data/references has changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "data"
DATA = ROOT / "data"


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "step", choices=["perovskites", "prototypes", "assemble", "relabel", "all"]
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--target", type=int, help="stop at this many usable crystals")
    parser.add_argument("--limit", type=int, help="only the first candidates")
    parser.add_argument("--time-limit", type=float, default=900.0, help="per shard, s")
    parser.add_argument("--shard", type=int, default=100, help="candidates per shard")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    every = options.step == "all"
    for name in ("perovskites", "prototypes"):
        if options.step == name or every:
            make_set(name, options)
    if options.step == "assemble" or every:
        from databuild.assemble import assemble

        assemble(options.work, options.data)
    if options.step == "relabel":
        from databuild.assemble import relabel

        relabel(options.data)
    return 0


def make_set(name: str, options: argparse.Namespace) -> None:
    """Relax the candidates of one set that are not on disk yet."""
    from databuild.plan import perovskite_plan, prototype_plan
    from databuild.shards import run_all

    plan = {"perovskites": perovskite_plan, "prototypes": prototype_plan}[name]()
    run_all(
        plan[: options.limit],
        options.work / name,
        workers=options.workers,
        target=options.target,
        time_limit=options.time_limit,
        size=options.shard,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
