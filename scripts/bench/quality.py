"""Compare the quality of generators on reduced MP-20: ours, published ones, baselines.

    python scripts/bench.py quality --data mp_20_dev.parquet \\
        --published mp20_reference_samples.parquet --output data/measured/quality.json

One run and one table: 1,000 samples (--samples) of each of our five families' MP-20
models, of the published models, of the baselines that need no learning, and the real
validation rows, which no model can beat. A model that is not at hand is named as missing.
Known are the training rows (scripts/mp20.py), distances are taken to our 1,500 held-out
test rows. --predict N asks our models for the structures of N held-out compositions.

1. samples: drawn with one seed; of published ones the first N of one random order.
2. judged: validity, uniqueness, novelty, distances.
3. relaxed: CHGNet 0.3.0, --workers processes of one thread. Without any hull.
4. stable: distances to the shipped hull, S.U.N. per crystal, the ledger. A new hull
   repeats this stage only, which takes seconds for the hull and minutes for the ledger.

Without its cache a batch stays as it is in --output where that file holds the same
crystals (or weights, number and seed), measured in the same way against the same hull.

Published models were trained on the whole official training split of 27,136 rows, ours
on a part of it. Two things are in their favour: some of our held-out rows come from that
split, and what they repeat of its other rows counts as novel here, in S.U.N. and in the
ledger. "S.U.N., new formula" is the figure that compares: the hull knows the formulas of
the Materials Project of 2019. Figures are not those of the papers: another test set,
hull and versions.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from mp20 import load_reduced

import matdesign as design
from bench import stages
from matdesign.crystals.batch import Crystals, generator
from matdesign.loop.hull import Hull
from matdesign.loop.results import kind_of
from matdesign.metrics.baselines import SUBSTITUTED, baselines, substituted
from matdesign.metrics.evaluator import Protocol, evaluate
from matdesign.predictors.shipped import load_predictor, property_networks
from matdesign.tables import text_table
from matdesign.teach.side_by_side import MEASURED, figure

REAL = "validation rows"
FAMILIES = ("vae", "coupling-flow", "flow-matching", "diffusion", "autoregressive")
ENERGY_MODEL, ENERGY = "formation-energy-mp20", "formation_energy_per_atom"
SEED = 0
"""Of draws and resamples."""
SAME = ("samples", "seed", "keys", "versions", "protocol", "relax", "predict", "hull")
"""What an earlier output must share with a run that keeps its batches."""


@dataclass
class Workshop:
    """What the stages of one run share.

    Args:
        cache: folder of everything that is kept.
        train: crystals that count as known.
        test: held-out crystals to compare with.
        workers: processes.
        energy: name of a predictor of formation energies, or None.
    """

    cache: Path
    train: Crystals
    test: Crystals
    workers: int
    energy: str | None = None

    @cached_property
    def keys(self) -> dict[str, str]:
        """Checksums of the rows, of the predictor's weights and of the code that judges."""
        keys = {"train": stages.digest(self.train), "test": stages.digest(self.test)}
        return {
            **keys,
            "energy": stages.checksum(self.energy) if self.energy else "none",
            "code": stages.code("crystals", "predictors", "metrics", "loop"),
        }

    @cached_property
    def predict(self) -> Callable[[Crystals], torch.Tensor]:
        """The predictor's formation energies of crystals, eV/atom; asked for once."""
        network = load_predictor(str(self.energy))
        return cache(lambda crystals: network.predict(crystals)[ENERGY])


def options(add: Callable[..., Any]) -> None:
    """Add what the command line takes."""
    add("--data", type=Path, required=True, help="mp_20_dev.parquet")
    add("--published", type=Path, help="mp20_reference_samples.parquet")
    add("--models", nargs="*", help="names or folders; the five families if left out")
    add("--samples", type=int, default=1_000)
    add("--relax", type=int, help="first N of each; all if left out")
    add("--predict", type=int, default=0, help="held-out structures")
    add("--workers", type=int, default=2)


# ---- batches -------------------------------------------------------------------------


def chosen(names: list[str] | None) -> tuple[list[str], list[str]]:
    """Return the models to judge, and those of the five families that are missing."""
    if names is not None:
        return names, []
    wanted = [f"{family}-mp20" for family in FAMILIES]
    there = set(design.models())
    return [n for n in wanted if n in there], [n for n in wanted if n not in there]


def gathered(
    args: argparse.Namespace, parts: dict[str, Crystals], ours: list[str]
) -> dict[str, Crystals | None]:
    """Return all batches in the order of the table; None for those yet to be drawn."""
    n, train = args.samples, parts["train"]
    batches: dict[str, Crystals | None] = {REAL: parts["val"][:n]}
    batches |= stages.published(args.published, n) if args.published else {}
    batches |= dict.fromkeys(ours)
    batches |= baselines(train, n, seed=SEED)
    similar = substituted(train, n, seed=SEED, similar=True)
    return batches | {f"{SUBSTITUTED}, same group": similar}


