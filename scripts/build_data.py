"""Build the shipped data sets; every step can be stopped and started again.

Usage:
    python scripts/build_data.py perovskites --workers 2
    python scripts/build_data.py prototypes --workers 2 --target 7700
    python scripts/build_data.py assemble
    python scripts/build_data.py relabel

Working shards go to build/data/, the finished sets to data/.  `relabel` renews formation
energies and distances to the hull when data/references has changed.
"""

import argparse
import os
from pathlib import Path

from databuild.assemble import assemble, relabel
from databuild.plan import perovskite_plan, prototype_plan
from databuild.shards import run_all

ROOT = Path(__file__).resolve().parents[1]
PLANS = {"perovskites": perovskite_plan, "prototypes": prototype_plan}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("step", choices=[*PLANS, "assemble", "relabel"])
    add("--workers", type=int, default=2)
    add("--target", type=int, help="stop at this many usable crystals")
    add("--limit", type=int, help="only the first candidates")
    add("--shard", type=int, default=100, help="candidates per shard")
    add("--work", type=Path, default=ROOT / "build" / "data")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.step == "assemble":
        assemble(args.work, ROOT / "data")
    elif args.step == "relabel":
        relabel(ROOT / "data")
    else:
        run_all(
            PLANS[args.step]()[: args.limit],
            args.work / args.step,
            workers=args.workers,
            target=args.target,
            size=args.shard,
        )


if __name__ == "__main__":
    main()
