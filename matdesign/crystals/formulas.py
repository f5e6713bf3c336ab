"""Formulas such as "SrTiO3" and patterns such as "ABX3", read into whole numbers."""

from __future__ import annotations

import math
import re
from functools import lru_cache

from matdesign.crystals import elements
from matdesign.errors import DataError

PLACEHOLDERS = "ABCDEGJLMQRTXZ"
"""Letters that a pattern may use; the other capitals are taken for a named element."""

_TOKEN = "([A-Z])([0-9]*)"


def is_pattern(text: str) -> bool:
    """Return whether a composition is a pattern: single capitals, one no element.

    Example:
        >>> is_pattern("ABX3"), is_pattern("BN"), is_pattern("SrTiO3")
        (True, False, False)
    """
    letters = [letter for letter, _ in re.findall(_TOKEN, text)]
    whole = re.fullmatch(f"(?:{_TOKEN})+", text) is not None
    return whole and any(elements.element(x) not in elements.symbols() for x in letters)


@lru_cache(maxsize=4096)
def parse_formula(text: str) -> dict[int, int]:
    """Return atomic number -> atoms in the reduced formula unit.

    Raises:
        DataError: not a formula of known elements in whole amounts.

    Example:
        >>> parse_formula("Sr2Ti2O6") == {38: 1, 22: 1, 8: 3}
        True
    """
    from pymatgen.core import Composition

    try:
        parsed: dict[int, float] = {}
        for e, k in Composition(text, strict=True).items():
            z = elements.atomic_number(e.symbol)
            parsed[z] = parsed.get(z, 0.0) + float(k)
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"not a formula of known elements: got {text!r} ({error}). Write one such "
            'as "SrTiO3", or a pattern with letters that are no elements, such as "ABX3".'
        ) from None
    if not parsed or any(k < 1 or k != int(k) for k in parsed.values()):
        raise DataError(
            f"a formula needs whole numbers of atoms; got {text!r}. Multiply it up, "
            "for example Sr2TiO4 instead of SrTi0.5O2."
        )
    unit = math.gcd(*(int(k) for k in parsed.values()))
    return {z: int(k) // unit for z, k in parsed.items()}


def parse_pattern(text: str) -> tuple[int, ...]:
    """Return the atoms of each role in the smallest unit of a pattern, largest first.

    Raises:
        DataError: no pattern, a letter that reads as an element, or an amount of zero.

    Example:
        >>> parse_pattern("A2B2X6")
        (3, 1, 1)
    """
    if not re.fullmatch(f"(?:{_TOKEN})+", text):
        raise DataError(
            f"a pattern is capital letters with whole amounts; got {text!r}. Write one "
            'such as "A2BX4".'
        )
    amounts: dict[str, int] = {}
    for letter, amount in re.findall(_TOKEN, text):
        if letter not in PLACEHOLDERS:
            raise DataError(
                f"{letter} in the pattern {text!r} reads as an element, but the letters "
                f"of a pattern stand for any element. Use letters from {PLACEHOLDERS}, and "
                f'join RequiredElements("{letter}") for the element.'
            )
        amounts[letter] = amounts.get(letter, 0) + int(amount or 1)
    if 0 in amounts.values():
        raise DataError(f"an amount is zero in the pattern {text!r}; leave it out.")
    unit = math.gcd(*amounts.values())
    return tuple(sorted((k // unit for k in amounts.values()), reverse=True))
