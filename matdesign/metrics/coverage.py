"""Coverage: does the batch reach every kind of reference crystal, and stay near them?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.figures import Draft
from matdesign.metrics.fingerprints import Fingerprints, fingerprints
from matdesign.metrics.summary import Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One of two batches: how far each of its crystals is from the other batch.

    Args:
        structure: distance to the nearest structure of the other batch, shape
            (crystals,); NaN without a fingerprint.
        composition: the same for compositions, found on its own.
        near: both within their cutoffs.
        reason: why there is no fingerprint, else empty.
    """

    structure: Floats
    composition: Floats
    near: NDArray[np.bool_]
    reason: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """Distances between a batch and a reference, per crystal of each.

    Args:
        batch: side of the generated crystals, for the precision.
        reference: side of the reference crystals, for the recall.
    """

    batch: Side
    reference: Side

    def metrics(self, level: float = 0.95) -> list[Metric]:
        """Return recall (COV-R) and precision (COV-P), with Wilson intervals.

        A generated crystal without a fingerprint counts as a miss. A reference crystal
        without one is left out: nothing could cover it.

        Accuracy:
            The interval of COV-R says how far another draw of reference crystals could
            lie, for this batch; more generated crystals cover more, so compare equal
            numbers. That of COV-P is over the generated crystals.
        """
        recall = self.reference.near[np.array(self.reference.reason) == ""]
        return [
            Metric.rate("COV-R", recall, level),
            Metric.rate("COV-P", self.batch.near, level),
        ]


def coverage(
    crystals: Crystals | Fingerprints,
    reference: Crystals | Fingerprints,
    *,
    structure_cutoff: float = 0.4,
    composition_cutoff: float = 10.0,
    workers: int = 1,
    cache: Path | None = None,
) -> Coverage:
    """Return how a batch covers a reference, and stays near it.

    Equation:
        COV-R = mean over references r of [min_g |s_g - s_r| <= cutoff_s and
        min_g |c_g - c_r| <= cutoff_c]; COV-P with the parts of g and r exchanged.

    Args:
        crystals: generated crystals, or their fingerprints.
        reference: crystals that they should resemble, usually held out; or their
            fingerprints.
        structure_cutoff: Euclidean distance of structure fingerprints, no unit: 0.4
            for MP-20, 0.2 for Perov-5 and Carbon-24.
        composition_cutoff: the same for compositions: 10 for MP-20, 4 for the others.
        workers: processes that compute fingerprints.
        cache: file that keeps fingerprints.

    Returns:
        Distances and verdicts per crystal of both batches.

    Raises:
        DataError: a batch is empty, or matminer is not installed.

    Source:
        Xie et al., CDVAE, arXiv:2110.06197, code. As there, the nearest structure and
        the nearest composition are found independently, so two references together can
        cover one crystal: a weak test, which real crystals pass at 97 to 99 %.

    Example:
        >>> import torch
        >>> apart = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
        >>> salt = Crystals(torch.tensor([[55, 17]]), apart, 4.1 * torch.eye(3)[None])
        >>> [m.figure() for m in coverage(salt, salt).metrics()]
        ['1/1', '1/1']
    """
    prints = []
    for name, one in (("crystals", crystals), ("reference", reference)):
        if isinstance(one, Crystals):
            one = fingerprints(one, workers=workers, cache=cache)
        if not len(one.reason):
            raise DataError(f"{name} is empty: coverage needs at least one crystal.")
        prints.append(one)
    sides = []
    for of, to in (prints, prints[::-1]):
        structure = _nearest(of.structure, to.structure, of.ok, to.ok)
        composition = _nearest(of.composition, to.composition, of.ok, to.ok)
        near = structure <= structure_cutoff
        near &= composition <= composition_cutoff
        sides.append(Side(structure, composition, near, of.reason))
    return Coverage(*sides)


def add_coverage(
    made: Draft, target: Crystals, workers: int, cache: Path | None
) -> None:
    """Add the columns of coverage, COV-R and COV-P."""
    settings = made.settings
    found = coverage(
        made.crystals,
        target,
        structure_cutoff=settings.structure_cutoff,
        composition_cutoff=settings.composition_cutoff,
        workers=workers,
        cache=cache,
    )
    made.table["nearest_structure"] = found.batch.structure
    made.table["nearest_composition"] = found.batch.composition
    made.table["covered"] = found.batch.near
    for why, near, reasons in zip(
        found.batch.reason, found.batch.near, made.reasons, strict=True
    ):
        if why or not near:
            reasons.append(why or "unlike every held-out crystal")
    made.notes.append(settings.coverage_line())
    lost = sum(map(bool, found.reference.reason))
    if lost:
        made.notes.append(
            f"{lost} held-out crystals have no fingerprint and are left out"
        )
    made.metrics += found.metrics(settings.level)


def _nearest(
    of: Floats, to: Floats, of_ok: NDArray[np.bool_], to_ok: NDArray[np.bool_]
) -> Floats:
    """Return distances to the nearest row of the other array; NaN if not ok."""
    from scipy.spatial.distance import cdist

    found, rows = np.full(len(of), np.nan), np.flatnonzero(of_ok)
    for at in range(0, len(rows), 500) if to_ok.any() else ():
        some = rows[at : at + 500]
        found[some] = cdist(of[some], to[to_ok]).min(axis=1)
    return found
