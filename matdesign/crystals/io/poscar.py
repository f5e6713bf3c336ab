"""POSCAR text to structures and back (VASP 5 and later: element symbols required)."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from matdesign.crystals import elements
from matdesign.crystals.io.checks import (
    check_cell,
    check_coordinates,
    too_many,
    unknown_element,
)
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure


Array = np.ndarray[Any, Any]


def parse_poscar(text: str, name: str, max_atoms: int) -> Structure:
    """Return the structure of a POSCAR.

    Args:
        text: the file's text: comment, scale, three rows, symbols, counts, an optional
            `Selective dynamics`, `Direct` or `Cartesian`, one line per site. What
            follows (velocities) is left unread.
        name: what to call the file in messages.
        max_atoms: most atoms in the cell.

    Raises:
        DataError: the text is cut short or malformed, names no or unknown elements, has
            too many atoms, a cell without volume, or a coordinate that is not a number.

    Example:
        >>> text = "iron\\n2.87\\n1 0 0\\n0 1 0\\n0 0 1\\nFe\\n1\\nDirect\\n0 0 0"
        >>> parse_poscar(text, "POSCAR", 1000).composition.reduced_formula
        'Fe'
    """
    from pymatgen.core import Structure

    lines = text.splitlines()
    if len(lines) < 8:
        raise DataError(
            f"{name} is cut short: a POSCAR has at least 8 lines, got {len(lines)}. "
            "Fetch or export it again."
        )
    rows = np.array([_numbers(line, 3, name) for line in lines[2:5]])
    scale = _scale(lines[1], rows, name)
    rows = rows * scale
    check_cell(rows, name)
    words = [re.split(r"[_/]", word)[0] for word in lines[5].split()]
    symbols = [elements.element(word) for word in words]
    if symbols and all(word.isdigit() for word in symbols):
        raise DataError(
            f"{name} names no elements (the VASP 4 form): line 6 is "
            f"{lines[5].strip()!r}. Add a line of element symbols above the counts."
        )
    for symbol in symbols:
        if symbol not in elements.symbols()[1:]:
            raise DataError(unknown_element(name, symbol))
    counts = [int(word) if word.isdigit() else -1 for word in lines[6].split()]
    if len(counts) != len(symbols) or not counts or min(counts) < 0:
        raise DataError(
            f"{name}: needs one count per element: got symbols {lines[5].strip()!r} "
            f"and counts {lines[6].strip()!r}. Correct line 7."
        )
    if sum(counts) > max_atoms:
        raise DataError(too_many(name, sum(counts), max_atoms))
    at = 8 if lines[7].strip()[:1].lower() == "s" else 7
    mode = lines[at].strip()[:1].lower() if at < len(lines) else ""
    if mode not in tuple("dckf"):
        raise DataError(
            f"{name}: line {at + 1} must be `Direct` or `Cartesian`; got "
            f"{lines[at].strip() if at < len(lines) else 'the end of the file'!r}. "
            "Correct it, or export the file again."
        )
    sites = [line for line in lines[at + 1 : at + 1 + sum(counts)] if line.strip()]
    if len(sites) < sum(counts):
        raise DataError(
            f"{name} is cut short: line 7 announces {sum(counts)} sites, the file "
            f"lists {len(sites)}. Fetch or export it again."
        )
    coordinates: Array = np.array([_numbers(line, 3, name) for line in sites]).reshape(
        -1, 3
    )
    check_coordinates(coordinates, name)
    species = [s for s, count in zip(symbols, counts) for _ in range(count)]
    cartesian = mode in ("c", "k")
    if cartesian:
        coordinates = coordinates * scale
    return Structure(rows, species, coordinates, coords_are_cartesian=cartesian)


def format_poscar(structure: Structure, comment: str) -> str:
    """Return the POSCAR text of a structure, its sites grouped by element.

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> iron = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
        >>> format_poscar(iron, "bcc").splitlines()[5:8]
        ['Fe', '1', 'Direct']
    """
    symbols = [site.specie.symbol for site in structure]
    kinds = list(dict.fromkeys(symbols))
    order = sorted(range(len(symbols)), key=lambda i: kinds.index(symbols[i]))
    lines = [" ".join(comment.split())[:80], "1.0"]
    lines += ["".join(f"{x:18.10f}" for x in row) for row in structure.lattice.matrix]
    lines += [" ".join(kinds), " ".join(str(symbols.count(kind)) for kind in kinds)]
    lines += ["Direct"]
    for i in order:
        frac = "".join(f"{x:18.10f}" for x in structure[i].frac_coords)
        lines.append(f"{frac} {symbols[i]}")
    return "\n".join(lines) + "\n"


def _numbers(line: str, count: int, name: str) -> list[float]:
    """Return the first numbers of a line; NaN for words that are not numbers."""
    words = line.split()[:count]
    if len(words) < count:
        raise DataError(
            f"{name}: a line needs {count} numbers; got {line.strip()!r}. The file is "
            "malformed or cut short; export it again."
        )
    return [_number(word) for word in words]


def _number(word: str) -> float:
    try:
        return float(word) if word.isascii() else math.nan
    except ValueError:
        return math.nan


def _scale(line: str, rows: Array, name: str) -> Array | float:
    """Return the factor of line 2: one number, minus a volume, or three numbers."""
    factors = [_number(word) for word in line.split()[:3]]
    if len(factors) == 3 and all(f > 0 for f in factors):
        return np.array(factors)
    if not factors or not math.isfinite(factors[0]) or factors[0] == 0:
        raise DataError(
            f"{name}: line 2 must be a scale such as 1.0; got {line.strip()!r}. "
            "Correct it."
        )
    if factors[0] > 0:
        return factors[0]
    volume = abs(float(np.linalg.det(rows)))
    return float(np.cbrt(-factors[0] / max(volume, 1e-300)))
