"""Finding symmetry: space groups by name, and of crystals."""

from __future__ import annotations

import logging
import numbers
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import gemmi
import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import min_distance, shortest_vector
from matdesign.crystals.io.checks import MIN_VOLUME
from matdesign.crystals.symmetry.wyckoff import Array
from matdesign.errors import DataError

SYMPREC = 0.1
"""How far an atom may be from its symmetric position where a crystal's space group is
reported or checked, angstrom; relaxed crystals need about so much."""

ENCODING_SYMPREC = 0.01
"""The same where a crystal is encoded or its primitive cell is looked for."""


_SUFFIX = re.compile(
    r"(?:\s*:\s*|\s*[(]?origin\s*(?:choice)?\s*|\s(?=[HRSZ]$))([12HRSZ])[)]?$", re.I
)
"""What may follow a symbol: ":2", "(origin choice 2)", and " H", " R", " S", " Z"."""

_ORIGINS = {"S": "1", "Z": "2"}
"""The database ICSD calls origin choice 1 S and choice 2, at a centre, Z."""


@cache
def settings(symbol: str) -> tuple[gemmi.SpaceGroup, ...]:
    """Return the tabulated settings that a symbol or a number may mean.

    Origin choice 2 comes before 1, hexagonal before rhombohedral axes, unique axis b
    before c and a.

    Args:
        symbol: a number, or a Hermann-Mauguin symbol of any setting, short or full, as
            written today or formerly, with or without spaces and underscores.

    Returns:
        One where the symbol names its setting, none where it names no group.

    Source:
        gemmi (Wojdyr 2022, JOSS 7, 4200); full symbols from spglib.

    Example:
        >>> [one.xhm() for one in settings("F d 3 m")]
        ['F d -3 m:2', 'F d -3 m:1']
    """
    # subscripts count as figures; the long minus is a minus
    plain = unicodedata.normalize("NFKC", symbol).replace("\u2212", "-")
    plain = plain.replace("_", "").strip()
    suffix, wanted = _SUFFIX.search(plain), ""
    if suffix:
        plain = plain[: suffix.start()]
        wanted = _ORIGINS.get(suffix[1].upper(), suffix[1].upper())
    short = "".join(plain.split())
    # full in all axes, which no table has: 4/n 2/m 2/m is 4/n m m
    cut = re.sub("(?<![46])21?/", "", short)
    spellings = (plain, short, _short_of_full().get(short.lower(), ""), cut)
    named = map(gemmi.find_spacegroup_by_name, spellings)
    base = next((one for one in named if one), None)
    found = [
        one
        for one in gemmi.spacegroup_table()
        if ((base is not None and one.hm == base.hm) or _names(one, short))
        and wanted in ("", one.ext)
        and short.strip("0")  # gemmi reads the number 0 as P 1
    ]
    return tuple(sorted(found, key=lambda one: "2H1R\x00".index(one.ext)))


def _names(one: gemmi.SpaceGroup, short: str) -> bool:
    """Return whether a symbol is that of a monoclinic group without its axes."""
    plain = "".join(word for word in one.hm.split() if word != "1")
    return 3 <= one.number <= 15 and plain.lower() == short.lower()


@cache
def _short_of_full() -> dict[str, str]:
    """Return the short symbol of each full one, without spaces: "p4/n2/m2/m"."""
    import spglib

    kinds = [spglib.get_spacegroup_type(hall) for hall in range(1, 531)]
    return {
        re.sub("[ _]", "", one.international_full).lower(): one.international_short
        for one in kinds
        if one is not None
    }


