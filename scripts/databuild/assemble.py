"""From shards to the shipped files: duplicates out, hull, labels, splits."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from databuild.cards import renew_card, write_card
from databuild.shards import Row, read_shards, write_table
from matdesign.loop.hull import Hull

SETS = {"perovskites": "perov", "prototypes": "proto"}
"""Set -> the beginning of its ids."""

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
        table = pq.read_table(path)
        rows = table.select(["formula", "energy_per_atom"]).to_pylist()
        label(rows)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        for key in ("formation_energy_per_atom", "energy_above_hull"):
            columns[key] = _single([row[key] for row in rows])
        write_table(pa.table(columns), path, compression_level=19)
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
        "below the elemental reference -0.130".
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


def _single(values: Sequence[float]) -> Any:
    return pa.array(np.asarray(values, dtype=np.float32))


def write_set(name: str, rows: list[Row], path: Path) -> None:
    """Write a shipped set, ordered by formula and energy."""
    rows.sort(key=lambda row: (row["formula"], row["energy_per_atom"], row["id"]))
    crystals = [crystal(row) for row in rows]
    systems = ["-".join(sorted(e.symbol for e in one.elements)) for one in crystals]

    def column(key: str, kind: Any = None) -> Any:
        return pa.array([row[key] for row in rows], kind)

    def words(values: list[str]) -> Any:
        return pa.array(values).dictionary_encode()

    def single(key: str) -> Any:
        return _single([row[key] for row in rows])

    frac = []
    for row in rows:
        wrapped = np.asarray(row["frac_coords"], dtype=np.float64)
        some = (wrapped - np.floor(wrapped)).astype(np.float32)
        some[some >= 1.0] = 0.0
        frac.append(some)
    cells = [np.asarray(row["lattice"], dtype=np.float32) for row in rows]
    columns = {
        "material_id": [f"{SETS[name]}-{row['id'][:12]}" for row in rows],
        "split": words([split_of(row["formula"]) for row in rows]),
        "num_atoms": pa.array([len(row["numbers"]) for row in rows], pa.uint8()),
        "numbers": column("numbers", pa.list_(pa.uint8())),
        "frac_coords": pa.array(frac, pa.list_(pa.float32())),
        "lattice": pa.array(cells, pa.list_(pa.float32(), 9)),
        "formula": column("formula"),
        "prototype": words([row["prototype"] for row in rows]),
        "energy_per_atom": single("energy_per_atom"),
        "formation_energy_per_atom": single("formation_energy_per_atom"),
        "energy_above_hull": single("energy_above_hull"),
        "volume_per_atom": _single([one.volume / len(one) for one in crystals]),
        "density": _single([float(one.density) for one in crystals]),
        "magmom_per_atom": single("magmom_per_atom"),
        "spacegroup": column("spacegroup", pa.uint8()),
        "spacegroup_start": column("spacegroup_start", pa.uint8()),
        "kind": words([row["kind"] for row in rows]),
        "holdout_prototype": [held_out("prototype", r["prototype"]) for r in rows],
        "holdout_system": [held_out("system", system) for system in systems],
        "variant": words([row["variant"] for row in rows]),
    }
    write_table(pa.table(columns), path, compression_level=19)


def write_rejected(rows: Sequence[Row], path: Path) -> None:
    """Write what did not make it, with the reason."""
    rows = sorted(rows, key=lambda row: (row["reason"], row["id"]))
    plain = ("id", "prototype", "formula", "variant", "kind", "reason", "substitution")
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in plain}
    columns["num_atoms"] = pa.array([len(row["numbers"]) for row in rows], pa.uint8())
    for key in ("energy_per_atom", "formation_energy_per_atom", "volume_ratio"):
        columns[key] = _single([row[key] for row in rows])
    columns["steps"] = pa.array([row["steps"] for row in rows], pa.int16())
    write_table(pa.table(columns), path, compression_level=19)
