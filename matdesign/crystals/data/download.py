"""Fetch the official files of a public data set and make one table of them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.data.catalogue import DataSet, File
from matdesign.crystals.io.cif import parse_cif
from matdesign.crystals.io.parquet import write_parquet
from matdesign.errors import DataError

MAX_ATOMS = 200
"""Most atoms in a cell of a public set; the largest holds 52."""

CHUNK = 500
"""Rows that are parsed at once."""

_SKIP = {"", "index", "cif", "elements", "spacegroup", "split"}
"""Columns that hold no property: positions in a list, or what the crystal says itself."""

_WORDS = dict.fromkeys(("", "nan", "none", "null"), math.nan)
_WORDS |= {"true": 1.0, "false": 0.0}


def fetch(known: DataSet, folder: Path) -> list[Path]:
    """Return a set's official files, downloaded into a folder unless they are there.

    Raises:
        DataError: no network (says what to fetch by hand and where to put it), or a
            file that does not agree with its checksum.
    """
    return [_retrieve(known, file, folder) for file in known.files]


def build(known: DataSet, files: list[Path], table: Path) -> Path:
    """Make a parquet table of a set's official files; return its path.

    The table is written to a temporary name first: a table that exists is whole.

    Raises:
        DataError: a row holds no crystal; names file and row.
    """
    say = f"matdesign: making {table.name} from {len(files)} official file(s)"
    print(
        f"{say}, {known.rows:,} crystals at about 1 ms each; this happens once ...",
        file=sys.stderr,
    )
    jobs = (
        (f"{path.name} ({part})", at, rows)
        for path, file in zip(files, known.files, strict=True)
        for part, stream in _streams(path, file)
        for at, rows in _chunks(stream, part)
    )
    parsed, done = [], 0
    for where, first, rows in jobs:
        parsed.append(parse_rows(rows, known.renames, where, first))
        done += len(rows)
        if done % (20 * CHUNK) == 0:
            print(f"matdesign: {done:,} of {known.rows:,}", file=sys.stderr)
    if not parsed:
        raise DataError(
            f"{', '.join(map(str, files))}: no rows. Delete the files and load again."
        )
    crystals = Crystals.cat(_aligned(parsed))
    units = {k: v for k, v in known.units.items() if k in crystals.properties}
    table.parent.mkdir(parents=True, exist_ok=True)
    temporary = table.with_name(f"{table.name}.{os.getpid()}.part")
    write_parquet(crystals.replace(units=units), temporary)
    temporary.replace(table)
    return table


def parse_rows(
    rows: list[dict[str, str]], renames: dict[str, str], where: str, first: int
) -> Crystals:
    """Return the crystals of rows that hold a CIF each.

    Args:
        rows: column -> text; `cif` is needed, `material_id` and `split` are used.
        renames: column -> name of the property or label.
        where: file, for messages.
        first: number of the first row, for messages.

    Raises:
        DataError: a row holds no crystal.
    """
    structures = []
    for i, row in enumerate(rows):
        name = f"{where}, row {first + i} ({row.get('material_id', '')})"
        if not row.get("cif"):
            raise DataError(
                f"{name} has no column `cif`; it has {', '.join(row)}. This is not the "
                "official file, or it is cut short: delete it and load again."
            )
        structures.append(parse_cif(row["cif"], name, MAX_ATOMS)[0][1])
    properties: dict[str, torch.Tensor] = {}
    labels: dict[str, tuple[str, ...]] = {}
    for column in rows[0]:
        if column in _SKIP or column == "material_id":
            continue
        name = renames.get(column, column)
        words = [row.get(column) or "" for row in rows]
        numbers = [_number(word) for word in words]
        if None in numbers:
            labels[name] = tuple(words)
        else:
            properties[name] = torch.tensor(numbers, dtype=torch.float32)
    if "split" in rows[0]:
        labels["split"] = tuple(row["split"] for row in rows)
    ids = [
        row.get("material_id") or f"{where}-{first + i}" for i, row in enumerate(rows)
    ]
    return Crystals.from_structures(
        structures, properties=properties, labels=labels, ids=ids, max_atoms=MAX_ATOMS
    )


def _number(word: str) -> float | None:
    """Return a number, NaN for an empty cell, None for any other text."""
    plain = word.strip().lower()
    if plain in _WORDS:
        return _WORDS[plain]
    try:
        return float(plain)
    except ValueError:
        return None


def _aligned(batches: list[Crystals]) -> list[Crystals]:
    """Return batches in which a column is a label once any of them had text in it."""
    words = {name for batch in batches for name in batch.labels}
    made = []
    for batch in batches:
        text = {
            name: tuple("" if x != x else f"{x:g}" for x in values.tolist())
            for name, values in batch.properties.items()
            if name in words
        }
        rest = {k: v for k, v in batch.properties.items() if k not in words}
        made.append(batch.replace(properties=rest, labels={**batch.labels, **text}))
    return made


def _streams(path: Path, file: File) -> Iterator[tuple[str, Any]]:
    """Yield (split, text stream) for a CSV, or for every CSV of an archive."""
    if path.suffix != ".zip":
        with path.open(encoding="utf-8", newline="") as stream:
            yield file.split, stream
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                part = Path(name).stem
                if name.endswith(".csv") and "__MACOSX" not in name:
                    with archive.open(name) as raw:
                        yield part, io.TextIOWrapper(raw, "utf-8", newline="")
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is not a whole archive ({error}). Delete it and load again."
        ) from error


def _chunks(stream: Any, split: str) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """Yield (number of the first row, rows) with the split as a column."""
    csv.field_size_limit(10_000_000)
    rows: list[dict[str, str]] = []
    at = 0
    for row in csv.DictReader(stream):
        rows.append(
            {str(k): v for k, v in row.items() if k is not None} | {"split": split}
        )
        if len(rows) == CHUNK:
            yield at, rows
            at, rows = at + CHUNK, []
    if rows:
        yield at, rows


def _retrieve(known: DataSet, file: File, folder: Path) -> Path:
    """Return one official file, checked."""
    import pooch

    target = folder / file.name
    record = folder / f"{file.name}.sha256"
    stored = _stored(record)
    expected = file.sha256 or stored
    try:
        pooch.retrieve(
            file.url,
            known_hash=f"sha256:{expected}" if expected else None,
            fname=file.name,
            path=folder,
        )
    except Exception as error:
        if "hash" in str(error).lower():
            raise DataError(
                f"{file.url} does not agree with its checksum {expected} "
                f"({'stored at the first download' if stored else 'as published'}). "
                f"The download broke, or the file changed. Delete {folder} and load "
                "again; if it persists, do not use the file."
            ) from error
        raise DataError(
            f"the data set {known.name!r} could not be downloaded ({error!r:.200}). "
            "With a network, try again. Without one, fetch "
            f"{', '.join(f.url for f in known.files)} elsewhere and put the file(s) "
            f"into {folder}, or into $MATDESIGN_DATA/{known.name}."
        ) from error
    if not file.sha256 and not stored:
        found = pooch.file_hash(str(target), alg="sha256")
        record.write_text(json.dumps({"url": file.url, "sha256": found}), "utf-8")
    return target


def _stored(record: Path) -> str | None:
    """Return the checksum stored at the first download, or None."""
    try:
        found = json.loads(record.read_text("utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
