"""Time `evaluate` against the number of crystals, on easy and on worst-case batches.

    python scripts/bench_evaluate.py [--most 4000] [--output FILE.json]

Seconds are processor seconds of one thread, so that a busy machine does not count.
Doubling the crystals should about double the seconds. The exponent printed at the end
of a batch is the slope of log(seconds) against log(crystals) over the two largest runs:
1 is linear, 2 would be the quadratic cost of comparing every pair.

Batches: `compounds` has many formulas, as a generator's output does; `one formula` has
different crystals of one formula and one cell size, so that every pair could match; and
`many elements` has 14 elements in each crystal, where listing every choice of oxidation
states would not end.
"""

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path

import torch

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, generator
from matdesign.metrics.evaluator import evaluate
from matdesign.metrics.summary import text_table

STATES = "Li Na Mg Ti Mn Fe Co Ni Mo W O S F Cl".split()


def boxes(species: torch.Tensor, seed: int) -> Crystals:
    """Return crystals with atoms strewn in skewed boxes, 16 cubic angstrom per atom."""
    random = generator(seed)
    b, s = species.shape
    skew = torch.eye(3) + 0.25 * torch.randn(b, 3, 3, generator=random)
    shape = skew / torch.linalg.det(skew).abs().pow(1 / 3)[:, None, None]
    frac = torch.rand(b, s, 3, generator=random)
    return Crystals(species, frac, (16.0 * s) ** (1 / 3) * shape)


def compounds(n: int) -> Crystals:
    """Return 10-atom crystals A B C D O6 of random metals; formulas hardly repeat."""
    metals = elements.table("metal").nonzero().squeeze(1)
    metals = metals[metals < 84]
    pick = metals[torch.randint(len(metals), (n, 4), generator=generator(1))]
    return boxes(torch.cat([pick, torch.full((n, 6), 8)], dim=1), 2)


def one_formula(n: int) -> Crystals:
    """Return n different 8-atom carbons: one bucket for the matcher."""
    return boxes(torch.full((n, 8), 6), 3)


def many_elements(n: int) -> Crystals:
    """Return 30-atom crystals of 14 elements, each with its own formula."""
    kinds = torch.tensor([elements.atomic_number(s) for s in STATES])
    extra = kinds[torch.randint(14, (n, 16), generator=generator(4))]
    return boxes(torch.cat([kinds.repeat(n, 1), extra], dim=1), 5)


BATCHES = {
    "compounds": compounds,
    "one formula": one_formula,
    "many elements": many_elements,
}


def measure(most: int) -> list[dict]:
    """Return one row per batch and size: crystals, seconds."""
    evaluate(compounds(4))  # imports and tables, paid once
    rows = []
    for name, make in BATCHES.items():
        # the worst case pays for up to 20 comparisons per crystal
        top = most // 8 if name == "one formula" else most
        for n in (top // 4, top // 2, top):
            batch = make(n)
            start = time.process_time()
            judged = evaluate(batch)
            seconds = time.process_time() - start
            unique = judged["uniqueness"].value
            rows.append(
                {"batch": name, "crystals": n, "seconds": seconds, "unique": unique}
            )
    return rows


def exponent(rows: list[dict]) -> float:
    """Return the growth of the seconds over the last doubling."""
    before, last = rows[-2:]
    return math.log(last["seconds"] / before["seconds"]) / math.log(
        last["crystals"] / before["crystals"]
    )


def main() -> None:
    """Measure, print, and write a record where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=4000, help="largest batch")
    parser.add_argument("--output", type=Path, help="JSON record to write")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(given.most)
    table = [
        [
            r["batch"],
            str(r["crystals"]),
            f"{r['seconds']:.2f}",
            f"{1000 * r['seconds'] / r['crystals']:.2f}",
            f"{r['unique']:.3f}",
        ]
        for r in rows
    ]
    head = ["batch", "crystals", "seconds", "ms per crystal", "unique"]
    print(text_table(head, table))
    growth = {
        name: exponent([r for r in rows if r["batch"] == name]) for name in BATCHES
    }
    for name, value in growth.items():
        print(f"{name}: seconds grow as crystals^{value:.2f} over the last doubling")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread"
    print(machine)
    if given.output:
        record = {"machine": machine, "rows": rows, "exponent": growth}
        given.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
