"""Space groups, and crystals moved onto their symmetric places.

`to_symmetric` and `from_symmetric` are in symmetric_form.py, orbits in sites.py.
"""

from __future__ import annotations

import numbers
import re
import unicodedata
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals import sites
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.crystals.lattice_code import from_code, project_code, to_code
from matdesign.crystals.sites import Array, Site, operations
from matdesign.crystals.symmetric_form import (
    SymmetricForm,
    find_symmetry,
    from_symmetric,
    is_cell,
    to_symmetric,
)
from matdesign.errors import DataError, ShapeError

if TYPE_CHECKING:
    from matdesign.crystals.batch import Crystals

__all__ = [
    "Site",
    "SymmetricForm",
    "from_symmetric",
    "operations",
    "project_frac",
    "project_lattice",
    "spacegroup",
    "spacegroup_number",
    "to_symmetric",
]


SYMPREC = 0.1
"""How far an atom may be from its symmetric position where a crystal's space group is
reported or checked, angstrom; relaxed crystals need about so much."""


def spacegroup_number(group: Any) -> int:
    """Return the number of a space group that is named by number or symbol.

    Args:
        group: 1 to 230, or a Hermann-Mauguin symbol of any setting, short or full, as
            written today or formerly, with or without spaces and underscores: "Pm-3m",
            "P2_1/c", "P 63/m m c", "Cmca", "P 4/n 2/m 2/m".

    Raises:
        DataError: neither.

    Source:
        gemmi (Wojdyr 2022, JOSS 7, 4200); full symbols from spglib.

    Example:
        >>> [spacegroup_number(one) for one in (225, "225", "Pm3m", "P21/c", "Cmca")]
        [225, 225, 221, 14, 64]
    """
    number = None
    if isinstance(group, str):
        import gemmi

        # subscripts count as figures; the long minus is a minus
        text = unicodedata.normalize("NFKC", group).replace("\u2212", "-")
        text = text.replace("_", "").strip()
        short = "".join(text.split())
        if short.isdecimal():
            number = int(short)
        else:
            named = gemmi.find_spacegroup_by_name(text)
            named = named or gemmi.find_spacegroup_by_name(short)
            number = named.number if named else _full_symbols().get(short.lower())
            if number is None:  # full in all axes: 4/n 2/m 2/m is 4/n m m
                named = gemmi.find_spacegroup_by_name(
                    re.sub("(?<![46])21?/", "", short)
                )
                number = named.number if named else None
    elif isinstance(group, numbers.Integral) and group is not True:
        number = int(group)
    if number is None or not 1 <= number <= 230:
        raise DataError(
            f"a space group is a number from 1 to 230 or a Hermann-Mauguin symbol such as "
            f'"Pm-3m"; got {group!r}.'
        )
    return number


@cache
def _full_symbols() -> dict[str, int]:
    """Return the number of each full symbol, without spaces: "p4/n2/m2/m" is 129."""
    import spglib

    kinds: Any = [spglib.get_spacegroup_type(hall) for hall in range(1, 531)]
    return {
        one.international_full.replace(" ", "").replace("_", "").lower(): one.number
        for one in kinds
    }


def spacegroup(crystals: Crystals, symprec: float = SYMPREC) -> Tensor:
    """Return the space group number of every crystal.

    Args:
        crystals: the batch.
        symprec: how far an atom may be from its symmetric position, angstrom. Relaxed
            crystals need about 0.1, exact ones 0.01.

    Returns:
        Numbers from 1 to 230, long, shape (crystals,); 0 where no symmetry was found,
        which happens when atoms sit on top of each other.

    Source:
        moyopy (Shinohara); where it fails, spglib (Togo, Shinohara, Tanaka 2024,
        arXiv:1808.01590).

    Example:
        >>> from matdesign.crystals.batch import Crystals
        >>> frac = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
        >>> cell = 4.1 * torch.eye(3)[None]
        >>> spacegroup(Crystals(torch.tensor([[55, 17]]), frac, cell)).tolist()
        [221]
    """
    found = []
    cells = crystals.lattice.detach().double().cpu().numpy()
    frac = crystals.frac.detach().double().cpu().numpy()
    species = crystals.species.cpu().numpy()
    for cell, points, kinds in zip(cells, frac, species, strict=True):
        real = kinds > 0
        found.append(_number(cell, points[real], kinds[real].tolist(), symprec))
    return torch.tensor(found, dtype=torch.long, device=crystals.device)


