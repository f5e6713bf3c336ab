"""Cards of the shipped sets: what, how made, figures, licence, checksums, command."""

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cards.page import WORDS, write_data_card
from pymatgen.core import Composition

from databuild.shards import Row
from matdesign.crystals.data.catalogue import CATALOGUE
from matdesign.loop.hull import Hull
from matdesign.loop.results import kind_of

UNITS = {"lattice": "angstrom", "frac_coords": "1", **CATALOGUE["prototypes"].units}
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
    both, words = [*rows, *bad], WORDS[name] | WORDS["every set"]
    formulas = Counter(row["formula"] for row in rows)
    kept = [row["spacegroup"] == row["spacegroup_start"] for row in rows]
    names = ("chgnet", "pymatgen", "torch", "smact", "spglib")
    card = {
        "name": name,
        **words,
        "command": f"{words['command']} && python scripts/build_data.py assemble",
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
    formed = pd.DataFrame(rows).groupby("formula")["formation_energy_per_atom"]
    lowest, out = formed.min().to_dict(), []
    for name, enthalpy in WORDS["enthalpies"].items():
        composition = Composition(name)
        label = lowest.get(str(composition.reduced_formula))
        if label is not None:
            measured = enthalpy / KJ_PER_MOL / composition.num_atoms
            values = {"label": label, "experiment": measured}
            values["difference"] = label - measured
            rounded = {key: round(value, 3) for key, value in values.items()}
            out.append({"formula": name, **rounded})
    return out


def reason_kind(reason: str) -> str:
    """Return a reason without its figure or id: "short bond 0.52" -> "short bond"."""
    return "copy of another" if reason.startswith("copy of") else kind_of(reason)


def smact_valid(formulas: Counter[str]) -> float:
    """Share of crystals whose composition smact holds valid (its default settings)."""
    from smact.screening import smact_validity

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        valid = sum(n for formula, n in formulas.items() if smact_validity(formula))
    return valid / sum(formulas.values())
