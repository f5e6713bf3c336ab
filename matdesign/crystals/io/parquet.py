"""Parquet files to batches and back, without one object per crystal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.checks import MAX_ATOMS, packed
from matdesign.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

CORE = ("num_atoms", "numbers", "frac_coords", "lattice")
"""Columns that every crystal table has; `material_id` and all others are optional."""


def read_parquet(
    path: str | Path,
    *,
    rows: tuple[str, str] | None = None,
    max_atoms: int = MAX_ATOMS,
) -> Crystals:
    """Return the crystals of a parquet table, one per row.

    Text columns become labels, numbers and flags become properties (NaN where null),
    `material_id` becomes the ids. Coordinates are wrapped into [0, 1): published tables
    often hold others. Units come from the file's own metadata.

    Args:
        path: the file; columns `num_atoms`, `numbers` (flat or list), `frac_coords`
            (flat, 3 per site) and `lattice` (9 numbers, rows, angstrom).
        rows: only rows whose text column has this value, such as `("split", "train")`.
        max_atoms: most atoms in one cell.

    Raises:
        DataError: the file is no such table, or a row holds no crystal; names the row.

    Example:
        >>> import tempfile
        >>> cell = 2.5 * torch.eye(3)[None]
        >>> one = Crystals(torch.tensor([[26]]), torch.zeros(1, 1, 3), cell)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_parquet(one, Path(folder) / "iron.parquet")
        ...     read_parquet(path).formulas
        ('Fe',)
    """
    path = Path(path)
    table = _table(path, rows)
    counts = _values(table, "num_atoms", path).astype(np.int64)
    flat = {name: _values(table, name, path, lists=True) for name in CORE[1:]}
    sites = int(counts.sum())
    wanted = {"numbers": sites, "frac_coords": 3 * sites, "lattice": 9 * len(counts)}
    for column, want in wanted.items():
        if len(flat[column]) != want:
            raise DataError(
                f"{path}: column `{column}` holds {len(flat[column])} values, but "
                f"`num_atoms` asks for {want}: one number and 3 coordinates per atom, 9 "
                "numbers per row of `lattice`. Fetch or make the table again."
            )
    named = "material_id" in table.column_names and not table["material_id"].null_count
    ids = tuple(table["material_id"].to_pylist()) if named else ()

    def name(i: int) -> str:
        return f"{path}: row {i}" + (f" ({ids[i]})" if ids else "")

    properties, labels = _others(table)
    try:
        units = dict(json.loads((table.schema.metadata or {}).get(b"units", b"{}")))
    except (TypeError, ValueError):  # not a table of ours
        units = {}
    frac = flat["frac_coords"].reshape(-1, 3)
    return Crystals(
        **packed(counts, flat["numbers"], [frac], flat["lattice"], name, max_atoms),
        properties=properties,
        units={k: str(v) for k, v in units.items() if k in properties},
        labels=labels,
        ids=ids,
        info={"source": path.name},
    )


def write_parquet(crystals: Crystals, path: str | Path) -> Path:
    """Write a batch as a zstd parquet table, one row per crystal; returns the path.

    The same columns that `read_parquet` reads; units go into the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    mask = crystals.mask.cpu()
    counts = mask.sum(1)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    numbers = crystals.species.cpu()[mask].numpy().astype(np.uint8)
    frac = crystals.frac.detach().cpu()[mask].reshape(-1).float().numpy()
    cells = crystals.lattice.detach().cpu().reshape(-1).float().numpy()

    def lists(at: torch.Tensor, values: Any) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(at.int().numpy()), pa.array(values))

    columns: dict[str, Any] = {}
    if crystals.ids:
        columns["material_id"] = list(crystals.ids)
    columns["num_atoms"] = pa.array(counts.numpy().astype(np.uint16))
    columns["numbers"] = lists(offsets, numbers)
    columns["frac_coords"] = lists(3 * offsets, frac)
    columns["lattice"] = lists(9 * torch.arange(len(crystals) + 1), cells)
    for name, words in crystals.labels.items():
        columns[name] = pa.array([word or None for word in words], pa.string())
    for name, values in crystals.properties.items():
        columns[name] = pa.array(values.detach().cpu().numpy(), from_pandas=True)
    for name in columns:
        if name in CORE and name in (*crystals.labels, *crystals.properties):
            raise DataError(
                f"a property or label cannot be called {name!r}: the table needs that "
                "column for itself. Rename it."
            )
    table = pa.table(columns)
    table = table.replace_schema_metadata({"units": json.dumps(crystals.units)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")
    return path


def _table(path: Path, rows: tuple[str, str] | None) -> pa.Table:
    """Return the wanted rows of a file, which must be a table of crystals."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a whole parquet file ({str(error).splitlines()[0]}). It "
            "may be cut short; fetch or make it again."
        ) from error
    names = table.column_names
    missing = [name for name in CORE if name not in names]
    if missing:
        raise DataError(
            f"{path} is not a table of crystals: it has no column "
            f"{', '.join(missing)}; it has {', '.join(names[:12])}. Write one with "
            "matdesign.write."
        )
    if rows is None:
        return table
    column, value = rows
    if column not in names:
        raise DataError(
            f"{path} has no column {column!r} to choose rows by; it has "
            f"{', '.join(names)}. Read it whole, and use matdesign.split."
        )
    words = table[column].cast(pa.string())
    chosen = table.filter(pc.equal(words, value))
    if not len(chosen):
        known = sorted(map(str, words.unique().to_pylist()))
        raise DataError(
            f"{path} has no row with {column} = {value!r}; choose one of "
            f"{', '.join(known[:12])}."
        )
    return chosen


def _values(
    table: pa.Table, name: str, path: Path, lists: bool = False
) -> np.ndarray[Any, Any]:
    """Return the numbers of a column, or of the lists in it, in one array."""
    column = table[name].combine_chunks()
    if lists and "list" not in str(column.type):
        raise DataError(
            f"{path}: column `{name}` must hold a list per row; got {column.type}. "
            "Write tables with matdesign.write."
        )
    values = column.flatten() if lists else column
    if column.null_count or values.null_count:
        raise DataError(
            f"{path}: column `{name}` has empty entries. Drop those rows first."
        )
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _others(table: pa.Table) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return properties and labels: all columns that are neither core nor id."""
    import pyarrow as pa

    properties: dict[str, torch.Tensor] = {}
    labels: dict[str, Any] = {}
    for name in table.column_names:
        if name in (*CORE, "material_id"):
            continue
        kind = table[name].type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            words = table[name].to_pylist()
            labels[name] = tuple("" if word is None else word for word in words)
        elif pa.types.is_boolean(kind) or pa.types.is_primitive(kind):
            values = table[name].cast(pa.float64()).combine_chunks()
            plain = np.array(values.to_numpy(zero_copy_only=False), dtype=np.float32)
            properties[name] = torch.from_numpy(plain)
    return properties, labels
