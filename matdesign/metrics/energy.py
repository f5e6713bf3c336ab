"""Energy distance: are the predicted energies distributed as those of real crystals?"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.figures import Draft

Predict = Callable[[Crystals], ArrayLike]
"""Crystals -> formation energies in eV/atom, shape (crystals,)."""


def add_energy_distance(made: Draft, target: Crystals, predict: Predict) -> None:
    """Add the column `predicted_energy` and the Wasserstein-1 distances, eV/atom.

    One predictor judges both sides, so that its own bias is on both. Structurally
    invalid crystals are not predicted: no predictor has seen the like.

    Args:
        made: with the columns `structure_valid` and `valid`.
        target: crystals that the batch should resemble.
        predict: any function from crystals to formation energies, eV/atom.

    Raises:
        DataError: the predictor does not give one number per crystal.

    Source:
        Xie et al., CDVAE, arXiv:2110.06197; all valid crystals, not 1,000 drawn ones.
    """
    energy = np.full(len(made.crystals), np.nan)
    sound = np.flatnonzero(made.table["structure_valid"])
    if len(sound):
        energy[sound] = _predicted(predict, made.crystals[sound.tolist()])
    made.table["predicted_energy"] = energy
    made.distance("energy distance", energy, _predicted(predict, target), "eV/atom")
    missing = len(sound) - int(np.isfinite(energy).sum())
    if missing:
        made.notes.append(
            f"{missing} valid crystals have no predicted energy: left out"
        )


def _predicted(predict: Predict, crystals: Crystals) -> NDArray[np.float64]:
    given = predict(crystals)
    detach = getattr(given, "detach", None)
    values = np.asarray(detach().cpu() if detach else given, dtype=np.float64)
    if values.shape != (len(crystals),):
        raise DataError(
            f"energy must give one number per crystal, shape ({len(crystals)},); got "
            f"{values.shape}. For a network of several properties pass "
            "`lambda crystals: network.predict(crystals)[name]`."
        )
    return values
