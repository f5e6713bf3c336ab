"""Stable, unique and novel: which generated crystals would be worth making?"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.figures import Draft, Table, median


def add_stability(made: Draft, given: ArrayLike | str) -> None:
    """Add the columns of stability, and the figures.

    A crystal is S.U.N. if it is stable, unique in the batch and not in the reference,
    decided crystal by crystal; of equal crystals of which several would be, the one
    lowest above the hull, even if it is not the first of them. One whose relaxation
    failed is in every denominator and is not stable. A crystal that is structurally
    invalid is not stable either.

    The figures are rates at the threshold and on the hull (0 eV/atom); of the S.U.N.
    crystals those whose formula is unknown too; of the stable ones those that are
    duplicates or element substitutions of known crystals; and the median distance.

    Args:
        made: with the columns `structure_valid`, `unique`, `duplicate_of`, and where
            there was a reference `novel`, `ledger` and `known_formula`. Gains
            `energy_above_hull` (eV/atom), `stable` and `sun`; a crystal that is not
            stable gains a reason.
        given: energy above the hull in eV/atom, shape (crystals,), NaN where unknown; or
            the name of a property.

    Raises:
        DataError: there is no such property, or not one number per crystal.

    Source:
        Zeni et al., MatterGen, arXiv:2312.03687 (0.1 eV/atom). Changed: the judge is
        whatever oracle gave the distances, here usually a potential, not DFT; figures
        of different oracles and hulls do not compare.
    """
    table, settings = made.table, made.settings
    above = _distances(made.crystals, given)
    known = np.isfinite(above) & table["structure_valid"]
    table["energy_above_hull"] = above
    for limit, suffix in ((settings.stable, ""), (0.0, ", on the hull")):
        stable = known & (np.nan_to_num(above, nan=np.inf) <= limit)
        made.rate(f"stability{suffix}", stable)
        if "novel" in table:
            sun = _one_of_each(table, stable & table["novel"], above)
            made.rate(f"S.U.N.{suffix}", sun)
        if not suffix:
            table["stable"] = stable
            if "novel" in table:
                table["sun"] = sun
            if "ledger" in table:
                made.rate("S.U.N., new formula", sun & ~table["known_formula"])
                old = np.isin(table["ledger"], ("duplicate", "substitution"))[stable]
                made.rate("duplicates and substitutions, of the stable", old)
    for i in np.flatnonzero(~table["stable"]):
        why = f"above the hull by more than {settings.stable:g} eV/atom"
        made.reasons[i].append(why if known[i] else "no distance to the hull")
    name = "median energy above the hull"
    made.metrics.append(median(name, above[known], "eV/atom", settings, made.seed))
    made.notes.append(
        f"stable: at most {settings.stable:g} eV/atom above the hull; the distances "
        "were given, and hold for their oracle and hull only"
    )
    error = made.crystals.properties.get("hull_error", torch.tensor([torch.nan]))
    if error.nanmedian().isfinite():
        made.notes.append(
            f"a distance is off by ± {float(error.nanmedian()):.3f} eV/atom on average "
            "for crystals like those that the oracle was trained on; for others by more"
        )


def _distances(crystals: Crystals, given: ArrayLike | str) -> NDArray[np.float64]:
    """Return distances to the hull, given as numbers or as the name of a property."""
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
