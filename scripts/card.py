"""Measure a shipped model, generator or property network, and write its card.

    python scripts/card.py diffusion-prototypes --relax 200
    python scripts/card.py flow-matching-mp20 --mp20 mp_20_dev.parquet --coverage --predict 500
    python scripts/card.py band-gap-mp20 --mp20 mp_20_dev.parquet --aim band_gap=0.4

Writes data/models/NAME/card.json and card.md, with what was aimed at and by how much it
was missed. Of a generator, crystals are drawn with a fixed seed and judged against its
training set (design.evaluate). For "symmetric" models spglib is asked whether every
crystal has the space group that it was laid out in; --relax relaxes some and measures
their distance to the shipped hull; --predict asks for the compositions of held-out
crystals and counts how many of their structures come out. A property network is judged
on the test part, which no choice was made on, on shaken test crystals, and, where it
judges another one, on crystals that generators made (scripts/labels.py). Everything slow
is kept: start the same command again and it continues.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from bench.stages import CACHE
from cards import generator, predictor
from machine import command, hardware
from train import parts

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.shipped import NETWORK
from matdesign.paths import data_dir


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("name", help="one of design.models() or design.property_networks()")
    add("--mp20", help="mp_20_dev.parquet, for models trained on it")
    add("--rewrite", action="store_true", help="only the page, from the figures it has")
    add = parser.add_argument_group("generators").add_argument
    add("--samples", type=int, default=1_000)
    add("--relax", type=int, default=0, help="how many to relax")
    add("--predict", type=int, default=0, help="structures to predict")
    add("--coverage", action="store_true", help="COV-R and COV-P")
    add("--workers", type=int, default=2)
    add("--cache", type=Path, default=CACHE)
    add = parser.add_argument_group("property networks").add_argument
    add("--aim", nargs="*", default=[], metavar="NAME=MAE")
    return parser.parse_args(given)


def data_of(record: dict[str, Any], mp20: str | None) -> dict[str, Crystals]:
    """Return the parts of the data that a model was trained on."""
    data = str(record["data"])
    if data in ("mp20", "reduced MP-20"):
        if mp20 is None:
            raise DataError(
                "this model was trained on reduced MP-20; give --mp20 PATH."
            )
        data = f"mp20={mp20}"
    return parts(data)[1]


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Measure, write, and return the card."""
    args = arguments(given)
    torch.set_num_threads(1)
    folder = data_dir() / "models" / args.name
    facts = json.loads((folder / storage.FACTS).read_text())
    kind: Any = predictor if facts["class"] == NETWORK else generator
    if args.rewrite:
        card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    else:
        card = kind.measured(args, data_of(facts["record"], args.mp20))
        card |= {
            "hardware": hardware(),
            "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "command": command("card.py", sys.argv[1:] if given is None else given),
            "licence": "MIT",
        }
        text = json.dumps(card, indent=1) + "\n"
        storage.write_atomic(folder / "card.json", text.encode())
    page: str = kind.page(card)
    storage.write_atomic(folder / "card.md", page.encode())
    print(page)
    return card


if __name__ == "__main__":
    main()
