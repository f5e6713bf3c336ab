"""Cards of the shipped sets: what, how made, figures, licence, checksums, command."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from cards.page import write_data_card

from databuild.shards import Row
from matdesign.loop.hull import Hull

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
ABOUT = {
    "prototypes": {
        "title": "Inorganic crystals: known structure types x substitution, with polymorphs",
        "what": "AFLOW structure types of at most 20 atoms (bundled with pymatgen) x "
        "elements. About four fifths are charge-balanced, with every cation less "
        "electronegative than every anion, mixed anions included; the rest are "
        "crystals of metals and elements. Much is organised by chemical system or "
        "composition, so several polymorphs compete. A small part starts from rattled "
        "cells (atoms off by about 0.12 angstrom, cell strained by about 3 %).",
        "command": "python scripts/build_data.py prototypes --workers 2 --target 7700",
    },
    "perovskites": {
        "title": "Perovskites ABX3: the cubic aristotype and its tilted and polar children",
        "what": "Every composition within the rules and element lists of "
        "scripts/databuild/perovskite.py (charges sum to zero, tolerance factor "
        "0.78 to 1.10, octahedral factor at least 0.35, 0.30 for nitrides; oxides, "
        "halides, sulfides, selenides, nitrides, hydrides) as the 5-atom cubic cell; one "
        "composition in twelve and some famous ones also as children: polar P4mm and "
        "R3m, tilted I4/mcm, R-3c, Pnma, Imma and P4/mbm, 5 to 20 atoms.",
        "command": "python scripts/build_data.py perovskites --workers 2",
    },
}
WORDS = {
    "oracle": "labels by CHGNet 0.3.0 (chgnet 0.4.2), an approximation of "
    "PBE(+U), on the scale of the Materials Project by the calibration in "
    "data/references; no density functional calculation was made",
    "how": "volume scan, batched BFGS with a free cell to 0.05 eV/angstrom, at most "
    "120 steps; guards: shortest bond over radius sum > 0.6, volume within a "
    "factor 2, -5.5 < formation energy < 1.5 eV/atom, alloys within 0.7 to 1.6 of "
    "the elements' volumes; duplicates by StructureMatcher within a formula; nothing "
    "more than 1 eV/atom above the hull; no element far below its reference",
    "split_rule": "sha256 of the reduced formula, 80/10/10: polymorphs of a "
    "formula share a split, in every set of this package",
    "holdout_rule": "columns holdout_prototype and holdout_system: one prototype "
    "label (chemical system) in ten by its hash, across all splits; leave "
    "these rows out of training to test on unseen families",
    "rejected_log": "rejected.parquet",
    "overlap": "a crystal may be in both prototypes and perovskites; the splits agree",
    "not": "Labels share the potential's errors. Crystals are relaxed to the "
    "nearest minimum, not to the ground state; magnetic order is not sought. "
    "Distances are to the known compounds of data/references: below 0 is either a "
    "compound that they do not hold or a mistake of the potential. The rows were "
    "chosen before that hull was there, by their distance to the lowest crystals of "
    "these sets; figures in the reasons of the rejected are such distances. "
    "Formation energies are energies at rest; experiment is an enthalpy at 298 K.",
    "licence": "CC-BY-4.0",
    "sources": "structure types: AFLOW library of crystallographic prototypes "
    "(Mehl et al. 2017, Comput. Mater. Sci. 136, S1) as bundled with pymatgen "
    "(MIT); potential: CHGNet (Deng et al. 2023, Nat. Mach. Intell. 5, 1031; BSD-3)",
}
ENTHALPIES = """
NaCl -411.2|LiF -616.0|MgO -601.6|CaO -634.9|SrO -592.0|BaO -548.0|ZnO -350.5|CdO -258.4
NiO -239.7|FeO -272.0|MnO -385.2|ZnS -206.0|CdS -161.9|CdTe -92.5|GaAs -71.0|GaN -110.5
AlN -318.0|InP -88.7|CsCl -443.0|KBr -393.8|CaF2 -1228.0|MgF2 -1124.2|Li2O -597.9
Na2O -414.2|Cu2O -168.6|TiO2 -944.0|ZrO2 -1100.6|SiO2 -910.7|SnO2 -577.6|Al2O3 -1675.7
Fe2O3 -824.2|Cr2O3 -1139.7|SrTiO3 -1672.4|BaTiO3 -1659.8|CaTiO3 -1660.6|MgAl2O4 -2299.9
LiCoO2 -679.4|ZrSiO4 -2033.4
"""
"""Standard enthalpies of formation at 298 K, kJ/mol of formula unit, from common tables
(CRC Handbook, NIST-JANAF); rounded values, good to a few kJ/mol for most."""

KJ_PER_MOL = 96.485  # kJ/mol in one eV


def write_card(
    folder: Path, name: str, rows: Sequence[Row], bad: Sequence[Row], splits: Any
) -> None:
    """Write card.json and card.md of a set.

    Args:
        folder: of the shipped set.
        name: of it.
        rows: what was written.
        bad: what was not, with reasons.
        splits: how many rows each split has.
    """
    both, about = [*rows, *bad], ABOUT[name]
    formulas = Counter(row["formula"] for row in rows)
    kept = [row["spacegroup"] == row["spacegroup_start"] for row in rows]
    names = ("chgnet", "pymatgen", "torch", "smact", "spglib")
    card = {
        "name": name,
        **about,
        **WORDS,
        "command": f"{about['command']} && python scripts/build_data.py assemble",
        "rows": len(rows),
        "tried": len(both),
        "formulas": len(formulas),
        "formulas_with_polymorphs": sum(count > 1 for count in formulas.values()),
        "elements": len({z for row in rows for z in row["numbers"]}),
        "prototype_labels": len({row["prototype"] for row in rows}),
        "spacegroups": len({row["spacegroup"] for row in rows}),
        "spacegroup_kept": round(float(np.mean(kept)), 3),
        "mean_atoms": round(float(np.mean([len(row["numbers"]) for row in rows])), 2),
        "mean_steps": round(float(np.mean([row["steps"] for row in both])), 1),
        "seconds_per_candidate": round(float(np.mean([r["seconds"] for r in both])), 3),
        "smact_validity": round(smact_valid(formulas), 4),
        "splits": dict(splits),
        "rejected": dict(Counter(reason_kind(r["reason"]) for r in bad).most_common()),
        "units": UNITS,
        "versions": {name: version(name) for name in names},
    }
    write_data_card(folder, card | labels(rows))


def renew_card(folder: Path, rows: Sequence[Row]) -> None:
    """Write the cards of a set again after its labels have changed."""
    card = json.loads((folder / "card.json").read_text())
    again = " && python scripts/build_data.py relabel"
    card["command"] = card["command"].removesuffix(again) + again
    write_data_card(folder, card | labels(rows))


def labels(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what a card says of formation energies and distances to the hull."""
    hull, compared = Hull.shipped(), against_experiment(rows)
    off = [abs(row["difference"]) for row in compared] or [np.nan]
    formed = np.array([row["formation_energy_per_atom"] for row in rows])
    figures = {
        "hull_error": hull.error,
        "known_formulas": float(hull.known([row["formula"] for row in rows]).mean()),
        "negative_formation_energy": float((formed < 0).mean()),
        "mean_absolute_error_against_experiment": float(np.mean(off)),
    }
    out: dict[str, Any] = {key: round(value, 5) for key, value in figures.items()}
    for key in ("formation_energy_per_atom", "energy_above_hull"):
        values = [row[key] for row in rows]
        out[f"{key.removesuffix('_per_atom')}_quantiles"] = {
            str(q): round(float(np.quantile(values, q)), 4)
            for q in (0.05, 0.25, 0.5, 0.75, 0.95)
        }
    return {**out, "against_experiment": compared}