def spacegroup_number(group: Any) -> int:
    """Return the number of a space group that is named by number or symbol.

    Args:
        group: 1 to 230, or a Hermann-Mauguin symbol of any setting, short or full, as
            written today or formerly, with or without spaces and underscores: "Pm-3m",
            "P2_1/c", "P 63/m m c", "Cmca", "P 4/n 2/m 2/m".

    Raises:
        DataError: neither.

    Example:
        >>> [spacegroup_number(one) for one in (225, "225", "Pm3m", "P21/c", "Cmca")]
        [225, 225, 221, 14, 64]
    """
    number = None
    if isinstance(group, str):
        number = next((one.number for one in settings(group)), None)
    elif isinstance(group, numbers.Integral) and group is not True:
        number = int(group)
    if number is None or not 1 <= number <= 230:
        raise DataError(
            f"a space group is a number from 1 to 230 or a Hermann-Mauguin symbol such as "
            f'"Pm-3m"; got {group!r}.'
        )
    return number


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
        moyopy (Shinohara), a successor of spglib (Togo, Shinohara, Tanaka 2024,
        arXiv:1808.01590).

    Example:
        >>> frac = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
        >>> cell = 4.1 * torch.eye(3)[None]
        >>> spacegroup(Crystals(torch.tensor([[55, 17]]), frac, cell)).tolist()
        [221]
    """
    found = [
        find_symmetry(cell, frac, species, symprec) if sound else None
        for sound, cell, frac, species in as_arrays(crystals, symprec)
    ]
    return torch.tensor(
        [0 if one is None else int(one.number) for one in found],
        dtype=torch.long,
        device=crystals.device,
    )


def as_arrays(
    crystals: Crystals, symprec: float = ENCODING_SYMPREC
) -> Iterator[tuple[bool, Array, Array, Array]]:
    """Yield for each crystal whether symmetry can be looked for, and it as arrays.

    It can where the crystal is finite and well above symprec. In a cell as small as the
    tolerance, or with atoms on top of each other, every atom could be every other one,
    and the search would not end.

    Args:
        crystals: the batch.
        symprec: the tolerance of the search, angstrom.

    Returns:
        The flag, the cell, the coordinates and the species, without padding.
    """
    exact = Crystals(
        crystals.species.cpu(),
        crystals.frac.detach().cpu().double(),
        crystals.lattice.detach().cpu().double(),
    )
    sound = exact.frac.isfinite().all(-1).all(-1)
    sound &= exact.lattice.isfinite().all(-1).all(-1)
    sound &= torch.linalg.det(exact.lattice).abs() >= MIN_VOLUME
    sound &= shortest_vector(exact.lattice) >= 5 * symprec
    sound &= min_distance(exact) > 2 * symprec
    cells, frac = exact.lattice.numpy(), exact.frac.numpy()
    for i, species in enumerate(exact.species.numpy()):
        real = species > 0
        yield bool(sound[i]), cells[i], frac[i][real], species[real]


def find_symmetry(
    cell: Array, frac: Array, species: Array, symprec: float
) -> Any | None:
    """Return moyopy's dataset of a crystal in the standard setting, or None.

    None where it finds nothing, for whatever reason: a generated crystal may be
    anything, and one that cannot be analysed is an answer, not an error. See `as_arrays`
    for the crystals that it would not end with.

    Args:
        cell: rows in angstrom, shape (3, 3).
        frac: fractional coordinates, shape (atoms, 3).
        species: atomic number of each atom.
        symprec: how far an atom may be from its symmetric position, angstrom.
    """
    moyopy = _moyopy()
    try:
        return moyopy.MoyoDataset(
            moyopy.Cell(cell.tolist(), frac.tolist(), species.tolist()),
            symprec=symprec,
            setting=moyopy.Setting.standard(),
        )
    except Exception:
        return None
    except BaseException as error:
        # a panic inside moyo is no Exception; anything else is not ours to stop
        if type(error).__name__ != "PanicException":
            raise
        return None


@cache
def _moyopy() -> ModuleType:
    """Return moyopy without its notes on operations of the input cell, unused here."""
    import moyopy

    logging.getLogger("moyo").setLevel(logging.ERROR)
    return moyopy
