"""What a card says of its model beside published samples, from the measured table."""

import json
from typing import Any

from matdesign.paths import data_dir

RIVALS = ("DiffCSP", "DiffCSP++")
ROWS = {
    "structural validity": 0.99,
    "compositional validity": 0.83,
    "COV-R": 0.95,
    "COV-P": 0.95,
    "match rate": 0.45,
    "S.U.N.": None,
}
"""Rate -> its bar; None: the better of the published samples in the same run."""


def measured() -> dict[str, Any]:
    """Return the record of bench_quality.py that is shipped; empty where there is none."""
    path = data_dir() / "measured" / "quality.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def beside(name: str, found: dict[str, Any]) -> list[str]:
    """Return paragraphs of a card: rates against their bars, and by how much they miss.

    Args:
        name: of the model.
        found: a record of bench_quality.py; a model that is not in it gets no paragraph.
    """
    batches = found.get("batches", {})
    if name not in batches:
        return []
    figures = batches[name]["figures"]
    lines = []
    for row, fixed in ROWS.items():
        one = figures.get(row)
        if not one:
            continue
        rivals = {
            rival: batches[rival]["figures"][row]["value"]
            for rival in RIVALS
            if rival in batches and row in batches[rival]["figures"]
        }
        best = max(rivals, key=rivals.__getitem__, default="")
        bar = rivals.get(best) if fixed is None else fixed
        if bar is None:
            continue
        short = 100 * (bar - one["value"])
        verdict = "met" if short <= 0 else f"missed by {short:.1f} points"
        of = f"{best}, {100 * bar:.1f} %" if fixed is None else f"{100 * bar:g} %"
        lines.append(
            f"* {row} {100 * one['value']:.1f} % ({100 * one['low']:.1f} to "
            f"{100 * one['high']:.1f}) of {one['n']:,}; bar {of}: {verdict}"
        )
    return [
        "",
        "**Beside published samples.** One run for all, of which `data/measured/quality.json` "
        "is the record; a bar is for the best of our models.",
        "",
        *lines,
        "",
        f"`{found['command']}`, {found['hardware']}, {found['written']}.",
    ]
