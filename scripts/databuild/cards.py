"""Cards of the shipped sets: what, how made, figures, licence, checksums, command."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from databuild.experiment import compare
from databuild.shards import Row
from matdesign.loop.hull import Hull

LICENCE = "CC-BY-4.0"
UNITS = {
    "lattice": "angstrom",
    "frac_coords": "1",
    "energy_per_atom": "eV/atom",
    "formation_energy_per_atom": "eV/atom",
    "energy_above_hull": "eV/atom",
    "volume_per_atom": "angstrom^3",
    "density": "g/cm^3",
    "magmom_per_atom": "Bohr magneton",
}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ABOUT = {
    "prototypes": (
        "Inorganic crystals: known structure types x substitution, with polymorphs",
        "AFLOW structure types of at most 20 atoms (bundled with pymatgen) x elements. "
        "About four fifths are charge-balanced, with every cation less "
        "electronegative than every anion, mixed anions included; the rest are "
        "crystals of metals and elements. Much is organised by chemical system or "
        "composition, so several polymorphs compete. A small part starts from rattled "
        "cells (atoms off by about 0.12 angstrom, cell strained by about 3 %).",
        "python scripts/build_data.py prototypes --workers 2 --target 7700",
    ),
    "perovskites": (
        "Perovskites ABX3: the cubic aristotype and its tilted and polar children",
        "Every composition within the rules and element lists of "
        "scripts/databuild/perovskite.py (charges sum to zero, tolerance factor "
        "0.78 to 1.10, octahedral factor at least 0.35, 0.30 for nitrides; oxides, "
        "halides, sulfides, "
        "selenides, nitrides, hydrides) as the 5-atom cubic cell; one composition in "
        "twelve and some famous ones also as children: polar P4mm and R3m, tilted "
        "I4/mcm, R-3c, Pnma, Imma and P4/mbm, 5 to 20 atoms.",
        "python scripts/build_data.py perovskites --workers 2",
    ),
}


def write_cards(
    data: Path, usable: dict[str, list[Row]], rejected: dict[str, list[Row]]
) -> None:
    """Write card.json and card.md of both sets.

    Args:
        data: Folder of the shipped sets.
        usable: Set name -> the rows that were written.
        rejected: Set name -> the rows that were not, with reasons.
    """
    for name, rows in usable.items():
        if rows:
            _write(data / name, _set_card(name, data / name, rows, rejected[name]))


def renew_card(folder: Path, rows: Sequence[Row]) -> None:
    """Write the cards of a set again after its labels have changed."""
    card = json.loads((folder / "card.json").read_text())
    again = " && python scripts/build_data.py relabel"
    card["command"] = card["command"].removesuffix(again) + again
    _write(folder, card | _about_labels(rows) | {"files": _files(folder)})


def _about_labels(rows: Sequence[Row]) -> dict[str, Any]:
    """What a card says of formation energies and distances to the hull."""
    distance = np.array([row["energy_above_hull"] for row in rows])
    edges = (-10.0, -0.1, 0.0, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 10.0)
    counts = np.histogram(distance, edges)[0]
    compared = compare(rows)
    return {
        "oracle": "labels by CHGNet 0.3.0 (chgnet 0.4.2), an approximation of "
        "PBE(+U), on the scale of the Materials Project by the calibration in "
        "data/references; no density functional calculation was made",
        "hull_error": Hull.shipped().error,
        "not": "Labels share the potential's errors. Crystals are relaxed to the "
        "nearest minimum, not to the ground state; magnetic order is not sought. "
        "Distances are to the known compounds of data/references: below 0 is either a "
        "compound that they do not hold or a mistake of the potential. The rows were "
        "chosen before that hull was there, by their distance to the lowest crystals of "
        "these sets; figures in the reasons of the rejected are such distances. "
        "Formation energies are energies at rest; experiment is an enthalpy at 298 K.",
        "known_formulas": round(
            float(Hull.shipped().known([row["formula"] for row in rows]).mean()), 3
        ),
        "negative_formation_energy": round(
            float(np.mean([row["formation_energy_per_atom"] < 0 for row in rows])), 3
        ),
        "formation_energy_quantiles": _quantiles(rows, "formation_energy_per_atom"),
        "energy_above_hull_quantiles": _quantiles(rows, "energy_above_hull"),
        "energy_above_hull_histogram": {
            _between(low, high): int(count)
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        },
        "against_experiment": compared,
        "mean_absolute_error_against_experiment": round(
            float(np.mean([abs(row["difference"]) for row in compared] or [np.nan])), 3
        ),
    }


def _write(folder: Path, card: dict[str, Any]) -> None:
    (folder / "card.json").write_text(
        json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    )
    (folder / "card.md").write_text(_markdown(card))


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of the data files of a folder."""
    out = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".parquet", ".json") and path.name != "card.json":
            content = path.read_bytes()
            out[path.name] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
    return out


