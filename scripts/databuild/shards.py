"""Relax candidates in worker processes and keep the results in shards.

A shard is written to a temporary file and then renamed, so a build that is killed at
any moment loses at most the shards in flight; the next run skips every id on disk.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from databuild.candidates import Candidate
from matdesign.loop.guards import Guards
from matdesign.loop.hull import Hull
from matdesign.loop.potential import Potential
from matdesign.loop.relax import relax
from matdesign.loop.workers import TaskFailed, Workers

Row = dict[str, Any]
TIME_LIMIT = 900.0
"""For the relaxations of a shard, s."""


def write_table(table: pa.Table, path: Path, **options: Any) -> Path:
    """Write a parquet table, first under another name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    pq.write_table(table, temporary, compression="zstd", **options)
    temporary.rename(path)
    return path


def read_shards(folder: Path, columns: list[str] | None = None) -> list[Row]:
    """All rows on disk, in a stable order, each id once."""
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(path, columns=columns).to_pylist():
            rows.setdefault(row["id"], row)
    return list(rows.values())


def pending(
    candidates: Sequence[Candidate], folder: Path, size: int
) -> Iterator[list[Candidate]]:
    """The candidates not on disk yet, in groups of one shard."""
    done = {row["id"] for row in read_shards(folder, ["id"])}
    rest = [c for c in candidates if c.identity not in done]
    for start in range(0, len(rest), size):
        yield rest[start : start + size]


def spacegroup(structure: Structure, symprec: float) -> int:
    """Number of the space group, 1 when the search fails."""
    try:
        return int(SpacegroupAnalyzer(structure, symprec).get_space_group_number())
    except Exception:  # spglib answers a cell it cannot handle in many ways
        return 1


def run_shard(candidates: Sequence[Candidate]) -> list[Row]:
    """Build, relax, guard and label a group of candidates.

    Returns:
        One row per candidate, with reason "" when usable.
    """
    begin = time.monotonic()
    built: list[tuple[Candidate, Structure]] = []
    rows: list[Row] = []
    for candidate in candidates:
        try:
            built.append((candidate, candidate.build()))
        except Exception as error:  # a substitution that pymatgen cannot build
            rows.append(_row(candidate, None, None, f"cannot be built: {error}"[:120]))
    starts = [structure for _, structure in built]
    options = {"fmax": 0.05, "steps": 120, "time_limit": TIME_LIMIT}
    results = relax(starts, potential(), **options)
    hull, guards = Hull.shipped(), Guards()
    for (candidate, start), result in zip(built, results, strict=True):
        formation, reason = float("nan"), result.reason
        if not reason:
            energies = [result.energy_per_atom]
            formation = float(hull.formation_energy([result.structure], energies)[0])
            reason = guards.check(
                result.structure,
                volume_ratio=result.volume_ratio,
                formation_energy=formation,
                element_volumes=hull.calibration.volumes,
            )
            lowest = -0.1 if candidate.kind == "element" else -10.0
            if not reason and formation < lowest:
                reason = f"below the elemental reference {formation:.2f}"
        rows.append(_row(candidate, start, result, reason, formation))
    seconds = (time.monotonic() - begin) / max(len(rows), 1)
    return [{**row, "seconds": seconds} for row in rows]


def _row(
    candidate: Candidate,
    start: Structure | None,
    result: Any,
    reason: str,
    formation: float = float("nan"),
) -> Row:
    row: Row = {
        "id": candidate.identity,
        "prototype": candidate.prototype,
        "substitution": json.dumps(dict(candidate.substitution)),
        "variant": candidate.variant,
        "kind": candidate.kind,
        "reason": reason,
        "formula": "",
        **{key: [] for key in ("numbers", "frac_coords", "lattice")},
        **dict.fromkeys(("energy_per_atom", "magmom_per_atom", "fmax"), float("nan")),
        "formation_energy_per_atom": formation,
        "volume_ratio": float("nan"),
        **dict.fromkeys(("steps", "spacegroup", "spacegroup_start"), 0),
    }
    if start is None:
        return row
    structure = result.structure
    row |= {
        "formula": structure.composition.reduced_formula,
        "numbers": [site.specie.Z for site in structure],
        "frac_coords": [float(v) for v in structure.frac_coords.ravel()],
        "lattice": [float(v) for v in structure.lattice.matrix.ravel()],
        "spacegroup_start": spacegroup(start, 0.01),
    }
    names = ("energy_per_atom", "fmax", "steps", "volume_ratio")
    row |= {name: getattr(result, name) for name in names}
    if len(result.magmoms):
        row["magmom_per_atom"] = float(result.magmoms.mean())
    if not reason:
        row["spacegroup"] = spacegroup(structure, 0.1)
    return row


@cache
def potential() -> Potential:
    """Return the potential of this process."""
    return Potential()


def run_all(
    candidates: Sequence[Candidate],
    folder: Path,
    *,
    workers: int,
    target: int | None,
    size: int,
) -> None:
    """Relax what is pending in worker processes until done or enough is usable."""
    done = read_shards(folder, ["id", "reason"])
    usable = sum(not row["reason"] for row in done)
    with Workers(workers, prepare=potential) as pool:
        tasks = {
            pool.submit(run_shard, group, time_limit=2 * TIME_LIMIT): group
            for group in pending(candidates, folder, size)
        }
        for task in as_completed(tasks):
            group = tasks[task]
            try:
                rows = task.result()
            except TaskFailed as failure:
                rows = [_row(one, None, None, failure.reason) for one in group]
                rows = [{**row, "seconds": 2 * TIME_LIMIT / len(rows)} for row in rows]
            path = folder / f"{group[0].identity}.parquet"
            write_table(pa.Table.from_pylist(rows), path)
            good = sum(not row["reason"] for row in rows)
            each = f"{good}/{len(rows)} usable, {rows[0]['seconds']:.2f} s each"
            print(f"{time.strftime('%H:%M:%S')} {path.name} {each}", flush=True)
            usable += good
            if target is not None and usable >= target:
                break
