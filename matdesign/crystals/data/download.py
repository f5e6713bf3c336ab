"""Fetch the official files of a public data set and make one table of them."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.data.catalogue import DataSet, File
from matdesign.crystals.io.cif import parse_cif
from matdesign.crystals.io.parquet import write_parquet
from matdesign.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MAX_ATOMS = 200
"""Most atoms in a cell of a public set; the largest holds 52."""

CHUNK = 500
"""Rows that are parsed at once."""

_SKIP = {"material_id", "index", "cif", "elements", "spacegroup"}
"""Columns that hold no property: names and positions in a list, or what the crystal says."""

_WORDS = {"true": "1", "false": "0"} | dict.fromkeys(("nan", "none", "null"), "")


def fetch(known: DataSet, folder: Path) -> list[Path]:
    """Return a set's official files, downloaded into a folder unless they are there.

    Raises:
        DataError: no network (says what to fetch by hand and where to put it), or a
            file that does not agree with its checksum.
    """
    import pooch

    paths = []
    for file in known.files:
        target = folder / file.name
        try:
            pooch.retrieve(file.url, known_hash=None, fname=file.name, path=folder)
        except Exception as error:
            raise DataError(
                f"the data set {known.name!r} could not be downloaded ({error!r:.200}). "
                "With a network, try again. Without one, fetch "
                f"{', '.join(f.url for f in known.files)} elsewhere and put the file(s) "
                f"into {folder}, or into $MATDESIGN_DATA/{known.name}."
            ) from error
        kind, published = file.checksum.split(":")
        content = target.read_bytes()
        if kind == "git":
            found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        else:
            found = hashlib.sha256(content).hexdigest()
        if found != published:
            raise DataError(
                f"{target} does not agree with the checksum of {file.url} as published, "
                f"{published}. The download broke, or the file changed. Delete {folder} "
                "and load again; if it persists, do not use the file."
            )
        paths.append(target)
    return paths


def build(known: DataSet, files: list[Path], table: Path) -> Path:
    """Make a parquet table of a set's official files; return its path.

    The table is written to a temporary name first: a table that exists is whole.

    Raises:
        DataError: a file is no table, or a row holds no crystal; names file and row.
    """
    import pandas as pd

    say = f"matdesign: making {table.name} from {len(files)} official file(s)"
    print(
        f"{say}, {known.rows:,} crystals at about 1 ms each; this happens once ...",
        file=sys.stderr,
    )
    crystals, columns = [], []
    for path, file in zip(files, known.files, strict=True):
        try:
            for part, stream in _streams(path, file):
                for rows in pd.read_csv(
                    stream, dtype=str, keep_default_na=False, chunksize=CHUNK
                ):
                    crystals.append(_crystals(rows, f"{path.name} ({part})"))
                    columns.append(rows.drop(columns="cif").assign(split=part))
        except (zipfile.BadZipFile, pd.errors.ParserError) as error:
            raise DataError(
                f"{path} is not a whole archive or table ({error}). Delete it and load "
                "again."
            ) from error
    if not crystals:
        raise DataError(
            f"{', '.join(map(str, files))}: no rows. Delete the files and load again."
        )
    properties: dict[str, torch.Tensor] = {}
    labels: dict[str, tuple[str, ...]] = {}
    for column, words in pd.concat(columns).fillna("").items():
        name = known.renames.get(str(column), str(column))
        if column in _SKIP or name.startswith("Unnamed"):
            continue
        numbers = _numbers(words)
        if numbers is None:
            labels[name] = tuple(words)
        else:
            properties[name] = numbers
    units = {k: v for k, v in known.units.items() if k in properties}
    whole = Crystals.cat(crystals).replace(
        properties=properties, units=units, labels=labels
    )
    table.parent.mkdir(parents=True, exist_ok=True)
    temporary = table.with_name(f"{table.name}.{os.getpid()}.part")
    write_parquet(whole, temporary)
    temporary.replace(table)
    return table


def _crystals(rows: pd.DataFrame, where: str) -> Crystals:
    """Return the crystals of rows that hold a CIF each, with their names."""
    if "cif" not in rows:
        raise DataError(
            f"{where} has no column `cif`; it has {', '.join(rows)}. This is not the "
            "official file, or it is cut short: delete it and load again."
        )
    given = rows["material_id"] if "material_id" in rows else [""] * len(rows)
    structures = [
        parse_cif(text, f"{where}, row {at} ({name})", MAX_ATOMS)[0][1]
        for at, name, text in zip(rows.index, given, rows["cif"])
    ]
    ids = [name or f"{where}-{at}" for at, name in zip(rows.index, given)]
    return Crystals.from_structures(structures, ids=ids, max_atoms=MAX_ATOMS)


def _numbers(words: pd.Series[str]) -> torch.Tensor | None:
    """Return a column as numbers, NaN for empty cells; None where any other text is."""
    import pandas as pd

    plain = words.str.strip().str.lower().replace(_WORDS)
    numbers = pd.to_numeric(plain, errors="coerce")
    if (numbers.isna() & (plain != "")).any():
        return None
    return torch.tensor(numbers.to_numpy(), dtype=torch.float32)


def _streams(path: Path, file: File) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield (split, stream) for a CSV, or for every CSV of an archive."""
    if path.suffix != ".zip":
        with path.open("rb") as stream:
            yield file.split, stream
        return
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".csv") and "__MACOSX" not in name:
                with archive.open(name) as stream:
                    yield Path(name).stem, stream
