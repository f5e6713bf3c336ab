"""Elements and formulas: symbols and tables by atomic number (0 = padding), and the parsers."""

import math
import re
from functools import cache, lru_cache

import torch
from torch import Tensor

from matdesign.errors import DataError

MAX_Z = 103
"""Heaviest element that any table or model of this package knows (Lr)."""

MASK = MAX_Z + 1
"""Index of a site whose element is not decided yet; 0 is padding, 1-103 are elements."""

PLACEHOLDERS = "ABCDEGJLMQRTXZ"
"""Letters that a pattern may use; the other capitals are taken for a named element."""

_TOKEN = "([A-Z])([0-9]*)"


@cache
def symbols() -> tuple[str, ...]:
    """Return element symbols by atomic number; entry 0 is ""."""
    from pymatgen.core import Element

    return ("", *(Element.from_Z(z).symbol for z in range(1, MAX_Z + 1)))


def element(symbol: str) -> str:
    """Return the element of a symbol: deuterium D and tritium T are hydrogen, H.

    Everything that reads a symbol, in a file or a formula, reads it by this rule.

    Example:
        >>> element("D"), element("Dy")
        ('H', 'Dy')
    """
    return "H" if symbol in ("D", "T") else symbol


def atomic_number(symbol: str) -> int:
    """Return the atomic number of an element symbol; D and T are H.

    Raises:
        DataError: the symbol is not an element up to Lr.
    """
    if (name := element(symbol)) not in symbols()[1:]:
        raise DataError(
            f"unknown element: got {symbol!r}; use a symbol from H to Lr, such as 'Ti'."
        )
    return symbols().index(name)


@cache
def table(name: str) -> Tensor:
    """Return one property of every element.

    Args:
        name: one of `mass` (u), `electronegativity` (Pauling; NaN where none is known),
            `radius` (atomic radius, angstrom; 1.5 where none is known), `group` (1-18),
            `row` (1-7), `block` (0-3 for s, p, d, f), `metal` (1 or 0).

    Returns:
        float32 tensor of shape (104,); entry 0 (padding) is zero.

    Raises:
        DataError: there is no table of that name.

    Source:
        pymatgen's periodic table.
    """
    import warnings

    from pymatgen.core import Element

    readers = {
        "mass": lambda e: float(e.atomic_mass),
        "electronegativity": lambda e: float(e.X),
        "radius": lambda e: float(e.atomic_radius or 1.5),
        "group": lambda e: float(e.group),
        "row": lambda e: float(e.row),
        "block": lambda e: float("spdf".index(e.block)),
        "metal": lambda e: float(e.is_metal),
    }
    if name not in readers:
        raise DataError(
            f"no element table {name!r}; choose one of {', '.join(sorted(readers))}."
        )
    values = [0.0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        for z in range(1, MAX_Z + 1):
            values.append(readers[name](Element.from_Z(z)))
    return torch.tensor(values)


def is_pattern(text: str) -> bool:
    """Return whether a composition is a pattern: single capitals, one no element.

    Example:
        >>> is_pattern("ABX3"), is_pattern("BN"), is_pattern("SrTiO3")
        (True, False, False)
    """
    letters = [letter for letter, _ in re.findall(_TOKEN, text)]
    whole = re.fullmatch(f"(?:{_TOKEN})+", text) is not None
    return whole and any(element(x) not in symbols() for x in letters)


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
            z = atomic_number(e.symbol)
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
