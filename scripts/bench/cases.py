"""Case studies: hits per oracle call of a guided generator, and of what it must beat.

    python scripts/bench.py cases solar-absorber --data mp_20_dev.parquet --seeds 0 1 2

Four campaigns per seed have the same oracle and the same number of calls: the generator
guided to the target, with a Bayesian selector; the same generator left alone; left alone
with the constraints as a filter before the oracle; and substitution of known crystals
that meet the target, with that filter. What is left alone is drawn once per seed.

A hit is usable, within the case's windows by its oracle, meets the constraints on its
composition (a formula that is not known among them) and is unlike earlier hits of its
campaign. It is confirmed by an oracle that no campaign asked.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mp20 import load_reduced
from pymatgen.core import Structure
from torch import Tensor

import matdesign as design
from bench import cathode, light
from bench.stages import checksum, code, drawn, kept
from matdesign.constraints.base import All, Constraint
from matdesign.crystals.batch import Crystals
from matdesign.crystals.matching import find_same
from matdesign.loop.known import Known
from matdesign.loop.results import Column, Results
from matdesign.metrics.intervals import wilson

ARMS = ("guided", "unguided", "unguided, filtered", "substitution")
LOOP, JUDGE = ("0.3.0", light.NETWORK), ("r2scan", "judge-band-gap")
"""Potential and network that campaigns ask, and those that they never see."""
BATCH = 10
"""Calls of one iteration of the guided arm; it proposes twice as many."""
KINDS = ("hits", "confirmed")
RELAXED = "relaxed.db"
"""File of the cache with what was relaxed, for all cases."""


@dataclass(frozen=True)
class Case:
    """A question, and how it is put to a campaign.

    Args:
        question: in words.
        windows: column of the oracle -> lowest and highest value of a hit.
        doubts: column -> how far off it is; distances are counted in these.
        composition: makes constraints that the relaxed crystal keeps.
        predicted: makes constraints on what networks say of the crystal as proposed.
        oracle: makes the oracle from the weights of a potential, a gap network, and the
            file that keeps what was relaxed.
        substitution: makes a proposer of known crystals with other elements.
    """

    question: str
    windows: Mapping[str, tuple[float, float]]
    doubts: Mapping[str, float]
    composition: Callable[[], list[Constraint]]
    predicted: Callable[[], list[Constraint]]
    oracle: Callable[[str, str, Path], Any]
    substitution: Callable[[Crystals], Any]

    def distance(self, results: Results) -> Tensor:
        """Return how far results are from the windows, in doubts, shape (results,)."""
        far = torch.zeros(len(results), dtype=torch.float64)
        for name, (low, high) in self.windows.items():
            value = getattr(results, name)
            outside = torch.maximum(low - value, value - high).clamp(min=0)
            far = far + outside / self.doubts[name]
        return far


CASES = {
    "solar-absorber": Case(
        "Which new compounds of harmless elements might absorb sunlight in one junction?",
        {"band_gap": light.ABSORBER, **light.STABLE},
        light.DOUBTS,
        light.harmless,
        light.absorbs,
        light.relaxed_gap,
        light.substitution(*light.ABSORBER),
    ),
    "photocatalyst": Case(
        "Which new compounds of harmless elements might split water under visible light?",
        {"band_gap": light.CATALYST, **light.SPLITS_WATER, **light.STABLE},
        light.DOUBTS,
        light.harmless,
        light.splits_water,
        partial(light.relaxed_gap, with_edges=True),
        light.substitution(*light.CATALYST),
    ),
    "battery-cathode": Case(
        "Which new oxides of cheap and harmless elements might store lithium at 3 to 4.5 V?",
        cathode.WINDOWS,
        cathode.DOUBTS,
        cathode.constraints,
        list,
        lambda weights, _, cache: cathode.oracle(weights, cache),
        cathode.LithiumSubstitution,
    ),
}
CASES["known-cathodes"] = replace(
    CASES["battery-cathode"],
    question="Which known oxides store lithium at 3 to 4.5 V? (control, as substitution)",
    composition=cathode.known_or_not,
    substitution=design.Pool,
)


# ---- campaigns -----------------------------------------------------------------------


def hits_of(case: Case, results: Results) -> list[int]:
    """Return the places of hits: usable, in all windows, allowed, unlike earlier ones."""
    if not len(results):
        return []
    wanted, seen, found = All(*case.composition()), Known(), []
    fine = (
        results.ok
        & (case.distance(results) == 0)
        & wanted.satisfied(results.structures)
    )
    for i in fine.nonzero().squeeze(1).tolist():
        one = results.structures[[i]]
        if seen.find(one) is None:
            seen.add(str(i), one)
            found.append(i)
    return found


def confirmed(case: Case, said: Results) -> Tensor:
    """Return which rows of the judge lie in all windows, shape (hits,)."""
    return said.ok & (case.distance(said) == 0)


def proposer(case: Case, arm: str, seed: int, args: argparse.Namespace) -> Any:
    """Return what proposes crystals in a campaign."""
    if arm == "guided":
        return design.load_model(args.model)
    if arm == "substitution":
        return case.substitution(load_reduced(args.data)["train"])
    return design.Pool(drawn(args.cache, args.model, args.drawn, seed)[0])


def campaign(
    case: Case, arm: str, seed: int, args: argparse.Namespace
) -> design.Campaign:
    """Return the campaign of an arm, begun or where it was."""
    made_by = f"{arm.replace(', ', '-')}-{args.calls}-{seed}-{code()}{code('loop')}"
    path = args.cache / f"{args.name}-{made_by}.db"
    wanted = case.composition() + case.predicted()
    given: dict[str, Any] = {
        "generator": proposer(case, arm, seed, args),
        "constraints": None if arm == "unguided" else wanted,
        "oracle": case.oracle(*LOOP, args.cache / RELAXED),
        "objective": case.distance,
    }
    if arm == "guided":
        given["guide"] = design.Guide(All(*wanted), args.method, draws=args.draws)
        given["select"] = design.Bayesian()
    if path.exists():
        return design.Campaign.resume(path, **given)
    sizes = {"batch": args.calls, "propose": args.drawn}
    if arm == "guided":
        sizes = {"batch": BATCH, "propose": 2 * BATCH}
    elif arm == "unguided":
        sizes["propose"] = args.calls + args.calls // 4
    return design.Campaign(store=path, **given, **sizes, budget=args.calls, seed=seed)


def run(case: Case, arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return what one campaign found, after it is done, and what the judge says."""
    loop = campaign(case, arm, seed, args)
    for iteration in loop:
        print(args.name, arm, seed, iteration, flush=True)
        if arm == "unguided, filtered" and not iteration.fresh:
            break  # all that was drawn has been looked at
    rows = sorted(loop.store.evaluations(), key=lambda x: (x.iteration, x.place))
    none = {name: Column(torch.zeros(0)) for name in case.windows}
    results = Results(loop.best(0), none)
    if rows:
        results = Results.cat([one.result for one in rows])
    places = hits_of(case, results)
    hits = results[places]
    judge = case.oracle(*JUDGE, args.cache / RELAXED)
    said = judge.evaluate(hits.structures) if places else hits
    good = confirmed(case, said).tolist()
    counts = ("proposed", "passed", "fresh", "selected", "usable")
    return {
        "arm": arm,
        "seed": seed,
        "calls": len(results),
        **{k: sum(row[k] for row in loop.store.iterations()) for k in counts},
        "failed": results.failed,
        "missed": missed(case, results),
        "hits": [
            {
                "call": places[k] + 1,
                "formula": hits.structures.formulas[k],
                **values(case, hits, k),
                "judge": values(case, said, k) | {"reason": said.reason[k]},
                "confirmed": good[k],
                "cif": hits.structures[k].to(fmt="cif"),
            }
            for k in range(len(places))
        ],
        "oracle_seconds": round(float(results.seconds.sum()), 1),
    }