def project_frac(frac: Tensor, form: SymmetricForm) -> Tensor:
    """Return coordinates moved onto the Wyckoff positions of a form.

    Every atom of an orbit is taken back to the anchor, the anchor estimates are
    averaged on the torus and put onto the position, and the orbit is written out again.
    Points that already are symmetric stay.

    Args:
        frac: coordinates of the conventional cell in the order of `form.frac`, shape
            (..., atoms, 3).
        form: space group and positions; its anchors say which atom is which image.

    Returns:
        Symmetric coordinates in [0, 1), shape of `frac`.

    Raises:
        ShapeError: not the atoms of this form.

    Source:
        Jiao et al. 2024, arXiv:2402.03992 (anchors). We average estimates on the torus
        and project by the stabiliser instead of a table of positions.
    """
    if frac.shape[-2:] != (len(form.species), 3):
        raise ShapeError(
            f"this form has {len(form.species)} atoms in its conventional cell; got "
            f"coordinates of shape {tuple(frac.shape)}. Order them as form.frac does."
        )
    rotations, translations = operations(form.spacegroup)
    parts, at = [], 0
    for site in form.sites:
        members = list(site.members)
        back = torch.from_numpy(np.linalg.inv(rotations[members]).round()).to(frac)
        shift = torch.from_numpy(translations[members]).to(frac)
        points = frac[..., at : at + len(members), :]
        anchors = torch.einsum("mij,...mj->...mi", back, points - shift)
        first = anchors[..., :1, :]
        mean = (first + torus_difference(first, anchors)).mean(-2)
        onto = sites.nearest_on(site, mean.detach().double().cpu().numpy())
        orbit = sites.unit(
            np.einsum("mij,...j->...mi", rotations[members], onto)
            + translations[members]
        )
        parts.append(torch.from_numpy(orbit).to(frac))
        at += len(members)
    return wrap(torch.cat(parts, dim=-2))


def project_lattice(lattice: Tensor, spacegroup: Tensor | int) -> Tensor:
    """Return conventional cells moved onto the lattice family of their space group.

    The nearest in the log-symmetric metric; the volume is kept. The result is the
    symmetric matrix P of `from_code`: rotation removed, fractional coordinates
    unchanged.

    Args:
        lattice: conventional cells in the standard setting, shape (crystals, 3, 3).
        spacegroup: number of each crystal, shape (crystals,), or one for all.

    Example:
        >>> cell = torch.diag(torch.tensor([4.0, 4.2, 4.1]))[None]
        >>> project_lattice(cell, 225)[0].diagonal().unique().numel()
        1
    """
    return from_code(project_code(to_code(lattice), spacegroup))


def _number(cell: Array, frac: Array, species: list[int], symprec: float) -> int:
    """Return one space group number, or 0."""
    if not is_cell(cell, frac, symprec):
        return 0
    found = find_symmetry(cell, frac, species, symprec)
    if found is not None:
        return int(found.number)
    return _number_by_spglib((cell, frac, species), symprec)


def _number_by_spglib(crystal: Any, symprec: float) -> int:
    """Return one space group number by the second opinion, or 0."""
    import spglib

    try:
        with warnings.catch_warnings():
            # spglib announces a change of how it reports errors; both ways end here
            warnings.simplefilter("ignore", DeprecationWarning)
            found = spglib.get_symmetry_dataset(crystal, symprec=symprec)
    except Exception:
        return 0
    return int(found.number) if found is not None else 0
