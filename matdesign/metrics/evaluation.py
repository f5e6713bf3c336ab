"""The judgement of a batch, and of several side by side, as objects that print."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from matdesign.errors import DataError
from matdesign.metrics.figures import Table
from matdesign.metrics.summary import Metric, Protocol
from matdesign.tables import html_table, render, text_table

if TYPE_CHECKING:
    import pandas as pd


class Judged:
    """What a judgement of crystals gives: a table, and figures by name."""

    table: Table
    metrics: dict[str, Metric]

    def __len__(self) -> int:
        return len(self.table["formula"])

    def __getitem__(self, name: str) -> Metric:
        """Return one figure, for example `evaluation["uniqueness"].value`.

        Raises:
            DataError: there is no figure of that name.
        """
        if name not in self.metrics:
            raise DataError(
                f"no figure {name!r}; this judgement has {', '.join(self.metrics)}. More "
                "of them need a reference, or an option of `evaluate`."
            )
        return self.metrics[name]

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table, one row per crystal."""
        import pandas as pd

        return pd.DataFrame(self.table)

    def figures(self) -> dict[str, dict[str, Any]]:
        """Return the figures as plain values for a JSON file."""
        return {
            name: {
                k: v
                for k, v in vars(one).items()
                if k != "name" and v is not None and v != "" and v == v
            }
            for name, one in self.metrics.items()
        }


@dataclass(frozen=True)
class Evaluation(Judged):
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
        notes: how optional figures were taken, and what the figures leave open, in
            sentences.

    The table has more columns where more was asked for: `nearest_structure`,
    `nearest_composition` and `covered`; `predicted_energy` (eV/atom);
    `energy_above_hull` (eV/atom), `stable` and `sun`.

    Example:
        >>> import torch
        >>> from matdesign.crystals.batch import Crystals
        >>> from matdesign.metrics.evaluator import evaluate
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

    def record(self) -> dict[str, Any]:
        """Return figures, failures and protocol as plain values for a JSON file."""
        return {
            "crystals": len(self),
            "reference": self.n_reference,
            "metrics": self.figures(),
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
        return render("judgement", tables=parts, protocol=self._protocol())

    def _title(self) -> str:
        against = f" against {self.n_reference:,} known" if self.n_reference else ""
        return f"{len(self):,} crystals{against}"

    def _protocol(self) -> list[str]:
        return [*self.protocol.lines(), *self.notes]


@dataclass(frozen=True)
class Comparison:
    """Several batches under one protocol, side by side.

    Args:
        evaluations: name -> judgement.
        baselines: names of those that need no learning.
    """

    evaluations: dict[str, Evaluation]
    baselines: tuple[str, ...] = ()

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

    def against_baselines(self, *names: str) -> list[str]:
        """Return a sentence per batch: in which figures it beats every baseline.

        A figure beats another where it is better and the two intervals do not overlap.
        Shares of the ledger and medians are neither good nor bad and are left out, and so
        are uniqueness and novelty, which nonsense has in full.

        Args:
            names: of the figures; all that batch and baselines share if left out.

        Raises:
            DataError: the comparison has no baselines.
        """
        if not self.baselines:
            raise DataError(
                "no baselines in this comparison; give `compare` a reference, and do not "
                "turn them off."
            )
        others = [self[name].metrics for name in self.baselines]
        return [
            f"{name}: {_beaten(one.metrics, others, names)}"
            for name, one in self.evaluations.items()
            if name not in self.baselines
        ]

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head = ["metric", *self.evaluations]
        every = [e.metrics for e in self.evaluations.values()]
        names = dict.fromkeys(name for metrics in every for name in metrics)
        rows = [
            [name]
            + [
                f"{m[name].figure()} ({m[name].span()})" if name in m else ""
                for m in every
            ]
            for name in names
        ]
        return head, rows

    def _protocol(self) -> list[str]:
        every = self.evaluations
        first = next(iter(every.values()))
        # what holds for all is said once
        shared = [n for n in first.notes if all(n in e.notes for e in every.values())]
        notes = (
            f"{name}: {note}"
            for name, e in every.items()
            for note in e.notes
            if note not in shared
        )
        return [*first.protocol.lines(), *shared, *notes]

    def __repr__(self) -> str:
        lines = ["protocol", *(f"  {line}" for line in self._protocol())]
        return text_table(*self._cells()) + "\n" + "\n".join(lines)

    def _repr_html_(self) -> str:
        table = html_table(*self._cells())
        return render("judgement", tables=[table], protocol=self._protocol())


def _beaten(
    figures: dict[str, Metric], others: list[dict[str, Metric]], names: tuple[str, ...]
) -> str:
    """Return in which figures one batch beats all others, as a sentence."""
    ranked = [
        name
        for name in names or figures
        if all(name in f and np.isfinite(f[name].value) for f in [figures, *others])
        and (names or (figures[name].better and name not in ("uniqueness", "novelty")))
    ]
    won = [
        name
        for name in ranked
        if all(figures[name].beats(other[name]) for other in others)
    ]
    lost = [name for name in ranked if name not in won]
    parts = []
    if won:
        parts.append(f"better than every baseline in {', '.join(won)}")
    if lost:
        parts.append(f"not better than every baseline in {', '.join(lost)}")
    return ("; ".join(parts) or "nothing to compare") + "."
