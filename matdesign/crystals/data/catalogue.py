"""The data sets that `load` knows: what they are, where they are, who made them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class File:
    """One file of a public data set.

    Args:
        url: official address, at a pinned commit.
        split: the part that it holds; empty where an archive holds several.
        checksum: "git" and the name that git gives the content at the pinned commit,
            or "sha256" and that sum (of Alex-MP-20: from its Git LFS pointer).
    """

    url: str
    split: str
    checksum: str

    @property
    def name(self) -> str:
        """File name in the cache or a local mirror."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class DataSet:
    """A named data set.

    Args:
        name: what `load` takes.
        what: one line.
        rows: number of crystals.
        licence: terms, and whom to cite.
        shipped: path below the shipped data folder, or empty.
        files: official files of a public set, or none (then only a local mirror has
            it).
        units: unit of each property.
        renames: column of the official file -> name here.
    """

    name: str
    what: str
    rows: int
    licence: str
    shipped: str = ""
    files: tuple[File, ...] = ()
    units: dict[str, str] = field(default_factory=dict)
    renames: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """`shipped`, `download` or `mirror only`."""
        return (
            "shipped" if self.shipped else "download" if self.files else "mirror only"
        )


def _read() -> dict[str, DataSet]:
    """Return the sets of `assets/datasets.json` by name."""
    path = Path(__file__).resolve().parents[2] / "assets" / "datasets.json"
    found = {}
    for name, row in json.loads(path.read_text(encoding="utf-8")).items():
        files = tuple(File(**file) for file in row.pop("files", ()))
        found[name] = DataSet(name, files=files, **row)
    return found


CATALOGUE = _read()
"""All data sets by name."""

ALIASES = {"reduced_mp_20": "mp_20_dev"}
"""Other names, lower case with underscores."""
