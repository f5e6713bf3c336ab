"""The novelty ledger: what a generated crystal repeats, and what is new about it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from matdesign.crystals import matching
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.figures import Draft

Known = Callable[[Crystals], ArrayLike]
"""Crystals -> whether a compound of that formula is known, shape (crystals,)."""

KINDS = {
    "duplicate": "a known crystal",
    "substitution": "a known crystal with other elements",
    "new structure": "a known formula in a structure that no known crystal has",
    "new": "neither formula nor structure is known",
}
"""Entries of the ledger; the first that applies holds."""


def add_ledger(made: Draft, reference: Crystals, known: Known | None) -> None:
    """Enter every crystal in the ledger; add one rate per kind, over all crystals.

    Args:
        made: with the columns `structure_valid`, `novel` and `known_as`. Gains
            `ledger` (a key of `KINDS`; empty for a crystal that is structurally
            invalid or cannot be compared), `substitution_of` (index in the reference,
            -1 for none) and `known_formula`.
        reference: the known crystals.
        known: says which formulas are known, such as `Hull.known`; None: those of the
            reference. Formulas of the reference are known in any case.

    Raises:
        DataError: `known` does not give one answer per crystal.

    Source:
        The question is that of Negishi and Walsh, arXiv:2606.23166, who find 81 to 92 %
        of valid, metastable generated crystals to be duplicates or substitutions of
        training crystals. The definitions and tolerances here are ours.
    """
    table, crystals, settings = made.table, made.crystals, made.settings
    whole = set(matching.reduced(reference.species))
    formula = np.array([f in whole for f in matching.reduced(crystals.species)])
    if known is not None:
        answers = np.asarray(known(crystals), dtype=bool)
        if answers.shape != (len(crystals),):
            raise DataError(
                f"known_formula must give one answer per crystal, shape "
                f"({len(crystals)},); got {answers.shape}. Pass `Hull.shipped().known`."
            )
        formula |= answers
    found = matching.find_same(
        crystals,
        reference,
        of=np.flatnonzero(table["novel"]).tolist(),
        tolerances=settings.matcher,
        limit=settings.substitutions,
        anonymous=True,
    )
    kind = np.where(formula, "new structure", "new").astype(object)
    kind[found.match >= 0] = "substitution"
    kind[table["known_as"] >= 0] = "duplicate"
    kind[~table["novel"] & (table["known_as"] < 0)] = ""
    kind[list(found.reason)] = ""
    table["ledger"] = kind
    table["substitution_of"] = found.match
    table["known_formula"] = formula
    made.notes.append(
        "ledger: known formulas are those of "
        + ("the reference" if known is None else "the reference and of the given table")
    )
    if found.limited:
        made.notes.append(
            f"{found.limited} crystals had more than {settings.substitutions} similar "
            "known structures, and were compared with the most similar for substitution"
        )
    for name in KINDS:
        made.rate(f"ledger: {name}", kind == name)
