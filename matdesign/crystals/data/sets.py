"""Load data sets by name: shipped ones at once, public ones from their official address.

`load` looks in this order: the shipped data; the folder that the environment variable
`MATDESIGN_DATA` names (tables `NAME.parquet`, or the official files in `NAME/`); the
cache of earlier downloads; the official address.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from matdesign import paths
from matdesign.crystals.batch import Crystals
from matdesign.crystals.data.catalogue import ALIASES, CATALOGUE, DataSet
from matdesign.crystals.io.parquet import read_parquet
from matdesign.errors import DataError
from matdesign.tables import Table

SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""Accepted names of splits."""

CACHE_VERSION = 1
"""Raise this when tables made from official files would come out differently."""


def load(name: str, split: str | None = None) -> Crystals:
    """Return a data set as one batch.

    Args:
        name: see `datasets()`; upper case, spaces and hyphens do not matter. Any other
            table `NAME.parquet` in the folder `MATDESIGN_DATA` can be named as well.
        split: `"train"`, `"val"` or `"test"` as its makers drew them; all rows if None.

    Returns:
        Crystals with their properties, units, labels (`split` among them) and ids.

    Raises:
        DataError: the name is unknown, the set has no such split, the network is
            missing (the message says which files to fetch and where to put them), or a
            file does not agree with its checksum.

    Example:
        >>> load("perovskitez")
        Traceback (most recent call last):
        ...
        matdesign.errors.DataError: unknown data set 'perovskitez'. Did you mean ...
    """
    key = _key(name)
    rows = None if split is None else ("split", _split(split))
    path = _find(key, name)
    made = read_parquet(path, rows=rows)
    known = CATALOGUE.get(key)
    if known is None:
        return made
    units = {k: v for k, v in known.units.items() if k in made.properties}
    return made.replace(
        units={**units, **made.units},
        info={"dataset": key, "split": split or "all", "licence": known.licence},
    )


class DataSets(Table):
    """All data sets of `load`, as a table that prints."""

    def __iter__(self) -> Iterator[str]:
        return iter(CATALOGUE)

    def __len__(self) -> int:
        return len(CATALOGUE)

    def __getitem__(self, name: str) -> DataSet:
        key = _key(name)
        if key not in CATALOGUE:
            raise DataError(_unknown(name))
        return CATALOGUE[key]

    def cells_as_text(self) -> tuple[list[str], list[list[str]]]:
        """Return name, where it is, crystals, content and licence of every set."""
        rows = [
            [one.name, _place(one), f"{one.rows:,}", one.what, one.licence]
            for one in CATALOGUE.values()
        ]
        return ["name", "where", "crystals", "what", "licence"], rows


def datasets() -> DataSets:
    """Return all data sets that `load` knows; print it to see them.

    Example:
        >>> "prototypes" in datasets(), datasets()["MP-20"].where
        (True, 'download')
    """
    return DataSets()


def mirror() -> Path | None:
    """Return the folder that `MATDESIGN_DATA` names, or None.

    Raises:
        DataError: the variable names something that is not a folder.
    """
    given = os.environ.get("MATDESIGN_DATA", "").strip()
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"MATDESIGN_DATA is {given!r}, which is not a folder. Point it at the "
            "folder that holds your tables, or unset it."
        )
    return folder


def cache_dir() -> Path:
    """Return the folder of downloaded data sets; it need not exist yet."""
    return paths.cache_dir() / "datasets"


def _find(key: str, name: str) -> Path:
    """Return the table of a data set, making it from official files when needed."""
    from matdesign.crystals.data.download import build, fetch

    known = CATALOGUE.get(key)
    if known is not None and known.shipped:
        path = paths.data_dir() / known.shipped
        if path.is_file():
            return path
        raise DataError(
            f"the shipped data set {key!r} is missing: no file {path}. Reinstall matdesign, "
            "or make it with `python scripts/build_data.py`."
        )
    if here := _here(key, name):
        return here[1]
    if known is None:
        raise DataError(_unknown(name))
    local = mirror()
    if not known.files:
        raise DataError(
            f"the data set {key!r} has no official address; it is read from a local "
            f"mirror. Put {key}.parquet into a folder and set MATDESIGN_DATA to it"
            f"{f' (now {local})' if local else ''}."
        )
    table = cache_dir() / f"{key}-{CACHE_VERSION}.parquet"
    own = [local / key / file.name for file in known.files] if local else []
    if own and all(path.is_file() for path in own):
        return build(known, own, table)
    return build(known, fetch(known, cache_dir() / key), table)


def _here(*names: str) -> tuple[str, Path] | None:
    """Return the first table on this machine: "mirror" or "cached", and its path."""
    folders = {"mirror": mirror(), "cached": cache_dir()}
    for word, folder in folders.items():
        for name in names:
            end = f"-{CACHE_VERSION}" if word == "cached" else ""
            if folder and os.sep not in name:
                path = folder / f"{name}{end}.parquet"
                if path.is_file():
                    return word, path
    return None


def _key(name: str) -> str:
    key = "_".join(name.lower().replace("-", " ").replace("_", " ").split())
    known = (one for one in CATALOGUE if one.replace("_", "") == key.replace("_", ""))
    return ALIASES.get(key) or next(known, key)


def _split(split: str) -> str:
    found = SPLITS.get(split.lower())
    if found is None:
        raise DataError(
            f"unknown split {split!r}; choose train, val or test, or None for all rows."
        )
    return found


def _unknown(name: str) -> str:
    known = list(CATALOGUE)
    near = difflib.get_close_matches(_key(name), [*known, *ALIASES], n=1, cutoff=0.5)
    hint = f" Did you mean {ALIASES.get(near[0], near[0])!r}?" if near else ""
    return (
        f"unknown data set {name!r}.{hint} Choose one of {', '.join(known)}; or put "
        f"{_key(name)}.parquet into a folder and set MATDESIGN_DATA to it."
    )


def _place(one: DataSet) -> str:
    """Return where a set is now: shipped, mirror, cached, or to be downloaded."""
    here = None if one.shipped else _here(one.name)
    return here[0] if here else one.where