def values(case: Case, results: Results, row: int) -> dict[str, float | None]:
    """Return the columns that have a window, of one row; None where unknown."""
    found = {name: float(getattr(results, name)[row]) for name in case.windows}
    return {k: round(x, 3) if math.isfinite(x) else None for k, x in found.items()}


def missed(case: Case, results: Results) -> dict[str, int]:
    """Return how many usable crystals miss each window, and the composition."""
    fine, counts = results[results.ok], dict[str, int]()
    for name, (low, high) in case.windows.items():
        value = getattr(fine, name)
        counts[name] = int(((value < low) | (value > high)).sum())
    met = All(*case.composition()).satisfied(fine.structures)
    return {**counts, "composition": int((~met).sum())}


# ---- figures -------------------------------------------------------------------------


def enter_known(runs: list[dict[str, Any]], data: Path) -> None:
    """Add to every hit the known crystal whose structure it has, with other elements."""
    hits = [hit for one in runs for hit in one["hits"] if "substitution_of" not in hit]
    if not hits:
        return
    known = load_reduced(data)["train"]
    made = [Structure.from_str(x["cif"], fmt="cif", frac_tolerance=0) for x in hits]
    found = find_same(Crystals.from_structures(made), known, anonymous=True)
    for hit, i in zip(hits, found.match.tolist(), strict=True):
        hit["substitution_of"] = known.formulas[i] if i >= 0 else ""


