"""Measure what each guidance method buys and costs: constraint x method x family.

    python scripts/bench_guidance.py --sets hard --n 500 --output hard.json
    python scripts/bench_guidance.py --sets soft --n 200 --methods chosen gradient steer

Hard constraints must hold for every crystal that is returned; the table says how many
were drawn for them. For soft constraints it compares the hit rate with that of unguided
crystals of the same model and with the best of N unguided ones at equal network
evaluations. Where a predictor guides, a second one, trained apart, judges, if it is
shipped. --sets gap asks models of MP-20 for a band gap (their training rows: --data).
--sets fresh asks for what no default was chosen on.

Every cell is kept in --cache: start the same command again and it continues.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from machine import command, hardware
from quality_stages import checksum, weights_of

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.storage import write_atomic
from matdesign.metrics.summary import text_table
from matdesign.teach.guide_rows import Case, Cell, Free, measure, restored, unguided
from matdesign.teach.guide_table import GuidanceTable

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ("vae", "coupling-flow", "flow-matching", "autoregressive", "diffusion")
ENERGY = "formation_energy_per_atom"
LOSS = 0.05
"""Most validity that a guide may cost."""

GAIN = 3.0
"""Least gain of a guide over no guide."""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=("hard", "soft", "gap", "fresh"),
        default=["hard", "soft"],
    )
    parser.add_argument(
        "--methods", nargs="+", default=["chosen"], help="chosen: what the guide takes"
    )
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--cases", nargs="+", help="only those with a word of these")
    parser.add_argument("--n", type=int, default=500, help="crystals in each cell")
    parser.add_argument("--pool", type=int, default=500, help="unguided ones")
    parser.add_argument("--steps", type=int, help="the model's own if left out")
    parser.add_argument("--particles", type=int, default=8)
    parser.add_argument("--data", type=Path, help="mp_20_dev.parquet, for --sets gap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "guidance")
    parser.add_argument(
        "--output", type=Path, help="JSON file; in the cache if left out"
    )
    return parser.parse_args(given)


def hard() -> list[Case]:
    """Return constraints that every returned crystal must meet."""
    light = ("Li", "Na", "K", "Mg", "Ca", "Sr", "Al", "Ti", "Zr", "O", "S", "F", "Cl")
    return [
        Case(one)
        for one in (
            design.OnlyElements(*light),
            design.RequiredElements("O"),
            design.RequiredElements("Ti", "O"),
            design.Composition("SrTiO3"),
            design.Composition(pattern="ABX3"),
            design.SpaceGroup(225),
            design.CrystalSystem("cubic"),
            design.NumberOfAtoms(5),
            design.MinDistance(1.7),
            design.ChargeNeutral(),
        )
    ]


def truth(crystals: Crystals) -> torch.Tensor:
    """Return formation energies by the potential that made all labels, eV/atom."""
    found = design.Potential().evaluate(crystals, forces=False)
    energies = design.Hull.shipped().formation_energy(crystals, found.energy_per_atom)
    return torch.as_tensor(energies, dtype=torch.float32)


def soft(train: Crystals) -> list[Case]:
    """Return constraints whose hit rate counts, on the shipped prototypes.

    The energy is asked twice: of a predictor that has seen relaxed and shaken crystals
    only, judged by one that has seen what generators make; and of that one, judged by
    the potential, both from crystals as they stand. The first is asked once more of
    charge-neutral crystals, guided and not: low energies alone pull ions out of balance.
    """
    most = round(float(train.properties[ENERGY].double().quantile(0.1)), 1)

    def low(predictor: Any, name: str = ENERGY) -> design.Constraint:
        return design.Property(predictor, high=most, name=name)

    words = f"formation energy of at most {most:g} eV/atom, by"
    return [
        Case(design.Density(6, 6.5)),
        Case(design.VolumePerAtom(11, 12)),
        Case(
            design.Coordination("Ti", "O", 6, cutoff=2.4),
            given=design.RequiredElements("Ti", "O"),
        ),
        Case(
            low("energy-prototypes"),
            judge=low("judge-prototypes"),
            name=f"{words} energy-prototypes (judge: judge-prototypes)",
        ),
        Case(
            low("energy-prototypes"),
            given=design.ChargeNeutral(),
            judge=low("judge-prototypes"),
            name=f"{words} energy-prototypes (judge: judge-prototypes)",
        ),
        Case(
            low("judge-prototypes"),
            judge=low(truth),
            name=f"{words} judge-prototypes (judge: the potential)",
        ),
    ]


def fresh() -> list[Case]:
    """Return wishes that nobody had measured when the guide's defaults were chosen."""

    def energy(predictor: Any) -> design.Constraint:
        return design.Property(predictor, -1.2, -1.0, name=ENERGY)

    return [
        Case(design.Density(3, 3.3)),
        Case(design.VolumePerAtom(19, 20)),
        Case(
            design.Coordination("Al", "O", 6, cutoff=2.3),
            given=design.RequiredElements("Al", "O"),
        ),
        Case(
            energy("energy-prototypes"),
            judge=energy("judge-prototypes"),
            name="formation energy from -1.2 to -1 eV/atom, by energy-prototypes "
            "(judge: judge-prototypes)",
        ),
    ]


