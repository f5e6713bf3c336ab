"""Measure what each guidance method buys and costs: constraint x method x family.

    python scripts/bench.py guidance --sets hard --n 500 --output hard.json
    python scripts/bench.py guidance --sets soft --n 200 --methods chosen gradient steer

Hard constraints must hold for every crystal that is returned; the table says how many
were drawn for them. For soft constraints it compares the hit rate with that of unguided
crystals of the same model and with the best of N unguided ones at equal network
evaluations. Where a predictor guides, a second one, trained apart, judges, if it is
shipped. --sets gap asks models of MP-20 for a band gap (their training rows: --data).
--sets fresh asks for what no default was chosen on.

Every cell is kept in --cache: start the same command again and it continues.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from machine import command, hardware
from mp20 import load_reduced

import matdesign as design
from bench.stages import ROOT, checksum, kept, weights_of, write_record
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.tables import text_table
from matdesign.teach.guide_table import (
    Case,
    Cell,
    GuidanceTable,
    measure,
    restored,
    unguided,
)
from matdesign.teach.sampled import Sample

FAMILIES = ("vae", "coupling-flow", "flow-matching", "autoregressive", "diffusion")
SETS = ("hard", "soft", "gap", "fresh")
ENERGY = "formation_energy_per_atom"


def arguments(given: list[str]) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        "bench.py guidance", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=["hard", "soft"])
    add("--methods", nargs="+", default=["chosen"], help="chosen: what the guide takes")
    add("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    add("--cases", nargs="+", help="only those with a word of these")
    add("--n", type=int, default=500, help="crystals in each cell")
    add("--pool", type=int, default=500, help="unguided ones")
    add("--steps", type=int, help="the model's own if left out")
    add("--particles", type=int, default=8)
    add("--data", type=Path, help="mp_20_dev.parquet, for --sets gap")
    add("--seed", type=int, default=0)
    add("--cache", type=Path, default=ROOT / "build" / "guidance")
    add("--output", type=Path, help="JSON file; in the cache if left out")
    return parser.parse_args(given)


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


class Bench:
    """The cells of the table, kept one by one.

    Args:
        args: the command line.
        train: training crystals.
    """

    def __init__(self, args: argparse.Namespace, train: Crystals) -> None:
        self.args, self.train = args, train
        self.free: dict[tuple[str, str], Sample] = {}
        self.settings: dict[str, Any] = {"particles": args.particles}
        if args.steps:
            self.settings["steps"] = args.steps

    def pool(self, name: str, case: Case) -> Sample:
        """Return the unguided crystals beside a case."""
        key, args = (name, str(case.given)), self.args
        if key not in self.free:
            print(f"{name}: {args.pool} unguided, given {case.given}", flush=True)
            model, n = design.load_model(name), args.pool
            self.free[key] = unguided(
                model, case.given, n, self.train, args.seed, self.settings
            )
        return self.free[key]

    def cell(self, name: str, case: Case, method: str) -> Cell:
        """Return one cell, made where it is not kept yet."""
        args = self.args
        key = {
            "case": str(case),
            "judge": str(case.judge),
            "model": checksum(weights_of(name)),
            "method": method,
            "n": [args.n, args.pool, args.seed],
            "settings": self.settings,
        }

        def make() -> dict[str, Any]:
            model, free = design.load_model(name), self.pool(name, case)
            way = None if method == "chosen" else method
            return asdict(
                measure(
                    model, case, free, self.train, name, way, args.n, args.seed,
                    self.settings,
                )
            )  # fmt: skip

        return restored(kept(args.cache, key, make))


def work(args: argparse.Namespace) -> GuidanceTable:
    """Return the table, written after every cell."""
    path = args.output or args.cache / "guidance.json"
    table = GuidanceTable()
    for data, train, cases in asked(args):
        bench = Bench(args, train)
        names = [f"{family}-{data}" for family in args.families]
        for name in [one for one in names if one in design.models()]:
            for case in cases:
                if args.cases and not any(word in str(case) for word in args.cases):
                    continue
                for method in args.methods:
                    cell = bench.cell(name, case, method)
                    table = table.add(cell)
                    print(GuidanceTable((cell,)).cells_as_text()[1][0], flush=True)
                    record = {
                        "command": command("bench.py", ["guidance", *args.words]),
                        "hardware": hardware(),
                        "threads": torch.get_num_threads(),
                        "cells": table.record(),
                    }
                    write_record(path, record)
    return table


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


def main(given: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    args = arguments(given)
    args.words = given
    torch.set_num_threads(1)
    try:
        table = work(args)
    except DataError as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    print(text_table(*table.cells_as_text()))
    return 0
