"""Energy distance: are the predicted energies distributed as those of real crystals?"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.figures import Table, distance
from matdesign.metrics.summary import Metric, Protocol

Predict = Callable[[Crystals], ArrayLike]
"""Crystals -> formation energies in eV/atom, shape (crystals,)."""


def add_columns(
    table: Table,
    crystals: Crystals,
    reference: Crystals,
    predict: Predict,
    settings: Protocol,
    seed: int,
) -> tuple[list[Metric], list[str]]:
    """Add the column `predicted_energy`; return Wasserstein-1 distances and notes.

    One predictor judges both sides, so that its own bias is on both. Structurally
    invalid crystals are not predicted: no predictor has seen the like.

    Args:
        table: with the columns `structure_valid` and `valid`.
        crystals: the batch.
        reference: crystals that it should resemble.
        predict: any function from crystals to formation energies, eV/atom.
        settings: level and number of the resamples.
        seed: of the resamples.

    Returns:
        The distance over valid crystals and over all that have a prediction, eV/atom.

    Raises:
        DataError: the predictor does not give one number per crystal.

    Source:
        Xie et al., CDVAE, arXiv:2110.06197; all valid crystals, not 1,000 drawn ones.
    """
    energy = np.full(len(crystals), np.nan)
    sound = np.flatnonzero(table["structure_valid"])
    if len(sound):
        energy[sound] = _predicted(predict, crystals[sound.tolist()])
    table["predicted_energy"] = energy
    target = _predicted(predict, reference)
    notes = []
    missing = len(sound) - int(np.isfinite(energy).sum())
    if missing:
        notes.append(f"{missing} valid crystals have no predicted energy: left out")
    target = target[np.isfinite(target)]
    found = []
    predicted = np.isfinite(energy)
    for suffix, rows in ((", valid", table["valid"]), (", all", predicted)):
        values = energy[rows & predicted]
        found.append(
            distance(
                f"energy distance{suffix}", values, target, "eV/atom", settings, seed
            )
        )
    return found, notes


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
