"""Stages that benchmarks and cards share; each keeps its result, so that a run goes on.

Whatever is kept is named by what it depends on: weights, seed, the content of crystals.
"""

import hashlib
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.io.parquet import read_parquet
from matdesign.errors import DataError, MatdesignError
from matdesign.generators.contract import Generator
from matdesign.generators.shipped import weights_folder
from matdesign.generators.storage import FACTS, WEIGHTS, write_atomic
from matdesign.loop.guards import Guards
from matdesign.loop.hull import Hull
from matdesign.loop.store import crystal_keys
from matdesign.metrics.evaluator import Protocol
from matdesign.metrics.prediction import evaluate_prediction

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "quality"
BATCH = 128
"""Compositions that are asked for at once."""


def kept(folder: Path, key: dict[str, Any], make: Callable[[], Any]) -> Any:
    """Return a JSON result, made where none is kept yet under its key."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = folder / f"{name[:24]}.json"
    if path.is_file():
        return json.loads(path.read_text())
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(made).encode())
    return made


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write what was measured so far, with the time."""
    record["written"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(record, indent=1) + "\n").encode())


def digest(crystals: Crystals) -> str:
    """Return a checksum of the crystals' content."""
    return hashlib.sha256("".join(crystal_keys(crystals)).encode()).hexdigest()


def checksum(name: str | Path) -> str:
    """Return the checksum of a model's weights, by its name or folder."""
    folder = weights_folder(name, predicting=False)
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def training(name: str) -> dict[str, Any]:
    """Return how a model was trained: its command and what is in it."""
    facts = (weights_folder(name, predicting=False) / FACTS).read_bytes()
    return dict(json.loads(facts)["record"])


def sampler(name: str) -> str:
    """Return a checksum of a model's weights and of the options that it samples with."""
    facts = weights_folder(name, predicting=False) / FACTS
    config = json.loads(facts.read_bytes())["config"]
    text = checksum(name) + json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code(*places: str) -> str:
    """Return a checksum of files or folders of the package; of what samples, by default."""
    parts = ("crystals", "generators", "predictors", "constraints", "guidance")
    found = [ROOT / "matdesign" / place for place in places or parts]
    files = [
        f for one in found for f in ([one] if one.is_file() else one.rglob("*.py"))
    ]
    text = b"".join(path.read_bytes() for path in sorted(files))
    return hashlib.sha256(text).hexdigest()[:12]


# ---- samples -------------------------------------------------------------------------


def stem(name: str, n: int, seed: int) -> str:
    """Return what names the samples of a model."""
    return f"{Path(name).name}-{sampler(name)[:12]}-{code()}-{n}-{seed}"


def drawn(cache: Path, name: str, n: int, seed: int) -> tuple[Crystals, dict[str, Any]]:
    """Return n samples of one of our models and how they were made."""
    table = cache / "samples" / f"{stem(name, n, seed)}.parquet"
    facts = table.with_suffix(".json")
    if not facts.is_file():
        print(f"{name}: drawing {n}", flush=True)
        start = time.perf_counter()
        made, groups = with_groups(design.load_model(name), n, seed=seed)
        seconds = round(time.perf_counter() - start, 1)
        info = {**made.info, "seed": seed, "seconds": seconds}
        info["threads"] = torch.get_num_threads()
        design.write(made.replace(properties=groups, labels={}, units={}), table)
        write_atomic(facts, json.dumps({**info, "weights": table.stem}).encode())
    # what is judged is what was written
    return design.read(table), json.loads(facts.read_text())


def with_groups(
    model: Generator, n: int, *, seed: int, **options: Any
) -> tuple[Crystals, dict[str, Tensor]]:
    """Return the crystals of `model.sample`, and the groups that they were laid out in.

    These are {"asked_group": numbers of space groups}, of the model's plan: what is drawn
    again later keeps its layout. A model of the cell has none.
    """
    if model.representation != "symmetric":
        return model.sample(n, seed=seed, **options), {}
    plan_of, planned = model.plan, list[Any]()

    def plan(*args: Any, **named: Any) -> Any:
        planned.append(plan_of(*args, **named))
        return planned[-1]

    model.plan = plan  # type: ignore[method-assign]
    try:
        made = model.sample(n, seed=seed, **options)
    finally:
        del model.plan
    return made, {"asked_group": planned[0].layout.spacegroup.cpu().float()}


# ---- structure prediction ------------------------------------------------------------


def predicted(
    cache: Path, name: str, targets: Crystals, seed: int, workers: int
) -> dict[str, Any]:
    """Return how often a model finds the structures of crystals, one sample each.

    A composition that the model cannot make is refused, and counts as a miss.
    """
    key = {
        "model": sampler(name),
        "code": code() + code("metrics"),
        "targets": digest(targets),
        "seed": seed,
        "version": Protocol().record()["versions"],
    }

    def make() -> dict[str, Any]:
        print(f"{name}: predicting {len(targets)} structures", flush=True)
        model, start = design.load_model(name), time.perf_counter()
        made, of = list[Crystals](), list[int]()
        for at in range(0, len(targets), BATCH):
            rows = list(range(at, min(at + BATCH, len(targets))))
            for batch, some in finished(model, targets, rows, seed + at):
                made.append(batch.replace(properties={}, labels={}, units={}, ids=()))
                of += some
        seconds = round(time.perf_counter() - start, 1)
        if not made:
            raise DataError(f"{name} made nothing for {len(targets)} compositions.")
        found = evaluate_prediction(
            Crystals.cat(made), targets, of=torch.tensor(of), workers=workers
        )
        missed = len(targets) - len(of)
        return {**found.record(), "refused": missed, "seconds": seconds}

    return dict(kept(cache / "predicted", key, make))


