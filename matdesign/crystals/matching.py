"""Which crystals are the same: uniqueness in a batch, novelty against a reference."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError

Counts = tuple[tuple[int, int], ...]
"""A reduced formula: ((atomic number, count), ...), ascending, no common divisor."""

TOLERANCES = {
    "mattergen": {"ltol": 0.2, "stol": 0.3, "angle_tol": 5.0},
    "cdvae": {"ltol": 0.3, "stol": 0.5, "angle_tol": 10.0},
}
"""Settings of pymatgen's StructureMatcher: cell edges (relative), sites (in units of
(volume per atom)^(1/3)) and angles (degrees) that still count as equal."""

_NEIGHBOURS = 12


@dataclass(frozen=True)
class Reduced:
    """A crystal ready to be compared: its reduced primitive cell and a sketch."""

    structure: Any
    sketch: NDArray[np.float64]


@dataclass
class Search:
    """What a search found, one entry per crystal of the batch.

    Args:
        match: index of the crystal it equals, -1 where there is none.
        reason: why a crystal could not be compared; empty where it could.
        limited: crystals that were compared with the most similar candidates only.
        comparisons: calls of the structure matcher in all.
    """

    match: NDArray[np.int64]
    reason: dict[int, str] = field(default_factory=dict)
    limited: int = 0
    comparisons: int = 0


def reduced(species: Tensor) -> list[Counts]:
    """Return the reduced formula of every crystal.

    Args:
        species: atomic numbers, 0 = padding, shape (crystals, sites).

    Returns:
        One tuple per crystal, for example ((11, 1), (17, 1)) for Na4Cl4.
    """
    found = []
    for row in species.tolist():
        counts = Counter(z for z in row if z)
        divisor = gcd(*counts.values()) or 1
        found.append(tuple(sorted((z, c // divisor) for z, c in counts.items())))
    return found


def same_in_batch(
    crystals: Crystals,
    formulas: Sequence[Counts],
    *,
    of: Iterable[int] | None = None,
    tolerances: str = "mattergen",
    limit: int = 20,
) -> Search:
    """Return for every crystal the first earlier one that it equals.

    Crystals are compared within their reduced formula only, each with those before it
    that are themselves no repeats. A translated, permuted, rotated or enlarged cell is
    the same crystal; a mirror image too.

    Args:
        crystals: the batch.
        formulas: reduced formula of each, from `reduced`.
        of: indices to consider; all others keep -1 and match nothing.
        tolerances: a name in `TOLERANCES`.
        limit: most candidates that one crystal is compared with, the most similar
            first, so that n crystals of one formula cost n times `limit`, not n^2.

    Returns:
        Matches, failures and what the search cost.

    Raises:
        DataError: the tolerances have no such name.

    Accuracy:
        "Same" is a threshold and not transitive: the result can depend on the order.
        The limit can miss a repeat only among more than `limit` different crystals of
        one formula and cell size; `Search.limited` counts where it could have.
    """
    matcher = _matcher(tolerances)
    found = Search(np.full(len(crystals), -1, dtype=np.int64))
    for members in _buckets(formulas, of).values():
        if len(members) < 2:
            continue
        kept: list[tuple[int, Reduced]] = []
        for i in members:
            one = _reduce(crystals, i, found)
            if one is None:
                continue
            found.match[i] = _find(one, kept, matcher, limit, found, i)
            if found.match[i] < 0 and i not in found.reason:
                kept.append((i, one))
    return found


def same_in_reference(
    crystals: Crystals,
    formulas: Sequence[Counts],
    reference: Crystals,
    reference_formulas: Sequence[Counts],
    *,
    of: Iterable[int] | None = None,
    tolerances: str = "mattergen",
    limit: int = 20,
) -> Search:
    """Return for every crystal a crystal of the reference that it equals.

    Args:
        crystals: the batch.
        formulas: reduced formula of each.
        reference: what counts as known, usually the training set.
        reference_formulas: reduced formula of each of those.
        of: indices of the batch to consider; all others keep -1.
        tolerances: a name in `TOLERANCES`.
        limit: most candidates that one crystal is compared with, most similar first.

    Returns:
        Matches (indices into the reference), failures and what the search cost.

    Raises:
        DataError: the tolerances have no such name.
    """
    matcher = _matcher(tolerances)
    found = Search(np.full(len(crystals), -1, dtype=np.int64))
    known = _buckets(reference_formulas, None)
    for formula, members in _buckets(formulas, of).items():
        ignored = Search(found.match)
        pairs = [(j, _reduce(reference, j, ignored)) for j in known.get(formula, ())]
        candidates = [(j, one) for j, one in pairs if one is not None]
        if not candidates:
            continue
        for i in members:
            one = _reduce(crystals, i, found)
            if one is not None:
                found.match[i] = _find(one, candidates, matcher, limit, found, i)
    return found


def sketch(
    lattice: NDArray[np.float64], frac: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean distance to the 1st, 2nd, ... 12th neighbour, for sorting.

    It does not depend on the choice of cell, origin, orientation or order of the atoms,
    and changes little when atoms move little: similar crystals have similar sketches.

    Args:
        lattice: rows in angstrom, a reduced cell, shape (3, 3).
        frac: shape (sites, 3).

    Returns:
        Shape (12,), in units of (volume per atom)^(1/3).

    Source:
        Average minimum distances, Widdowson et al., MATCH 87, 529 (2022). We look two
        cells far in each direction only, enough to sort by.
    """
    steps = np.arange(-2, 3)
    images = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 1, 1, 3)
    cart = (frac[None, :] - frac[:, None] + images) @ lattice  # (125, sites, sites, 3)
    far = np.linalg.norm(cart, axis=-1).transpose(1, 0, 2).reshape(len(frac), -1)
    nearest = np.sort(np.partition(far, _NEIGHBOURS, axis=1)[:, : _NEIGHBOURS + 1])
    length = (abs(np.linalg.det(lattice)) / len(frac)) ** (1 / 3)
    return np.asarray(nearest[:, 1:].mean(0) / length)


