"""Parts of a card: symmetry that was promised and kept, stability, bars, the page."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from card_beside import beside, measured
from numpy.typing import NDArray
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.generators.storage import write_atomic
from matdesign.metrics.intervals import wilson

SYMPREC = 0.01
"""How far an atom may lie from its symmetric place, angstrom."""

SHIPPED_BARS = {
    "structural validity": (0.90, "at least"),
    "compositional validity": (0.70, "at least"),
    "uniqueness": (0.90, "at least"),
    "within 0.1 eV/atom of the hull": (0.20, "at least"),
}
MP20_BARS = {
    "structural validity": (0.99, "at least"),
    "compositional validity": (0.83, "at least"),
    "COV-R": (0.95, "at least"),
    "COV-P": (0.95, "at least"),
    "density distance, valid": (0.35, "at most"),
    "element count distance, valid": (0.30, "at most"),
    "match rate": (0.45, "at least"),
}
SYMMETRIC_BARS = {"asked space group holds": (1.0, "at least")}

SOURCES = {
    "mp20": "Trained on reduced MP-20 (Materials Project, PBE and PBE+U, CC BY 4.0), the "
    "part of MP-20 that holds its validation split and some of its training split; the "
    "test rows are ours and were held out from all training. The set is not shipped.",
    "shipped": "Data, labels and hull are those of the potential CHGNet 0.3.0, an "
    "approximation of PBE(+U); no density functional calculation was made.",
}


# ---- symmetry ------------------------------------------------------------------------


def sample_with_groups(
    model: Generator, n: int, *, seed: int, **options: Any
) -> tuple[Crystals, Tensor]:
    """Return samples, and the space group that each one is laid out in.

    They are those of the model's plan: what is drawn again later keeps its layout.

    Args:
        model: any generator.
        n: number of crystals.
        seed: as in `model.sample`, which gives the same crystals.
        **options: of `model.sample`.

    Returns:
        The crystals, and the numbers of their space groups, long, shape (crystals,).
    """
    plan_of = model.plan
    planned: list[Tensor] = []

    def plan(*args: Any, **named: Any) -> Any:
        made = plan_of(*args, **named)
        planned.append(made.layout.spacegroup.cpu())
        return made

    model.plan = plan  # type: ignore[method-assign]
    try:
        made = model.sample(n, seed=seed, **options)
    finally:
        del model.plan
    (groups,) = planned
    return made, groups


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what spglib announces about a change of how it reports errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@cache
def order(spacegroup: int) -> int:
    """Return the number of operations of a space group, translations apart.

    Example:
        >>> order(1), order(225)
        (1, 48)
    """
    import spglib

    with _quiet():
        for hall in range(1, 531):
            kind = spglib.get_spacegroup_type(hall)
            if kind is not None and kind.number == spacegroup:
                found = spglib.get_symmetry_from_database(hall)
                return len(np.unique(found["rotations"], axis=0))
    raise DataError(f"a space group has a number from 1 to 230; got {spacegroup}.")


def symmetry_kept(made: Crystals, asked: Tensor) -> dict[str, NDArray[np.bool_]]:
    """Return what spglib says of the asked space groups, one flag per crystal.

    The crystals stand in primitive cells of the asked groups, so a crystal whose group
    is another one and has more operations on the cell is more symmetric than asked.

    Returns:
        "holds": the asked operations are among those found; "exact": they are all that
        was found. A crystal that spglib finds nothing for has neither.
    """
    import spglib

    exact = np.zeros(len(made), dtype=bool)
    holds = np.zeros(len(made), dtype=bool)
    for i, group in enumerate(asked.long().tolist()):
        n = int(made.n_atoms[i])
        cell = (
            made.lattice[i].double().numpy(),
            made.frac[i, :n].double().numpy(),
            made.species[i, :n].numpy(),
        )
        try:
            with _quiet():
                found = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
        except Exception:  # atoms on top of each other, by version of spglib
            found = None
        if found is None:
            continue
        exact[i] = found.number == group
        holds[i] = exact[i] or len(found.rotations) > order(group)
    return {"holds": holds, "exact": exact}


# ---- rates ---------------------------------------------------------------------------


def rate(flags: NDArray[np.bool_]) -> dict[str, float]:
    """Return a rate with its 95 % interval and counts."""
    low, high = wilson(int(flags.sum()), len(flags))
    return {
        "value": round(float(flags.mean()), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "count": int(flags.sum()),
        "n": len(flags),
    }


def stability(rows: list[dict[str, Any]], table: dict[str, Any]) -> dict[str, Any]:
    """Return counts over all relaxed crystals; a failed relaxation is never stable."""
    ok = np.array([row["ok"] for row in rows], dtype=bool)
    above = np.array([row["energy_above_hull"] for row in rows], dtype=float)
    rivals = np.array([row["competing"] for row in rows]) > 0
    index = [row["index"] for row in rows]
    new = np.asarray(table["unique"])[index] & np.asarray(table["novel"])[index]
    with np.errstate(invalid="ignore"):
        near, below = ok & (above <= 0.1), ok & (above <= 0.0)
    middle = float(np.median(above[ok])) if ok.any() else float("nan")
    return {
        "relaxed": len(rows),
        "converged and believed": rate(ok),
        "near_hull": rate(near),
        "on or below the hull": rate(below),
        "within 0.1 eV/atom, a compound competing": rate(near & rivals),
        "within 0.1 eV/atom, unique and novel": rate(near & new),
        "median distance to the hull (eV/atom)": round(middle, 4),
        "median seconds per relaxation": round(
            float(np.median([row["seconds"] for row in rows])), 3
        ),
    }


def bars_of(data: str, figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the bars for a data set beside the figures, and by how much one is missed.

    Args:
        data: name of the training set.
        figures: name -> value and interval; what was not measured is left out.

    Returns:
        Name -> the figure with `bar`, `sense` ("at least" or "at most"), `met` and
        `missed_by` (0 where met).
    """
    wanted = {**(MP20_BARS if data == "mp20" else SHIPPED_BARS), **SYMMETRIC_BARS}
    out = {}
    for name, (bar, sense) in wanted.items():
        if figures.get(name, {}).get("value") is None:
            continue
        value = figures[name]["value"]
        short = bar - value if sense == "at least" else value - bar
        out[name] = {
            **figures[name],
            "bar": bar,
            "sense": sense,
            "met": bool(short <= 0),
            "missed_by": round(max(0.0, short), 4),
        }
    return out


