"""Ask a potential of another architecture about recorded hits: a judge that no loop saw.

    pip install 'matdesign[judge]'      # SevenNet, its weights in the wheel
    python scripts/third_judge.py data/runs/solar-absorber.json

Relaxes every hit of every campaign from where the loop's potential left it, by
`7net-l3i5` calibrated to the known compounds, and writes "third" beside it: its distance
to their hull in eV/atom, or why there is none. Loop and judge of the record are two sets
of weights of one architecture; this is another.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

import matdesign as design
from matdesign.loop.hull import Hull

NAME = "7net-l3i5"


def calculator() -> Any:
    """Return the potential."""
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator(NAME, device="cpu")


def ask(record: dict[str, Any], oracle: Any) -> tuple[int, int]:
    """Enter what an oracle says of all hits; return how many lie near the hull, of all.

    Near is within the record's own window of the distance.
    """
    hits = [hit for run in record["runs"] for hit in run["hits"]]
    cells = [Structure.from_str(x["cif"], fmt="cif", frac_tolerance=0) for x in hits]
    found = oracle.evaluate(design.Crystals.from_structures(cells))
    (low, high), near = record["windows"]["energy_above_hull"], 0
    for hit, far, reason in zip(
        hits, found.energy_above_hull.tolist(), found.reason, strict=True
    ):
        known = math.isfinite(far) and not reason
        hit["third"] = {"energy_above_hull": round(far, 3) if known else None}
        hit["third"]["reason"] = reason
        near += known and low <= far <= high
    record["third"] = oracle.name
    return near, len(hits)


def main(given: Sequence[str] | None = None) -> int:
    """Ask about the hits of records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=Path, nargs="+", help="of bench.py cases")
    args = parser.parse_args(given)
    hull = Hull.shipped(NAME)
    with design.ASEOracle(calculator, name=NAME, hull=hull, time_limit=600) as oracle:
        for path in args.records:
            record = json.loads(path.read_text())
            near, n = ask(record, oracle)
            path.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{path.name}: {near} of {n} hits near the hull by {oracle.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