def against_experiment(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the lowest formation energy of each measured formula beside experiment.

    The label is an energy at rest, the experiment an enthalpy at 298 K; both in eV/atom.
    """
    from pymatgen.core import Composition

    lowest: dict[str, float] = {}
    for row in rows:
        energy, formula = float(row["formation_energy_per_atom"]), str(row["formula"])
        lowest[formula] = min(energy, lowest.get(formula, energy))
    out = []
    for entry in ENTHALPIES.strip().replace("\n", "|").split("|"):
        name, enthalpy = entry.split()
        composition = Composition(name)
        label = lowest.get(str(composition.reduced_formula))
        if label is not None:
            measured = float(enthalpy) / KJ_PER_MOL / composition.num_atoms
            values = {"label": label, "experiment": measured}
            values["difference"] = label - measured
            rounded = {key: round(value, 3) for key, value in values.items()}
            out.append({"formula": name, **rounded})
    return out


def reason_kind(reason: str) -> str:
    """The name of a reason without its figure: "short bond 0.52" -> "short bond"."""
    if reason.startswith("copy of"):
        return "copy of another"
    if reason.startswith("cannot be built"):
        return "cannot be built"
    return re.sub(r"\s*-?(\d[\d.]*|nan|inf)$", "", reason)


def smact_valid(formulas: Counter[str]) -> float:
    """Share of crystals whose composition smact holds valid (its default settings)."""
    from smact.screening import smact_validity

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        valid = sum(n for formula, n in formulas.items() if smact_validity(formula))
    return valid / sum(formulas.values())
