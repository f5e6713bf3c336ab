"""Listed sites to all atoms of the cell; images of one atom are merged, once."""

from __future__ import annotations

from typing import Any

import numpy as np

from matdesign.crystals.io.checks import check_size
from matdesign.crystals.io.groups import Group
from matdesign.crystals.symmetry.wyckoff import torus_distances
from matdesign.errors import DataError

Array = np.ndarray[Any, Any]

MERGED = 0.05
"""Images of one site nearer than this, in angstrom, are one atom."""

APART = 0.5
"""Images of one site nearer than this are no two atoms either."""


def expand(
    group: Group, frac: Array, rows: Array, labels: list[str], name: str, max_atoms: int
) -> tuple[Array, Array]:
    """Return all images of the listed sites: all atoms of the cell.

    A site within `MERGED` of a special position is moved onto it: to the mean of the
    images that fall onto the site. In P1 every site stays as it is.

    Args:
        group: the operators.
        frac: listed sites, shape (sites, 3).
        rows: cell, angstrom.
        labels: their names, for messages.
        name: what to call the file in messages.
        max_atoms: most atoms in the cell.

    Returns:
        Coordinates, site after site, shape (atoms, 3), and the listed site that each atom
        is an image of, shape (atoms,).

    Raises:
        DataError: too many atoms, images of one site that are neither one atom nor two,
            or two listed sites that are images of one another.
    """
    size = len(group.rotations)
    if size == 1:
        return frac, np.arange(len(frac))
    parts, counts = [], []
    for point, label in zip(frac, labels):
        moved = group.rotations @ point + group.translations
        back = moved - np.round(moved - point)
        fixed = np.linalg.norm((back - point) @ rows, axis=1) < MERGED
        onto = back[fixed].mean(0)
        images = group.rotations @ onto + group.translations
        far = torus_distances(images, images, rows)
        first = (far < 1e-3).argmax(1) == np.arange(size)
        orbit = images[first]
        near = far[first][:, first] + 10 * np.eye(len(orbit))
        if len(orbit) * fixed.sum() != size or near.min() < APART:
            raise DataError(
                f"{name}: images of site {label} lie {near.min():.2g} angstrom apart, "
                f"neither one atom (under {MERGED}) nor two. Move it onto its special "
                "position, or choose an ordered model."
            )
        parts.append(orbit)
        counts.append(len(orbit))
        check_size(np.array([sum(counts)]), lambda _: name, max_atoms)
    whole, site = np.concatenate(parts), np.repeat(np.arange(len(frac)), counts)
    same = torus_distances(whole, whole, rows) < MERGED
    for a, b in np.argwhere(same & (site[:, None] != site)):
        raise DataError(
            f"{name}: sites {labels[site[a]]} and {labels[site[b]]} are images of one "
            "another under its symmetry. List each atom once, or all atoms in P1."
        )
    return whole, site
