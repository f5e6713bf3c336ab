"""From shards to the shipped files: duplicates out, hull, labels, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from databuild.cards import renew_card, write_cards
from databuild.shards import Row, read_shards

SETS = ("perovskites", "prototypes")
PREFIX = {"perovskites": "perov", "prototypes": "proto"}
SAME_ENERGY = 0.005
"""Two crystals of a formula are compared only when this close in energy, eV/atom."""

FAR_ABOVE = 1.0
"""Crystals further above the hull are saddle points held up by their symmetry, such as
a perovskite with its cations swapped; they are logged and not shipped, eV/atom."""

BELOW_ELEMENT = -0.1
"""Elements in a form below their reference are the potential's mistake, eV/atom."""


def assemble(work: Path, data: Path) -> None:
    """Write data/perovskites and data/prototypes from the shards.

    Args:
        work: Folder of the shards, one folder per set.
        data: Folder of the shipped sets.
    """
    everything = {name: read_shards(work / name) for name in SETS}
    usable: dict[str, list[Row]] = {}
    rejected: dict[str, list[Row]] = {}
    for name, rows in everything.items():
        good = [row for row in rows if not row["reason"]]
        kept, copies = drop_copies(good)
        usable[name] = kept
        rejected[name] = [row for row in rows if row["reason"]] + copies
        print(f"{name}: {len(rows)} tried, {len(good)} passed, {len(kept)} kept")
    for name, rows in usable.items():
        label(rows)
        usable[name], implausible = drop_implausible(rows)
        rejected[name] += implausible
    for name in SETS:
        if not usable[name]:
            continue
        write_set(name, usable[name], data / name / f"{name}.parquet")
        write_rejected(rejected[name], data / name / "rejected.parquet")
    write_cards(data, usable, rejected)


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
    import pyarrow.parquet as pq

    for name in SETS:
        path = data / name / f"{name}.parquet"
        table = pq.read_table(path)
        rows = table.select(["formula", "energy_per_atom"]).to_pylist()
        label(rows)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        for key in ("formation_energy_per_atom", "energy_above_hull"):
            columns[key] = _single([row[key] for row in rows])
        _write(columns, path)
        renew_card(data / name, rows)


def split_of(formula: str) -> str:
    """Split of a reduced formula: 80 % train, 10 % val, 10 % test, fixed for ever.

    Polymorphs of one formula share a split, in both sets.
    """
    share = int(hashlib.sha256(f"split|{formula}".encode()).hexdigest()[:8], 16) / 2**32
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def held_out(what: str, name: str) -> bool:
    """Whether a prototype ("prototype") or chemical system ("system") is held out."""
    digest = hashlib.sha256(f"{what}|{name}".encode()).hexdigest()
    return int(digest[:8], 16) / 2**32 < 0.1


def chemical_system(row: Row) -> str:
    """Elements of a crystal in alphabetic order, such as "O-Sr-Ti"."""
    from pymatgen.core import Element

    return "-".join(sorted(Element.from_Z(z).symbol for z in set(row["numbers"])))


def crystal(row: Row) -> Any:
    """The row as a pymatgen Structure."""
    from pymatgen.core import Lattice, Structure

    return Structure(
        Lattice(np.array(row["lattice"]).reshape(3, 3)),
        row["numbers"],
        np.array(row["frac_coords"]).reshape(-1, 3),
    )


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
    for group in groups.values():
        chosen: list[tuple[Row, Any]] = []
        for row in sorted(
            group, key=lambda r: (len(r["numbers"]), r["variant"], r["energy_per_atom"])
        ):
            structure = crystal(row)
            twin = next(
                (
                    other
                    for other, theirs in chosen
                    if abs(other["energy_per_atom"] - row["energy_per_atom"])
                    < SAME_ENERGY
                    and matcher.fit(structure, theirs)
                ),
                None,
            )
            if twin is None:
                chosen.append((row, structure))
            else:
                copies.append({**row, "reason": f"copy of {twin['id']}"})
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
        formation = row["formation_energy_per_atom"]
        if row["energy_above_hull"] > FAR_ABOVE:
            reason = f"far above the hull {row['energy_above_hull']:.2f}"
        elif len(set(row["numbers"])) == 1 and formation < BELOW_ELEMENT:
            reason = f"below the elemental reference {formation:.3f}"
        else:
            kept.append(row)
            continue
        dropped.append({**row, "reason": reason})
    return kept, dropped