def band_gap(low: float, high: float) -> Case:
    """Return the case of a band gap in a range, eV."""
    wanted, judge = (
        design.Property(name, low, high, name="band_gap")
        for name in ("band-gap-mp20", "judge-band-gap")
    )
    return Case(wanted, judge=judge)


def gap() -> list[Case]:
    """Return the band gap of a solar cell's neighbourhood, for models of MP-20."""
    return [band_gap(1, 2)]


class Bench:
    """The cells of the table, kept one by one.

    Args:
        args: the command line.
        train: training crystals.
    """

    def __init__(self, args: argparse.Namespace, train: Crystals) -> None:
        self.args, self.train = args, train
        self.free: dict[tuple[str, str], Free] = {}
        self.settings: dict[str, Any] = {"particles": args.particles}
        if args.steps:
            self.settings["steps"] = args.steps

    def pool(self, name: str, case: Case) -> Free:
        """Return the unguided crystals beside a case."""
        key = (name, str(case.given))
        if key not in self.free:
            print(f"{name}: {self.args.pool} unguided, given {case.given}", flush=True)
            self.free[key] = unguided(
                design.load_model(name),
                case.given,
                self.args.pool,
                self.train,
                self.args.seed,
                self.settings,
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
        text = json.dumps(key, sort_keys=True)
        path = args.cache / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        if path.is_file():
            return restored(json.loads(path.read_text()))
        cell = measure(
            design.load_model(name),
            case,
            self.pool(name, case),
            self.train,
            name,
            None if method == "chosen" else method,
            args.n,
            args.seed,
            self.settings,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(asdict(cell)).encode())
        return cell


def verdicts(cells: Iterable[Cell]) -> list[str]:
    """Return which bars are met, hard and soft."""
    cells = list(cells)
    lines = []
    sure = [c for c in cells if c.hard]
    if sure:
        held = [c for c in sure if c.guided and c.guided.met == c.guided.n]
        refused = [c for c in sure if c.guided is None]
        lines.append(
            f"hard: {len(held)} of {len(sure)} cells hold for every crystal, "
            f"{len(refused)} refused beforehand"
        )
        lines += [f"  refused: {c.case}, {c.model}: {c.refused}" for c in refused]
    wished = [c for c in cells if not c.hard and c.guided]
    if wished:
        good = [c for c in wished if meets(c)]
        lines.append(
            f"soft: {len(good)} of {len(wished)} cells gain {GAIN:g} times, beat the best "
            f"of N and lose less than {100 * LOSS:g} points of validity"
        )
        lines += [
            f"  missed: {c.case}, {c.model}, {c.method}: gain {c.gain:.1f}, "
            f"{'above' if c.beats_best else 'not above'} the best of {c.of}, validity "
            f"{-100 * c.validity_loss:+.1f} points"
            for c in wished
            if not meets(c)
        ]
    return lines


def meets(cell: Cell) -> bool:
    """Return whether a soft cell meets all bars."""
    tiny = 1e-9  # of counts divided by counts
    valid = cell.validity_loss < LOSS - tiny
    return cell.gain >= GAIN - tiny and cell.beats_best and valid


def write(args: argparse.Namespace, table: GuidanceTable) -> None:
    """Write the cells so far."""
    found = {
        "command": command("bench_guidance.py", sys.argv[1:]),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cells": table.record(),
        "verdicts": verdicts(table.cells),
    }
    path = args.output or args.cache / "guidance.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(found, indent=1) + "\n").encode())


def work(args: argparse.Namespace) -> GuidanceTable:
    """Return the table, written after every cell."""
    table = GuidanceTable()
    plans: list[tuple[str, Bench, list[Case]]] = []
    if {"hard", "soft", "fresh"} & set(args.sets):
        train = design.load("prototypes", split="train")
        bench = Bench(args, train)
        cases = hard() if "hard" in args.sets else []
        cases += soft(train) if "soft" in args.sets else []
        cases += fresh() if "fresh" in args.sets else []
        plans.append(("prototypes", bench, cases))
    if "gap" in args.sets or ("fresh" in args.sets and args.data):
        if args.data is None:
            raise DataError("--sets gap needs the rows of MP-20: give --data FILE.")
        from mp20 import load_reduced

        gaps = gap() if "gap" in args.sets else []
        gaps += [band_gap(3, 4)] if "fresh" in args.sets else []
        plans.append(("mp20", Bench(args, load_reduced(args.data)["train"]), gaps))
    for data, bench, cases in plans:
        names = [f"{family}-{data}" for family in args.families]
        for name in [one for one in names if one in design.models()]:
            for case in cases:
                if args.cases and not any(word in str(case) for word in args.cases):
                    continue
                for method in args.methods:
                    cell = bench.cell(name, case, method)
                    table = table.add(cell)
                    print(GuidanceTable((cell,)).cells_as_text()[1][0], flush=True)
                    write(args, table)
    return table


def main(given: list[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    args = arguments(given)
    torch.set_num_threads(1)
    try:
        table = work(args)
    except DataError as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    print(text_table(*table.cells_as_text()))
    print("\n".join(verdicts(table.cells)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
