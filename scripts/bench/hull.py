"""Hold the hull against real crystals: do those of the Materials Project lie on it?

    python scripts/bench.py hull mp_20_dev.parquet [--relax 200]

Crystals of reduced MP-20 are placed against the shipped hull by the shipped oracle, as
they stand there; the distances are compared with the Materials Project's own.  A first
run takes some minutes (energies are kept under build/references); `--relax` also relaxes
that many validation rows, about a second each.  The figures go into the card of the
references.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from build_references import energies, write_card
from mp20 import parts_of
from numpy.typing import ArrayLike

from matdesign.crystals.io.parquet import read_parquet
from matdesign.loop.calibration import Calibration
from matdesign.loop.hull import Hull
from matdesign.loop.oracle import PotentialOracle

DFT, THEIRS = "formation_energy_per_atom", "e_above_hull"
NEAR = 0.1
"""What counts as near the hull, eV/atom."""


def compared(above: ArrayLike, theirs: ArrayLike) -> dict[str, Any]:
    """Return how far distances to the hull are from the Materials Project's, eV/atom."""
    ours = np.asarray(above, dtype=float)
    known = np.isfinite(ours)
    off = np.abs(ours - np.asarray(theirs, dtype=float))[known]
    figures = {
        "share within 0.1 eV/atom": (ours <= NEAR).mean(),
        "share below -0.1 eV/atom": (ours < -NEAR).mean(),
        "median distance (eV/atom)": np.median(ours[known]),
        "median difference from the Materials Project (eV/atom)": np.median(off),
        "mean difference (eV/atom)": off.mean(),
    }
    rounded = {key: round(float(value), 4) for key, value in figures.items()}
    return {"crystals": len(ours), **rounded, "without a distance": int((~known).sum())}


def options(add: Callable[..., Any]) -> None:
    """Add what the command line takes."""
    add("reduced", type=Path, help="mp_20_dev.parquet")
    add("--relax", type=int, default=0, help="validation rows to relax")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the figures of all rows, of our validation rows, and of relaxed ones."""
    crystals = read_parquet(args.reduced)
    theirs = crystals.properties[THEIRS].double().numpy()
    val = np.array(parts_of(crystals.ids)) == "val"
    rows, found = "rows of reduced MP-20", dict[str, dict[str, Any]]()
    elements = Hull.shipped().calibration.elements
    exact = Hull.shipped(Calibration("DFT", dict.fromkeys(elements, 0.0), 0.0))
    above = exact.energy_above_hull(crystals, crystals.properties[DFT].double().numpy())
    found[f"check: all {rows} by their DFT energies"] = compared(above, theirs)
    for name in ("chgnet-0.3.0", "chgnet-r2scan"):
        hull = Hull.shipped(name)
        above = hull.energy_above_hull(crystals, energies(name, crystals))
        by = f"{rows} by {hull.calibration.name}"
        found[f"check: all {by}"] = compared(above, theirs)
        found[f"check: validation {by}"] = compared(above[val], theirs[val])
    if args.relax:
        some = np.flatnonzero(val)[: args.relax]
        with PotentialOracle(workers=1, time_limit=600) as oracle:
            made = oracle.evaluate(crystals[some.tolist()])
        # a failed relaxation is not near the hull
        above = np.where(made.ok, made.energy_above_hull, np.nan)
        figures = {**compared(above, theirs[some]), "failed": made.failed}
        found["check: validation rows relaxed by CHGNet 0.3.0"] = figures
    write_card(found)
    yield {"checks": found}


def table(record: dict[str, Any]) -> str:
    """Return the figures as text."""
    checks = record["checks"].items()
    return "\n".join(
        "\n".join([title, *(f"  {k:56s} {v}" for k, v in figures.items())])
        for title, figures in checks
    )