def _versions() -> dict[str, str]:
    names = ("chgnet", "pymatgen", "torch", "smact", "spglib")
    return {name: version(name) for name in names}


def reason_kind(reason: str) -> str:
    """The name of a reason without its figure: "short bond 0.52" -> "short bond"."""
    if reason.startswith("copy of"):
        return "copy of another"
    if reason.startswith("cannot be built"):
        return "cannot be built"
    return re.sub(r"\s*-?(\d[\d.]*|nan|inf)$", "", reason)


def smact_valid(rows: Sequence[Row]) -> float:
    """Share of crystals whose composition smact holds valid (its default settings)."""
    from smact.screening import smact_validity

    known: dict[str, bool] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            if row["formula"] not in known:
                known[row["formula"]] = bool(smact_validity(row["formula"]))
    return float(np.mean([known[row["formula"]] for row in rows]))


def _quantiles(rows: Sequence[Row], key: str) -> dict[str, float]:
    values = [row[key] for row in rows]
    return {str(q): round(float(np.quantile(values, q)), 4) for q in QUANTILES}


def _yields(good: Sequence[Row], bad: Sequence[Row], group: Any) -> dict[str, Any]:
    """Tried and usable (copies count as usable) per group, largest first."""
    tried: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for row in (*good, *bad):
        tried[group(row)] += 1
        if not row["reason"] or row["reason"].startswith("copy of"):
            passed[group(row)] += 1
    return {
        name: {
            "tried": count,
            "usable": passed[name],
            "share": round(passed[name] / count, 3),
        }
        for name, count in tried.most_common()
    }


def _size(row: Row) -> str:
    n = len(row["numbers"])
    for low, high in ((1, 2), (3, 4), (5, 8), (9, 12), (13, 20)):
        if low <= n <= high:
            return f"{low} to {high} atoms"
    return "not built"


def _between(low: float, high: float) -> str:
    return f"to {high:g} eV/atom" if high < 1.0 else f"above {low:g} eV/atom"


def _set_card(
    name: str, folder: Path, rows: list[Row], bad: list[Row]
) -> dict[str, Any]:
    from databuild.assemble import chemical_system, held_out, split_of

    title, recipe, command = ABOUT[name]
    splits = Counter(split_of(row["formula"]) for row in rows)
    per_formula = Counter(row["formula"] for row in rows)
    prototypes = sorted({row["prototype"] for row in rows})
    return {
        "name": name,
        "title": title,
        "what": recipe,
        "how": "volume scan, batched BFGS with a free cell to 0.05 eV/angstrom, at most "
        "120 steps; guards: shortest bond over radius sum > 0.6, volume within a "
        "factor 2, -5.5 < formation energy < 1.5 eV/atom, alloys within 0.7 to 1.6 of "
        "the elements' volumes; duplicates by StructureMatcher within a formula; nothing "
        "more than 1 eV/atom above the hull; no element far below its reference",
        "rows": len(rows),
        "splits": dict(splits),
        "split_rule": "sha256 of the reduced formula, 80/10/10: polymorphs of a "
        "formula share a split, in every set of this package",
        "units": UNITS,
        "tried": len(rows) + len(bad),
        "rejected": dict(Counter(reason_kind(r["reason"]) for r in bad).most_common()),
        "rejected_log": "rejected.parquet",
        "yield_by_kind": _yields(rows, bad, lambda row: row["kind"]),
        "yield_by_size": _yields(rows, bad, _size),
        "yield_by_prototype": _yields(rows, bad, lambda row: row["prototype"]),
        "seconds_per_candidate": round(
            float(np.mean([row["seconds"] for row in (*rows, *bad)])), 3
        ),
        "mean_steps": round(float(np.mean([row["steps"] for row in (*rows, *bad)])), 1),
        "mean_atoms": round(float(np.mean([len(row["numbers"]) for row in rows])), 2),
        "formulas": len(per_formula),
        "formulas_with_polymorphs": sum(count > 1 for count in per_formula.values()),
        "chemical_systems": len({chemical_system(row) for row in rows}),
        "elements": len({z for row in rows for z in row["numbers"]}),
        "prototype_labels": len(prototypes),
        "spacegroups": len({row["spacegroup"] for row in rows}),
        "spacegroup_kept": round(
            float(np.mean([r["spacegroup"] == r["spacegroup_start"] for r in rows])), 3
        ),
        "smact_validity": round(smact_valid(rows), 4),
        "holdout": {
            "rule": "columns holdout_prototype and holdout_system: one prototype "
            "label (chemical system) in ten by its hash, across all splits; leave "
            "these rows out of training to test on unseen families",
            "prototypes": [p for p in prototypes if held_out("prototype", p)],
            "rows_by_prototype": sum(
                held_out("prototype", row["prototype"]) for row in rows
            ),
            "rows_by_system": sum(
                held_out("system", chemical_system(row)) for row in rows
            ),
        },
        "overlap": "a crystal may be in both prototypes and perovskites; the splits "
        "agree",
        "command": f"{command} && python scripts/build_data.py assemble",
        **_about_labels(rows),
        "licence": LICENCE,
        "sources": "structure types: AFLOW library of crystallographic prototypes "
        "(Mehl et al. 2017, Comput. Mater. Sci. 136, S1) as bundled with pymatgen "
        "(MIT); potential: CHGNet (Deng et al. 2023, Nat. Mach. Intell. 5, 1031; "
        "BSD-3)",
        "versions": _versions(),
        "files": _files(folder),
    }