def _columns(rows: Sequence[Row], prefix: str) -> dict[str, Any]:
    """Core columns: identity, structure and energy."""
    import pyarrow as pa

    frac = []
    for row in rows:
        wrapped = np.asarray(row["frac_coords"], dtype=np.float64)
        single = (wrapped - np.floor(wrapped)).astype(np.float32)
        single[single >= 1.0] = 0.0
        frac.append(single)
    return {
        "material_id": [f"{prefix}-{row['id'][:12]}" for row in rows],
        "num_atoms": pa.array([len(row["numbers"]) for row in rows], pa.uint8()),
        "numbers": pa.array([row["numbers"] for row in rows], pa.list_(pa.uint8())),
        "frac_coords": pa.array(frac, pa.list_(pa.float32())),
        "lattice": pa.array(
            [np.asarray(row["lattice"], dtype=np.float32) for row in rows],
            pa.list_(pa.float32(), 9),
        ),
        "formula": [row["formula"] for row in rows],
        "prototype": pa.array([row["prototype"] for row in rows]).dictionary_encode(),
        "energy_per_atom": _single([row["energy_per_atom"] for row in rows]),
        "formation_energy_per_atom": _single(
            [row["formation_energy_per_atom"] for row in rows]
        ),
        "energy_above_hull": _single([row["energy_above_hull"] for row in rows]),
    }


def _single(values: Sequence[float]) -> Any:
    import pyarrow as pa

    return pa.array(np.asarray(values, dtype=np.float32))


def _write(columns: dict[str, Any], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(
        pa.table(columns), temporary, compression="zstd", compression_level=19
    )
    temporary.rename(path)


def write_set(name: str, rows: list[Row], path: Path) -> None:
    """Write a shipped set, ordered by formula and energy."""
    import pyarrow as pa

    rows.sort(key=lambda row: (row["formula"], row["energy_per_atom"], row["id"]))
    volume, density = [], []
    for row in rows:
        structure = crystal(row)
        volume.append(structure.volume / len(structure))
        density.append(float(structure.density))
    columns = _columns(rows, PREFIX[name])
    identity = columns.pop("material_id")
    split = pa.array([split_of(row["formula"]) for row in rows]).dictionary_encode()
    columns = {"material_id": identity, "split": split, **columns}
    columns |= {
        "volume_per_atom": _single(volume),
        "density": _single(density),
        "magmom_per_atom": _single([row["magmom_per_atom"] for row in rows]),
        "spacegroup": pa.array([row["spacegroup"] for row in rows], pa.uint8()),
        "spacegroup_start": pa.array(
            [row["spacegroup_start"] for row in rows], pa.uint8()
        ),
        "kind": pa.array([row["kind"] for row in rows]).dictionary_encode(),
        "holdout_prototype": [held_out("prototype", r["prototype"]) for r in rows],
        "holdout_system": [held_out("system", chemical_system(r)) for r in rows],
        "variant": pa.array([row["variant"] for row in rows]).dictionary_encode(),
    }
    _write(columns, path)


def write_rejected(rows: Sequence[Row], path: Path) -> None:
    """Write what did not make it, with the reason."""
    import pyarrow as pa

    rows = sorted(rows, key=lambda row: (row["reason"], row["id"]))
    columns: dict[str, Any] = {"id": [row["id"] for row in rows]}
    for key in ("prototype", "formula", "variant", "kind", "reason"):
        columns[key] = pa.array([row[key] for row in rows])
    columns["substitution"] = [row["substitution"] for row in rows]
    columns["num_atoms"] = pa.array([len(row["numbers"]) for row in rows], pa.uint8())
    for key in ("energy_per_atom", "formation_energy_per_atom", "volume_ratio"):
        columns[key] = _single([row[key] for row in rows])
    columns["steps"] = pa.array([row["steps"] for row in rows], pa.int16())
    _write(columns, path)
