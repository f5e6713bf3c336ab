"""The card of a generator: symmetry that was promised and kept, stability, bars, the page."""

import argparse
import warnings
from typing import Any

import numpy as np
from bench import stages
from numpy.typing import NDArray
from torch import Tensor

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.wyckoff import operations
from matdesign.metrics.intervals import wilson

SYMPREC = 0.01
"""How far an atom may lie from its symmetric place, angstrom."""

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

SOURCES = {
    "mp20": "Trained on reduced MP-20 (Materials Project, PBE and PBE+U, CC BY 4.0), the "
    "part of MP-20 that holds its validation split and some of its training split; the "
    "test rows are ours and were held out from all training. The set is not shipped.",
    "shipped": "Data, labels and hull are those of the potential CHGNet 0.3.0, an "
    "approximation of PBE(+U); no density functional calculation was made.",
}


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
    import spglib

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
    count, n = int(flags.sum()), len(flags)
    low, high = wilson(count, n)
    rounded = {"value": count / n, "low": low, "high": high}
    return {k: round(v, 4) for k, v in rounded.items()} | {"count": count, "n": n}


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
    made, drawn = stages.drawn(args.cache, name, args.samples, args.seed)
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
        prediction = stages.predicted(
            args.cache, name, targets, args.seed, args.workers
        )
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


def begun(training: dict[str, Any]) -> str:
    """Return the weights that a training started from, in words; "" where at random."""
    first = training.get("started_from")
    if not first:
        return ""
    return (
        f", going on from weights (checksum {first['weights_sha256'][:16]}) of "
        f"{first['steps']:,} steps by `{first['command']}`{begun(first)}"
    )


def page(card: dict[str, Any]) -> list[str]:
    """Return the lines of card.md."""
    training, drawn, n = card["training"], card["sampling"], card["samples"]
    source = SOURCES["mp20" if training.get("data") == "mp20" else "shipped"]
    found = card["stability"]
    others = {
        **card["symmetry"],
        **{k: v for k, v in found.items() if isinstance(v, dict) and k != "near_hull"},
        **card["evaluation"]["metrics"],
        **card["prediction"].get("metrics", {}),
    }
    lines = [
        f"# {card['name']}",
        "",
        f"{card['model']} {source}",
        "",
        f"| of {n:,} samples, seed {drawn['seed']} | figure | 95 % interval | bar |",
        "| --- | --- | --- | --- |",
        *(row(name, one) for name, one in card["bars"].items()),
        # a figure that no crystal qualified for has no value
        *(
            row(k, v)
            for k, v in others.items()
            if k not in card["bars"] and v.get("value") is not None
        ),
    ]
    if card["symmetry"]:
        lines += [
            "",
            "**Symmetry.** Every sample was given to spglib at symprec "
            f"{SYMPREC} angstrom: the asked space group holds where its operations are "
            "among those found, and is exact where they are all.",
        ]
    if found:
        lines += [
            "",
            f"Rates of stability count all {found['relaxed']:,} relaxed samples; a failed "
            "or unbelievable relaxation counts as not stable. Median distance to the hull "
            f"of the rest: {found['median distance to the hull (eV/atom)']} eV/atom. The "
            "hull is that of the known compounds in data/references, whose card says how "
            f"far a distance is off. Relaxed with {card['oracle']}.",
        ]
    if one := card["prediction"]:
        lines += [
            "",
            f"**Structure prediction.** {one['targets']:,} held-out crystals, one sample "
            f"each for its formula and number of atoms, {one['seconds']:.0f} s. "
            f"{one['targets'] - one['asked']} could not be asked for (an element or a "
            "formula that no layout fits) and count as misses.",
        ]
    again = ""
    if "redrawn" in drawn:
        again = (
            f" {drawn['redrawn']:,} of {n:,} crystals were drawn more than once, because "
            f"atoms overlapped; in {drawn['overlapping']:,} they still do."
        )
    return [
        *lines,
        "",
        f"**Training.** {training.get('crystals', 0):,} crystals of "
        f"`{training.get('data', '')}` (checksum {training.get('data_sha256', '')[:16]}), "
        f"{training.get('steps', 0):,} steps of {training.get('batch_size', 0)} in "
        f"{training.get('seconds', 0) / 60:.0f} minutes on {training.get('device', '')}, "
        f"{training.get('precision', '32-true')}, seed {training.get('seed')}: "
        f"`{training.get('command', '')}`{begun(training)}. "
        f"Loss at the end {training.get('loss')} in training, "
        f"{training.get('val_loss')} in validation: where the second is much "
        "higher, the model has begun to learn its training set by heart; novelty above "
        "says how far that goes.",
        "",
        f"**Sampling.** {drawn['steps']} steps, "
        f"{drawn['network_evaluations'] / max(1, n):.0f} network evaluations "
        f"a crystal, {drawn['seconds']:.0f} s for {n:,} crystals on "
        f"{drawn['threads']} thread(s) of a machine shared with other work: "
        f"{card['hardware']}." + again,
        "",
        f"**Repeat.** `{card['command']}`",
        "",
        "Weights: MIT, like the code.",
    ]