def _matcher(tolerances: str) -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if tolerances not in TOLERANCES:
        raise DataError(
            f"no matcher settings {tolerances!r}; "
            f"choose one of {', '.join(TOLERANCES)}."
        )
    return StructureMatcher(**TOLERANCES[tolerances])  # type: ignore[arg-type]


def _buckets(
    formulas: Sequence[Counts], of: Iterable[int] | None
) -> dict[Counts, list[int]]:
    buckets: dict[Counts, list[int]] = defaultdict(list)
    for i in range(len(formulas)) if of is None else of:
        buckets[formulas[i]].append(i)
    return buckets


def _reduce(crystals: Crystals, i: int, found: Search) -> Reduced | None:
    """Return crystal i reduced as StructureMatcher does; note why if it cannot be."""
    try:
        structure = crystals.structure(i).get_reduced_structure("niggli")
        structure = structure.get_primitive_structure()
        return Reduced(
            structure, sketch(structure.lattice.matrix, structure.frac_coords)
        )
    except (
        Exception
    ) as error:  # pymatgen raises many kinds; one crystal must not stop all
        found.reason[i] = f"could not be reduced ({type(error).__name__})"
        return None


def _find(
    one: Reduced,
    candidates: Sequence[tuple[int, Reduced]],
    matcher: Any,
    limit: int,
    found: Search,
    i: int,
) -> int:
    """Return the number of the first candidate that matches, most similar first."""
    # the matcher never equates primitive cells of different size
    fair = [c for c in candidates if len(c[1].structure) == len(one.structure)]
    if not fair:
        return -1
    apart = [float(np.abs(c[1].sketch - one.sketch).max()) for c in fair]
    for k in np.argsort(apart, kind="stable")[:limit]:
        found.comparisons += 1
        try:
            same = matcher.fit(
                fair[k][1].structure, one.structure, skip_structure_reduction=True
            )
        except Exception as error:  # as in _reduce
            found.reason[i] = f"could not be compared ({type(error).__name__})"
            return -1
        if same:
            return fair[k][0]
    found.limited += len(fair) > limit
    return -1
