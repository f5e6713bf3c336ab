"""Relax candidates in worker processes and keep the results in shards.

A shard is written to a temporary file and then renamed, so a build that is killed at
any moment loses at most the shards in flight; the next run skips every id on disk.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from databuild.candidates import Candidate

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from matdesign.loop.potential import Potential

SHARD = 100
Row = dict[str, Any]


def write_shard(folder: Path, name: str, rows: Sequence[Row]) -> Path:
    """Write rows as a parquet shard, first under another name, then renamed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{name}.parquet"
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    pq.write_table(pa.Table.from_pylist(list(rows)), temporary, compression="zstd")
    temporary.rename(final)
    return final


def read_shards(folder: Path) -> list[Row]:
    """All rows on disk, in a stable order, each id once."""
    import pyarrow.parquet as pq

    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            rows.setdefault(row["id"], row)
    return list(rows.values())


def done_ids(folder: Path) -> set[str]:
    """Ids that need no more work."""
    import pyarrow.parquet as pq

    found: set[str] = set()
    for path in folder.glob("*.parquet"):
        found.update(pq.read_table(path, columns=["id"])["id"].to_pylist())
    return found


def pending(
    candidates: Sequence[Candidate], folder: Path, size: int = SHARD
) -> Iterator[list[Candidate]]:
    """The candidates not on disk yet, in groups of one shard."""
    done = done_ids(folder)
    rest = [c for c in candidates if c.identity not in done]
    for start in range(0, len(rest), size):
        yield rest[start : start + size]


def spacegroup(structure: Structure, symprec: float) -> int:
    """Number of the space group, 1 when the search fails."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        return int(SpacegroupAnalyzer(structure, symprec).get_space_group_number())
    except Exception:  # spglib answers a cell it cannot handle in many ways
        return 1


def run_shard(
    candidates: Sequence[Candidate],
    potential: Potential,
    *,
    time_limit: float = 900.0,
    steps: int = 120,
) -> list[Row]:
    """Build, relax, guard and label a group of candidates.

    Args:
        candidates: What to try.
        potential: The oracle.
        time_limit: Seconds for the group; those not done by then say so.
        steps: Largest number of steps per crystal.

    Returns:
        One row per candidate, with reason "" when usable.
    """
    from matdesign.loop.guards import Guards
    from matdesign.loop.hull import Hull
    from matdesign.loop.relax import Relaxed, relax

    begin = time.monotonic()
    built: list[tuple[Candidate, Structure]] = []
    rows: list[Row] = []
    for candidate in candidates:
        try:
            built.append((candidate, candidate.build()))
        except Exception as error:  # a substitution that pymatgen cannot build
            rows.append(_row(candidate, None, None, f"cannot be built: {error}"[:120]))
    try:
        _alarm(time_limit * 1.5)
        results = relax(
            [structure for _, structure in built],
            potential,
            fmax=0.05,
            steps=steps,
            time_limit=time_limit,
            active_atoms=48,
        )
    except TimeoutError:
        results = [Relaxed(s, reason="time limit") for _, s in built]
    finally:
        _alarm(0)
    hull, guards = Hull.shipped(), Guards()
    for (candidate, start), result in zip(built, results, strict=True):
        formation, reason = None, result.reason
        if not reason:
            formation = float(
                hull.formation_energy([result.structure], [result.energy_per_atom])[0]
            )
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
    formation: float | None = None,
) -> Row:
    row: Row = {
        "id": candidate.identity,
        "prototype": candidate.prototype,
        "substitution": json.dumps(dict(candidate.substitution)),
        "variant": candidate.variant,
        "kind": candidate.kind,
        "reason": reason,
        "formula": "",
        "numbers": [],
        "frac_coords": [],
        "lattice": [],
        "energy_per_atom": float("nan"),
        "formation_energy_per_atom": float("nan") if formation is None else formation,
        "magmom_per_atom": float("nan"),
        "fmax": float("nan"),
        "steps": 0,
        "volume_ratio": float("nan"),
        "spacegroup": 0,
        "spacegroup_start": 0,
    }
    if start is None:
        return row
    structure = result.structure
    row |= {
        "formula": structure.composition.reduced_formula,
        "numbers": [site.specie.Z for site in structure],
        "frac_coords": [float(v) for v in structure.frac_coords.ravel()],
        "lattice": [float(v) for v in structure.lattice.matrix.ravel()],
        "energy_per_atom": result.energy_per_atom,
        "fmax": result.fmax,
        "steps": result.steps,
        "volume_ratio": result.volume_ratio,
        "spacegroup_start": spacegroup(start, 0.01),
    }
    if len(result.magmoms):
        row["magmom_per_atom"] = float(result.magmoms.mean())
    if not reason:
        row["spacegroup"] = spacegroup(structure, 0.1)
    return row


def _alarm(seconds: float) -> None:
    """Raise TimeoutError in this process after some seconds; 0 switches it off."""

    def ring(signum: int, frame: object) -> None:
        raise TimeoutError(f"no end after {seconds:.0f} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _work(tasks: Any, folder: Path, time_limit: float) -> None:
    """A worker process: one thread, one potential, shard after shard."""
    import warnings

    import torch

    from matdesign.loop.potential import Potential

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    potential = Potential()
    parent = os.getppid()
    while True:
        try:
            group = tasks.get(timeout=2.0)
        except queue.Empty:
            if os.getppid() != parent:  # the build was killed: leave no orphan behind
                return
            continue
        if group is None:
            return
        rows = run_shard(group, potential, time_limit=time_limit)
        path = write_shard(folder, group[0].identity, rows)
        good = sum(not row["reason"] for row in rows)
        print(
            f"{time.strftime('%H:%M:%S')} {path.parent.name}/{path.name} "
            f"{good}/{len(rows)} usable, {rows[0]['seconds']:.2f} s each",
            flush=True,
        )


def run_all(
    candidates: Sequence[Candidate],
    folder: Path,
    *,
    workers: int = 2,
    target: int | None = None,
    time_limit: float = 900.0,
    size: int = SHARD,
) -> None:
    """Relax what is pending in worker processes until done or enough is usable.

    Args:
        candidates: The plan, in order.
        folder: Where the shards are.
        workers: Processes, one thread each.
        target: Stop handing out shards at this number of usable crystals.
        time_limit: Seconds per shard.
        size: Candidates per shard.
    """
    context = multiprocessing.get_context("spawn")
    tasks: Any = context.Queue(maxsize=1)
    processes = [
        context.Process(target=_work, args=(tasks, folder, time_limit))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        for group in pending(candidates, folder, size):
            if target is not None and _usable(folder) >= target:
                break
            _offer(tasks, group, processes)
        for _ in processes:
            _offer(tasks, None, processes)
    finally:
        for process in processes:
            process.join()


def _offer(tasks: Any, group: list[Candidate] | None, processes: Sequence[Any]) -> None:
    """Put a task on the queue unless every worker has died."""
    while any(process.is_alive() for process in processes):
        try:
            tasks.put(group, timeout=2.0)
            return
        except queue.Full:
            continue


def _usable(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(
        reason == ""
        for path in folder.glob("*.parquet")
        for reason in pq.read_table(path, columns=["reason"])["reason"].to_pylist()
    )
