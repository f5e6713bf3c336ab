"""The card of a generator: symmetry that was promised and kept, stability, bars, the page."""

import argparse
import warnings
from typing import Any

import numpy as np
import spglib
from bench import stages
from numpy.typing import NDArray
from torch import Tensor

import matdesign as design
from cards.page import render
from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.wyckoff import operations
from matdesign.metrics.summary import Metric

SYMPREC, SEED = 0.01, 0
"""How far an atom may lie from its symmetric place, angstrom; seed of the samples."""

NEAR, HOLDS = "within 0.1 eV/atom of the hull", "asked space group holds"
SHIPPED_BARS = {
    "structural validity": 0.90,
    "compositional validity": 0.70,
    "uniqueness": 0.90,
    NEAR: 0.20,
    HOLDS: 1.0,
}
MP20_BARS = {
    "structural validity": 0.99,
    "compositional validity": 0.83,
    "COV-R": 0.95,
    "COV-P": 0.95,
    "density distance, valid": 0.35,
    "element count distance, valid": 0.30,
    "match rate": 0.45,
    HOLDS: 1.0,
}
"""What is aimed at: rates at least, distances at most."""


# ---- figures -------------------------------------------------------------------------


def order(spacegroup: int) -> int:
    """Return the number of operations of a space group, translations apart.

    Example:
        >>> order(1), order(225)
        (1, 48)
    """
    return len(np.unique(operations(spacegroup)[0], axis=0))


def symmetry_kept(made: Crystals, asked: Tensor) -> dict[str, NDArray[np.bool_]]:
    """Return what spglib says of the asked space groups, one flag per crystal.

    The crystals stand in primitive cells of the asked groups, so a crystal whose group
    is another one and has more operations on the cell is more symmetric than asked.

    Returns:
        "holds": the asked operations are among those found; "exact": they are all that
        was found. A crystal that spglib finds nothing for has neither.
    """
    exact, holds = np.zeros((2, len(made)), dtype=bool)
    for i, group in enumerate(asked.long().tolist()):
        n = int(made.n_atoms[i])
        sites = made.frac[i, :n].double().numpy(), made.species[i, :n].numpy()
        try:
            with warnings.catch_warnings():  # of how errors will be reported
                warnings.simplefilter("ignore", DeprecationWarning)
                cell = (made.lattice[i].double().numpy(), *sites)
                found = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
        except Exception:  # atoms on top of each other, by version of spglib
            found = None
        if found is not None:
            exact[i] = found.number == group
            holds[i] = exact[i] or len(found.rotations) > order(group)
    return {"holds": holds, "exact": exact}


def rate(flags: NDArray[np.bool_]) -> dict[str, float]:
    """Return a rate with its 95 % interval and counts."""
    found = vars(Metric.rate("", flags, 0.95))
    return {k: round(found[k], 4) for k in ("value", "low", "high", "count", "n")}


def stability(
    above: NDArray[np.float64],
    rivals: NDArray[np.bool_],
    new: NDArray[np.bool_],
    seconds: list[float],
) -> dict[str, Any]:
    """Return counts over all relaxed crystals; a failed relaxation is never stable.

    Args:
        above: distances to the hull in eV/atom, NaN where a relaxation is not believed.
        rivals: whether a known compound competes.
        new: whether the crystal is unique and novel.
        seconds: of each relaxation.
    """
    ok = np.isfinite(above)
    near, below = ok & (above <= 0.1), ok & (above <= 0.0)
    middle = float(np.median(above[ok])) if ok.any() else float("nan")
    return {
        "relaxed": len(ok),
        "converged and believed": rate(ok),
        "near_hull": rate(near),
        "on or below the hull": rate(below),
        "within 0.1 eV/atom, a compound competing": rate(near & rivals),
        "within 0.1 eV/atom, unique and novel": rate(near & new),
        "median distance to the hull (eV/atom)": round(middle, 4),
        "median seconds per relaxation": round(float(np.median(seconds)), 3),
    }


