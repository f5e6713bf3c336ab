"""POSCAR text to structures (VASP 5 and later: element symbols required)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from matdesign.crystals import elements
from matdesign.crystals.io.checks import check_cells, check_size, unknown_element
from matdesign.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure


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
            too many atoms, or a cell without volume.

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
    words, counts = lines[5].split(), lines[6].split()
    if words and all(word.isdigit() for word in words):
        raise DataError(
            f"{name} names no elements (the VASP 4 form): line 6 is "
            f"{lines[5].strip()!r}. Add a line of element symbols above the counts."
        )
    symbols = [elements.element(re.split("[_/]", word)[0]) for word in words]
    for symbol in symbols:
        if symbol not in elements.symbols()[1:]:
            raise unknown_element(name, symbol)
    if len(counts) != len(words) or not all(word.isdigit() for word in counts):
        raise DataError(
            f"{name}: needs one count per element: got symbols {lines[5].strip()!r} "
            f"and counts {lines[6].strip()!r}. Correct line 7."
        )
    total = sum(map(int, counts))
    check_size(np.array([total]), lambda _: name, max_atoms)
    at = 8 if lines[7].strip()[:1].lower() == "s" else 7
    mode = lines[at].strip() if at < len(lines) else "the end of the file"
    if mode[:1].lower() not in tuple("dckf"):
        raise DataError(
            f"{name}: line {at + 1} must be `Direct` or `Cartesian`; got {mode!r}. "
            "Correct it, or export the file again."
        )
    sites = [line for line in lines[at + 1 : at + 1 + total] if line.strip()]
    if len(sites) < total:
        raise DataError(
            f"{name} is cut short: line 7 announces {total} sites, the file "
            f"lists {len(sites)}. Fetch or export it again."
        )
    try:
        scale = _scale(lines[1])
        rows, points = (
            np.array(
                [[float(word) for word in line.split()[:3]] for line in some]
            ).reshape(-1, 3)
            for some in (lines[2:5], sites)
        )
    except ValueError as error:
        raise DataError(
            f"{name} cannot be read as a POSCAR ({error}). It is malformed or cut "
            "short; correct it, or export it again."
        ) from error
    if scale[0] <= 0:  # minus the volume
        scale = np.cbrt(-scale / max(abs(np.linalg.det(rows)), 1e-300))
    cell = rows * scale
    check_cells(cell[None], lambda _: name)
    cartesian = mode[:1].lower() in ("c", "k")
    species = [s for s, count in zip(symbols, counts) for _ in range(int(count))]
    return Structure(
        cell,
        species,
        points * scale if cartesian else points,
        coords_are_cartesian=cartesian,
    )


def _scale(line: str) -> NDArray[np.float64]:
    """Return the factors of line 2: three positive ones, or the first; a comment follows."""
    words = line.split()
    try:
        three = np.array([float(word) for word in words[:3]])
    except ValueError:
        three = np.array([])
    if len(three) == 3 and three.min() > 0:
        return three
    return np.array([float(words[0] if words else "")])
