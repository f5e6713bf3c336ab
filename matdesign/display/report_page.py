"""How a report looks: the HTML around its rows."""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from matdesign.constraints.checks import Check
from matdesign.display.pages import ASSETS, standalone_assets
from matdesign.display.viewer import view

if TYPE_CHECKING:
    from matdesign.display.reporting import Row
    from matdesign.metrics.evaluator import Evaluation

COLUMNS = (
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
)
"""Columns after number, formula and space group, in order; empty ones are left out."""

ON_CARDS = {"energy (eV/atom)": "{:.3f} eV/atom", "seconds": "relaxed in {:.1f} s"}
"""What only the card of a crystal says, and how."""


def document(
    rows: "list[Row]",
    *,
    title: str,
    checked: Check | None,
    evaluation: "Evaluation | None",
    facts: Sequence[tuple[str, str]],
    evaluated: bool,
    near_hull: float,
    most_viewers: int,
) -> str:
    """Return the whole page.

    Args:
        rows: all crystals.
        title: heading.
        checked: the constraints asked for and who met them.
        evaluation: figures over the batch.
        facts: label and text of "How it was made".
        evaluated: whether an oracle saw the crystals.
        near_hull: eV/atom from the hull up to which a crystal is a candidate.
        most_viewers: crystals shown in 3D, best first.
    """
    groups = {
        stage: [row for row in rows if row.stage == stage]
        for stage in ("candidate", "look again", "far", "failed", "rejected")
    }
    groups["candidate"].sort(key=_rank)
    groups["far"].sort(key=_rank)
    shown = [row for group in groups.values() for row in group][:most_viewers]
    in_3d = {row.number for row in shown}
    parts = [
        f"<h1>{escape(title)}</h1>",
        _funnel(rows, groups, checked, evaluated, near_hull),
        _asked(checked),
        _candidates(groups["candidate"], in_3d, evaluated, near_hull),
        _failures(groups, in_3d, near_hull),
        _judgement(evaluation),
        _made(facts),
    ]
    if len(shown) < len(rows):
        parts.insert(
            2,
            f"<p>The first {len(shown)} of {len(rows)} crystals are shown in 3D, best "
            "first; all are in the tables and in the CIF files.</p>",
        )
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    script = (ASSETS / "report.js").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f'<body class="md-report">\n{standalone_assets()}<main>\n'
        + "\n".join(part for part in parts if part)
        + f"\n</main><script>{script}</script>\n</body></html>\n"
    )


def _rank(row: "Row") -> tuple[float, float, int]:
    keys = ("above hull (eV/atom)", "energy (eV/atom)")
    values = [row.values.get(key) for key in keys]
    first, second = (v if isinstance(v, float) else math.inf for v in values)
    return first, second, row.number


def _funnel(
    rows: "list[Row]",
    groups: "dict[str, list[Row]]",
    checked: Check | None,
    evaluated: bool,
    near_hull: float,
) -> str:
    steps = [(len(rows), "proposed")]
    if checked is not None:
        steps.append((len(rows) - len(groups["rejected"]), "meet every constraint"))
    if evaluated:
        near, below = len(groups["candidate"]), len(groups["look again"])
        fine = near + below + len(groups["far"])
        steps.append((fine, "relaxed, and still meet every constraint"))
        if below:
            steps.append(
                (below, f"over {near_hull:g} eV/atom below the hull: look again")
            )
        steps.append((near, f"within {near_hull:g} eV/atom of the hull: candidates"))
    items = "".join(f"<li><b>{n}</b> {escape(text)}</li>" for n, text in steps)
    return f'<ol class="md-funnel">{items}</ol>'


def _asked(checked: Check | None) -> str:
    if checked is None:
        return ""
    total = len(checked)
    met = checked.satisfied.sum(dim=0).tolist()
    items = "".join(
        f"<li>{escape(str(one))} <small>(met by {k} of {total})</small></li>"
        for one, k in zip(checked.constraints, met, strict=True)
    )
    return f"<h2>What was asked</h2><ul>{items}</ul>"


def _candidates(
    rows: "list[Row]", in_3d: set[int], evaluated: bool, near_hull: float
) -> str:
    what = (
        f"within {near_hull:g} eV/atom of the hull, ranked by distance to the hull"
        if evaluated
        else "not evaluated by an oracle"
    )
    head = f"<h2>Candidates</h2><p>{len(rows)} crystals, {what}. "
    if not rows:
        return head + "None is left; the reasons are below.</p>"
    note = (
        "± is how far the oracle is off for crystals like those it was trained on; for "
        "new ones it is off by more. Where no known compound has "
        "these elements only the elements compete, and the distance to the hull says "
        "little. A click on a heading sorts.</p>"
    )
    return head + (note if evaluated else "</p>") + _table(rows) + _cards(rows, in_3d)


