"""Structure prediction: given what a crystal is made of, is its structure found?"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.matching import TOLERANCES, matcher, reduced
from matdesign.environment import package_version
from matdesign.errors import DataError, ShapeError
from matdesign.metrics.evaluation import Judged
from matdesign.metrics.figures import Table, mean
from matdesign.metrics.store import Outcome, deadline, in_processes
from matdesign.metrics.summary import Metric, Protocol
from matdesign.tables import text_table

UNIT = "(V/N)^(1/3)"


@dataclass(frozen=True)
class Predictions(Judged):
    """How well structures were predicted: one row per target, then figures.

    Args:
        table: column -> one entry per target: `id`, `formula`, `n_atoms`, `candidates`
            (that were made for it), `matched`, `best` (index of the closest candidate,
            -1 where none matches), `rmse` (of that one, in units of (volume per
            atom)^(1/3), NaN where none matches); `matched_by_any`, `best_of_any` and
            `rmse_of_any`, the same over all candidates of its composition; `reason`.
        metrics: figure by name, with intervals.
        tolerances: of the matcher.
        notes: what the figures leave open.
    """

    table: Table
    metrics: dict[str, Metric]
    tolerances: str
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return settings and versions, in sentences."""
        match = TOLERANCES[self.tolerances]
        return [
            f"match: pymatgen {package_version('pymatgen')} StructureMatcher, ltol "
            f"{match['ltol']}, stol {match['stol']}, angle {match['angle_tol']:g}; "
            "no candidate is left out for being invalid",
            "match rate and RMSE: a target and its own candidates; METRe and cRMSE: a "
            "target and all candidates of its composition, an unmatched target costs "
            f"{match['stol']} {UNIT}",
            *self.notes,
        ]

    def record(self) -> dict[str, Any]:
        """Return figures and settings as plain values for a JSON file."""
        protocol = self.lines()
        return {"targets": len(self), "metrics": self.figures(), "protocol": protocol}

    def __repr__(self) -> str:
        rows = [[m.name, m.figure(), m.span()] for m in self.metrics.values()]
        lines = [f"{len(self):,} targets", text_table(["", "figure", "interval"], rows)]
        return "\n".join([*lines, "protocol", *(f"  {line}" for line in self.lines())])


def evaluate_prediction(
    candidates: Crystals,
    targets: Crystals,
    *,
    of: Tensor | None = None,
    tolerances: str = "cdvae",
    workers: int = 1,
) -> Predictions:
    """Return how often, and how closely, candidates are the structures they should be.

    Equation:
        match rate = matched targets / targets; RMSE = mean over matched targets of the
        lowest RMS displacement; cRMSE = mean over all targets of
        min(lowest RMS displacement of any candidate, stol).

    Args:
        candidates: predicted crystals, k for each target.
        targets: the true crystals.
        of: index of the target that each candidate was made for, shape (candidates,).
            None: the first k are for the first target, and so on.
        tolerances: of the matcher: "cdvae" as published, or "mattergen".
        workers: processes.

    Returns:
        A table per target, and `match rate`, `RMSE`, `METRe` and `cRMSE`.

    Raises:
        DataError: there is no target or no candidate, or the tolerances are unknown.
        ShapeError: the candidates do not divide among the targets.

    Source:
        Match rate and RMSE: CDVAE, arXiv:2110.06197, and DiffCSP, arXiv:2309.04475;
        changed: no filter by validity. METRe and cRMSE: arXiv:2509.12178, which count
        every reference that any candidate matches, so that polymorphs of one
        composition may be found in any order.

    Example:
        >>> apart = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
        >>> salt = Crystals(torch.tensor([[55, 17]]), apart, 4.1 * torch.eye(3)[None])
        >>> evaluate_prediction(salt, salt)["match rate"].figure()
        '1/1'
    """
    settings = Protocol()
    stol = matcher(tolerances).stol
    index = _indices(candidates, targets, of)
    made, wanted = reduced(candidates.species), reduced(targets.species)
    rivals: dict[Any, list[int]] = {}
    for j, formula in enumerate(made):
        rivals.setdefault(formula, []).append(j)
    pairs = [
        (i, j) for i, formula in enumerate(wanted) for j in rivals.get(formula, ())
    ]
    items = [(candidates[[j]], targets[[i]]) for i, j in pairs]
    rms = np.full(len(pairs), np.nan)
    lost = 0
    task = partial(_distance, tolerances=tolerances)
    for k, outcome in in_processes(task, items, workers):
        if isinstance(outcome, str):
            lost += 1
        else:
            rms[k] = outcome[0]
    table = _table(targets, index, (made, wanted), pairs, rms)
    found, near = table["matched"], table["rmse"]
    close = np.where(table["matched_by_any"], table["rmse_of_any"], stol)
    metrics = [
        Metric.rate("match rate", found, settings.level),
        mean("RMSE", near[found], UNIT, settings, seed=0),
        Metric.rate("METRe", table["matched_by_any"], settings.level),
        mean("cRMSE", close, UNIT, settings, seed=0),
    ]
    notes = (f"{lost} pairs could not be compared and count as no match",)
    return Predictions(
        table, {m.name: m for m in metrics}, tolerances, notes if lost else ()
    )


