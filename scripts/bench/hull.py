"""Hold the hull against real crystals: do those of the Materials Project lie on it?

    python scripts/bench.py hull mp_20_dev.parquet [--relax 200] [--no-card]

Crystals of reduced MP-20 are placed against the shipped hull by the shipped oracle, as
they stand there; the distances are compared with the Materials Project's own.  A first
run takes some minutes (energies are kept under build/references); `--relax` also relaxes
that many validation rows, about a second each.  The figures go into the card of the
references.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from build_references import energies, write_card
from mp20 import parts_of
from numpy.typing import ArrayLike

from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.parquet import read_parquet
from matdesign.loop.calibration import Calibration
from matdesign.loop.hull import Hull

DFT, THEIRS = "formation_energy_per_atom", "e_above_hull"
NEAR = 0.1
"""What counts as near the hull, eV/atom."""


def compared(above: ArrayLike, theirs: ArrayLike) -> dict[str, Any]:
    """Return how far distances to the hull are from the Materials Project's, eV/atom."""
    ours = np.asarray(above, dtype=float)
    known = np.isfinite(ours)
    off = np.abs(ours - np.asarray(theirs, dtype=float))[known]
    return {
        "crystals": len(ours),
        "share within 0.1 eV/atom": round(float((ours <= NEAR).mean()), 4),
        "share below -0.1 eV/atom": round(float((ours < -NEAR).mean()), 4),
        "median distance (eV/atom)": round(float(np.median(ours[known])), 4),
        "median difference from the Materials Project (eV/atom)": round(
            float(np.median(off)), 4
        ),
        "mean difference (eV/atom)": round(float(off.mean()), 4),
        "without a distance": int((~known).sum()),
    }


def main(given: list[str]) -> int:
    """Print the figures of all rows, of our validation rows, and of relaxed ones."""
    parser = argparse.ArgumentParser(
        "bench.py hull", description=__doc__.splitlines()[0]
    )
    parser.add_argument("reduced", type=Path, help="mp_20_dev.parquet")
    parser.add_argument("--relax", type=int, default=0, help="validation rows to relax")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-card", action="store_true", help="print only")
    args = parser.parse_args(given)
    crystals = read_parquet(args.reduced)
    theirs = crystals.properties[THEIRS].double().numpy()
    dft = crystals.properties[DFT].double().numpy()
    val = np.array(parts_of(crystals.ids)) == "val"
    found: dict[str, dict[str, Any]] = {}
    by_dft = Hull.shipped(
        Calibration("DFT", dict.fromkeys(Hull.shipped().calibration.elements, 0.0), 0.0)
    )
    above = by_dft.energy_above_hull(crystals, dft)
    found["check: all rows of reduced MP-20 by their DFT energies"] = compared(
        above, theirs
    )
    for name in ("chgnet-0.3.0", "chgnet-r2scan"):
        hull = Hull.shipped(name)
        above = hull.energy_above_hull(crystals, energies(name, crystals))
        for rows, which in ((slice(None), "all"), (val, "validation")):
            title = f"check: {which} rows of reduced MP-20 by {hull.calibration.name}"
            found[title] = compared(above[rows], theirs[rows])
    if args.relax:
        some = crystals[np.flatnonzero(val)[: args.relax].tolist()]
        found["check: validation rows relaxed by CHGNet 0.3.0"] = relaxed(
            some, args.workers
        )
    for title, figures in found.items():
        print(title)
        for name, value in figures.items():
            print(f"  {name:56s} {value}")
    if not args.no_card:
        write_card(found)
    return 0


def relaxed(crystals: Crystals, workers: int) -> dict[str, Any]:
    """Relax with the shipped oracle; a failed relaxation is not near the hull."""
    from matdesign.loop.oracle import PotentialOracle

    theirs = crystals.properties[THEIRS].double().numpy()
    with PotentialOracle(workers=workers, time_limit=600) as oracle:
        results = oracle.evaluate(crystals)
    above = np.where(results.ok, results.energy_above_hull, np.nan)
    return {**compared(above, theirs), "failed": results.failed}
