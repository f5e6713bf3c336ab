"""Stages of bench_quality.py; each keeps its result, so that a run can be continued."""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from check_published import read_samples

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError, MatdesignError
from matdesign.generators.storage import WEIGHTS, write_atomic
from matdesign.loop.guards import Guards
from matdesign.loop.hull import Hull
from matdesign.metrics.evaluator import Protocol, evaluate
from matdesign.metrics.prediction import evaluate_prediction
from matdesign.paths import data_dir

ENERGY = "formation_energy_per_atom"

Predict = Callable[[Crystals], torch.Tensor]


@dataclass
class Workshop:
    """What all stages share.

    Args:
        cache: folder of everything that is kept.
        train: crystals that count as known.
        test: held-out crystals to compare with.
        workers: processes.
        seed: of draws and resamples.
        energy: predictor of formation energies, or None.
        energy_key: names its weights.
        coverage: whether to measure COV-R and COV-P, which takes most of the time.
    """

    cache: Path
    train: Crystals
    test: Crystals
    workers: int
    seed: int
    energy: Predict | None = None
    energy_key: str = "none"
    coverage: bool = True

    @cached_property
    def train_key(self) -> str:
        """Checksum of the training rows."""
        return digest(self.train)

    @cached_property
    def test_key(self) -> str:
        """Checksum of the held-out rows."""
        return digest(self.test)

    @property
    def prints(self) -> Path:
        """File of the fingerprints."""
        return self.cache / "fingerprints.sqlite"

    def kept(self, stage: str, key: dict[str, Any], make: Callable[[], Any]) -> Any:
        """Return the JSON result of a stage, made where it is not kept yet."""
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        path = self.cache / stage / f"{name[:24]}.json"
        if path.is_file():
            return json.loads(path.read_text())
        start = time.perf_counter()
        made = make()
        made["stage_seconds"] = round(time.perf_counter() - start, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(made).encode())
        return made


def digest(crystals: Crystals) -> str:
    """Return a checksum of the crystals' content."""
    found = hashlib.sha256()
    for i in range(len(crystals)):
        keep = crystals.mask[i]
        for part in (
            crystals.species[i][keep],
            crystals.frac[i][keep],
            crystals.lattice[i],
        ):
            found.update(part.cpu().numpy().tobytes())
        found.update(b";")
    return found.hexdigest()


def weights_of(name: str) -> Path:
    """Return the folder of a model, by its name or as a path.

    Raises:
        DataError: there is none.
    """
    for folder in (data_dir() / "models" / name, Path(name)):
        if (folder / WEIGHTS).is_file():
            return folder
    raise DataError(f"no model {name!r}; there are {', '.join(design.models())}.")


