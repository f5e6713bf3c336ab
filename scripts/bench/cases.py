"""Case studies: hits per oracle call of a guided generator, and of what it must beat.

    python scripts/bench.py cases solar-absorber --data mp_20_dev.parquet --seeds 0 1 2

Four campaigns per seed have the same oracle and the same number of calls: the generator
guided to the target, with a Bayesian selector; the same generator left alone; left alone
with the constraints as a filter before the oracle; and substitution of known crystals
that meet the target, with that filter. What is left alone is drawn once per seed.

A hit is usable, within the case's windows by its oracle, meets the constraints on its
composition (a formula that is not known among them) and is unlike earlier hits of its
campaign. It is confirmed by an oracle that no campaign asked. Campaigns and judgements
are kept in --cache: start the same command again and it goes on.
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import command, hardware
from mp20 import load_reduced
from pymatgen.core import Element, Structure
from torch import Tensor

import matdesign as design
from bench import cathode
from bench.stages import ROOT, drawn, kept, write_record
from matdesign.constraints.base import All, Constraint
from matdesign.crystals.batch import Crystals
from matdesign.loop.known import Known
from matdesign.loop.results import Column, Results
from matdesign.metrics.intervals import wilson

NEAR = {"energy_above_hull": (-1.0, 0.1)}
"""What counts as stable, eV/atom; far below the hull is a mistake of the potential."""
ARMS = ("guided", "unguided", "unguided, filtered", "substitution")
LOOP, JUDGE = ("0.3.0", "band-gap-mp20"), ("r2scan", "judge-band-gap")
"""Potential and network that campaigns ask, and those that they never see."""
BATCH = 10
"""Calls of one iteration of the guided arm; it proposes twice as many."""
EDGES = ("conduction_edge", "valence_edge")
Windows = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """A question, and how it is put to a campaign.

    Args:
        question: in words.
        windows: column of the oracle -> lowest and highest value of a hit.
        doubts: column -> how far off it is; distances are counted in these.
        composition: constraints that the relaxed crystal keeps.
        predicted: constraints on what networks say of the crystal as proposed.
        oracle: makes the oracle from the weights of a potential and a gap network.
        target: which known crystals meet the target, by their labels.
        substitution: makes a proposer of known crystals, in place of `Substitution`.
    """

    question: str
    windows: Windows
    doubts: Mapping[str, float]
    composition: Callable[[], list[Constraint]]
    predicted: Callable[[], list[Constraint]]
    oracle: Callable[[str, str], Any]
    target: Callable[[Crystals], Tensor]
    substitution: Callable[[Crystals], Any] | None = None

    def distance(self, results: Results) -> Tensor:
        """Return how far results are from the windows, in doubts, shape (results,)."""
        far = torch.zeros(len(results), dtype=torch.float64)
        for name, (low, high) in self.windows.items():
            value = getattr(results, name)
            outside = torch.maximum(low - value, value - high).clamp(min=0)
            far = far + outside / self.doubts[name]
        return far


# ---- oracles -------------------------------------------------------------------------


def edges(structure: Structure, gap: float) -> tuple[float, float]:
    """Return potentials of conduction and valence band, V against hydrogen, at pH 0.

    Equation:
        E_c = X - 4.5 - gap / 2,  E_v = E_c + gap,  X the geometric mean over atoms of
        Mulliken's electronegativity (ionisation energy + electron affinity) / 2, eV

    Source:
        Butler and Ginley, J. Electrochem. Soc. 125, 228 (1978).
    """
    total = 0.0
    for one, share in structure.composition.fractional_composition.items():
        pair = (
            Element(one.symbol).ionization_energy,
            Element(one.symbol).electron_affinity,
        )
        mulliken = sum(math.nan if x is None else float(x) for x in pair) / 2
        total += share * math.log(mulliken)
    middle = math.exp(total) - 4.5
    return middle - gap / 2, middle + gap / 2


def gap_oracle(network: str, *, with_edges: bool) -> design.FunctionOracle:
    """Return an oracle of the gap of a crystal as it stands, and of its band edges."""
    predictor = design.load_predictor(network)

    def compute(structure: Structure) -> dict[str, Any]:
        crystal = Crystals.from_structures([structure])
        said = predictor.predict_members(crystal)["band_gap"][:, 0]
        mean = float(said.mean())
        found = {"band_gap": (mean, float(said.std()))}
        if with_edges:
            found |= dict(zip(EDGES, edges(structure, mean), strict=True))
        return found

    columns = {"band_gap": "eV"}
    if with_edges:
        columns |= dict.fromkeys(EDGES, "V")
    name = f"{network}{' with edges' if with_edges else ''}"
    return design.FunctionOracle(compute, columns, name=name)


def relaxed_gap(weights: str, network: str, *, with_edges: bool = False) -> Any:
    """Return an oracle that relaxes first: a gap is that of the relaxed crystal.

    The network knows crystals near the hull only; what is more than 1 eV/atom off is not
    put to it.
    """
    potential = design.PotentialOracle(weights, workers=1, time_limit=300)
    then = gap_oracle(network, with_edges=with_edges)
    return design.Cascade(
        design.Cached(potential, CACHE / "relaxed.db"),
        then,
        within={"energy_above_hull": (-1.0, 1.0)},
    )


CACHE = ROOT / "build" / "cases"
"""Where relaxations are kept, for all cases; `main` sets it."""


def edge_constraints() -> list[Constraint]:
    """Return the edges of a crystal as proposed as constraints."""
    predictor = design.load_predictor(LOOP[1])

    def of(which: int) -> Callable[[Any], Tensor]:
        def value(crystals: Any) -> Tensor:
            gaps = predictor.predict(crystals)["band_gap"].tolist()
            each = [edges(one, gap)[which] for one, gap in zip(crystals, gaps)]
            return torch.tensor(each, dtype=crystals.frac.dtype)

        return value

    return [
        design.Property(of(0), high=0.0, name="conduction_edge", unit="V"),
        design.Property(of(1), low=1.23, name="valence_edge", unit="V"),
    ]


# ---- cases ---------------------------------------------------------------------------


def harmless() -> list[Constraint]:
    """Return what a new and harmless salt is."""
    new = design.NovelFormula(design.Hull.shipped().known)
    return [design.OnlyElements.harmless(), design.ChargeNeutral(), new]


def gap_between(low: float, high: float) -> list[Constraint]:
    """Return the gap of the crystal as proposed, by the network of the campaign."""
    return [design.Property(LOOP[1], low, high)]


def labelled(name: str, low: float, high: float) -> Callable[[Crystals], Tensor]:
    """Return which known crystals have a label in a range."""
    return lambda x: (x.properties[name] >= low) & (x.properties[name] <= high)


GAP_ERROR = 0.26
"""Mean absolute error of the gap network on held-out crystals, eV."""


CASES = {
    "solar-absorber": Case(
        "Which new compounds of harmless elements might absorb sunlight in one junction?",
        {"band_gap": (1.1, 1.6), **NEAR},
        {"band_gap": GAP_ERROR, "energy_above_hull": 0.1},
        harmless,
        lambda: gap_between(1.1, 1.6),
        relaxed_gap,
        labelled("band_gap", 1.1, 1.6),
    ),
    "photocatalyst": Case(
        "Which new compounds of harmless elements might split water under visible light?",
        {
            "band_gap": (1.8, 3.0),
            "conduction_edge": (-9.0, 0.0),
            "valence_edge": (1.23, 9.0),
            **NEAR,
        },
        {
            "band_gap": GAP_ERROR,
            "conduction_edge": 0.3,
            "valence_edge": 0.3,
            "energy_above_hull": 0.1,
        },
        harmless,
        lambda: gap_between(1.8, 3.0) + edge_constraints(),
        lambda *of: relaxed_gap(*of, with_edges=True),
        labelled("band_gap", 1.8, 3.0),
    ),
    "battery-cathode": Case(
        "Which new oxides of cheap and harmless elements might store lithium at 3 to 4.5 V?",
        cathode.WINDOWS,
        cathode.DOUBTS,
        cathode.constraints,
        list,
        lambda weights, _: cathode.oracle(weights, CACHE / "relaxed.db"),
        lambda x: torch.ones(len(x), dtype=torch.bool),
        cathode.LithiumSubstitution,
    ),
}


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


def parts(
    case: Case, arm: str, seed: int, args: argparse.Namespace
) -> tuple[Any, dict[str, Any]]:
    """Return the proposer of an arm and what else its campaign is given."""
    wanted = case.composition() + case.predicted()
    calls = args.calls
    if arm == "guided":
        guide = design.Guide(All(*wanted), args.method)
        # propose is twice the batch, and selector and guide are as they come
        given = {"guide": guide, "select": design.Bayesian(), "batch": BATCH}
        return design.load_model(args.model), given | {"constraints": wanted}
    if arm == "substitution":
        known = load_reduced(args.data)["train"]
        fits = case.target(known) & All(*case.composition()[:2]).satisfied(known)
        source: Any = (
            case.substitution(known)
            if case.substitution
            else design.Substitution(known[fits.nonzero().squeeze(1)])
        )
    else:
        source = design.Pool(drawn(args.cache, args.model, args.drawn, seed)[0])
    propose = calls + calls // 4 if arm == "unguided" else args.drawn
    given = {"batch": calls, "propose": propose}
    return source, given | {"constraints": None if arm == "unguided" else wanted}


def campaign(
    name: str, arm: str, seed: int, args: argparse.Namespace
) -> design.Campaign:
    """Return the campaign of an arm, begun or where it was."""
    case = CASES[name]
    file = f"{name}-{arm.replace(', ', '-')}-{args.calls}-{seed}.db"
    proposer, given = parts(case, arm, seed, args)
    given |= {"oracle": case.oracle(*LOOP), "objective": case.distance}
    path = args.cache / file
    if path.exists():
        given = {k: v for k, v in given.items() if k not in ("batch", "propose")}
        return design.Campaign.resume(path, generator=proposer, **given)
    numbers = {"budget": args.calls, "seed": seed}
    constraints, oracle = given.pop("constraints"), given.pop("oracle")
    return design.Campaign(proposer, constraints, oracle, path, **given, **numbers)


def run(name: str, arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return what one campaign found, after it is done, and what the judge says."""
    began, case = time.process_time(), CASES[name]
    loop = campaign(name, arm, seed, args)
    for iteration in loop:
        print(name, arm, seed, iteration, flush=True)
    rows = sorted(loop.store.evaluations(), key=lambda x: (x.iteration, x.place))
    tables = [one.result for one in rows]
    none = {name: Column(torch.zeros(0)) for name in case.windows}
    results = Results.cat(tables) if tables else Results(loop.best(0), none)
    places = hits_of(case, results)
    said = case.oracle(*JUDGE).evaluate(results.structures[places]) if places else None
    good = confirmed(case, said).tolist() if said is not None else []
    passed = ("proposed", "passed", "fresh", "selected", "usable")
    return {
        "arm": arm,
        "seed": seed,
        "calls": len(results),
        **{k: sum(row[k] for row in loop.store.iterations()) for k in passed},
        "failed": results.failed,
        "missed": dict(missed(case, results)),
        "hits": [
            {
                "call": i + 1,
                "formula": results.structures.formulas[i],
                **values(case, results[[i]]),
                "judge": values(case, said[[k]]) | {"reason": said.reason[k]},
                "confirmed": good[k],
                "cif": results.structures[i].to(fmt="cif"),
            }
            for k, i in enumerate(places)
            if said is not None
        ],
        "oracle_seconds": round(float(results.seconds.sum()), 1),
        "seconds": round(time.process_time() - began, 1),
    }