def _failures(groups: "dict[str, list[Row]]", in_3d: set[int], near_hull: float) -> str:
    names = {
        "look again": f"lie more than {near_hull:g} eV/atom below all that is known: look "
        "again. That is more than the error explains, so that the potential, the "
        "structure or the list of known compounds is more probably wrong than the crystal "
        "a discovery",
        "far": f"lie more than {near_hull:g} eV/atom above the hull",
        "failed": "failed while relaxing or afterwards",
        "rejected": "did not meet the constraints and were not relaxed",
    }
    parts = ["<h2>What failed, and why</h2>"]
    if not any(groups[stage] for stage in names):
        return "<h2>What failed, and why</h2><p>Nothing failed.</p>"
    for stage, name in names.items():
        rows = groups[stage]
        if not rows:
            continue
        counts = Counter(_kind(row.reason) for row in rows).most_common()
        items = "".join(f"<li>{n}: {escape(why)}</li>" for why, n in counts)
        why = f":</p><ul>{items}</ul>" if stage in ("failed", "rejected") else ".</p>"
        parts.append(
            f"<p>{len(rows)} crystals {name}{why}"
            f"<details><summary>Show the {len(rows)}</summary>{_table(rows)}"
            f"{_cards(rows, in_3d)}</details>"
        )
    return "".join(parts)


def _kind(reason: str) -> str:
    from matdesign.loop.results import kind_of

    return reason if reason.startswith(("misses", "after ")) else kind_of(reason)


def _judgement(evaluation: "Evaluation | None") -> str:
    if evaluation is None:
        return ""
    return f'<h2>Judgement</h2><div class="md-scroll">{evaluation._repr_html_()}</div>'


def _made(facts: Sequence[tuple[str, str]]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
        for name, text in facts
    )
    return (
        '<h2>How it was made</h2><div class="md-scroll">'
        f"<table><tbody>{body}</tbody></table></div>"
    )


def _table(rows: "list[Row]") -> str:
    columns = [c for c in COLUMNS if any(row.values.get(c) is not None for row in rows)]
    reasons = any(row.reason for row in rows)
    named = any("id" in row.values for row in rows)
    heads = [
        "no.",
        *(["id"] * named),
        "formula",
        "space group",
        *columns,
        *(["reason"] * reasons),
        "file",
    ]
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(name)}'
        "</button></th>"
        for name in heads
    )
    body = "".join(_line(row, columns, named, reasons) for row in rows)
    return (
        '<div class="md-scroll"><table class="md-sortable">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _line(row: "Row", columns: list[str], named: bool, reasons: bool) -> str:
    number = row.number + 1
    link = f'<a href="#crystal-{number}">{number}</a>'
    cells = [
        f'<td class="md-n" data-value="{number}">{link}</td>',
        *([_cell(row.values.get("id"))] if named else []),
        _cell(row.formula),
        _cell(row.values.get("space group")),
        *(_cell(row.values.get(column)) for column in columns),
    ]
    if reasons:
        cells.append(_cell(row.reason))
    cells.append(f'<td data-value="{number}">{_file(row)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: float | str | None) -> str:
    if value is None:
        return '<td class="md-n" data-value="">-</td>'
    if isinstance(value, str):
        return f'<td data-value="{escape(value)}">{escape(value)}</td>'
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    sort = f"{value:.9g}" if math.isfinite(value) else ""
    return f'<td class="md-n" data-value="{sort}">{text if sort else "-"}</td>'


def _file(row: "Row") -> str:
    if not row.file:
        return "no file"
    return f'<a href="{escape(row.file)}" download>CIF</a>'


def _cards(rows: "list[Row]", in_3d: set[int]) -> str:
    cards = "".join(_card(row, row.sound and row.number in in_3d) for row in rows)
    return f'<div class="md-cards">{cards}</div>'


def _card(row: "Row", drawn: bool) -> str:
    number = row.number + 1
    above = row.values.get("above hull (eV/atom)")
    group = escape(str(row.values.get("space group", "no space group")))
    lines = [f"{group}, {len(row.structure)} atoms"]
    if isinstance(above, float):
        side = "below" if above < -5e-4 else "above"
        error = row.values.get("± (eV/atom)")
        within = f" ± {error:.3f}" if isinstance(error, float) else ""
        lines.append(f"{abs(above):.3f}{within} eV/atom {side} the hull")
        if row.values.get("known compounds") == 0:
            lines.append("no known compound has these elements only")
    for column, words in ON_CARDS.items():
        if row.values.get(column) is not None:
            lines.append(words.format(row.values[column]))
    text = " · ".join(lines)
    why = f'<p class="md-why">{escape(row.reason)}</p>' if row.reason else ""
    shown = ""
    if drawn:
        shown = view(row.structure, height=260, name=f"crystal {number}").to_html()
    return (
        f'<article class="md-card" id="crystal-{number}"><h3>{number}. '
        f"{escape(row.formula)}</h3><p>{text} · {_file(row)}</p>{why}{shown}</article>"
    )
