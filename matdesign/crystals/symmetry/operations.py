"""The operations of the space groups in their conventional standard cells."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from matdesign.errors import DataError

Array = np.ndarray[Any, Any]


@cache
def operations(spacegroup: int) -> tuple[Array, Array]:
    """Return the operations of a space group in its conventional standard cell.

    Unique axis b, hexagonal axes for rhombohedral groups, origin choice 2. Centring
    translations are included; the identity comes first.

    Args:
        spacegroup: 1 to 230.

    Returns:
        Rotations, shape (operations, 3, 3), and translations, shape (operations, 3);
        they act on columns of fractional coordinates, x -> R x + t.

    Raises:
        DataError: the number is not a space group.

    Example:
        >>> rotations, translations = operations(225)
        >>> len(rotations)  # 48 rotations x 4 lattice points
        192
    """
    import moyopy

    if not 1 <= spacegroup <= 230:
        raise DataError(
            f"a space group number lies between 1 and 230; got {spacegroup}. Find one "
            "with matdesign.crystals.symmetry.find.spacegroup."
        )
    found = moyopy.operations_from_number(spacegroup, setting=moyopy.Setting.standard())
    rotations = np.array(found.rotations, dtype=float)
    translations = unit(np.round(np.array(found.translations) * 24) / 24)
    first = int(
        np.argmin(
            np.abs(rotations - np.eye(3)).sum((1, 2)) + np.abs(translations).sum(1)
        )
    )
    order = [first, *(i for i in range(len(rotations)) if i != first)]
    return rotations[order], translations[order]


def images(point: Array, spacegroup: int) -> Array:
    """Return the images of a point under all operations, in [0, 1), shape (ops, 3)."""
    rotations, translations = operations(spacegroup)
    return unit(rotations @ point + translations)


def unit(frac: Array) -> Array:
    """Return coordinates in [0, 1); what is within 1e-12 of 1 becomes 0."""
    moved = frac - np.floor(frac)
    return np.where(moved > 1 - 1e-12, 0.0, moved)