def checksum(folder: Path) -> str:
    """Return the checksum of a model's weights."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


# ---- batches -------------------------------------------------------------------------


def published(path: Path, n: int, seed: int) -> dict[str, Crystals]:
    """Return up to n samples of every published model, in one fixed random order.

    Fewer samples of the same seed are the first of more.
    """
    found = {}
    for name, whole in read_samples(path).items():
        order = torch.randperm(len(whole), generator=generator(seed))[:n]
        found[name] = whole[order]
    return found


def drawn(shop: Workshop, name: str, n: int) -> tuple[Crystals, dict[str, Any]]:
    """Return n samples of one of our models and how they were made."""
    folder = weights_of(name)
    stem = f"{folder.name}-{checksum(folder)[:12]}-{n}-{shop.seed}"
    table = shop.cache / "samples" / f"{stem}.parquet"
    facts = table.with_suffix(".json")
    if not facts.is_file():
        print(f"{name}: drawing {n}", flush=True)
        start = time.perf_counter()
        made = design.load_model(folder).sample(n, seed=shop.seed)
        info = {"seconds": round(time.perf_counter() - start, 1), "weights": stem}
        design.write(made.replace(properties={}, labels={}, units={}), table)
        write_atomic(facts, json.dumps(info).encode())
    # what is judged is what was written
    return design.read(table), json.loads(facts.read_text())


# ---- figures -------------------------------------------------------------------------


def judged(shop: Workshop, name: str, crystals: Crystals) -> dict[str, Any]:
    """Return the figures of a batch against training and held-out rows."""
    key = {
        "crystals": digest(crystals),
        "train": shop.train_key,
        "test": shop.test_key,
        "energy": shop.energy_key,
        "protocol": Protocol().record(),
        "seed": shop.seed,
        "coverage": shop.coverage,
    }

    def make() -> dict[str, Any]:
        print(f"{name}: judging {len(crystals)}", flush=True)
        found = evaluate(
            crystals,
            shop.train,
            held_out=shop.test,
            coverage=shop.coverage,
            energy=shop.energy,
            seed=shop.seed,
            workers=shop.workers,
            cache=shop.prints,
            progress=True,
        )
        return {**found.record(), "notes": list(found.notes)}

    return dict(shop.kept("judged", key, make))


def relaxed(shop: Workshop, name: str, crystals: Crystals) -> list[dict[str, Any]]:
    """Return what became of each crystal in the default potential, one row each.

    A row holds the relaxed crystal and its energy per atom, and nothing of a hull: a new
    hull needs no new relaxation. Every row is kept by the content of its crystal, so
    that a run that was ended goes on where it was.
    """
    file = shop.cache / "relaxed.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    keys = [digest(crystals[[i]]) for i in range(len(crystals))]
    oracle = design.PotentialOracle(workers=shop.workers, hull=None)
    known = {}
    if file.is_file():
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if row["oracle"] == oracle.name:
                known[row["key"]] = row
    left = [i for i, key in enumerate(keys) if key not in known]
    start = time.perf_counter()
    with oracle, file.open("a") as out:
        for at in range(0, len(left), 100):  # those that come first are ready first
            some = left[at : at + 100]
            for place, result in oracle.stream(crystals[some]):
                row = {
                    "key": keys[some[place]],
                    "oracle": oracle.name,
                    **_plain(result),
                }
                known[row["key"]] = row
                out.write(json.dumps(row) + "\n")
                out.flush()
            done = at + len(some)
            each = (time.perf_counter() - start) / done
            print(f"{name}: relaxed {done}/{len(left)}, {each:.1f} s each", flush=True)
    return [known[key] for key in keys]


def _plain(result: Any) -> dict[str, Any]:
    one = result.structures
    n = int(one.n_atoms[0])
    return {
        "numbers": one.species[0, :n].tolist(),
        "frac": one.frac[0, :n].double().tolist(),
        "lattice": one.lattice[0].double().tolist(),
        "energy": float(result.energy_per_atom[0]),
        "reason": result.reason[0],
        "seconds": float(result.seconds[0]),
    }


def stable(
    shop: Workshop, name: str, rows: list[dict[str, Any]], hull: Hull
) -> dict[str, Any]:
    """Return stability, S.U.N. and ledger of relaxed crystals, by one hull.

    Args:
        shop: what all stages share.
        name: of the batch.
        rows: of `relaxed`.
        hull: known compounds on the scale of the same potential.
    """
    key = {
        "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "hull": references_key(),
        "train": shop.train_key,
        "protocol": Protocol().record(),
        "seed": shop.seed,
    }

    def make() -> dict[str, Any]:
        print(f"{name}: hull and ledger of {len(rows)}", flush=True)
        crystals = _crystals(rows)
        energy = np.array([row["energy"] for row in rows])
        formed = hull.formation_energy(crystals, energy)
        reasons = [
            row["reason"]
            or Guards().check(
                crystals.structure(i),
                formation_energy=float(formed[i]),
                element_volumes=hull.calibration.volumes,
            )
            for i, row in enumerate(rows)
        ]
        # a failed row's number is not to be used
        trusted = np.array([not why for why in reasons])
        above = np.where(trusted, hull.energy_above_hull(crystals, energy), np.nan)
        found = evaluate(
            crystals,
            shop.train,
            hull_distance=above,
            ledger=True,
            known_formula=hull.known,
            seed=shop.seed,
        )
        record = found.record()
        return {
            "relaxed": len(rows),
            "converged and believed": int(trusted.sum()),
            "refused": dict(Counter(re.sub(r" [-\d.]+$", "", w) for w in reasons if w)),
            "seconds": round(sum(row["seconds"] for row in rows), 1),
            "metrics": {
                key: one
                for key, one in record["metrics"].items()
                if key.startswith(
                    ("stab", "S.U.N.", "ledger", "duplicates", "median e")
                )
            },
            "oracle": rows[0]["oracle"],
            "hull": repr(hull),
            "notes": list(found.notes),
        }

    return dict(shop.kept("stable", key, make))


def references_key() -> str:
    """Return a checksum of the shipped reference energies."""
    found = hashlib.sha256()
    for path in sorted((data_dir() / "references").iterdir()):
        found.update(path.read_bytes())
    return found.hexdigest()


def _crystals(rows: list[dict[str, Any]]) -> Crystals:
    width = max(len(row["numbers"]) for row in rows)
    species = torch.zeros(len(rows), width, dtype=torch.long)
    frac = torch.zeros(len(rows), width, 3)
    for i, row in enumerate(rows):
        n = len(row["numbers"])
        species[i, :n] = torch.tensor(row["numbers"])
        frac[i, :n] = torch.tensor(row["frac"])
    return Crystals(species, frac, torch.tensor([row["lattice"] for row in rows]))


def predicted(shop: Workshop, name: str, n: int) -> dict[str, Any]:
    """Return how often a model finds the structures of held-out rows, one sample each."""
    folder = weights_of(name)
    order = torch.randperm(len(shop.test), generator=generator(shop.seed))[:n]
    targets = shop.test[order]
    key = {
        "weights": checksum(folder),
        "targets": digest(targets),
        "seed": shop.seed,
        "version": Protocol().record()["versions"],
    }

    def make() -> dict[str, Any]:
        print(f"{name}: predicting {len(targets)} structures", flush=True)
        model = design.load_model(folder)
        formulas = [one.composition.formula.replace(" ", "") for one in targets]
        start = time.perf_counter()
        made, of, refused = [], [], 0
        for at in range(0, len(targets), 128):
            some = list(range(at, min(at + 128, len(targets))))
            batches, lost = _sampled(model, formulas, targets, some, shop.seed + at)
            refused += lost
            for batch, places in batches:
                made.append(batch)
                of += places
        seconds = time.perf_counter() - start
        if not made:
            raise DataError(f"{name} made nothing for {len(targets)} compositions.")
        found = evaluate_prediction(
            Crystals.cat(made), targets, of=torch.tensor(of), workers=shop.workers
        )
        return {**found.record(), "refused": refused, "seconds": round(seconds, 1)}

    return dict(shop.kept("predicted", key, make))


def _sampled(
    model: Any, formulas: list[str], targets: Crystals, some: list[int], seed: int
) -> tuple[list[tuple[Crystals, list[int]]], int]:
    """Return samples and their targets; a refused composition costs only itself."""
    try:
        made = model.sample(
            len(some),
            seed=seed,
            conditions={"composition": [formulas[i] for i in some]},
            n_atoms=[int(targets.n_atoms[i]) for i in some],
        )
    except MatdesignError as error:
        if len(some) == 1:
            print(f"refused {formulas[some[0]]}: {error}", flush=True)
            return [], 1
        half = len(some) // 2
        first, a = _sampled(model, formulas, targets, some[:half], seed)
        second, b = _sampled(model, formulas, targets, some[half:], seed)
        return first + second, a + b
    return [(made.replace(properties={}, labels={}, units={}, ids=()), some)], 0
