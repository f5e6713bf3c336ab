"""Known compounds, and the element references that put potentials on their scale.

    python scripts/build_references.py mp_formation_energies.parquet mp_20_dev.parquet
    python scripts/build_references.py ... --potential 7net-l3i5 --crystals 1200
    python scripts/bench.py hull mp_20_dev.parquet

1. Known compounds. The first table holds the lowest formation energy of 95,118 formulas
   of the Materials Project (matbench_mp_e_form, with the anion corrections of 2019), the
   second the crystals of reduced MP-20, whose formation energies carry other corrections.
   One shift per element, fitted robustly to the formulas that both have, maps the first
   onto the second; the union is written to data/references/compounds.parquet. Where both
   know a formula, MP-20's value is taken, or the shifted one if that is lower (reduced
   MP-20 may hold only a metastable crystal of it), down to the Materials Project's hull.
2. Calibration. Energies of the potential for the crystals of reduced MP-20, as they stand
   there, minus their formation energies by density functional theory, are fitted with one
   number per element; data/references/NAME.json holds these with the error on crystals
   left out.

Energies of the potentials are kept under build/references, in parts, so a run that is
stopped goes on where it was.
"""

import argparse
import json
import re
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench.stages import digest, kept
from cards.page import WORDS, write_data_card
from numpy.typing import NDArray
from pymatgen.io.ase import AseAtomsAdaptor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.elements import MAX_Z, atomic_number, parse_formula, symbols
from matdesign.crystals.io.parquet import read_parquet
from matdesign.loop.calibration import Calibration, fit_elements, held_out

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "references"
CACHE = ROOT / "build" / "references"
PART = 200
"""Crystals whose energies are kept together."""

SEED = 1
"""Of the crystals drawn for a slow potential."""

SHIPPED = {
    "chgnet-0.3.0": "CHGNet 0.3.0",
    "chgnet-r2scan": "CHGNet r2scan",
    "7net-l3i5": "7net-l3i5",
}
"""Calibrated potentials: file name and name."""

RAW = ("7net-l3i5",)
"""Potentials of energies as they were computed, see `Calibration`."""

COMMAND = (
    "python scripts/build_references.py mp_formation_energies.parquet mp_20_dev.parquet"
)
DFT, ABOVE = "formation_energy_per_atom", "e_above_hull"


# ---- known compounds --------------------------------------------------------------


def flat(formula: str) -> str:
    """Return a reduced formula with its elements in alphabetic order.

    Example:
        >>> flat("Sr2(TiO3)2"), flat("O2")
        ('O3SrTi', 'O')
    """
    amounts = sorted((symbols()[z], n) for z, n in parse_formula(formula).items())
    return "".join(f"{s}{n}" if n > 1 else s for s, n in amounts)


def lowest(path: Path, value: str = DFT) -> dict[str, float]:
    """Return the lowest value of every formula of a table, eV/atom."""
    table = pq.read_table(path, columns=["formula", value]).to_pandas()
    return dict(table.groupby(table.formula.map(flat))[value].min().items())


def union(
    shifted: dict[str, float], new: dict[str, float], above: dict[str, float]
) -> dict[str, float]:
    """Return the energy of every formula of two tables, eV/atom.

    Where both know one, the lower value counts; but the shifted one carries the error of
    the shift, so it counts no further than down to the hull of the second table, which
    lies `above` below its value.

    Example:
        >>> union({"U": -3.0, "V": -3.0, "W": -2.0}, {"U": -2.0, "V": -2.9}, {"U": 0.08, "V": 0.0})
        {'U': -2.08, 'V': -2.9, 'W': -2.0}
    """
    both = {
        f: min(energy, max(shifted.get(f, energy), energy - above[f]))
        for f, energy in new.items()
    }
    return shifted | both


def content(formulas: list[str]) -> NDArray[np.float64]:
    """Return the fraction of every element, shape (formulas, 104), by atomic number."""
    counts = np.zeros((len(formulas), MAX_Z + 1))
    for row, formula in zip(counts, formulas, strict=True):
        for z, count in parse_formula(formula).items():
            row[z] = count
    return counts / counts.sum(1, keepdims=True)