def bars_of(data: str, figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the bars for a data set beside the figures, and by how much one is missed.

    Returns:
        Name -> the figure with `bar`, `sense` ("at least" or "at most"), `met` and
        `missed_by` (0 where met).
    """
    out = {}
    for name, bar in (MP20_BARS if data == "mp20" else SHIPPED_BARS).items():
        if figures.get(name, {}).get("value") is None:
            continue
        sense = "at most" if "distance" in name else "at least"
        short = (bar - figures[name]["value"]) * (1 if sense == "at least" else -1)
        out[name] = {
            **figures[name],
            "bar": bar,
            "sense": sense,
            "met": bool(short <= 0),
            "missed_by": round(max(0.0, short), 4),
        }
    return out


def measured(args: argparse.Namespace, sets: dict[str, Crystals]) -> dict[str, Any]:
    """Return the figures of a card: draw, judge, relax, predict."""
    name, model = args.name, design.load_model(args.name)
    data = str(model.record["data"])
    made, drawn = stages.drawn(args.cache, name, args.samples, SEED)
    judged = design.evaluate(
        made,
        reference=sets["train"],
        held_out=sets["test"] if data == "mp20" else None,
        coverage=args.coverage,
        workers=args.workers,
        cache=args.cache / "fingerprints.sqlite",
    )
    print(judged, flush=True)
    symmetry, found, prediction, oracle = {}, {}, dict[str, Any](), ""
    if "asked_group" in made.properties:
        flags = symmetry_kept(made, made.properties["asked_group"])
        symmetry = {HOLDS: rate(flags["holds"])}
        symmetry["asked space group is exact"] = rate(flags["exact"])
    if args.relax:
        rows = stages.relaxed(args.cache, name, made[: args.relax], args.workers)
        hull, oracle = design.Hull.shipped(), rows[0]["oracle"]
        crystals, _, above = stages.placed(rows, hull)
        unique, novel = (judged.table[key] for key in ("unique", "novel"))
        new = (np.asarray(unique) & np.asarray(novel))[: len(rows)]
        seconds = [row["seconds"] for row in rows]
        found = stability(above, hull.competing(crystals) > 0, new, seconds)
    if args.predict:
        targets = sets["test"][: args.predict]
        prediction = stages.predicted(args.cache, name, targets, SEED, args.workers)
        prediction["asked"] = len(targets) - prediction["refused"]
    evaluation = judged.record()
    figures = evaluation["metrics"] | symmetry | prediction.get("metrics", {})
    if found:
        figures[NEAR] = found["near_hull"]
    return {
        "name": name,
        "model": f"{type(model).__name__}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters, representation "
        f'"{model.representation}".',
        "samples": len(made),
        "bars": bars_of(data, figures),
        "symmetry": symmetry,
        "stability": found,
        "prediction": prediction,
        "evaluation": evaluation,
        "training": model.record,
        "sampling": drawn,
        "oracle": oracle,
        "units": {"energy_above_hull": "eV/atom", "seconds": "s"},
    }


# ---- the page ------------------------------------------------------------------------


def row(name: str, one: dict[str, Any]) -> str:
    """Return a line of the table: figure, interval, bar."""
    bar, missed = "", ""
    if one.get("count") is not None:
        figure = f"{100 * one['value']:.1f} %"
        span = f"{100 * one['low']:.1f} to {100 * one['high']:.1f} %"
        if "bar" in one:
            bar = f"{one['sense']} {100 * one['bar']:.0f} %: "
            missed = f"missed by {100 * one['missed_by']:.1f} points"
    else:
        figure = f"{one['value']:.3g} {one.get('unit', '')}".strip()
        span = f"{one['low']:.3g} to {one['high']:.3g}"
        if one.get("floor") is not None:
            span += f" (data against itself {one['floor']:.2g})"
        if "bar" in one:
            bar = f"{one['sense']} {one['bar']:g}: "
            missed = f"missed by {one['missed_by']:.3g}"
    return (
        f"| {name} | {figure} | {span} | {bar}{'met' if one.get('met') else missed} |"
    )


def page(card: dict[str, Any]) -> str:
    """Return the text of card.md."""
    found = card["stability"]
    others = {
        **card["symmetry"],
        **{k: v for k, v in found.items() if isinstance(v, dict) and k != "near_hull"},
        **card["evaluation"]["metrics"],
        **card["prediction"].get("metrics", {}),
    }
    # a figure that no crystal qualified for has no value
    known = {k: v for k, v in others.items() if v.get("value") is not None}
    rows = [
        row(name, one)
        for name, one in (
            card["bars"] | {k: v for k, v in known.items() if k not in card["bars"]}
        ).items()
    ]
    begun, first = [], card["training"]
    while first := first.get("started_from"):
        begun.append(first)
    return render("generator", **card, rows=rows, begun=begun, symprec=SYMPREC)
