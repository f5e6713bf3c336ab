"""Structural validity: atoms apart, and a cell with room for them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import min_distance


@dataclass(frozen=True)
class Geometry:
    """What the cell and the coordinates of each crystal look like.

    Args:
        volume: angstrom^3, shape (crystals,); NaN where a number is not finite.
        density: g/cm^3, shape (crystals,); NaN where there is no volume.
        min_distance: angstrom, shape (crystals,), an atom's own images left out, so
            infinite for one atom; NaN where a number is not finite.
        reason: why the crystal is structurally invalid, empty where it is valid.
    """

    volume: NDArray[np.float64]
    density: NDArray[np.float64]
    min_distance: NDArray[np.float64]
    reason: tuple[str, ...]


def geometry(
    crystals: Crystals, *, shortest: float = 0.5, smallest: float = 0.1
) -> Geometry:
    """Return the figures and the verdict of every crystal.

    A crystal is structurally valid if its smallest interatomic distance and its volume
    reach the limits. This is a test for collapse, not for chemistry: nothing real comes
    near 0.5 angstrom.

    Args:
        crystals: any batch; NaN, infinite or empty entries get a reason, not an error.
        shortest: least distance between two sites, periodic images included but an
            atom's own images left out, angstrom.
        smallest: least cell volume, angstrom^3.

    Returns:
        Figures and reasons, one per crystal.

    Source:
        Xie et al., CDVAE, arXiv:2110.06197, code. Same limits and same distances; we
        compute in float64 and find the nearest image in any cell, however skewed.
    """
    batch = crystals.to("cpu")
    finite = batch.lattice.isfinite().all((1, 2))
    finite &= (batch.frac.isfinite().all(-1) | ~batch.mask).all(1)
    whole = finite & (batch.n_atoms > 0)
    sound = batch[whole]
    double = sound.replace(
        frac=sound.frac.double() * sound.mask[..., None], lattice=sound.lattice.double()
    )
    at = whole.numpy()
    figures = {
        name: np.full(len(batch), np.nan) for name in ("volume", "apart", "density")
    }
    figures["volume"][at] = double.volume.numpy()
    figures["apart"][at] = min_distance(double).numpy()
    with np.errstate(divide="ignore"):
        density = torch.where(double.volume > 0, double.density, torch.nan)
    figures["density"][at] = density.numpy()
    reasons = [
        _reason(*row, shortest, smallest)
        for row in zip(
            finite.tolist(),
            batch.n_atoms.tolist(),
            figures["volume"].tolist(),
            figures["apart"].tolist(),
            strict=True,
        )
    ]
    return Geometry(
        figures["volume"], figures["density"], figures["apart"], tuple(reasons)
    )


def _reason(
    finite: bool,
    n_atoms: int,
    volume: float,
    apart: float,
    shortest: float,
    smallest: float,
) -> str:
    if not finite:
        return "a coordinate or cell entry is not a number"
    if not n_atoms:
        return "no atoms"
    if not volume >= smallest:
        return f"volume below {smallest:g} Å^3"
    if not apart >= shortest:
        return f"atoms closer than {shortest:g} Å"
    return ""
