"""The card of a property network: its errors on held-out, shaken and sampled crystals."""

import argparse
import time
from itertools import pairwise
from typing import Any

import labels
import numpy as np
import torch
from numpy.typing import NDArray

from cards.page import render
from matdesign.crystals.batch import Crystals
from matdesign.loop.calibration import fractions
from matdesign.metrics.figures import mean
from matdesign.metrics.summary import Protocol
from matdesign.predictors.network import PropertyNetwork
from matdesign.predictors.shipped import load_predictor

Numbers = NDArray[np.float64]
MP20 = ("mp20", "reduced MP-20")
SOURCES = {
    "mp20": "Labels are those of the Materials Project (PBE and PBE+U, CC BY 4.0), of "
    "relaxed crystals within 0.08 eV/atom of the hull; of others the network was shown "
    "nothing, and it judges them too kindly.",
    "shipped": "Labels are those of the potential CHGNet 0.3.0, an approximation of "
    "PBE(+U); no density functional calculation was made.",
    "band_gap": " Gaps of PBE are far smaller than measured ones, often by 40 to 50 %: a gap "
    "from here is one of PBE.",
}
SHAKEN, SAMPLED, SEED = 300, 400, 1_000
"""Test crystals that are shaken, crystals that generators make, and of which seed."""


# ---- figures -------------------------------------------------------------------------


def figure(values: Numbers) -> dict[str, float]:
    """Return the mean of some values with its bootstrap interval."""
    found = vars(mean("", values, "", Protocol(resamples=1_000), seed=0))
    return {key: round(found[key], 5) for key in ("value", "low", "high")}


def predicted(net: PropertyNetwork, crystals: Crystals, name: str) -> Numbers:
    """Return predictions of one property."""
    return np.asarray(net.predict(crystals)[name].double().numpy())


def known(crystals: Crystals, name: str) -> Numbers:
    """Return the labels of one property."""
    return np.asarray(crystals.properties[name].double().numpy())


def judge(net: PropertyNetwork, name: str, sets: dict[str, Crystals]) -> dict[str, Any]:
    """Return the errors of one property on the test part."""
    test, k = sets["test"], net.properties.index(name)
    floor, all_true = net.floors[k], known(test, name)
    rows = np.isfinite(all_true)
    true = all_true[rows]
    members = net.predict_members(test)[name].double().numpy()[:, rows]
    found, doubt = members.mean(0), members.std(0)
    line = (fractions(test) @ net.baseline.double().numpy())[rows, k]
    line = line if floor is None else line.clip(min=floor)
    error, average = np.abs(found - true), np.nanmean(known(sets["train"], name))
    figures = {
        "rmse": np.sqrt((error**2).mean()),
        "median_error": np.median(error),
        "error_90": np.quantile(error, 0.9),
        "bias": (found - true).mean(),
        "r2": 1 - (error**2).mean() / true.var(),
        "mae_of_one_network": np.abs(members - true).mean(),
        "mae_of_composition_line": np.abs(line - true).mean(),
        "mae_of_training_mean": np.abs(average - true).mean(),
    }
    if len(members) > 1:
        sure = doubt <= np.median(doubt)
        figures["mae_where_members_agree"] = error[sure].mean()
        figures["mae_where_members_disagree"] = error[~sure].mean()
    out: dict[str, Any] = {"unit": net.units[k], "n": len(true), "mae": figure(error)}
    out |= {key: round(float(value), 5) for key, value in figures.items()}
    if name == "band_gap" and floor is not None:  # the edge is a tenth of an eV above
        same = (true > floor) == (found > floor + 0.1)
        out["metal_or_not"] = figure(same.astype(float))
    return {**out, "ranges": ranges(true, found, floor)}


def ranges(true: Numbers, found: Numbers, floor: float | None) -> list[dict[str, Any]]:
    """Return errors by true value: those at the floor, then fifths of the rest."""
    above = np.full(true.shape, True) if floor is None else true > floor
    groups = [("at the floor", ~above)]
    edges = np.quantile(true[above], np.linspace(0, 1, 6))
    for i, (low, high) in enumerate(pairwise(edges)):
        inside = (true >= low) & ((true < high) if i < 4 else (true <= high))
        groups.append((f"{low:.3g} to {high:.3g}", inside & above))
    return [
        {
            "range": text,
            "n": int(some.sum()),
            "mae": round(float(np.abs(found - true)[some].mean()), 4),
            "bias": round(float((found - true)[some].mean()), 4),
        }
        for text, some in groups
        if some.any()
    ]