def earlier(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Return the whole batches of an earlier output that was measured in the same way."""
    old = json.loads(path.read_text()) if path.is_file() else {}
    if any(name not in old or old[name] != found[name] for name in SAME):
        return {}
    return {k: row for k, row in old["batches"].items() if "content" in row}


# ---- figures -------------------------------------------------------------------------


def judged(shop: Workshop, name: str, crystals: Crystals) -> dict[str, Any]:
    """Return the figures of a batch against training and held-out rows."""
    key = {
        "crystals": stages.digest(crystals),
        **shop.keys,
        "protocol": Protocol().record(),
        "seed": SEED,
    }

    def make() -> dict[str, Any]:
        print(f"{name}: judging {len(crystals)}", flush=True)
        found = evaluate(
            crystals,
            shop.train,
            held_out=shop.test,
            energy=shop.predict if shop.energy else None,
            seed=SEED,
            workers=shop.workers,
            cache=shop.cache / "fingerprints.sqlite",
        )
        return {**found.record(), "notes": list(found.notes)}

    return dict(stages.kept(shop.cache / "judged", key, make))


def stable(
    shop: Workshop, name: str, rows: list[dict[str, Any]], hull: Hull
) -> dict[str, Any]:
    """Return stability, S.U.N. and ledger of relaxed crystals, by one hull."""
    key = {
        "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "hull": hull.key,
        **shop.keys,
        "protocol": Protocol().record(),
        "seed": SEED,
    }

    def make() -> dict[str, Any]:
        print(f"{name}: hull and ledger of {len(rows)}", flush=True)
        crystals, reasons, above = stages.placed(rows, hull)
        found = evaluate(
            crystals,
            shop.train,
            hull_distance=above,
            ledger=True,
            known_formula=hull.known,
            seed=SEED,
        )
        wanted = ("stab", "S.U.N.", "ledger", "duplicates", "median e")
        metrics = found.record()["metrics"].items()
        return {
            "relaxed": len(rows),
            "converged and believed": sum(not why for why in reasons),
            "refused": dict(Counter(map(kind_of, filter(None, reasons)))),
            "seconds": round(sum(row["seconds"] for row in rows), 1),
            "metrics": {k: one for k, one in metrics if k.startswith(wanted)},
            "oracle": rows[0]["oracle"],
            "hull": repr(hull),
            "notes": list(found.notes),
        }

    return dict(stages.kept(shop.cache / "stable", key, make))


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield all figures so far, after every stage."""
    parts, protocol = load_reduced(args.data), Protocol()
    energy = ENERGY_MODEL if ENERGY_MODEL in property_networks() else None
    shop = Workshop(args.cache, parts["train"], parts["test"], args.workers, energy)
    ours, missing = chosen(args.models)
    facts: dict[str, Any] = {
        "samples": args.samples,
        "seed": SEED,
        "relax": args.relax,
        "predict": args.predict,
        "train": len(parts["train"]),
        "test": len(parts["test"]),
        "keys": shop.keys,
        "hull": Hull.shipped().key,
        "missing": missing,
        "versions": protocol.record()["versions"],
        "protocol": protocol.lines(),
    }
    old, all_of_them = earlier(args.output, facts), gathered(args, parts, ours)
    for found in filled(args, shop, old, all_of_them):
        yield {**facts, "batches": found}


def filled(
    args: argparse.Namespace,
    shop: Workshop,
    old: dict[str, Any],
    batches: dict[str, Crystals | None],
) -> Iterator[dict[str, Any]]:
    """Yield the figures of batch after batch, stage by stage; earlier ones are kept."""
    found = dict[str, Any]()
    order = torch.randperm(len(shop.test), generator=generator(SEED))
    targets = shop.test[order[: args.predict]]
    for name, batch in batches.items():
        if batch is None:
            content = stages.stem(name, args.samples, SEED)
        else:
            content = stages.digest(batch)
        if old.get(name, {}).get("content") == content:
            found[name] = old[name]
            continue
        row: dict[str, Any] = {"ours": batch is None}
        if batch is None:
            batch, row["sampling"] = stages.drawn(shop.cache, name, args.samples, SEED)
            row["training"] = stages.training(name)
        record = judged(shop, name, batch)
        row |= {"crystals": len(batch), "figures": record["metrics"]}
        row |= {"failures": record["failures"], "notes": record["notes"]}
        found[name] = row
        yield {**old, **found}  # what an earlier run measured, until this one is whole
        if args.predict and row["ours"]:
            said = stages.predicted(shop.cache, name, targets, SEED, args.workers)
            row["figures"] |= said.pop("metrics")
            row["prediction"] = said
            yield {**old, **found}
        if args.relax != 0:
            some = batch[: args.relax]
            rows = stages.relaxed(shop.cache, name, some, args.workers)
            # the ledger of the relaxed crystals replaces that of the samples
            row["relaxation"] = stable(shop, name, rows, Hull.shipped())
            row["figures"] |= row["relaxation"].pop("metrics")
        row["content"] = content
        yield {**old, **found}
    yield found


def table(found: dict[str, Any]) -> str:
    """Return the figures with their intervals as text, one column per batch."""
    batches = found["batches"].values()
    rows = [["crystals", *(f"{batch['crystals']:,}" for batch in batches)]]
    for name in MEASURED:
        cells = [figure(batch["figures"].get(name)) for batch in batches]
        rows += [[name, *cells]] if any(cells) else []
    return text_table(["", *found["batches"]], rows)
