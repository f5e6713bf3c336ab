"""From shards to the shipped files: duplicates out, hull, labels, splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from databuild.cards import UNITS, renew_card, write_card
from databuild.shards import Row, read_shards
from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.parquet import read_parquet, write_parquet

SETS = {"perovskites": "perov", "prototypes": "proto"}
"""Set -> the beginning of its ids."""

LABELS = ("formation_energy_per_atom", "energy_above_hull")
"""What follows from an energy and the shipped hull, eV/atom."""

FIGURES = (
    "energy_per_atom",
    *LABELS,
    "magmom_per_atom",
    "spacegroup",
    "spacegroup_start",
)
"""Columns of a shipped set that a row holds as numbers."""

SAME_ENERGY = 0.005
"""Two crystals of a formula are compared only when this close in energy, eV/atom."""

FAR_ABOVE = 1.0
"""Crystals further above the hull are saddle points held up by their symmetry, such as
a perovskite with its cations swapped; they are logged and not shipped, eV/atom."""

BELOW_ELEMENT = -0.1
"""Elements in a form below their reference are the potential's mistake, eV/atom."""


def assemble(work: Path, data: Path) -> None:
    """Write data/perovskites and data/prototypes from the shards."""
    for name in SETS:
        rows = read_shards(work / name)
        bad = [row for row in rows if row["reason"]]
        good, copies = drop_copies([row for row in rows if not row["reason"]])
        if good:
            label(good)
            good, implausible = drop_implausible(good)
            rejected = bad + copies + implausible
            write_set(name, good, data / name / f"{name}.parquet")
            write_rejected(rejected, data / name / "rejected.parquet")
            splits = Counter(split_of(row["formula"]) for row in good)
            write_card(data / name, name, good, rejected, splits)
        print(f"{name}: {len(rows)} tried, {len(good)} kept")


def label(rows: Sequence[Row]) -> None:
    """Set the formation energy and the distance to the shipped hull of rows."""
    from matdesign.loop.hull import Hull

    hull = Hull.shipped()
    formulas = [row["formula"] for row in rows]
    energies = [row["energy_per_atom"] for row in rows]
    formed = hull.formation_energy(formulas, energies)
    above = hull.energy_above_hull(formulas, energies)
    for row, formation, distance in zip(rows, formed, above, strict=True):
        row["formation_energy_per_atom"] = float(formation)
        row["energy_above_hull"] = float(distance)


def relabel(data: Path) -> None:
    """Label the shipped sets anew from the energies stored in them; no row changes."""
    for name in SETS:
        path = data / name / f"{name}.parquet"
        crystals = read_parquet(path)
        formulas = crystals.labels["formula"]
        energies = crystals.properties["energy_per_atom"].tolist()
        rows = [
            {"formula": formula, "energy_per_atom": energy}
            for formula, energy in zip(formulas, energies, strict=True)
        ]
        label(rows)
        new = {key: torch.tensor([row[key] for row in rows]) for key in LABELS}
        write_parquet(crystals.replace(properties={**crystals.properties, **new}), path)
        renew_card(data / name, rows)


def split_of(formula: str) -> str:
    """Split of a reduced formula: 80 % train, 10 % val, 10 % test, fixed for ever.

    Polymorphs of one formula share a split, in both sets.
    """
    share = _share(f"split|{formula}")
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def held_out(what: str, name: str) -> bool:
    """Whether a prototype ("prototype") or chemical system ("system") is held out."""
    return _share(f"{what}|{name}") < 0.1


def _share(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def crystal(row: Row) -> Any:
    """The row as a pymatgen Structure."""
    from pymatgen.core import Lattice, Structure

    lattice = Lattice(np.array(row["lattice"]).reshape(3, 3))
    frac = np.array(row["frac_coords"]).reshape(-1, 3)
    return Structure(lattice, row["numbers"], frac)


def drop_copies(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Split rows into distinct crystals and copies of them.

    Within one reduced formula, crystals of nearly one energy are compared with
    pymatgen's StructureMatcher at its default tolerances; of two alike the one of
    fewer atoms, not rattled and lower in energy stays.

    Returns:
        Those kept, and the copies with the reason "copy of ID".
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher()
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["formula"], []).append(row)
    kept: list[Row] = []
    copies: list[Row] = []

    def best_first(row: Row) -> Any:
        return len(row["numbers"]), row["variant"], row["energy_per_atom"]

    for group in groups.values():
        chosen: list[tuple[Row, Any]] = []
        for row in sorted(group, key=best_first):
            energy, structure = row["energy_per_atom"], crystal(row)
            for other, theirs in chosen:
                near = abs(other["energy_per_atom"] - energy) < SAME_ENERGY
                if near and matcher.fit(structure, theirs):
                    copies.append({**row, "reason": f"copy of {other['id']}"})
                    break
            else:
                chosen.append((row, structure))
        kept += [row for row, _ in chosen]
    return kept, copies


def drop_implausible(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Split labelled rows into those shipped and those far from any real crystal.

    Returns:
        Those kept, and the others with the reason "far above the hull 1.20" or
        "below the elemental reference -0.03".
    """
    kept: list[Row] = []
    dropped: list[Row] = []
    for row in rows:
        formation, above = row["formation_energy_per_atom"], row["energy_above_hull"]
        if above > FAR_ABOVE:
            dropped.append({**row, "reason": f"far above the hull {above:.2f}"})
        elif len(set(row["numbers"])) == 1 and formation < BELOW_ELEMENT:
            reason = f"below the elemental reference {formation:.3f}"
            dropped.append({**row, "reason": reason})
        else:
            kept.append(row)
    return kept, dropped


def write_set(name: str, rows: list[Row], path: Path) -> None:
    """Write a shipped set, ordered by formula and energy."""
    rows.sort(key=lambda row: (row["formula"], row["energy_per_atom"], row["id"]))
    crystals = [crystal(row) for row in rows]
    systems = ["-".join(sorted(e.symbol for e in one.elements)) for one in crystals]
    numbers = {key: [row[key] for row in rows] for key in FIGURES}
    numbers |= {
        "volume_per_atom": [one.volume / len(one) for one in crystals],
        "density": [float(one.density) for one in crystals],
        "holdout_prototype": [held_out("prototype", r["prototype"]) for r in rows],
        "holdout_system": [held_out("system", system) for system in systems],
    }
    labels = {"split": tuple(split_of(row["formula"]) for row in rows)}
    for key in ("formula", "prototype", "kind", "variant"):
        labels[key] = tuple(row[key] for row in rows)
    made = Crystals.from_structures(
        crystals,
        properties={k: torch.tensor(v).float() for k, v in numbers.items()},
        units={k: unit for k, unit in UNITS.items() if k in numbers},
        labels=labels,
        ids=[f"{SETS[name]}-{row['id'][:12]}" for row in rows],
    )
    write_parquet(made, path)


def write_rejected(rows: Sequence[Row], path: Path) -> None:
    """Write what did not make it, with the reason."""
    import pandas as pd

    rows = sorted(rows, key=lambda row: (row["reason"], row["id"]))
    names = "id prototype formula variant kind reason substitution energy_per_atom"
    names += " formation_energy_per_atom volume_ratio steps"
    frame = pd.DataFrame(rows, columns=names.split())
    frame["num_atoms"] = [len(row["numbers"]) for row in rows]
    frame.to_parquet(path, compression="zstd", index=False)