def judge_shaken(net: PropertyNetwork, name: str, test: Crystals) -> dict[str, Any]:
    """Return errors of an energy on shaken test crystals, by displacement."""
    before = test[torch.linspace(0, len(test) - 1, min(len(test), SHAKEN)).long()]
    made = labels.shaken(before, copies=1, seed=SEED)
    kept = [before.ids.index(one.removesuffix("-shaken")) for one in made.ids]
    rise = predicted(net, made, name) - predicted(net, before[kept], name)
    error = np.abs(predicted(net, made, name) - known(made, name))
    cost, size = known(made, "cost"), known(made, "displacement")
    rows = []
    for low, high in ((0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4)):
        at = (size >= low) & (size < high)
        means = {"mae": error, "true_cost": cost, "predicted_cost": rise}
        figures = {key: round(float(x[at].mean()), 4) for key, x in means.items()}
        rows.append({"angstrom": f"{low} to {high}", "n": int(at.sum()), **figures})
    return {"n": len(made), "mae": figure(error), "ranges": rows}


def correlation(one: Numbers, other: Numbers) -> float:
    """Return how the errors of two predictors correlate."""
    return round(float(np.corrcoef(one, other)[0, 1]), 3)


def side_by_side(
    net: PropertyNetwork, other: PropertyNetwork, name: str, test: Crystals
) -> dict[str, Any]:
    """Return how two predictors of one property differ on the test part."""
    true = known(test, name)
    rows = np.isfinite(true)
    one, two = ((predicted(x, test, name) - true)[rows] for x in (net, other))
    difference = figure(np.abs(one - two))
    figures = {"difference": difference, "correlation_of_errors": correlation(one, two)}
    return {"n": int(rows.sum()), **figures}


def judge_sampled(
    net: PropertyNetwork, other: PropertyNetwork, name: str, data: str, guide: str
) -> dict[str, Any]:
    """Return errors of two predictors on crystals that generators made, unseen by both."""
    some = labels.sampled(
        data, count=SAMPLED, guides=SAMPLED // 2, predictor=guide, seed=SEED
    )
    one, two = (predicted(x, some, name) - known(some, name) for x in (net, other))
    return {
        "n": len(some),
        "mae": figure(np.abs(one)),
        "guide_mae": figure(np.abs(two)),
        "bias": round(float(one.mean()), 4),
        "guide_bias": round(float(two.mean()), 4),
        "correlation_of_errors": correlation(one, two),
    }


def measured(args: argparse.Namespace, sets: dict[str, Crystals]) -> dict[str, Any]:
    """Return the figures of a card."""
    net = load_predictor(args.name)
    test, record = sets["test"], net.record
    start = time.perf_counter()
    net.predict(test)
    speed = len(test) / (time.perf_counter() - start)
    found = {name: judge(net, name, sets) for name in net.properties}
    for name, _, aim in (pair.partition("=") for pair in args.aim):
        met = found[name]["mae"]["value"] <= float(aim)
        found[name] |= {"aim": float(aim), "met": met}
    for name in net.properties:
        if name in labels.ENERGIES:
            found[name]["shaken"] = judge_shaken(net, name, test)
    if guide := record.get("apart_from"):
        other = load_predictor(guide)
        for name in net.properties:
            found[name]["apart"] = side_by_side(net, other, name, test)
            if "made_crystals" in record:
                made = judge_sampled(net, other, name, record["data"], guide)
                found[name]["made"] = made
    source = SOURCES["mp20" if record["data"] in MP20 else "shipped"]
    return {
        "name": args.name,
        "model": f"PropertyNetwork of {len(net.members)} members, "
        f"{sum(p.numel() for p in net.parameters()):,} parameters.",
        "source": source + (SOURCES["band_gap"] if "band_gap" in found else ""),
        "test": found,
        "training": record,
        "crystals_per_second": round(speed, 1),
    }


# ---- the page ------------------------------------------------------------------------


def page(card: dict[str, Any]) -> str:
    """Return the text of card.md."""
    found = card["test"]
    aims = [f"{name}={one['aim']:g}" for name, one in found.items() if "aim" in one]
    repeat = f"python scripts/card.py {card['name']}"
    repeat += " --mp20 mp_20_dev.parquet" * (card["training"]["data"] in MP20)
    repeat += f" --aim {' '.join(aims)}" if aims else ""
    return render("predictor", **card, repeat=repeat)
