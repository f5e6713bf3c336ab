"""Judging crystals: one row per crystal first, then figures with intervals."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from matdesign.crystals import matching
from matdesign.crystals.batch import Crystals
from matdesign.crystals.matching import Search
from matdesign.errors import DataError
from matdesign.metrics import baselines as without_learning
from matdesign.metrics import composition, figures, structure
from matdesign.metrics.coverage import add_coverage
from matdesign.metrics.energy import Predict, add_energy_distance
from matdesign.metrics.evaluation import Comparison, Evaluation
from matdesign.metrics.figures import Draft
from matdesign.metrics.ledger import Known, add_ledger
from matdesign.metrics.stability import add_stability
from matdesign.metrics.summary import Metric, Protocol

__all__ = ["Comparison", "Evaluation", "Metric", "Protocol", "compare", "evaluate"]


def evaluate(
    crystals: Crystals,
    reference: Crystals | None = None,
    *,
    seed: int = 0,
    protocol: Protocol | None = None,
    held_out: Crystals | None = None,
    coverage: bool = False,
    energy: Predict | None = None,
    hull_distance: ArrayLike | str | None = None,
    ledger: bool = False,
    known_formula: Known | None = None,
    workers: int = 1,
    cache: str | Path | None = None,
) -> Evaluation:
    """Return a judgement of every crystal, and of the batch as a whole.

    Every crystal of the batch is in every rate: one that is broken, or that a library
    cannot handle, counts as failed and its row says why.

    Args:
        crystals: what to judge, at least one.
        reference: known crystals, usually the training set. With it come novelty and
            the distances of density and number of elements.
        seed: of the bootstrap.
        protocol: other thresholds and settings than the published ones.
        held_out: crystals that the batch should resemble, usually a test set: distances
            and coverage are taken to them. None: to the reference.
        coverage: whether to add COV-R and COV-P. Slow: 0.1 s a crystal, of the batch
            and of the held-out ones, unless `cache` has them.
        energy: any function from crystals to formation energies (eV/atom, shape
            (crystals,)); adds the energy distance.
        hull_distance: energy above the hull in eV/atom, shape (crystals,), NaN where a
            relaxation failed, or the name of a property; adds stability and S.U.N.
            Give the relaxed crystals with it, as an oracle's results hold them.
        ledger: whether to enter every crystal in the novelty ledger: some 0.05 s each,
            and as much for each similar known crystal the first time.
        known_formula: says which formulas are known beside those of the reference, for
            the ledger: any function from crystals to bool, such as
            `Hull.shipped().known`.
        workers: processes that compute fingerprints.
        cache: file that keeps fingerprints, for coverage.

    Returns:
        The table, the figures with intervals, and the protocol.

    Raises:
        DataError: there is no crystal to judge, the reference is empty or missing, or a
            setting has no such name.

    Source:
        The metrics of CDVAE (arXiv:2110.06197) and MatterGen (arXiv:2312.03687).
        Changed: intervals; distances use all valid crystals, not 1,000 drawn ones;
        an invalid crystal is neither unique nor novel.
    """
    settings = protocol or Protocol()
    target = reference if held_out is None else held_out
    given = {"crystals": crystals, "reference": reference, "held_out": held_out}
    for name, batch in given.items():
        if batch is not None and not len(batch):
            raise DataError(
                f"{name} is empty: got 0 crystals. Give at least one"
                + ("." if name == "crystals" else f", or no {name}.")
            )
    if target is None and (coverage or energy is not None):
        raise DataError(
            "coverage and the energy distance need crystals to compare with; got "
            "neither a reference nor held-out ones. Pass held_out=..."
        )
    made = Draft(crystals, settings, seed)
    _describe(made)
    _match(made, reference)
    figures.add_rates(made)
    if reference is not None and ledger:
        add_ledger(made, reference, known_formula)
    if target is not None and coverage:
        add_coverage(made, target, workers, None if cache is None else Path(cache))
    if target is not None:
        figures.add_distances(made, target)
    if target is not None and energy is not None:
        add_energy_distance(made, target, energy)
    if hull_distance is not None:
        add_stability(made, hull_distance)
    name, apart = "median of smallest distances", made.table["min_distance"]
    made.metrics.append(figures.median(name, apart, "Å", settings, seed))
    made.table["reason"] = np.array(["; ".join(r) for r in made.reasons], dtype=object)
    failures = Counter(why for row in made.reasons for why in row)
    return Evaluation(
        made.table,
        {m.name: m for m in made.metrics},
        dict(failures.most_common()),
        settings,
        0 if reference is None else len(reference),
        tuple(made.notes),
    )


def _describe(made: Draft) -> None:
    """Add the first columns of the table, and reasons per crystal."""
    crystals, settings = made.crystals, made.settings
    geometry = structure.geometry(
        crystals,
        shortest=settings.shortest_distance,
        smallest=settings.smallest_volume,
    )
    formulas = matching.reduced(crystals.species)
    verdicts = [
        composition.check(f, settings.states, settings.mixed_valence) for f in formulas
    ]
    reasons = geometry.pop("reason")
    stable = reasons == ""
    neutral = np.array([v.valid for v in verdicts])
    names = crystals.ids or tuple(map(str, range(len(crystals))))
    made.table = {
        "id": np.array(names, dtype=object),
        "formula": np.array(crystals.formulas, dtype=object),
        "n_atoms": crystals.n_atoms.cpu().numpy(),
        "n_elements": np.array([len(f) for f in formulas]),
        **geometry,
        "structure_valid": stable,
        "composition_valid": neutral,
        "valid": stable & neutral,
    }
    made.reasons = [
        # an empty crystal fails both for one reason
        list(dict.fromkeys(why for why in (g, v.reason) if why))
        for g, v in zip(reasons, verdicts, strict=True)
    ]


def _match(made: Draft, reference: Crystals | None) -> None:
    """Add the columns of uniqueness and novelty."""
    table, settings = made.table, made.settings
    how: dict[str, Any] = {
        "of": np.flatnonzero(table["structure_valid"]).tolist(),
        "tolerances": settings.matcher,
        "limit": settings.comparisons,
    }
    found = matching.find_same(made.crystals, **how)
    _enter(made, found, "repeat of an earlier crystal", "unique", "duplicate_of")
    if reference is not None:
        found = matching.find_same(made.crystals, reference, **how)
        _enter(made, found, "in the reference", "novel", "known_as")


def _enter(made: Draft, search: Search, why: str, flag: str, index: str) -> None:
    """Add a search: the column of matches, and the flag of crystals without one."""
    made.table[index] = search.match
    made.table[flag] = made.table["structure_valid"] & (search.match < 0)
    for i, failure in search.reason.items():
        made.table[flag][i] = False
        if failure not in made.reasons[i]:
            made.reasons[i].append(failure)
    for i in np.flatnonzero(search.match >= 0):
        made.reasons[i].append(why)
    if search.limited:
        made.notes.append(
            f"{search.limited} crystals had more than {made.settings.comparisons} "
            f"candidates for '{why}' and were compared with the most similar"
        )


def compare(
    batches: Mapping[str, Crystals],
    reference: Crystals | None = None,
    *,
    seed: int = 0,
    hull_distance: Mapping[str, ArrayLike] | str | None = None,
    baselines: bool = True,
    **options: Any,
) -> Comparison:
    """Return several batches judged by one protocol, side by side.

    Args:
        batches: name -> crystals, at least one batch.
        reference: known crystals, the same for all.
        seed: of the bootstrap.
        hull_distance: name -> distances of that batch, or the name of a property that
            all batches have. A batch without distances gets no stability.
        baselines: whether to add what needs no learning, made of the reference and as
            large as the largest batch: its crystals with the species of others, and
            with elements replaced at random (`metrics.baselines`). A batch of the same
            name stands in for one of them.
        **options: of `evaluate`, the same for all. A `cache` is worth giving, as the
            reference is the same for all.

    Returns:
        A table that prints.

    Raises:
        DataError: there is no batch, or one is empty.
    """
    if not batches:
        raise DataError("nothing to compare: got no batches. Give at least one.")
    above: Mapping[str, Any] = (
        hull_distance
        if isinstance(hull_distance, Mapping)
        else dict.fromkeys(batches, hull_distance)  # baselines have no properties
    )
    made: dict[str, Crystals] = {}
    if reference is not None and baselines:
        most = max(map(len, batches.values()))
        made = without_learning.baselines(reference, most, seed=seed)
    every = {**batches, **{k: v for k, v in made.items() if k not in batches}}
    judged = {
        name: evaluate(
            one, reference, seed=seed, hull_distance=above.get(name), **options
        )
        for name, one in every.items()
    }
    return Comparison(judged, tuple(made))
