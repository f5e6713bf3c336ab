"""The report of a design run: one HTML file, and a CIF file for every crystal."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from matdesign.constraints.base import Constraint
from matdesign.constraints.checks import Check, check
from matdesign.crystals import geometry
from matdesign.crystals.batch import Crystals
from matdesign.display.plots import Plot
from matdesign.display.report_page import NEAR_HULL, Row, document
from matdesign.errors import DataError, ShapeError
from matdesign.tables import html_table

if TYPE_CHECKING:
    from matdesign.loop.results import Results
    from matdesign.metrics.evaluator import Evaluation

SMALLEST_VOLUME = 0.1
"""Cell volume in cubic angstrom from which on a crystal can be drawn and written."""


def report(
    crystals: Crystals,
    results: "Results | None" = None,
    evaluation: "Evaluation | None" = None,
    path: str | Path = "build/report.html",
    *,
    wanted: Constraint | None = None,
    title: str = "Designed crystals",
    facts: Mapping[str, object] | None = None,
    plots: Sequence[Plot] = (),
    lead: Sequence[str] = (),
    funnel: Sequence[tuple[int, str]] = (),
    near: float = NEAR_HULL,
) -> Path:
    """Write what was asked, proposed, refused and found; return the path of the page.

    The page holds everything it needs and opens from disk without a network: turnable
    crystals, a table to sort, every failure with its reason, seeds, versions and times.
    A CIF file of every crystal lies in the folder `crystals` beside it.

    Args:
        crystals: everything that was proposed, refused ones included.
        results: what an oracle said, either of all `crystals` or of those that meet
            `wanted`, in their order. Candidates lie within `near` eV/atom of the hull.
        evaluation: a judgement of the same crystals as `results`, or of all.
        path: where to write the page; missing folders are made.
        wanted: the constraints; checked again here, before and after relaxation.
        title: heading of the page.
        facts: further lines for "How it was made", label -> anything that prints.
        plots: shown above the crystals.
        lead: a paragraph below the heading, and points below it.
        funnel: counts and steps above the crystals, if not all proposed are given.
        near: farthest from the hull that a candidate may lie, eV/atom.

    Raises:
        DataError: there is no crystal, or the path is a folder.
        ShapeError: results or evaluation do not belong to these crystals.
    """
    page = Path(path)
    if page.is_dir():
        raise DataError(f"{page} is a folder; name a file in it, such as report.html.")
    if not len(crystals):
        raise DataError("nothing to report: got no crystals. Give at least one.")
    crystals = crystals.to("cpu")
    checked = check(crystals, wanted) if wanted is not None else None
    rows = _rows(crystals, checked)
    if results is not None:
        _add_results(rows, results, wanted, near)
    if evaluation is not None:
        places = _places(rows, len(evaluation), "the evaluation")
        _add_evaluation(rows, places, evaluation)
    page.parent.mkdir(parents=True, exist_ok=True)
    _write_files(rows, page.parent / "crystals")

    made = document(
        rows,
        checked,
        results is not None,
        funnel,
        title=title,
        lead=lead,
        near=near,
        plots=[one.to_html() for one in plots],
        judgement=evaluation._repr_html_() if evaluation is not None else "",
        made=html_table([], _facts(crystals, results, facts or {})),
    )
    page.write_text(made, encoding="utf-8")
    return page


def _rows(crystals: Crystals, checked: Check | None) -> list[Row]:
    reasons = checked.reasons() if checked is not None else ("",) * len(crystals)
    rows = []
    for i, structure in enumerate(crystals):
        row = Row(i, structure, reason=reasons[i])
        row.stage = "rejected" if row.reason else "candidate"
        if crystals.ids:
            row.values["id"] = crystals.ids[i]
        if checked is not None:
            held = int(checked.satisfied[i].sum())
            row.values["constraints met"] = f"{held} of {len(checked.constraints)}"
        rows.append(row)
    _add_geometry(rows, crystals)
    return rows


def _places(rows: list[Row], given: int, name: str) -> list[int]:
    """Return which rows a table of this length speaks of."""
    met = [row.number for row in rows if row.stage != "rejected"]
    if given == len(rows):
        return list(range(given))
    if given == len(met):
        return met
    raise ShapeError(
        f"{name} must speak of all {len(rows)} crystals or of the {len(met)} that meet "
        f"the constraints; got {given} rows. Evaluate crystals[check(...).met]."
    )


def _add_geometry(rows: list[Row], crystals: Crystals) -> None:
    """Add space group and shortest distance; mark what cannot be drawn."""
    from matdesign.display.scene import space_group

    shortest = geometry.min_distance(crystals, include_self=True)
    numbers = crystals.frac.isfinite().flatten(1).all(1) & shortest.isfinite()
    sound = (numbers & (crystals.volume > SMALLEST_VOLUME)).tolist()
    for i, row in enumerate(rows):
        row.sound = sound[i]
        if row.sound:
            row.values["space group"] = space_group(row.structure)[0]
            row.values["shortest distance (Å)"] = float(shortest[i])
        elif not row.reason:
            row.stage, row.reason = "rejected", "the cell or a coordinate is broken"


def _add_results(
    rows: list[Row], results: "Results", wanted: Constraint | None, near: float
) -> None:
    after = results.structures.to("cpu")
    again = check(after, wanted) if wanted is not None else None
    changed: dict[int, Row] = {}
    for k, place in enumerate(_places(rows, len(results), "results")):
        row = rows[place]
        if row.stage == "rejected":
            continue
        row.structure = after[k]
        changed[k] = row
        for column, values in (
            ("above hull (eV/atom)", results.energy_above_hull),
            ("formation energy (eV/atom)", results.formation_energy_per_atom),
            ("energy (eV/atom)", results.energy_per_atom),
        ):
            number = float(values[k])
            fine = bool(results.ok[k]) and math.isfinite(number)
            row.values[column] = number if fine else None
        error = float(results.hull_error[k])
        row.values["± (eV/atom)"] = error if math.isfinite(error) else None
        if "competing" in results.columns:
            known = float(results.competing[k])  # NaN where a worker process died
            row.values["known compounds"] = int(known) if known == known else None
        row.values["seconds"] = float(results.seconds[k])
        if "steps" in results.columns:
            row.values["steps"] = float(results.steps[k])
        if again is not None:
            held = int(again.satisfied[k].sum())
            row.values["met after relaxing"] = f"{held} of {len(again.constraints)}"
        if not bool(results.ok[k]):
            row.stage, row.reason = "failed", results.reason[k] or "no reason given"
        elif again is not None and not bool(again.met[k]):
            row.stage = "failed"
            row.reason = f"after relaxing {again.reasons()[k]}"
        elif isinstance(above := row.values["above hull (eV/atom)"], float):
            if above < -NEAR_HULL:
                row.stage = "look again"
                row.reason = f"{-above:.2f} eV/atom below all that is known"
            elif above > near:
                row.stage, row.reason = "far", f"{above:.2f} eV/atom above the hull"
    if changed:
        _add_geometry([*changed.values()], after[[*changed]])


def _add_evaluation(
    rows: list[Row], places: list[int], evaluation: "Evaluation"
) -> None:
    for name in {"unique", "novel", "ledger"} & set(evaluation.table):
        for place, said in zip(places, evaluation.table[name], strict=True):
            words = str(said) if name == "ledger" else "yes" if said else "no"
            rows[place].values[name] = words or None


def _write_files(rows: list[Row], folder: Path) -> None:
    """Write one CIF per crystal, and remove those of an earlier report."""
    from pymatgen.io.cif import CifWriter

    folder.mkdir(exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9][0-9]-*.cif"):
        old.unlink()
    for row in (one for one in rows if one.sound):
        formula = re.sub(r"[^A-Za-z0-9]", "", row.formula)
        name = f"{row.number + 1:04d}-{formula}.cif"
        row.file = f"{folder.name}/{name}"
        text = str(CifWriter(row.structure, significant_figures=6))
        (folder / name).write_text(text, encoding="utf-8")


def _facts(
    crystals: Crystals, results: "Results | None", more: Mapping[str, object]
) -> list[tuple[str, str]]:
    """Return what "How it was made" lists: label and text."""
    from matdesign.environment import about

    info: dict[str, Any] = crystals.info
    facts: list[tuple[str, object]] = list(more.items())
    for key in ("generator", "model", "seed", "steps", "network_evaluations", "device"):
        if info.get(key) not in (None, ""):
            facts.append((key.replace("_", " "), info[key]))
    if "seconds" in info:
        facts.append(("seconds for sampling", f"{float(info['seconds']):.1f}"))
    if "guide" in info:
        log = info["guide"]
        met = f"{log['met']} of {log['drawn']} drawn met all"
        facts.append(("guide", f"{log['method']}: {met}"))
    if results is not None:
        total = f"{float(torch.nansum(results.seconds)):.1f} s"
        facts.append(("oracle", results.oracle))
        if "computing time of the oracle" not in more:
            facts.append(("computing time of the oracle", total))
    return [(name, str(one)) for name, one in [*facts, *about().items()]]
