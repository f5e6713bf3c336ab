"""Which crystals are the same: within a batch, against known ones, with elements or not."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import gcd
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import reduce_lattice
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
        counts = Counter(row)
        del counts[0]
        divisor = gcd(*counts.values()) or 1
        found.append(tuple(sorted((z, c // divisor) for z, c in counts.items())))
    return found


def find_same(
    crystals: Crystals,
    reference: Crystals | None = None,
    *,
    of: Iterable[int] | None = None,
    tolerances: str = "mattergen",
    limit: int = 20,
    anonymous: bool = False,
) -> Search:
    """Return for every crystal one that it equals: of a reference, or an earlier one.

    Crystals are compared within their reduced formula only; without a reference each with
    those before it that are themselves no repeats. A translated, permuted, rotated,
    scaled or enlarged cell is the same crystal; a mirror image too.

    Args:
        crystals: the batch.
        reference: what counts as known, usually the training set. What is computed of
            it is kept for as long as the object lives. None: the batch itself.
        of: indices of the batch to consider; all others keep -1 and match nothing.
        tolerances: a name in `TOLERANCES`.
        limit: most candidates that one crystal is compared with, the most similar
            first, so that n crystals of one formula cost n times `limit`, not n^2.
        anonymous: whether elements may be exchanged, one for one: NaCl then equals MgO.

    Returns:
        Matches (indices into the reference, or the batch), failures and what the search
        cost.

    Raises:
        DataError: the tolerances have no such name.

    Accuracy:
        "Same" is a threshold and not transitive: the result can depend on the order.
        The limit can miss a repeat only among more than `limit` different crystals of
        one formula; `Search.limited` counts where it could have. Crystals whose
        `sketches` differ by more than the tolerance of sites are not compared: of 2,173
        equal pairs in reduced MP-20 and two models' samples none differs so much.

    Source:
        `fit` and `fit_anonymous` of pymatgen's StructureMatcher.
    """
    how = matcher(tolerances)
    found = Search(np.full(len(crystals), -1, dtype=np.int64))
    batch = _prepared(crystals)
    known = batch if reference is None else _prepared(reference)
    groups: dict[Any, list[int]] = {}
    rows = list(range(len(crystals)) if of is None else of)
    keys: list[Any] = [pattern(one) if anonymous else one for one in batch.formulas]
    if reference is not None:
        groups = known.by_pattern if anonymous else known.by_formula
        asked = [i for i in rows if keys[i] in groups]
        # all sketches at once: one by one they take longer than the comparisons
        known.sketches([k for key in {keys[i] for i in asked} for k in groups[key]])
        batch.sketches([i for i in asked if not isinstance(batch.cell(i), str)])
    for i in rows:
        if some := groups.get(keys[i]):
            _find(found, batch, i, known, some, how, limit, anonymous)
        if reference is None and found.match[i] < 0 and i not in found.reason:
            groups.setdefault(keys[i], []).append(i)
    return found


def pattern(formula: Counts) -> tuple[int, ...]:
    """Return the counts of a formula without its elements, ascending: (1, 1, 3)."""
    return tuple(sorted(count for _, count in formula))


def sketches(crystals: Crystals) -> NDArray[np.float64]:
    """Return a short description of every crystal, to find similar ones by.

    Mean distances to the 1st, 2nd ... 12th neighbour: of any element, of the own
    element, and of these the standard deviation over the sites. They know no elements
    and do not depend on the choice of cell, origin, orientation or order of the atoms;
    crystals that differ little have sketches that differ little.

    Returns:
        Shape (crystals, 36), in units of (volume per atom)^(1/3); NaN for no atoms.

    Source:
        Average minimum distances, Widdowson et al., MATCH 87, 529 (2022). Changed: the
        second and third dozen; we look two reduced cells far in each direction.
    """
    made = np.full((len(crystals), 3 * _NEIGHBOURS), np.nan)
    steps = torch.arange(-2.0, 3.0, dtype=torch.float64)
    images = torch.cartesian_prod(steps, steps, steps)
    for size in crystals.n_atoms.unique().tolist():
        rows = (crystals.n_atoms == size).nonzero().squeeze(1)
        for some in rows.split(1 + 8_000 // size**2) if size else ():
            species = crystals.species[some, :size]
            frac = crystals.frac[some, :size].double()
            cell = crystals.lattice[some].double()
            change = reduce_lattice(cell)
            frac = torch.linalg.solve(change.mT, frac.mT).mT
            apart = frac[:, :, None] - frac[:, None]
            apart = (apart - apart.round())[..., None, :] + images
            far = (apart @ (change @ cell)[:, None, None]).norm(dim=-1)
            same = (species[:, :, None] == species[:, None])[..., None]
            own = torch.where(same, far, torch.inf)
            near, own = (
                d.flatten(2).topk(_NEIGHBOURS + 1, largest=False)[0][..., 1:]
                for d in (far, own)
            )
            length = (torch.linalg.det(cell).abs() / size) ** (1 / 3)
            parts = (near.mean(1), own.mean(1), own.std(1, correction=0))
            made[some.numpy()] = (torch.cat(parts, 1) / length[:, None]).numpy()
    return made


class _Prepared:
    """A batch ready to be compared; sketches and reduced cells are made on demand."""

    def __init__(self, crystals: Crystals) -> None:
        self.crystals = crystals.to("cpu")
        self.formulas = reduced(self.crystals.species)
        self.by_formula: dict[Counts, list[int]] = defaultdict(list)
        self.by_pattern: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, formula in enumerate(self.formulas):
            self.by_formula[formula].append(i)
            self.by_pattern[pattern(formula)].append(i)
        self._sketches = np.full((len(crystals), 3 * _NEIGHBOURS), np.nan)
        self._cells: dict[int, Any] = {}

    def sketches(self, of: Sequence[int]) -> NDArray[np.float64]:
        """Return the sketches of some crystals."""
        at = np.asarray(of, dtype=np.int64)
        new = at[np.isnan(self._sketches[at, 0])]
        if len(new):
            self._sketches[new] = sketches(self.crystals[new.tolist()])
        return self._sketches[at]

    def cell(self, i: int) -> Any:
        """Return crystal i reduced as StructureMatcher does, or why it cannot be."""
        if i not in self._cells:
            try:
                structure = self.crystals.structure(i).get_reduced_structure("niggli")
                self._cells[i] = structure.get_primitive_structure()
            # pymatgen raises many kinds; one crystal must not stop all
            except Exception as error:
                self._cells[i] = f"could not be reduced ({type(error).__name__})"
        return self._cells[i]


_PREPARED: WeakKeyDictionary[Crystals, _Prepared] = WeakKeyDictionary()


def _prepared(crystals: Crystals) -> _Prepared:
    if crystals not in _PREPARED:
        _PREPARED[crystals] = _Prepared(crystals)
    return _PREPARED[crystals]


@cache
def matcher(tolerances: str) -> Any:
    """Return pymatgen's StructureMatcher of named tolerances.

    Raises:
        DataError: the tolerances have no such name.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if tolerances not in TOLERANCES:
        raise DataError(
            f"no matcher settings {tolerances!r}; "
            f"choose one of {', '.join(TOLERANCES)}."
        )
    return StructureMatcher(**TOLERANCES[tolerances])  # type: ignore[arg-type]


def _find(
    found: Search,
    batch: _Prepared,
    i: int,
    known: _Prepared,
    candidates: Sequence[int],
    how: Any,
    limit: int,
    anonymous: bool,
) -> None:
    """Note the first candidate that crystal i matches, most similar first."""
    if isinstance(one := batch.cell(i), str):
        found.reason[i] = one
        return
    apart = np.abs(known.sketches(candidates) - batch.sketches([i])).max(1)
    compared, fit = 0, how.fit_anonymous if anonymous else how.fit
    for k in np.argsort(apart, kind="stable"):
        if not apart[k] <= how.stol:
            return
        other = known.cell(candidates[k])
        # the matcher never equates primitive cells of different size
        if isinstance(other, str) or len(other) != len(one):
            continue
        if compared == limit:
            found.limited += 1
            return
        compared += 1
        found.comparisons += 1
        try:
            same = fit(other, one, skip_structure_reduction=True)
        except Exception as error:  # as in _Prepared.cell
            found.reason[i] = f"could not be compared ({type(error).__name__})"
            return
        if same:
            found.match[i] = candidates[k]
            return
