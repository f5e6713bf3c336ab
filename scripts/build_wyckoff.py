"""Write the table of Wyckoff positions, matdesign/assets/wyckoff.json.

Usage:
    python scripts/build_wyckoff.py

Points on special positions are drawn from the operations of each group; moyopy says
which position of the International Tables each one is. A group is complete when every
letter up to that of its general position was met.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from matdesign.crystals.lattice_code import family
from matdesign.crystals.symmetry.find import find_symmetry
from matdesign.crystals.symmetry.wyckoff import images, operations, unit

Array = np.ndarray[Any, Any]
TABLE = Path(__file__).resolve().parents[1] / "matdesign" / "assets" / "wyckoff.json"

CELLS = {
    "triclinic": [[14.2, 0, 0], [1.8, 16.6, 0], [2.2, 1.4, 19.4]],
    "monoclinic": [[14.2, 0, 0], [0, 16.6, 0], [3.4, 0, 19.4]],
    "orthorhombic": [[14.2, 0, 0], [0, 16.6, 0], [0, 0, 19.4]],
    "tetragonal": [[14.2, 0, 0], [0, 14.2, 0], [0, 0, 19.4]],
    "hexagonal": [[14.2, 0, 0], [-7.1, 7.1 * 3**0.5, 0], [0, 0, 19.4]],
    "cubic": [[14.2, 0, 0], [0, 14.2, 0], [0, 0, 14.2]],
}
"""A cell of each family with no other symmetry, angstrom."""


def main() -> None:
    """Write the table of all groups."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = [f'"{n}": {json.dumps(positions_of(n))}' for n in range(1, 231)]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def positions_of(number: int, seed: int = 0, tries: int = 40_000) -> list[str]:
    """Return multiplicity, site symmetry and coordinates by letter, one text each."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    need = None
    for _ in range(tries):
        if need is not None and len(found) == need:
            return [found[letter] for letter in sorted(found, key=order)]
        one = identify(number, special_point(number, rng), rng)
        if one is None:
            continue
        text = f"{one.multiplicity} {one.site_symmetry} {one.coordinates}"
        if found.setdefault(one.letter, text) != text:
            raise RuntimeError(f"two positions {one.letter} in group {number}")
        if one.multiplicity == len(operations(number)[0]):
            need = order(one.letter) + 1
    raise RuntimeError(f"group {number}: only {sorted(found)} met; raise tries")


def order(letter: str) -> int:
    """Return the place of a letter: a is 0, z 25 and A, of group 47 alone, 26."""
    return ord(letter) - ord("a") if letter.islower() else 26


def special_point(number: int, rng: np.random.Generator) -> Array:
    """Return a point, often on eighths, that up to three operations leave in place."""
    rotations, translations = operations(number)
    eighths = rng.integers(0, 8, 3) / 8
    point = np.where(rng.random(3) < rng.random(), eighths, rng.random(3))
    left, right = np.zeros((0, 3)), np.zeros(0)
    for _ in range(rng.integers(0, 4)):
        at, reach = rng.integers(len(rotations)), rng.integers(1, 4)
        whole = rng.integers(-reach, reach + 1, 3)
        rows = np.concatenate([left, rotations[at] - np.eye(3)])
        values = np.concatenate([right, -translations[at] - whole])
        solution = np.linalg.pinv(rows) @ values
        if np.allclose(rows @ solution, values):
            left, right = rows, values
    if len(left):
        point = point + np.linalg.pinv(left) @ (right - left @ point)
    return unit(point)


def identify(number: int, point: Array, rng: np.random.Generator) -> Any:
    """Return moyopy's position of a point, or None where the crystal is no clear one."""
    general, special = orbit(number, rng.random(3)), orbit(number, point)
    species = np.repeat([1, 2], [len(general), len(special)])
    both, cell = np.concatenate([general, special]), np.array(CELLS[family(number)])
    found = find_symmetry(cell, both, species, symprec=1e-4)
    if found is None or found.number != number:
        return None
    first = found.std_cell.numbers.index(2)
    return found.normalizer_wyckoff_positions().wyckoffs[first]


def orbit(number: int, point: Array) -> Array:
    """Return the distinct images of a point."""
    return np.unique(unit(np.round(images(point, number), 7)), axis=0)


if __name__ == "__main__":
    main()
