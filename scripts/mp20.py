"""Reduced MP-20, split by one fixed rule that every training and benchmark shares.

    python scripts/mp20.py mp_20_dev.parquet [--scale]

Reduced MP-20 is the part of MP-20 (Materials Project crystals of at most 20 atoms) that
holds its official validation split and some of its training split, 13,393 crystals. We
split it anew: 1,500 test rows and 500 validation rows, drawn by a seeded hash of the
Materials Project id, the rest for training. **The test rows are held out from all
training**, of generators and property networks alike; figures on them are ours, not the
official test split's.

The rule looks at ids only, so one compound may stand in two parts (as another polymorph,
or as a second entry of the same one), as it does in the official split.
"""

import argparse
import hashlib
import json
from pathlib import Path

from matdesign.crystals.batch import Crystals
from matdesign.crystals.data.catalogue import CATALOGUE
from matdesign.crystals.data.primitive import primitive_cells
from matdesign.crystals.io.parquet import read_parquet
from matdesign.errors import DataError

SEED = 20
TEST, VAL = 1_500, 500


def parts_of(
    ids: tuple[str, ...], *, test: int = TEST, val: int = VAL
) -> tuple[str, ...]:
    """Return the part of every row: "train", "val" or "test".

    Rows are put in order of the hash of their id; the first are test, the next
    validation. The order of the file does not matter.

    Raises:
        DataError: there are too few rows, or an id occurs twice.

    Example:
        >>> parts_of(("mp-1", "mp-2", "mp-3"), test=1, val=1)
        ('train', 'test', 'val')
    """
    if len(set(ids)) != len(ids) or len(ids) <= test + val:
        raise DataError(
            f"the split needs different ids and more than {test + val} rows; got "
            f"{len(ids)} rows with {len(set(ids))} ids. Give the whole table."
        )
    order = sorted(ids, key=lambda x: hashlib.sha256(f"{SEED}:{x}".encode()).digest())
    part = dict.fromkeys(order[:test], "test")
    part |= dict.fromkeys(order[test : test + val], "val")
    return tuple(part.get(one, "train") for one in ids)


def load_reduced(
    path: str | Path, *, test: int = TEST, val: int = VAL
) -> dict[str, Crystals]:
    """Return the parts of reduced MP-20, as Niggli-reduced primitive cells.

    The cells are found at the first call and kept; see `primitive_cells`.

    Returns:
        "train", "val" and "test" -> crystals with ids, the label `split` and the
        properties `formation_energy_per_atom` (eV/atom), `band_gap` (eV),
        `e_above_hull` (eV/atom) and `spacegroup`.

    Raises:
        DataError: the file is missing, has no ids, or too few rows.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the path of mp_20_dev.parquet.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    whole = read_parquet(path)
    if not whole.ids:
        raise DataError(f"{path} has no column `material_id`; the split needs it.")
    crystals = primitive_cells(whole)
    parts = parts_of(crystals.ids, test=test, val=val)
    crystals = crystals.replace(
        labels={**crystals.labels, "split": parts},
        units={**CATALOGUE["mp_20_dev"].units, **crystals.units},
        info={"dataset": "reduced MP-20", "source_sha256": digest},
    )
    names = ("train", "val", "test")
    at = {name: [i for i, one in enumerate(parts) if one == name] for name in names}
    return {name: crystals[rows] for name, rows in at.items()}


def main() -> None:
    """Make the parts and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="mp_20_dev.parquet")
    words = "measure the means and deviations that coverage standardises with, anew"
    parser.add_argument("--scale", action="store_true", help=words)
    args = parser.parse_args()
    parts = load_reduced(args.data)
    for name, crystals in parts.items():
        print(f"{name:5s} {len(crystals):6,d}  {crystals}")
    if args.scale:
        from matdesign.metrics.magpie import SCALE, measure_scale

        SCALE.write_text(json.dumps(measure_scale(parts["train"])) + "\n")
        print(f"wrote {SCALE}")


if __name__ == "__main__":
    main()
