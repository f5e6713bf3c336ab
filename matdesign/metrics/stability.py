"""Stable, unique and novel: which generated crystals would be worth making?"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.figures import Table, median
from matdesign.metrics.summary import Metric, Protocol


def distances_of(crystals: Crystals, given: ArrayLike | str) -> NDArray[np.float64]:
    """Return distances to the hull, given as numbers or as the name of a property.

    Raises:
        DataError: there is no such property, or not one number per crystal.
    """
    if isinstance(given, str):
        known = crystals.properties
        if given not in known:
            raise DataError(
                f"no property {given!r} with distances to the hull; these crystals have "
                f"{', '.join(known) or 'none'}. Relax them with an oracle, and pass its "
                "energy_above_hull."
            )
        return known[given].detach().cpu().double().numpy()
    above = np.asarray(given, dtype=np.float64)
    if above.shape != (len(crystals),):
        raise DataError(
            f"hull_distance must be one number per crystal, shape ({len(crystals)},); "
            f"got {above.shape}. Use NaN where a relaxation failed."
        )
    return above


def notes(crystals: Crystals, settings: Protocol) -> list[str]:
    """Return what must be said beside distances to the hull."""
    found = [
        f"stable: at most {settings.stable:g} eV/atom above the hull; the distances "
        "were given, and hold for their oracle and hull only"
    ]
    error = crystals.properties.get("hull_error", torch.tensor([torch.nan])).nanmedian()
    if error.isfinite():
        found.append(
            f"a distance is off by ± {float(error):.3f} eV/atom on average for crystals "
            "like those that the oracle was trained on; for others by more"
        )
    return found


def add_columns(
    table: Table,
    reasons: Sequence[list[str]],
    above: NDArray[np.float64],
    settings: Protocol,
    seed: int,
) -> list[Metric]:
    """Add the columns of stability to a table; return the figures.

    A crystal is S.U.N. if it is stable, unique in the batch and not in the reference,
    decided crystal by crystal; of equal crystals of which several would be, the one
    lowest above the hull, even if it is not the first of them. One whose relaxation
    failed is in every denominator and is not stable. A crystal that is structurally
    invalid is not stable either.

    Args:
        table: with the columns `structure_valid`, `unique`, `duplicate_of`, and where
            there was a reference `novel`, `ledger` and `known_formula`. Gains `energy_above_hull`
            (eV/atom), `stable` and `sun`.
        reasons: per crystal; a crystal that is not stable gains one.
        above: energy above the hull in eV/atom, shape (crystals,); NaN where unknown.
        settings: the threshold and the level of the intervals.
        seed: of the bootstrap.

    Returns:
        Rates at the threshold and on the hull (0 eV/atom); of the S.U.N. crystals those
            whose formula is unknown too; of the stable ones those that are duplicates or
            element substitutions of known crystals; and the median distance.

    Source:
        Zeni et al., MatterGen, arXiv:2312.03687 (0.1 eV/atom). Changed: the judge is
        whatever oracle gave the distances, here usually a potential, not DFT; figures
        of different oracles and hulls do not compare.
    """
    known = np.isfinite(above) & table["structure_valid"]
    table["energy_above_hull"] = above
    found = []
    for limit, suffix in ((settings.stable, ""), (0.0, ", on the hull")):
        stable = known & (np.nan_to_num(above, nan=np.inf) <= limit)
        found.append(Metric.rate(f"stability{suffix}", stable, settings.level))
        if "novel" in table:
            sun = _one_of_each(table, stable & table["novel"], above)
            found.append(Metric.rate(f"S.U.N.{suffix}", sun, settings.level))
        if not suffix:
            table["stable"] = stable
            if "novel" in table:
                table["sun"] = sun
            if "ledger" in table:
                new = sun & ~table["known_formula"]
                found.append(Metric.rate("S.U.N., new formula", new, settings.level))
                old = np.isin(table["ledger"], ("duplicate", "substitution"))[stable]
                name = "duplicates and substitutions, of the stable"
                found.append(Metric.rate(name, old, settings.level))
    for i in np.flatnonzero(~table["stable"]):
        why = f"above the hull by more than {settings.stable:g} eV/atom"
        reasons[i].append(why if known[i] else "no distance to the hull")
    name = "median energy above the hull"
    found.append(median(name, above[known], "eV/atom", settings, seed))
    return found


def _one_of_each(
    table: Table, which: NDArray[np.bool_], above: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return, of crystals that are equal, the lowest of those in question."""
    of, first = table["duplicate_of"], np.arange(len(above))
    for i in np.flatnonzero(of >= 0):  # of an earlier one
        first[i] = first[of[i]]
    rows = np.flatnonzero(which & (table["unique"] | (of >= 0)))
    rows = rows[np.argsort(above[rows], kind="stable")]
    kept = np.zeros(len(above), dtype=bool)
    kept[rows[np.unique(first[rows], return_index=True)[1]]] = True
    return kept
