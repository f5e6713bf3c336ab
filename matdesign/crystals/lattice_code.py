"""Lattices as six free numbers: rotation-free, always a valid cell, families as zeros.

Any code k in R^6 is a cell, and every cell has one code up to rotation. A crystal
family is a set of entries held at fixed values, so that noise and predictions can be
projected.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matdesign.errors import DataError, ShapeError

HEXAGONAL_K1 = -math.log(3) / 4
"""k1 of every cell with a = b and an angle of 120 degrees between them."""

_FREE = {
    "triclinic": (1, 1, 1, 1, 1, 1),
    "monoclinic": (0, 1, 0, 1, 1, 1),
    "orthorhombic": (0, 0, 0, 1, 1, 1),
    "tetragonal": (0, 0, 0, 0, 1, 1),
    "hexagonal": (0, 0, 0, 0, 1, 1),
    "cubic": (0, 0, 0, 0, 0, 1),
}

FAMILIES = tuple(_FREE)
"""The six crystal families, free ones first; trigonal groups count as hexagonal."""

SYSTEMS = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal",
    "hexagonal",
    "cubic",
)
"""The seven crystal systems; number i of `system_of` is `SYSTEMS[i - 1]`."""

_FIRST_GROUP = (1, 3, 16, 75, 143, 168, 195)


def to_code(lattice: Tensor, n_atoms: Tensor | None = None) -> Tensor:
    """Return the log-symmetric code of each lattice.

    The polar factor P = (L L^T)^(1/2) is the lattice with its rotation removed; its
    logarithm is any symmetric matrix, and k its coordinates. Runs without gradient:
    models produce codes and decode them with `from_code`, which has a safe one.

    Equation:
        S = 1/2 U log(D) U^T for L L^T = U D U^T, and
        S = [[k4+k5+k6, k1, k2], [k1, -k4+k5+k6, k3], [k2, k3, -2 k5+k6]]

    Args:
        lattice: rows in angstrom, shape (..., 3, 3).
        n_atoms: atoms per cell, shape (...); when given, the last entry is that of the
            volume per atom, k6 - ln(n)/3, which varies much less over a data set.

    Returns:
        Codes (k1 .. k6), shape (..., 6); k6 = ln(volume)/3.

    Raises:
        DataError: a lattice has no volume or is not finite.

    Example:
        >>> to_code(2.0 * torch.eye(3)[None])
        tensor([[0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.6931]])
    """
    if lattice.shape[-2:] != (3, 3):
        raise ShapeError(
            f"lattice must end in (3, 3); got {tuple(lattice.shape)}. Pass rows a, b, "
            "c."
        )
    with torch.no_grad():
        rows = lattice.double()
        good = torch.linalg.det(rows).abs() > 0
        if not bool((good & rows.isfinite().all(-1).all(-1)).all()):
            bad = int((~good).flatten().to(torch.uint8).argmax())
            raise DataError(
                f"lattice rows must span a volume; crystal {bad} has "
                f"{rows.reshape(-1, 3, 3)[bad].tolist()}. Drop it, or mend its cell."
            )
        values, vectors = torch.linalg.eigh(rows @ rows.transpose(-1, -2))
        log = vectors @ torch.diag_embed(values.log() / 2) @ vectors.transpose(-1, -2)
        s11, s22, s33 = log[..., 0, 0], log[..., 1, 1], log[..., 2, 2]
        size = (s11 + s22 + s33) / 3
        if n_atoms is not None:
            size = size - n_atoms.to(size).log() / 3
        code = [
            log[..., 0, 1],
            log[..., 0, 2],
            log[..., 1, 2],
            (s11 - s22) / 2,
            (s11 + s22 - 2 * s33) / 6,
            size,
        ]
        return torch.stack(code, dim=-1).to(lattice.dtype)


def from_code(code: Tensor, n_atoms: Tensor | None = None) -> Tensor:
    """Return the symmetric lattice P of each code, the inverse of `to_code`.

    Uses the matrix exponential, whose gradient is finite for equal eigenvalues too;
    that of an eigendecomposition is not, and every cubic crystal has equal eigenvalues.

    Equation:
        P = exp(S(k)), volume = exp(3 k6)

    Args:
        code: (k1 .. k6), shape (..., 6).
        n_atoms: as in `to_code`: give it when the last entry is per atom.

    Returns:
        Symmetric positive definite lattices, rows in angstrom, shape (..., 3, 3).

    Raises:
        ShapeError: the last axis of `code` is not 6.

    Example:
        >>> cells = 4 * torch.eye(3)[None]
        >>> torch.allclose(from_code(to_code(cells)), cells)
        True
    """
    if code.shape[-1:] != (6,):
        raise ShapeError(
            f"a lattice code has six entries; got shape {tuple(code.shape)}. "
            "Put k1 .. k6 on the last axis."
        )
    k1, k2, k3, k4, k5, k6 = code.unbind(-1)
    if n_atoms is not None:
        k6 = k6 + n_atoms.to(k6).log() / 3
    zero = torch.zeros_like(k6)
    # the trace only scales: taking it out keeps the exponential's argument small
    rows = [[k4 + k5, k1, k2], [k1, k5 - k4, k3], [k2, k3, zero - 2 * k5]]
    shape = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    lattice = torch.matrix_exp(shape) * k6.exp()[..., None, None]
    return (lattice + lattice.transpose(-1, -2)) / 2


def family(spacegroup: int) -> str:
    """Return the crystal family of a space group number, 1 to 230.

    Trigonal groups count as hexagonal: their conventional cell has hexagonal axes.

    Raises:
        DataError: the number is not a space group.

    Example:
        >>> family(225), family(166), family(14)
        ('cubic', 'hexagonal', 'monoclinic')
    """
    number = checked_group(spacegroup)
    system = SYSTEMS[sum(number >= first for first in _FIRST_GROUP) - 1]
    return "hexagonal" if system == "trigonal" else system


def checked_group(spacegroup: int) -> int:
    """Return a space group number as it is.

    Raises:
        DataError: it does not lie between 1 and 230.
    """
    if not 1 <= spacegroup <= 230:
        raise DataError(
            f"a space group number lies between 1 and 230; got {spacegroup}. "
            "Find one with matdesign.crystals.symmetry.find.spacegroup."
        )
    return spacegroup


def system_of(spacegroup: Tensor) -> Tensor:
    """Return the crystal system, 1 to 7, of space group numbers; 0 stays 0.

    Example:
        >>> system_of(torch.tensor([0, 2, 166, 194, 225])).tolist()
        [0, 1, 5, 6, 7]
    """
    first = torch.tensor(_FIRST_GROUP, device=spacegroup.device)
    return (spacegroup.unsqueeze(-1) >= first).sum(-1)


def free_entries(name: str) -> Tensor:
    """Return which of the six entries a crystal family leaves free, bool of shape (6,).

    Raises:
        DataError: no such family.

    Example:
        >>> free_entries("tetragonal").tolist()
        [False, False, False, False, True, True]
    """
    if name not in _FREE:
        raise DataError(
            f"unknown crystal family: got {name!r}; choose one of "
            f"{', '.join(FAMILIES)}."
        )
    return torch.tensor(_FREE[name], dtype=torch.bool)
