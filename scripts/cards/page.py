"""Figures as Markdown: one layout for the tables of every card."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jinja2
import yaml

from matdesign.generators.storage import write_atomic

WORDS = yaml.safe_load(Path(__file__).with_name("data_sets.yaml").read_text())
"""What the cards of data sets say in words."""

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
)


def text(value: Any) -> str:
    """Return a figure for a reader; one with an interval has it in brackets."""
    if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
        return f"{text(value['value'])} ({text(value['low'])} to {text(value['high'])})"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {text(one)}" for key, one in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value)


def table(value: dict[str, Any] | list[dict[str, Any]]) -> str:
    """Return a table and an empty line: figures by name, or records in rows."""
    if isinstance(value, list):
        rows = [list(value[0]), *([text(x) for x in row.values()] for row in value)]
    elif all(isinstance(one, dict) and "low" not in one for one in value.values()):
        head = list(next(iter(value.values()), {}))
        rows = [["", *head]]
        rows += [[k, *(text(row[x]) for x in head)] for k, row in value.items()]
    else:
        rows = [["", ""], *([k.replace("_", " "), text(x)] for k, x in value.items())]
    rows.insert(1, ["---"] * len(rows[0]))
    return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)


TEMPLATES.filters |= {"text": text}
TEMPLATES.globals |= {"table": table}


def render(name: str, /, **values: Any) -> str:
    """Return the page of a template, with each paragraph on one line."""
    made = TEMPLATES.get_template(f"{name}.md").render(values)
    return re.sub(r"(?<=[^\n|])\n(?=[^\n|#])", " ", made) + "\n"


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and checksum of the files that a card speaks of."""
    return {
        file.name: {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in sorted(folder.iterdir())
        if file.suffix in (".parquet", ".json") and file.name != "card.json"
    }


def write_data_card(folder: Path, card: dict[str, Any]) -> None:
    """Write card.json and card.md of a folder of data: words, figures, tables, files."""
    card = {**card, "files": files_of(folder)}
    content = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    write_atomic(folder / "card.json", content.encode())
    page = render("data", card=card).rstrip() + "\n"
    write_atomic(folder / "card.md", page.encode())