# ---- the page ------------------------------------------------------------------------


def _row(name: str, one: dict[str, Any]) -> str:
    """Return a line of the table: figure, interval, bar."""
    bar = ""
    if one.get("count") is not None:
        figure = f"{100 * one['value']:.1f} %"
        span = f"{100 * one['low']:.1f} to {100 * one['high']:.1f} %"
        if "bar" in one:
            bar = f"{one['sense']} {100 * one['bar']:.0f} %: "
            bar += (
                "met"
                if one["met"]
                else f"missed by {100 * one['missed_by']:.1f} points"
            )
    else:
        figure = f"{one['value']:.3g} {one.get('unit', '')}".strip()
        span = f"{one['low']:.3g} to {one['high']:.3g}"
        if one.get("floor") is not None:
            span += f" (data against itself {one['floor']:.2g})"
        if "bar" in one:
            bar = f"{one['sense']} {one['bar']:g}: "
            bar += "met" if one["met"] else f"missed by {one['missed_by']:.3g}"
    return f"| {name} | {figure} | {span} | {bar} |"


def _again(drawn: dict[str, Any], samples: int) -> str:
    """Return how many samples were drawn again, where their number is known."""
    if "redrawn" not in drawn:
        return ""
    return (
        f" {drawn['redrawn']:,} of {samples:,} crystals were drawn more than once, because "
        f"atoms overlapped; in {drawn['overlapping']:,} they still do."
    )


def write_card(card: dict[str, Any], folder: Path) -> None:
    """Write card.json and card.md."""
    write_atomic(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    training, drawn = card["training"], card["sampling"]
    source = SOURCES["mp20" if training.get("data") == "mp20" else "shipped"]
    found = card["stability"]
    lines = [
        f"# {card['name']}",
        "",
        f"{card['model']} {source}",
        "",
        f"| of {card['samples']:,} samples, seed {drawn['seed']} | figure | 95 % interval "
        "| bar |",
        "| --- | --- | --- | --- |",
        *(_row(name, one) for name, one in card["bars"].items()),
    ]
    others = {
        **card["symmetry"],
        **{k: v for k, v in found.items() if isinstance(v, dict) and k != "near_hull"},
        **card["evaluation"]["metrics"],
        **card["prediction"].get("metrics", {}),
    }
    # a figure that no crystal qualified for has no value
    lines += [
        _row(k, v)
        for k, v in others.items()
        if k not in card["bars"] and v.get("value") is not None
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
    if card["prediction"]:
        one = card["prediction"]
        lines += [
            "",
            f"**Structure prediction.** {one['targets']:,} held-out crystals, one sample "
            f"each for its formula and number of atoms, {one['seconds']:.0f} s. "
            f"{one['targets'] - one['asked']} could not be asked for (an element or a "
            "formula that no layout fits) and count as misses.",
        ]
    lines += beside(card["name"], measured())
    lines += [
        "",
        f"**Training.** {training.get('crystals', 0):,} crystals of "
        f"`{training.get('data', '')}` (checksum {training.get('data_sha256', '')[:16]}), "
        f"{training.get('steps', 0):,} steps of {training.get('batch_size', 0)} in "
        f"{training.get('seconds', 0) / 60:.0f} minutes on {training.get('device', '')}, "
        f"{training.get('precision', '32-true')}, seed {training.get('seed')}: "
        f"`{training.get('command', '')}`. Loss at the end {training.get('loss')} in "
        f"training, {training.get('val_loss')} in validation: where the second is much "
        "higher, the model has begun to learn its training set by heart; novelty above "
        "says how far that goes.",
        "",
        f"**Sampling.** {drawn['steps']} steps, "
        f"{drawn['network_evaluations'] / max(1, card['samples']):.0f} network evaluations "
        f"a crystal, {drawn['seconds']:.0f} s for {card['samples']:,} crystals on "
        f"{drawn['threads']} thread(s) of a machine shared with other work: "
        f"{card['hardware']}." + _again(drawn, card["samples"]),
        "",
        f"**Repeat.** `{card['command']}`",
        "",
        "Weights: MIT, like the code.",
    ]
    write_atomic(folder / "card.md", ("\n".join(lines) + "\n").encode())
