"""Structural validity: atoms apart, and a cell with room for them."""

import numpy as np
import torch
from numpy.typing import NDArray

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import min_distance
from matdesign.metrics.figures import Table

Flags = NDArray[np.bool_]


def geometry(
    crystals: Crystals, *, shortest: float = 0.5, smallest: float = 0.1
) -> Table:
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
        `volume` (angstrom^3), `density` (g/cm^3) and `min_distance` (angstrom, an atom's
        own images left out, so infinite for one atom), NaN where a number is not finite;
        and `reason`, why a crystal is structurally invalid, empty where it is valid.

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
    found: Table = {
        name: np.full(len(batch), np.nan)
        for name in ("volume", "density", "min_distance")
    }
    found["volume"][at] = double.volume.numpy()
    found["min_distance"][at] = min_distance(double).numpy()
    density = torch.where(double.volume > 0, double.density, torch.nan)
    found["density"][at] = density.numpy()
    flags = ~finite.numpy(), batch.n_atoms.numpy() == 0
    return found | {"reason": _reasons(found, *flags, shortest, smallest)}


def _reasons(
    found: Table, infinite: Flags, empty: Flags, shortest: float, smallest: float
) -> NDArray[np.object_]:
    """Return why each crystal is invalid: the first that applies, "" for none."""
    why = {
        "a coordinate or cell entry is not a number": infinite,
        "no atoms": empty,
        f"volume below {smallest:g} Å^3": ~(found["volume"] >= smallest),
        f"atoms closer than {shortest:g} Å": ~(found["min_distance"] >= shortest),
    }
    return np.select([*why.values()], [*why], "").astype(object)
