"""Measure what each guidance method buys and costs: constraint x method x family.

    python scripts/bench.py guidance --sets hard --n 500 --output hard.json
    python scripts/bench.py guidance --sets soft --n 200 --families vae

Hard constraints must hold for every crystal that is returned; the table says how many
were drawn for them. For soft constraints it compares the hit rate with that of unguided
crystals of the same model and with the best of N unguided ones at equal network
evaluations. Where a predictor guides, a second one, trained apart, judges, if it is
shipped. --sets gap asks models of MP-20 for a band gap (their training rows: --data).
--sets fresh asks for what no default was chosen on.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from mp20 import load_reduced

import matdesign as design
from bench.stages import checksum, code, kept
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.tables import text_table
from matdesign.teach import guide_table
from matdesign.teach.guide_table import Case, Cell, GuidanceTable, restored, unguided
from matdesign.teach.sampled import Sample

FAMILIES = ("vae", "coupling-flow", "flow-matching", "autoregressive", "diffusion")
SETS = ("hard", "soft", "gap", "fresh")
ENERGY = "formation_energy_per_atom"
SETTINGS = {"particles": 8}


def options(add: Callable[..., Any]) -> None:
    """Add what the command line takes."""
    add("--sets", nargs="+", choices=SETS, default=["hard", "soft"])
    add("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    add("--cases", nargs="+", help="only those with a word of these")
    add("--n", type=int, default=500, help="crystals in each cell")
    add("--pool", type=int, default=500, help="unguided ones")
    add("--data", type=Path, help="mp_20_dev.parquet, for --sets gap")
    add("--seed", type=int, default=0)


# ---- what is asked -------------------------------------------------------------------


def hard() -> list[Case]:
    """Return constraints that every returned crystal must meet."""
    light = ("Li", "Na", "K", "Mg", "Ca", "Sr", "Al", "Ti", "Zr", "O", "S", "F", "Cl")
    return [
        Case(design.OnlyElements(*light)),
        Case(design.RequiredElements("O")),
        Case(design.RequiredElements("Ti", "O")),
        Case(design.Composition("SrTiO3")),
        Case(design.Composition(pattern="ABX3")),
        Case(design.SpaceGroup(225)),
        Case(design.CrystalSystem("cubic")),
        Case(design.NumberOfAtoms(5)),
        Case(design.MinDistance(1.7)),
        Case(design.ChargeNeutral()),
    ]


def truth(crystals: Crystals) -> torch.Tensor:
    """Return formation energies by the potential that made all labels, eV/atom."""
    found = design.Potential().evaluate(crystals, forces=False)
    energies = design.Hull.shipped().formation_energy(crystals, found.energy_per_atom)
    return torch.as_tensor(energies, dtype=torch.float32)


def octahedra(metal: str, cutoff: float) -> Case:
    """Return the case of a metal with six oxygen neighbours."""
    wanted = design.Coordination(metal, "O", 6, cutoff=cutoff)
    return Case(wanted, given=design.RequiredElements(metal, "O"))


def energy(words: str, by: Any, judge: Any, given: Any = None, **span: float) -> Case:
    """Return the case of a formation energy, by one predictor, judged by another."""
    asked, judging = (design.Property(one, name=ENERGY, **span) for one in (by, judge))
    title = "the potential" if judge is truth else judge
    name = f"formation energy {words} eV/atom, by {by} (judge: {title})"
    return Case(asked, given=given, judge=judging, name=name)


def soft(train: Crystals) -> list[Case]:
    """Return constraints whose hit rate counts, on the shipped prototypes.

    The energy is asked twice: of a predictor that has seen relaxed and shaken crystals
    only, judged by one that has seen what generators make; and of that one, judged by
    the potential, both from crystals as they stand. The first is asked once more of
    charge-neutral crystals, guided and not: low energies alone pull ions out of balance.
    """
    most = round(float(train.properties[ENERGY].double().quantile(0.1)), 1)
    words, first, second = (
        f"of at most {most:g}",
        "energy-prototypes",
        "judge-prototypes",
    )
    neutral = design.ChargeNeutral()
    return [
        Case(design.Density(6, 6.5)),
        Case(design.VolumePerAtom(11, 12)),
        octahedra("Ti", 2.4),
        energy(words, first, second, high=most),
        energy(words, first, second, neutral, high=most),
        energy(words, second, truth, high=most),
    ]


def fresh() -> list[Case]:
    """Return constraints that nobody had measured when the guide's defaults were chosen."""
    first, second = "energy-prototypes", "judge-prototypes"
    return [
        Case(design.Density(3, 3.3)),
        Case(design.VolumePerAtom(19, 20)),
        octahedra("Al", 2.3),
        energy("from -1.2 to -1", first, second, low=-1.2, high=-1.0),
    ]


def band_gap(low: float, high: float) -> Case:
    """Return the case of a band gap in a range, eV."""
    wanted, judge = (
        design.Property(name, low, high, name="band_gap")
        for name in ("band-gap-mp20", "judge-band-gap")
    )
    return Case(wanted, judge=judge)


# ---- what is measured ----------------------------------------------------------------


def cells(
    args: argparse.Namespace, name: str, train: Crystals, cases: list[Case]
) -> Iterator[Cell]:
    """Yield the cells of a model, each made where it is not kept yet."""
    load = cache(partial(design.load_model, name))

    @cache
    def pool(given: str) -> Sample:
        print(f"{name}: {args.pool} unguided, given {given}", flush=True)
        (constraint, *_) = (one.given for one in cases if str(one.given) == given)
        return unguided(load(), constraint, args.pool, train, args.seed, SETTINGS)

    def make(case: Case) -> dict[str, Any]:
        free = pool(str(case.given))
        row = (load(), case, free, train, name, None, args.n, args.seed, SETTINGS)
        return asdict(guide_table.measure(*row))

    for case in cases:
        key = {
            "case": str(case),
            "judge": str(case.judge),
            "model": checksum(name),
            "code": code(),
            "n": [args.n, args.pool, args.seed],
            "settings": SETTINGS,
        }
        yield restored(kept(args.cache, key, partial(make, case)))


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the table so far."""
    found = GuidanceTable()
    for data, train, cases in asked(args):
        words = args.cases or [""]
        some = [one for one in cases if any(word in str(one) for word in words)]
        for name in [f"{family}-{data}" for family in args.families]:
            there = name in design.models()
            for cell in cells(args, name, train, some) if there else ():
                found = found.add(cell)
                print(GuidanceTable((cell,)).cells_as_text()[1][0], flush=True)
                yield {"cells": found.record()}


def asked(args: argparse.Namespace) -> list[tuple[str, Crystals, list[Case]]]:
    """Return what is asked of the models of each data set, with its training rows."""
    found = []
    train = design.load("prototypes", split="train")
    cases = hard() if "hard" in args.sets else []
    cases += soft(train) if "soft" in args.sets else []
    cases += fresh() if "fresh" in args.sets else []
    if cases:
        found.append(("prototypes", train, cases))
    gaps = [band_gap(1, 2)] if "gap" in args.sets else []
    gaps += [band_gap(3, 4)] if "fresh" in args.sets and args.data else []
    if gaps:
        if args.data is None:
            raise DataError("--sets gap needs the rows of MP-20: give --data FILE.")
        found.append(("mp20", load_reduced(args.data)["train"], gaps))
    return found


def table(record: dict[str, Any]) -> str:
    """Return all cells as text."""
    found = tuple(restored(one) for one in record.get("cells", ()))
    return text_table(*GuidanceTable(found).cells_as_text())