def ratio(first: tuple[int, int], second: tuple[int, int]) -> list[float | None]:
    """Return how many times more often the first hits per call, with a 95 % interval.

    The interval is of a million draws: each rate has the beta distribution of its
    counts, with Jeffreys' prior. Where the second never hit, the ratio itself is None.

    Args:
        first: hits and calls.
        second: hits and calls of what is compared with.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.beta(k + 0.5, n - k + 0.5, 1_000_000) for k, n in (first, second))
    ends = np.quantile(a / b, [0.025, 0.975])
    middle = first[0] / first[1] / (second[0] / second[1]) if second[0] else None
    return [None if x is None else round(float(x), 2) for x in (middle, *ends)]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return hits and confirmed hits of every arm per call, and ratios to the others."""
    found: dict[str, Any] = {}
    for arm in ARMS:
        mine = [one for one in runs if one["arm"] == arm]
        n = sum(one["calls"] for one in mine)
        if not n:
            continue
        found[arm] = {"calls": n}
        each = {
            "hits": [len(one["hits"]) for one in mine],
            "confirmed": [sum(x["confirmed"] for x in one["hits"]) for one in mine],
        }
        for what, some in each.items():
            k = sum(some)
            rate = {what: k, f"{what} by seed": some}
            found[arm] |= rate | {f"{what} per call": [k / n, *wilson(k, n)]}
    lead = found.get("guided", {})
    for arm in [x for x in found if x != "guided"] if lead else ():
        pair = lead, found[arm]
        lead[f"times {arm}"] = {
            what: ratio(*((one[what], one["calls"]) for one in pair)) for what in KINDS
        }
    return found


def options(add: Callable[..., Any]) -> None:
    """Add what the command line takes."""
    add("name", choices=CASES)
    add("--data", type=Path, required=True, help="mp_20_dev.parquet")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--calls", type=int, default=60, help="oracle calls of each campaign")
    add("--model", default="flow-matching-mp20")
    add("--method", default="classifier_free", help="of the guide, for the gap")
    add("--draws", type=int, help="most draws of the guide, for narrow constraints")
    add("--drawn", type=int, default=1500, help="unguided crystals per seed")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run or finish the campaigns of a case; yield those so far after each."""
    args.cache.mkdir(parents=True, exist_ok=True)
    case = CASES[args.name]
    facts = {
        "question": case.question,
        "model": args.model,
        "windows": case.windows,
        "constraints": [str(one) for one in case.composition() + case.predicted()],
        "oracle": case.oracle(*LOOP, args.cache).name,
        "judge": case.oracle(*JUDGE, args.cache).name,
    }
    own = ("output", "cache", "seeds", "arms")
    options = {k: str(v) for k, v in vars(args).items() if k not in own}
    options |= {
        "code": code() + code("loop"),
        "model": checksum(args.model),
    }
    runs = list[Any]()
    for seed in args.seeds:
        for arm in args.arms:
            key = {**options, "arm": arm, "seed": seed}
            runs.append(kept(args.cache, key, partial(run, case, arm, seed, args)))
            enter_known(runs, args.data)
            yield {**facts, "summary": summary(runs), "runs": runs}


def table(record: dict[str, Any]) -> str:
    """Return what each arm found, as text."""
    return "\n".join(f"{arm} {one}" for arm, one in record["summary"].items())
