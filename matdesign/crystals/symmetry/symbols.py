"""Symbols of space groups, in any spelling, and the settings that they may mean."""

import re
import unicodedata
from functools import cache

import gemmi

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