def _markdown(card: dict[str, Any]) -> str:
    """The card for people; every figure comes from card.json."""
    lines = [f"# {card['title']}", ""]
    for key in ("what", "oracle", "how", "not"):
        word = {"not": "What it is not", "how": "How made"}.get(key, key.capitalize())
        lines += [f"**{word}.** {card[key]}", ""]
    skip = {"title", "what", "oracle", "how", "not", "name", "units", "files"}
    skip |= {"yield_by_prototype", "holdout", "against_experiment", "versions"}
    lines += ["| figure | value |", "| --- | --- |"]
    for key, value in card.items():
        if key not in skip and not isinstance(value, dict):
            lines.append(f"| {key.replace('_', ' ')} | {value} |")
    lines.append("")
    for key, value in card.items():
        if isinstance(value, dict) and key not in skip:
            lines += _table(key.replace("_", " "), value)
    if card.get("against_experiment"):
        lines += ["## Formation energy against experiment, eV/atom", ""]
        lines += ["| formula | label | experiment | difference |"]
        lines += ["| --- | --- | --- | --- |"]
        for row in card["against_experiment"]:
            lines.append(
                f"| {row['formula']} | {row['label']:.3f} | {row['experiment']:.3f} "
                f"| {row['difference']:+.3f} |"
            )
        lines.append("")
    if "yield_by_prototype" in card:
        worst = sorted(
            (item for item in card["yield_by_prototype"].items()),
            key=lambda item: item[1]["share"],
        )
        worst = [item for item in worst if item[1]["tried"] >= 15][:12]
        if worst and worst[0][1]["share"] < 0.97:
            lines += _table("prototypes of the lowest yield", dict(worst))
    if "holdout" in card:
        hold = card["holdout"]
        lines += ["## Hold-outs", "", hold["rule"].capitalize() + ".", ""]
        lines += [
            f"Rows held out by prototype: {hold['rows_by_prototype']}, by chemical "
            f"system: {hold['rows_by_system']}. Prototypes: "
            f"{', '.join(hold['prototypes'])}.",
            "",
        ]
    lines += _table("units", card["units"])
    lines += _table("versions", card["versions"])
    lines += ["## Files", "", "| file | bytes | sha256 |", "| --- | --- | --- |"]
    for name, file in card["files"].items():
        lines.append(f"| {name} | {file['bytes']} | `{file['sha256']}` |")
    return "\n".join(lines) + "\n"


def _table(title: str, values: dict[str, Any]) -> list[str]:
    lines = [f"## {title.capitalize()}", ""]
    first = next(iter(values.values()), None)
    if isinstance(first, dict):
        names = list(first)
        lines += ["| | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
        for key, row in values.items():
            cells = " | ".join(str(row[name]) for name in names)
            lines.append(f"| {key} | {cells} |")
    else:
        lines += ["| | |", "| --- | --- |"]
        lines += [f"| {key} | {value} |" for key, value in values.items()]
    return [*lines, ""]
