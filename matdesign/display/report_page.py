"""How a report looks: what its template shows of the rows."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matdesign.constraints.checks import Check
from matdesign.display.pages import standalone_assets
from matdesign.display.viewer import view
from matdesign.tables import ASSETS, render

if TYPE_CHECKING:
    from pymatgen.core import Structure

MOST_VIEWERS = 200
"""Crystals shown in 3D; more are in the table and as files only."""

NEAR_HULL = 0.1
"""Distance to the hull in eV/atom up to which a crystal is a candidate. What lies farther
below is no triumph: either the potential or the hull is wrong about it."""

COLUMNS = (
    "id",
    "formula",
    "space group",
    "above hull (eV/atom)",
    "± (eV/atom)",
    "formation energy (eV/atom)",
    "known compounds",
    "constraints met",
    "met after relaxing",
    "shortest distance (Å)",
    "unique",
    "novel",
    "ledger",
    "reason",
)
"""Columns of the tables, in order; empty ones are left out."""

FAILURES = {
    "look again": f"lie more than {NEAR_HULL:g} eV/atom below all that is known: look again. "
    "That is more than the error explains, so that the potential, the structure or the "
    "list of known compounds is more probably wrong than the crystal a discovery",
    "far": "lie more than {near:g} eV/atom above the hull",
    "failed": "failed in the oracle or afterwards",
    "rejected": "did not meet the constraints and were not evaluated",
}
"""What is said of the crystals of a stage."""


@dataclass
class Row:
    """One crystal of a report.

    Args:
        number: place among the crystals given, from 0.
        structure: relaxed if an oracle relaxed it, else as proposed.
        values: column -> number or text; None where unknown.
        reason: why it is no candidate; "" for a candidate.
        stage: "candidate", "look again" (too far below the hull to be believed), "far"
            (above it), "failed" (in the oracle) or "rejected" (by a constraint).
        file: name of its CIF file, beside the page; "" where none can be written.
        sound: whether cell and coordinates are numbers, so that it can be drawn.
    """

    number: int
    structure: "Structure"
    values: dict[str, float | str | None] = field(default_factory=dict)
    reason: str = ""
    stage: str = "candidate"
    file: str = ""
    sound: bool = True

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return str(self.structure.composition.reduced_formula)


def document(
    rows: list[Row],
    checked: Check | None,
    evaluated: bool,
    funnel: Sequence[tuple[int, str]],
    **shown: Any,
) -> str:
    """Return the whole page.

    Args:
        rows: all crystals.
        checked: the constraints asked for and who met them.
        evaluated: whether an oracle saw the crystals.
        funnel: how many crystals are left after each step; counted here where empty.
        **shown: what the template shows as it is: title, lead, plots, `near`, ...
    """
    for row in rows:
        row.values |= {"formula": row.formula, "reason": row.reason or None}
    groups = {
        stage: [row for row in rows if row.stage == stage]
        for stage in ("candidate", *FAILURES)
    }
    groups["candidate"].sort(key=_rank)
    groups["far"].sort(key=_rank)
    above = [row.values.get("above hull (eV/atom)") for row in groups["candidate"]]
    ranked = evaluated and (not above or any(one is not None for one in above))
    where = f"within {shown['near']:g} eV/atom of" if ranked else "not compared with"
    first = [row for group in groups.values() for row in group][:MOST_VIEWERS]
    in_3d = {row.number for row in first if row.sound}

    asked: list[tuple[str, int]] = []
    if checked is not None:
        met = checked.satisfied.sum(dim=0).tolist()
        asked = list(zip(map(str, checked.constraints), met, strict=True))

    def viewer(row: Row) -> str:
        if row.number not in in_3d:
            return ""
        name = f"crystal {row.number + 1}"
        return view(row.structure, height=260, name=name).to_html()

    return render(
        "report",
        assets=standalone_assets(),
        css=(ASSETS / "report.css").read_text(encoding="utf-8"),
        script=(ASSETS / "report.js").read_text(encoding="utf-8"),
        funnel=funnel or _funnel(rows, groups, checked, evaluated, where),
        n=len(rows),
        n_shown=len(first),
        asked=asked,
        candidates=groups["candidate"],
        evaluated=evaluated,
        ranked=ranked,
        failures=[
            (words.format(**shown), groups[stage], _reasons(groups[stage]))
            for stage, words in FAILURES.items()
            if groups[stage]
        ],
        used=_used,
        lines=_lines,
        viewer=viewer,
        **shown,
    )


def _rank(row: Row) -> tuple[float, float, int]:
    keys = ("above hull (eV/atom)", "energy (eV/atom)")
    values = [row.values.get(key) for key in keys]
    first, second = (v if isinstance(v, float) else math.inf for v in values)
    return first, second, row.number


def _funnel(
    rows: list[Row],
    groups: dict[str, list[Row]],
    checked: Check | None,
    evaluated: bool,
    where: str,
) -> Sequence[tuple[int, str]]:
    """Return how many crystals are left after each step, and what the step is."""
    steps = [(len(rows), "proposed")]
    if checked is not None:
        steps.append((len(rows) - len(groups["rejected"]), "meet every constraint"))
    if evaluated:
        near, below = len(groups["candidate"]), len(groups["look again"])
        fine = near + below + len(groups["far"])
        steps.append((fine, "evaluated, and still meet every constraint"))
        if below:
            steps.append(
                (below, f"over {NEAR_HULL} eV/atom below the hull: look again")
            )
        steps.append((near, f"{where} the hull: candidates"))
    return steps


def _reasons(rows: list[Row]) -> list[tuple[str, int]]:
    """Return reasons and how many crystals have each, where they are worth counting."""
    from matdesign.loop.results import kind_of

    if rows and rows[0].stage not in ("failed", "rejected"):
        return []
    own = ("misses", "after ")
    return Counter(
        row.reason if row.reason.startswith(own) else kind_of(row.reason)
        for row in rows
    ).most_common()


def _used(rows: list[Row]) -> list[str]:
    """Return the columns that some row has a value in."""
    always = ("formula", "space group")
    known = {
        name for row in rows for name, one in row.values.items() if one is not None
    }
    return [name for name in COLUMNS if name in always or name in known]


def _lines(row: Row) -> list[str]:
    """Return what the card of a crystal says under its name."""
    get = row.values.get
    lines = [f"{get('space group', 'no space group')}, {len(row.structure)} atoms"]
    above, error = get("above hull (eV/atom)"), get("± (eV/atom)")
    if isinstance(above, float):
        side = "below" if above < -5e-4 else "above"
        within = f" ± {error:.3f}" if isinstance(error, float) else ""
        lines.append(f"{abs(above):.3f}{within} eV/atom {side} the hull")
        if get("known compounds") == 0:
            lines.append("no known compound has these elements only")
    if get("energy (eV/atom)") is not None:
        lines.append(f"{get('energy (eV/atom)'):.3f} eV/atom")
    if seconds := get("seconds"):
        done = "relaxed" if "steps" in row.values else "evaluated"
        lines.append(f"{done} in {seconds:.1f} s")
    return lines
