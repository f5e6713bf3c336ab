"""Per-element tables as tensors indexed by atomic number; index 0 is padding."""

from functools import cache

import torch
from torch import Tensor

from matdesign.errors import DataError

MAX_Z = 103
"""Heaviest element that any table or model of this package knows (Lr)."""

MASK = MAX_Z + 1
"""Index of a site whose element is not decided yet; 0 is padding, 1-103 are elements."""


@cache
def symbols() -> tuple[str, ...]:
    """Return element symbols by atomic number; entry 0 is ""."""
    from pymatgen.core import Element

    return ("", *(Element.from_Z(z).symbol for z in range(1, MAX_Z + 1)))


@cache
def _numbers() -> dict[str, int]:
    return {symbol: z for z, symbol in enumerate(symbols()) if z}


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
    try:
        return _numbers()[element(symbol)]
    except KeyError:
        raise DataError(
            f"unknown element: got {symbol!r}; use a symbol from H to Lr, such as 'Ti'."
        ) from None


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