def _indices(
    candidates: Crystals, targets: Crystals, of: Tensor | None
) -> NDArray[np.int64]:
    n, m = len(candidates), len(targets)
    if not n or not m:
        raise DataError(
            f"a prediction needs candidates and targets; got {n} and {m}. Give at least "
            "one of each."
        )
    if of is None:
        if n % m:
            raise ShapeError(
                f"{n} candidates do not divide among {m} targets. Say with `of` which "
                "target each was made for."
            )
        return np.arange(n) // (n // m)
    index = torch.as_tensor(of).cpu().numpy().astype(np.int64)
    if index.shape != (n,) or index.min() < 0 or index.max() >= m:
        raise ShapeError(
            f"`of` must give each of {n} candidates a target from 0 to {m - 1}; got "
            f"shape {index.shape}, values {index.min()} to {index.max()}."
        )
    return index


def _table(
    targets: Crystals,
    index: NDArray[np.int64],
    formulas: tuple[list[Any], list[Any]],
    pairs: list[tuple[int, int]],
    rms: NDArray[np.float64],
) -> Table:
    """Return the table, with the closest candidate of every target: its own, and of any."""
    n, (made, wanted) = len(targets), formulas
    count = np.bincount(index, minlength=n)
    table: Table = {
        "id": np.array(targets.ids or tuple(map(str, range(n))), dtype=object),
        "formula": np.array(targets.formulas, dtype=object),
        "n_atoms": targets.n_atoms.cpu().numpy(),
        "candidates": count,
    }
    for flag, best, column, own in (
        ("matched", "best", "rmse", True),
        ("matched_by_any", "best_of_any", "rmse_of_any", False),
    ):
        table[best], table[column] = np.full(n, -1), np.full(n, np.nan)
        for (i, j), value in zip(pairs, rms.tolist(), strict=True):
            # NaN is no rival
            if value == value and not value >= table[column][i]:
                if not own or index[j] == i:
                    table[best][i], table[column][i] = j, value
        table[flag] = table[best] >= 0
    right = {int(i) for j, i in enumerate(index) if made[j] == wanted[i]}
    table["reason"] = np.full(n, "no candidate matches", dtype=object)
    for i in set(range(n)) - right:
        why = "no candidate of its composition" if count[i] else "no candidate"
        table["reason"][i] = why
    table["reason"][table["matched"]] = ""
    return table


def _distance(pair: tuple[Crystals, Crystals], tolerances: str) -> Outcome:
    """Return the RMS displacement of a candidate and a target, NaN for no match."""
    candidate, target = pair
    try:
        with deadline():
            found = matcher(tolerances).get_rms_dist(
                candidate.structure(0), target.structure(0)
            )
    except Exception as error:  # pymatgen raises many kinds; one must not stop all
        return f"could not be compared ({type(error).__name__})"
    return np.array([np.nan if found is None else found[0]], dtype=np.float64)
