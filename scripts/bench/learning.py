"""Let generators learn from a predictor's rewards; a second predictor says what they learned.

    python scripts/bench.py learning --seeds 0 1 --output data/measured/learning.json

Rewarded is a low formation energy by `energy-prototypes`; `judge-prototypes` judges.
Every model learns from its rewards and from shuffled ones (control): flow matching from
each batch and the best half of what it learned from before, the autoencoder from all
crystals so far. One is pressed: no prior, no factor of diversity, long steps. Beside them
stands element substitution.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import matdesign as design
from bench.stages import checksum, code, kept
from matdesign.constraints.composition import atoms_of_each
from matdesign.crystals.batch import Crystals
from matdesign.metrics.baselines import substituted
from matdesign.tables import text_table

ENERGY, HIGH, FULL = "formation_energy_per_atom", -1.5, 0.3
GENTLE = design.PolicyGradient(steps=15, penalty=0.05)
WAYS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "autoregressive": ("autoregressive-prototypes", GENTLE, {}),
    "flow-matching": (
        "flow-matching-prototypes",
        design.RewardWeighted(steps=20, batch_size=48, watch=0),
        {"steps": 15},
    ),
    "vae": ("vae-prototypes", design.LatentSearch(), {}),
    "pressed": (
        "autoregressive-prototypes",
        design.PolicyGradient(
            steps=30, lr=3e-4, penalty=0, clip=1, diverse=False, watch=0
        ),
        {},
    ),
}
"""Name -> model, how it learns, and settings of its samples."""
ITERATIONS, REWARDED, JUDGED = 4, 96, 192
"""Iterations, twice as many when pressed; crystals of each, and those that are judged."""


def limit(predictor: str) -> design.Property:
    """Return the question, put to a predictor."""
    return design.Property(predictor, high=HIGH, name=ENERGY)


def reward(crystals: Crystals) -> Tensor:
    """Return 1 / (1 + exp((E + 1.5) / 0.3)), E the predicted energy in eV/atom."""
    value = limit("energy-prototypes").value(crystals)
    return torch.sigmoid((HIGH - value) / FULL).nan_to_num(0.0)


def figures(made: Crystals, train: Crystals, free: Crystals | None) -> dict[str, Any]:
    """Return how many of some crystals meet the question, and how different they are."""
    first, second = limit("energy-prototypes"), limit("judge-prototypes")
    table = design.evaluate(made, train).table
    hit, judged = (x.satisfied(made).numpy() for x in (first, second))
    fine = table["structure_valid"] & table["unique"] & table["novel"]
    found = {
        "n": len(made),
        "hits": int(hit.sum()),
        "confirmed": int(judged.sum()),
        "formulas": len(set(made.formulas)),
        **{x: int(table[x].sum()) for x in ("structure_valid", "unique", "novel")},
        "confirmed, valid, unique and novel": int((judged & fine).sum()),
        "elements": int((made.species.unique() > 0).sum()),
    }
    if free is not None:
        verdict = design.judge(made, first, "judge-prototypes", unguided=free)
        found["judge"] = verdict.record()
    return found


def scaled(made: Crystals, train: Crystals) -> Crystals:
    """Return crystals in cells of the volume that their atoms take in training crystals.

    Equation:
        V = sum over atoms of v(element), least squares over the training set, v >= 3
    """
    known, counts = (atoms_of_each(one).double() for one in (train, made))
    each = torch.linalg.lstsq(known, train.volume.double(), driver="gelsd").solution
    factor = (counts @ each.clamp(min=3) / made.volume).pow(1 / 3)
    return made.replace(lattice=made.lattice * factor.to(made.lattice)[:, None, None])


def trial(way: str, seed: int, shuffled: bool) -> dict[str, Any]:
    """Return what a model makes before, while and after it learns."""
    name, learner, settings = WAYS[way]
    prior = model = design.load_model(name)
    train, rng = design.load("prototypes", split="train"), torch.Generator()
    free = prior.sample(JUDGED, seed=1000 + seed, **settings)
    steps, old = [], None
    for k in range(ITERATIONS * (1 + (way == "pressed"))):
        made = model.sample(REWARDED, seed=100 * seed + k, **settings)
        r = reward(made)
        judged = limit("judge-prototypes").satisfied(made)
        row = {
            "reward": float(r.mean()),
            "confirmed": int(judged.sum()),
            "n": len(made),
        }
        row["hits"] = int(limit("energy-prototypes").satisfied(made).sum())
        steps.append(row | {"formulas": len(set(made.formulas))})
        print(way, seed, shuffled, steps[-1], flush=True)
        if shuffled:
            r = r[torch.randperm(len(r), generator=rng.manual_seed(100 * seed + k))]
        if old is not None and not learner.on_policy:
            made, r = Crystals.cat([made, old[0]]), torch.cat([r, old[1]])
        keep = None if isinstance(learner, design.LatentSearch) else REWARDED // 2
        best = r.argsort(descending=True)[:keep]
        old = made[best], r[best]
        model = learner.learn(model, made, r, seed=5000 + 100 * seed + k, prior=prior)
        if model.record["learned"]["stopped"]:
            break
    after = model.sample(JUDGED, seed=1000 + seed, **settings)
    return {
        "way": way,
        "seed": seed,
        "shuffled": shuffled,
        "stopped": model.record["learned"]["stopped"],
        "iterations": steps,
        "before": figures(free, train, None),
        "after": figures(after, train, free),
    }


def options(add: Callable[..., Any]) -> None:
    """Add what the command line takes."""
    add("--seeds", nargs="+", type=int, default=[0, 1])


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what is known before any trial with the trials so far."""
    train = design.load("prototypes", split="train")
    low = train[(train.properties[ENERGY] <= HIGH).nonzero().squeeze(1)]
    like = substituted(low, JUDGED, similar=True)
    others = {
        "of any crystal": substituted(train, JUDGED),
        "of low energies, by like elements": like,
        "of low energies, by like elements, cells scaled": scaled(like, train),
    }
    facts = {
        "question": str(limit("energy-prototypes")),
        "rewarded": REWARDED,
        "learners": {way: repr(learner) for way, (_, learner, _) in WAYS.items()},
        "substitution": {k: figures(x, train, None) for k, x in others.items()},
    }
    trials = list[Any]()
    for seed in args.seeds:
        for way, shuffled in [(x, y) for y in (False, True) for x in WAYS]:
            if way == "pressed" and (shuffled or seed != args.seeds[0]):
                continue
            key = {"way": way, "seed": seed, "shuffled": shuffled, "code": code()}
            key |= {"model": checksum(WAYS[way][0]), "by": repr(WAYS[way])}
            key |= {"sizes": [ITERATIONS, REWARDED, JUDGED]}
            key |= {"learner": code("loop/learning.py", "loop/latent_search.py")}
            make = partial(trial, way, seed, shuffled)
            trials.append(kept(args.cache, key, make))
            yield {**facts, "trials": trials}


def table(record: dict[str, Any]) -> str:
    """Return the confirmed hits of every trial before and after."""
    rows = [
        [one["way"], str(one["seed"]), "shuffled" if one["shuffled"] else "rewards"]
        + [str(one[when]["confirmed"]) for when in ("before", "after")]
        for one in record["trials"]
    ]
    return text_table(["learns", "seed", "from", "confirmed", "after"], rows)
