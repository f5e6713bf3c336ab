"""Listed sites to all atoms of the cell; images of one atom are merged, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from matdesign.crystals.io.checks import check_size
from matdesign.crystals.io.groups import Group
from matdesign.errors import DataError

Array = np.ndarray[Any, Any]

MERGED = 0.05
"""Images of one site nearer than this, in angstrom, are one atom."""

APART = 0.5
"""Images of one site nearer than this are no two atoms either."""


@dataclass(frozen=True)
class Orbits:
    """All atoms of a cell.

    Args:
        frac: fractional coordinates, shape (atoms, 3), site after site.
        site: which listed site each atom is an image of, shape (atoms,).
        multiplicity: atoms of each listed site, shape (sites,).
        order: operators that leave each site where it is, shape (sites,).
    """

    frac: Array
    site: Array
    multiplicity: Array
    order: Array


def expand(
    group: Group, frac: Array, rows: Array, labels: list[str], name: str, max_atoms: int
) -> Orbits:
    """Return all images of the listed sites.

    A site within `MERGED` of a special position is moved onto it: to the mean of the
    images that fall onto the site. In P1 every site stays as it is.

    Args:
        group: the operators.
        frac: listed sites, shape (sites, 3).
        rows: cell, angstrom.
        labels: their names, for messages.
        name: what to call the file in messages.
        max_atoms: most atoms in the cell.

    Raises:
        DataError: too many atoms, images of one site that are neither one atom nor two,
            or two listed sites that are images of one another.
    """
    size = len(group.rotations)
    if size == 1:
        ones = np.ones(len(frac), dtype=int)
        return Orbits(frac, np.arange(len(frac)), ones, ones)
    parts, counts = [], []
    for point, label in zip(frac, labels):
        moved = group.rotations @ point + group.translations
        back = moved - np.round(moved - point)
        fixed = np.linalg.norm((back - point) @ rows, axis=1) < MERGED
        onto = back[fixed].mean(0)
        images = group.rotations @ onto + group.translations
        apart = images[:, None] - images[None]
        far = np.linalg.norm((apart - np.round(apart)) @ rows, axis=-1)
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
    _check_listed_once(whole, site, rows, labels, name)
    multiplicity = np.array(counts)
    return Orbits(whole, site, multiplicity, size // multiplicity)


def _check_listed_once(
    frac: Array, site: Array, rows: Array, labels: list[str], name: str
) -> None:
    """Refuse two listed sites of which one is an image of the other."""
    apart = frac[:, None] - frac[None]
    far = np.linalg.norm((apart - np.round(apart)) @ rows, axis=-1)
    same = (far < MERGED) & (site[:, None] != site[None])
    if same.any():
        a, b = site[np.argwhere(same)[0]]
        raise DataError(
            f"{name}: sites {labels[a]} and {labels[b]} are images of one another under "
            "its symmetry. List each atom once, or all atoms in P1."
        )