def compounds(wide: Path, reduced: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Return the table of known compounds, and the figures of the shift.

    Returns:
        Rows in order of their chemical system: formula, formation energy (eV/atom) and
        source. Elements are left out: they are 0 by definition.
    """
    old, new = lowest(wide), lowest(reduced)
    both = sorted(set(old) & set(new))
    difference = np.array([new[f] - old[f] for f in both])
    shifts, left = fit_elements(content(both), difference)
    after, shape = held_out(left)
    by_number = np.zeros(MAX_Z + 1)
    for symbol, shift in shifts.items():
        by_number[atomic_number(symbol)] = shift
    names = sorted(old)
    moved = np.array([old[f] for f in names]) + content(names) @ by_number
    shifted = dict(zip(names, moved.tolist(), strict=True))
    energy = union(shifted, new, lowest(reduced, ABOVE))
    several = (f for f in energy if sum(map(str.isupper, f)) > 1)
    formulas = sorted(several, key=lambda f: (re.sub("[0-9]", "", f), f))
    theirs = {f for f in new if energy[f] == new[f]}
    source = [
        "MP-20" if f in theirs else "matbench_mp_e_form, shifted" for f in formulas
    ]
    table = pa.table(
        {
            "formula": formulas,
            DFT: pa.array([round(energy[f], 4) for f in formulas], pa.float32()),
            "source": pa.array(source).dictionary_encode(),
        }
    )
    off = "after it, on formulas left out of the fit (eV/atom)"
    figures = {
        "mean absolute difference before the shift (eV/atom)": np.abs(
            difference
        ).mean(),
        off: after,
        "median after it (eV/atom)": shape["median"],
        "90 % after it (eV/atom)": shape["90 %"],
    }
    figures = {key: round(float(value), 4) for key, value in figures.items()}
    figures["formulas that both tables know"] = len(both)
    figures["of these lower by the shifted value"] = len(set(new) - theirs)
    figures["elements"] = len({s for f in energy for s in re.findall("[A-Z][a-z]?", f)})
    return table, figures


# ---- calibration ------------------------------------------------------------------


@cache
def evaluator(name: str) -> Callable[[Crystals], NDArray[np.float64]]:
    """Return a function that gives the energies of a potential, eV/atom."""
    torch.set_num_threads(1)
    if name.startswith("chgnet-"):
        from matdesign.loop.potential import Potential

        potential = Potential(name.removeprefix("chgnet-"))
        return lambda some: potential.evaluate(some, forces=False).energy_per_atom
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(name, device="cpu")

    def one_by_one(some: Crystals) -> NDArray[np.float64]:
        atoms = [AseAtomsAdaptor.get_atoms(one) for one in some]
        return np.array([calculator.get_potential_energy(a) / len(a) for a in atoms])

    return one_by_one


def energies(name: str, crystals: Crystals) -> NDArray[np.float64]:
    """Return the energies of crystals as they stand, eV/atom; each part is kept."""
    found = list[float]()
    for at in range(0, len(crystals), PART):
        part = crystals[at : at + PART]
        key = {"potential": name, "crystals": digest(part)}
        found += kept(CACHE, key, partial(computed, name, part))
    return np.array(found)


def computed(name: str, part: Crystals) -> list[float]:
    """Return the energies of some crystals, eV/atom, by the potential."""
    print(f"{name}: {len(part)} crystals", flush=True)
    return list(evaluator(name)(part).tolist())


def calibrate(name: str, crystals: Crystals) -> Calibration:
    """Return the calibration of a shipped potential by reduced MP-20."""
    known = crystals.properties[DFT].double().numpy()
    return Calibration.fit(
        SHIPPED[name], crystals, energies(name, crystals), known, raw=name in RAW
    )


# ---- the card ---------------------------------------------------------------------


def write_card(changes: dict[str, Any], folder: Path = FOLDER) -> None:
    """Write card.json and card.md of the references; other entries stay as they are."""
    path = folder / "card.json"
    card = json.loads(path.read_text()) if path.is_file() else {}
    write_data_card(
        folder, {**card, **WORDS["references"], **changes, "units": {DFT: "eV/atom"}}
    )


def main(arguments: list[str] | None = None) -> None:
    """Write the compounds and the calibrations of the default potentials, or of one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wide", type=Path, help="mp_formation_energies.parquet")
    parser.add_argument("reduced", type=Path, help="mp_20_dev.parquet")
    parser.add_argument("--potential", choices=SHIPPED, help="calibrate only this one")
    parser.add_argument("--crystals", type=int, help="a random part, for slow ones")
    args = parser.parse_args(arguments)
    FOLDER.mkdir(parents=True, exist_ok=True)
    changes: dict[str, Any] = {}
    if not args.potential:
        table, shift = compounds(args.wide, args.reduced)
        file = FOLDER / "compounds.parquet"
        pq.write_table(table, file, compression="zstd", compression_level=19)
        formulas, sources = (table[key].to_pylist() for key in ("formula", "source"))
        changes["known compounds"] = {
            "compounds": len(table),
            "of these with MP-20's value": sources.count("MP-20"),
            "chemical systems": len({re.sub("[0-9]", "", f) for f in formulas}),
            **shift,
        }
        check = "python scripts/bench.py hull mp_20_dev.parquet --relax 200"
        changes["command"] = f"{COMMAND} && {check}"
    crystals = read_parquet(args.reduced)
    if args.crystals:
        drawn = np.random.default_rng(SEED).permutation(len(crystals))[: args.crystals]
        crystals = crystals[drawn.tolist()]
    options = f" --potential {args.potential}" if args.potential else ""
    options += f" --crystals {args.crystals}" if args.crystals else ""
    for name in [args.potential] if args.potential else list(SHIPPED)[:2]:
        made = calibrate(name, crystals)
        made.write(FOLDER / f"{name}.json")
        changes[f"calibration of {made.name}"] = {
            "crystals": made.crystals,
            **({"command": COMMAND + options} if options else {}),
            "elements": len(made.elements),
            "mean absolute error on crystals left out (eV/atom)": made.error,
            **{f"{q} of it (eV/atom)": e for q, e in made.held_out.items()},
        }
        print(made.name, made.error, made.held_out)
    versions = {name: version(name) for name in ("chgnet", "torch", "scipy", "pyarrow")}
    write_card({**changes, "versions": versions})


if __name__ == "__main__":
    main()