def values(case: Case, row: Results) -> dict[str, float]:
    """Return the columns that have a window, of one row."""
    return {name: round(float(getattr(row, name)[0]), 3) for name in case.windows}


def missed(case: Case, results: Results) -> Counter[str]:
    """Return how many usable crystals miss each window, and the composition."""
    counts = Counter[str]()
    wanted = All(*case.composition())
    for name, (low, high) in case.windows.items():
        value = getattr(results, name)[results.ok]
        counts[name] = int(((value < low) | (value > high)).sum())
    counts["composition"] = int(
        (~wanted.satisfied(results.structures))[results.ok].sum()
    )
    return counts


# ---- figures -------------------------------------------------------------------------


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
        calls = sum(one["calls"] for one in mine)
        if not calls:
            continue
        each = [len(one["hits"]) for one in mine]
        sure = [sum(hit["confirmed"] for hit in one["hits"]) for one in mine]
        found[arm] = {"calls": calls, "hits": sum(each), "confirmed": sum(sure)}
        for what, some in (("hits", each), ("confirmed", sure)):
            found[arm][f"{what} per call"] = [
                sum(some) / calls,
                *wilson(sum(some), calls),
            ]
            found[arm][f"{what} by seed"] = some
    lead = found.get("guided")
    for arm in ARMS[1:] if lead else ():
        if arm in found:
            lead[f"times {arm}"] = {
                what: ratio(
                    (lead[what], lead["calls"]), (found[arm][what], found[arm]["calls"])
                )
                for what in ("hits", "confirmed")
            }
    return found