def finished(
    model: Generator, targets: Crystals, rows: list[int], seed: int
) -> list[tuple[Crystals, list[int]]]:
    """Return samples and their targets; a refused composition costs only itself."""
    some = targets[rows]
    formulas = [one.composition.formula.replace(" ", "") for one in some]
    asked = {"composition": formulas}
    try:
        made = model.sample(
            len(rows), seed=seed, conditions=asked, n_atoms=some.n_atoms.tolist()
        )
        return [(made, rows)]
    except MatdesignError as error:
        if len(rows) == 1:
            print(f"refused {formulas[0]}: {error}", flush=True)
            return []
    half = len(rows) // 2
    first, second = rows[:half], rows[half:]
    return [x for part in (first, second) for x in finished(model, targets, part, seed)]


# ---- stability -----------------------------------------------------------------------


def relaxed(
    cache: Path, name: str, crystals: Crystals, workers: int
) -> list[dict[str, Any]]:
    """Return what became of each crystal in the default potential, one row each.

    A row holds the relaxed crystal and its energy per atom, and nothing of a hull: a new
    hull needs no new relaxation. Every row is kept by the content of its crystal, so
    that a run that was ended goes on where it was.
    """
    file = cache / "relaxed.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    keys = crystal_keys(crystals)
    oracle = design.PotentialOracle(workers=workers, hull=None)
    lines = file.read_text().splitlines() if file.is_file() else []
    rows = [row for row in map(json.loads, lines) if row["oracle"] == oracle.name]
    known = {row["key"]: row for row in rows}
    left = [i for i, key in enumerate(keys) if key not in known]
    start = time.perf_counter()
    with oracle, file.open("a") as out:
        for at in range(0, len(left), 100):  # those that come first are ready first
            some = left[at : at + 100]
            for place, result in oracle.stream(crystals[some]):
                one = result.structures
                n = int(one.n_atoms[0])
                key = keys[some[place]]
                known[key] = {
                    "key": key,
                    "oracle": oracle.name,
                    "numbers": one.species[0, :n].tolist(),
                    "frac": one.frac[0, :n].double().tolist(),
                    "lattice": one.lattice[0].double().tolist(),
                    "energy": float(result.energy_per_atom[0]),
                    "reason": result.reason[0],
                    "seconds": float(result.seconds[0]),
                }
                out.write(json.dumps(known[key]) + "\n")
                out.flush()
            done = at + len(some)
            each = (time.perf_counter() - start) / done
            print(f"{name}: relaxed {done}/{len(left)}, {each:.1f} s each", flush=True)
    return [known[key] for key in keys]


def crystals_of(rows: list[dict[str, Any]]) -> Crystals:
    """Return one padded batch of rows with numbers, coordinates and lattice."""
    return Crystals.cat(
        [
            Crystals(*(torch.tensor([row[x]]) for x in ("numbers", "frac", "lattice")))
            for row in rows
        ]
    )


def published(path: Path, n: int | None = None) -> dict[str, Crystals]:
    """Return n crystals that other models generated, or all, by model.

    They come in one fixed random order: fewer are the first of more.

    Raises:
        DataError: the file is missing, is no table of crystals, or names no models.
    """
    found = {}
    for name in dict.fromkeys(read_parquet(path).labels.get("model", [""])):
        made = read_parquet(path, rows=("model", name))
        order = torch.randperm(len(made), generator=generator(0))[:n]
        found[name] = made[order]
    return found


def placed(
    rows: list[dict[str, Any]], hull: Hull
) -> tuple[Crystals, list[str], NDArray[np.float64]]:
    """Return relaxed crystals, why some are not believed, and distances to a hull.

    Args:
        rows: of `relaxed`.
        hull: known compounds on the scale of the same potential.

    Returns:
        The crystals; a reason for each, empty where it is believed; and the distances in
        eV/atom, NaN where it is not: a failed relaxation is never stable.
    """
    crystals = crystals_of(rows)
    energy = np.array([row["energy"] for row in rows])
    formed = hull.formation_energy(crystals, energy)
    volumes, guards = hull.calibration.volumes, Guards()
    reasons = [
        row["reason"]
        or guards.check(
            crystals.structure(i),
            formation_energy=float(formed[i]),
            element_volumes=volumes,
        )
        for i, row in enumerate(rows)
    ]
    above = hull.energy_above_hull(crystals, energy)
    return crystals, reasons, np.where([not why for why in reasons], above, np.nan)
