"""Judging crystals: one row per crystal first, then figures with intervals."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics import composition, figures, matching, structure
from matdesign.metrics.figures import Table
from matdesign.metrics.summary import Metric, Protocol, html_table, text_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "Evaluation", "Metric", "Protocol", "compare", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """The judgement of a batch: per crystal, in figures, and how it was taken.

    Args:
        table: column -> one entry per crystal, in the order of the batch: `id`,
            `formula`, `n_atoms`, `n_elements`, `volume` (angstrom^3), `density`
            (g/cm^3), `min_distance` (angstrom), the flags `structure_valid`,
            `composition_valid`, `valid`, `unique` and `novel`, the indices
            `duplicate_of` (in the batch) and `known_as` (in the reference), -1 for
            none, and `reason`, empty only where nothing speaks against the crystal.
        metrics: figure by name, with intervals.
        failures: reason -> crystals, most common first; a crystal can have several.
        protocol: the settings.
        n_reference: crystals in the reference, 0 where there was none.
        notes: what the figures leave open, in sentences.

    Example:
        >>> import torch
        >>> from matdesign.crystals.batch import Crystals
        >>> apart = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
        >>> salt = Crystals(torch.tensor([[55, 17]]), apart, 4.1 * torch.eye(3)[None])
        >>> evaluate(salt)["structural validity"].figure()
        '1/1'
    """

    table: Table
    metrics: dict[str, Metric]
    failures: dict[str, int]
    protocol: Protocol
    n_reference: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table["formula"])

    def __getitem__(self, name: str) -> Metric:
        """Return one figure, for example `evaluation["uniqueness"].value`.

        Raises:
            DataError: there is no figure of that name.
        """
        try:
            return self.metrics[name]
        except KeyError:
            hint = "" if self.n_reference else " More of them need a reference."
            raise DataError(
                f"no figure {name!r}; this evaluation has "
                f"{', '.join(self.metrics)}.{hint}"
            ) from None

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table, one row per crystal."""
        import pandas as pd

        return pd.DataFrame(self.table)

    def record(self) -> dict[str, Any]:
        """Return figures, failures and protocol as plain values for a JSON file."""
        figures = {
            name: {
                k: v
                for k, v in vars(one).items()
                if k != "name" and v is not None and v != "" and v == v
            }
            for name, one in self.metrics.items()
        }
        return {
            "crystals": len(self),
            "reference": self.n_reference,
            "metrics": figures,
            "failures": self.failures,
            "protocol": self.protocol.record(),
        }

    def __repr__(self) -> str:
        lines = [self._title(), *(f"  {m}" for m in self.metrics.values())]
        if self.failures:
            lines.append("most common failures")
            lines += [f"  {n:5d}  {why}" for why, n in list(self.failures.items())[:6]]
        lines += ["protocol", *(f"  {line}" for line in self._protocol())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            [m.name, m.figure(), m.span(), "" if m.floor is None else f"{m.floor:.2g}"]
            for m in self.metrics.values()
        ]
        head = ["metric", "figure", "interval"]
        floors = any(row[3] for row in rows)
        if floors:
            head.append("reference against itself")
        parts = [html_table(head, [r[: 3 + floors] for r in rows], self._title())]
        if self.failures:
            worst = [[why, str(n)] for why, n in list(self.failures.items())[:6]]
            parts.append(html_table(["failure", "crystals"], worst))
        items = "".join(f"<li>{escape(line)}</li>" for line in self._protocol())
        parts.append(f"<details><summary>Protocol</summary><ul>{items}</ul></details>")
        return "<div>" + "".join(parts) + "</div>"

    def _title(self) -> str:
        against = f" against {self.n_reference:,} known" if self.n_reference else ""
        return f"{len(self):,} crystals{against}"

    def _protocol(self) -> list[str]:
        return [*self.protocol.lines(), *self.notes]