def main(given: list[str]) -> int:
    """Run or finish the campaigns of a case, and write the record after each."""
    global CACHE
    parser = argparse.ArgumentParser(
        "bench.py cases", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("name", choices=CASES)
    add("--data", type=Path, required=True, help="mp_20_dev.parquet")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--calls", type=int, default=60, help="oracle calls of each campaign")
    add("--model", default="flow-matching-mp20")
    add("--method", default="classifier_free", help="of the guide, for the gap")
    add("--drawn", type=int, default=1500, help="unguided crystals per seed")
    add("--cache", type=Path, default=CACHE)
    add("--output", type=Path)
    args = parser.parse_args(given)
    torch.set_num_threads(1)
    CACHE = args.cache
    args.cache.mkdir(parents=True, exist_ok=True)
    case = CASES[args.name]
    record = {
        "command": command("bench.py", ["cases", *given]),
        "hardware": hardware(),
        "question": case.question,
        "model": args.model,
        "windows": case.windows,
        "constraints": [str(one) for one in case.composition() + case.predicted()],
        "oracle": case.oracle(*LOOP).name,
        "judge": case.oracle(*JUDGE).name,
        "versions": {"matdesign": design.__version__, "torch": torch.__version__},
    }
    runs = list[Any]()
    for seed in args.seeds:
        for arm in args.arms:
            key = {
                k: str(v) for k, v in vars(args).items() if k not in ("output", "cache")
            }
            key |= {"arm": arm, "seed": seed, "seeds": "", "arms": ""}
            runs.append(kept(args.cache, key, partial(run, args.name, arm, seed, args)))
            path = args.output or args.cache / f"{args.name}.json"
            write_record(path, record | {"summary": summary(runs), "runs": runs})
    for arm, figures in summary(runs).items():
        print(arm, figures)
    return 0