def evaluate(
    crystals: Crystals,
    reference: Crystals | None = None,
    *,
    seed: int = 0,
    protocol: Protocol | None = None,
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

    Returns:
        The table, the figures with intervals, and the protocol.

    Raises:
        DataError: there is no crystal to judge, the reference is empty, or a setting
            has no such name.

    Source:
        The metrics of CDVAE (arXiv:2110.06197) and MatterGen (arXiv:2312.03687).
        Changed: intervals; distances use all valid crystals, not 1,000 drawn ones;
        an invalid crystal is neither unique nor novel.
    """
    settings = protocol or Protocol()
    for name, batch in (("crystals", crystals), ("reference", reference)):
        if batch is not None and not len(batch):
            raise DataError(
                f"{name} is empty: got 0 crystals. Give at least one"
                + (", or no reference." if name == "reference" else ".")
            )
    table, formulas, reasons = _describe(crystals, settings)
    notes = _match(table, crystals, formulas, reference, reasons, settings)
    metrics = figures.rates(table, settings)
    if reference is not None:
        metrics += figures.distances(table, reference, settings, seed)
    metrics.append(figures.median(table["min_distance"], settings, seed))
    table["reason"] = np.array(["; ".join(r) for r in reasons], dtype=object)
    failures = Counter(why for row in reasons for why in row)
    return Evaluation(
        table,
        {m.name: m for m in metrics},
        dict(failures.most_common()),
        settings,
        0 if reference is None else len(reference),
        tuple(notes),
    )


def _describe(
    crystals: Crystals, settings: Protocol
) -> tuple[Table, list[composition.Counts], list[list[str]]]:
    """Return the first columns of the table, reduced formulas, reasons per crystal."""
    geometry = structure.geometry(
        crystals,
        shortest=settings.shortest_distance,
        smallest=settings.smallest_volume,
    )
    formulas = composition.reduced(crystals.species)
    verdicts = [
        composition.check(f, settings.states, settings.mixed_valence) for f in formulas
    ]
    stable = np.array([not why for why in geometry.reason])
    neutral = np.array([v.valid for v in verdicts])
    names = crystals.ids or tuple(map(str, range(len(crystals))))
    table: Table = {
        "id": np.array(names, dtype=object),
        "formula": np.array(crystals.formulas, dtype=object),
        "n_atoms": crystals.n_atoms.cpu().numpy(),
        "n_elements": np.array([len(f) for f in formulas]),
        "volume": geometry.volume,
        "density": geometry.density,
        "min_distance": geometry.min_distance,
        "structure_valid": stable,
        "composition_valid": neutral,
        "valid": stable & neutral,
    }
    reasons = [
        # an empty crystal fails both for one reason
        list(dict.fromkeys(why for why in (g, v.reason) if why))
        for g, v in zip(geometry.reason, verdicts, strict=True)
    ]
    return table, formulas, reasons


def _match(
    table: Table,
    crystals: Crystals,
    formulas: list[composition.Counts],
    reference: Crystals | None,
    reasons: list[list[str]],
    settings: Protocol,
) -> list[str]:
    """Add the columns of uniqueness and novelty; return what they leave open."""
    of = np.flatnonzero(table["structure_valid"]).tolist()
    settled: dict[str, Any] = {
        "of": of,
        "tolerances": settings.matcher,
        "limit": settings.comparisons,
    }
    searches = {"repeat of an earlier crystal": ("unique", "duplicate_of")}
    found = [matching.same_in_batch(crystals, formulas, **settled)]
    if reference is not None:
        known = composition.reduced(reference.species)
        found.append(
            matching.same_in_reference(crystals, formulas, reference, known, **settled)
        )
        searches["in the reference"] = ("novel", "known_as")
    notes = []
    for search, (why, (flag, index)) in zip(found, searches.items(), strict=True):
        table[index] = search.match
        table[flag] = table["structure_valid"] & (search.match < 0)
        for i, failure in search.reason.items():
            table[flag][i] = False
            if failure not in reasons[i]:
                reasons[i].append(failure)
        for i in np.flatnonzero(search.match >= 0):
            reasons[i].append(why)
        if search.limited:
            notes.append(
                f"{search.limited} crystals had more than {settings.comparisons} "
                f"candidates for '{why}' and were compared with the most similar"
            )
    return notes


@dataclass(frozen=True)
class Comparison:
    """Several batches under one protocol, side by side.

    Args:
        evaluations: name -> judgement.
    """

    evaluations: dict[str, Evaluation]

    def __getitem__(self, name: str) -> Evaluation:
        return self.evaluations[name]

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row per batch and figure: value, low, high, n, unit."""
        import pandas as pd

        rows = [
            {"batch": name, **vars(metric)}
            for name, one in self.evaluations.items()
            for metric in one.metrics.values()
        ]
        return pd.DataFrame(rows).rename(columns={"name": "metric"})

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head = ["metric", *self.evaluations]
        names = next(iter(self.evaluations.values())).metrics
        rows = [
            [name]
            + [
                f"{e[name].figure()} ({e[name].span()})"
                for e in self.evaluations.values()
            ]
            for name in names
        ]
        return head, rows

    def _protocol(self) -> list[str]:
        first = next(iter(self.evaluations.values()))
        notes = (
            f"{name}: {note}"
            for name, e in self.evaluations.items()
            for note in e.notes
        )
        return [*first.protocol.lines(), *notes]

    def __repr__(self) -> str:
        lines = ["protocol", *(f"  {line}" for line in self._protocol())]
        return text_table(*self._cells()) + "\n" + "\n".join(lines)

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{escape(line)}</li>" for line in self._protocol())
        wide = f'<div style="overflow-x:auto">{html_table(*self._cells())}</div>'
        return (
            f"<div>{wide}<details><summary>Protocol</summary>"
            f"<ul>{items}</ul></details></div>"
        )


def compare(
    batches: Mapping[str, Crystals],
    reference: Crystals | None = None,
    *,
    seed: int = 0,
    protocol: Protocol | None = None,
) -> Comparison:
    """Return several batches judged by one protocol, side by side.

    Args:
        batches: name -> crystals, at least one batch.
        reference: known crystals, the same for all.
        seed: of the bootstrap.
        protocol: settings, the same for all.

    Returns:
        A table that prints.

    Raises:
        DataError: there is no batch, or one is empty.
    """
    if not batches:
        raise DataError("nothing to compare: got no batches. Give at least one.")
    return Comparison(
        {
            name: evaluate(one, reference, seed=seed, protocol=protocol)
            for name, one in batches.items()
        }
    )
