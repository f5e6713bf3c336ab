"""Parquet files to batches and back, without one object per crystal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import wrap
from matdesign.crystals.io.checks import MAX_ATOMS, MIN_VOLUME, too_many
from matdesign.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

CORE = ("num_atoms", "numbers", "frac_coords", "lattice")
"""Columns that every crystal table has; `material_id` and all others are optional."""

MAX_TABLE_BYTES = 8_000_000_000
"""Most bytes that a table may take in memory."""


def read_parquet(
    path: str | Path,
    *,
    rows: tuple[str, str] | None = None,
    max_atoms: int = MAX_ATOMS,
) -> Crystals:
    """Return the crystals of a parquet table, one per row.

    Text columns become labels, numbers and flags become properties (NaN where null),
    `material_id` becomes the ids. Coordinates are wrapped into [0, 1): published tables
    often hold others. Units come from the file's own metadata, or from a `card.json`
    beside it.

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
    counts = _numeric(table, "num_atoms", path).astype(np.int64)
    flat = {name: _flat(table, name, path) for name in CORE[1:]}
    sites = int(counts.sum())
    for name, want in (("numbers", sites), ("frac_coords", 3 * sites)):
        if len(flat[name]) != want:
            raise DataError(
                f"{path}: column `{name}` holds {len(flat[name])} values, but "
                f"`num_atoms` asks for {want}. The table is damaged; fetch or make it "
                "again."
            )
    if len(flat["lattice"]) != 9 * len(counts):
        raise DataError(
            f"{path}: column `lattice` must hold 9 numbers per row; got "
            f"{len(flat['lattice'])} for {len(counts)} rows. Make the table again."
        )
    width = int(counts.max(initial=0))
    filled = torch.arange(width) < torch.from_numpy(counts)[:, None]
    species = torch.zeros(len(counts), width, dtype=torch.long)
    species[filled] = torch.from_numpy(flat["numbers"].astype(np.int64))
    frac = torch.zeros(len(counts), width, 3)
    raw = torch.from_numpy(flat["frac_coords"].astype(np.float64)).reshape(-1, 3)
    frac[filled] = wrap(wrap(raw).float())
    lattice = torch.from_numpy(flat["lattice"].astype(np.float32)).reshape(-1, 3, 3)
    ids = tuple(table["material_id"].to_pylist()) if _has_ids(table) else ()
    _check_rows(path, ids, species, frac, lattice, counts, max_atoms)
    properties, labels = _others(table)
    return Crystals(
        species,
        frac,
        lattice,
        properties=properties,
        units={k: v for k, v in _units(path, table).items() if k in properties},
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
        columns[name] = [word or None for word in words]
    for name, values in crystals.properties.items():
        plain = values.detach().cpu().double().numpy()
        columns[name] = pa.array(plain, from_pandas=True)
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
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a whole parquet file ({str(error).splitlines()[0]}). It "
            "may be cut short; fetch or make it again."
        ) from error
    meta = file.metadata
    size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    if size > MAX_TABLE_BYTES:
        raise DataError(
            f"{path} would take {size:,} bytes in memory, over the limit of "
            f"{MAX_TABLE_BYTES:,}. Split the table."
        )
    names = file.schema_arrow.names
    missing = [name for name in CORE if name not in names]
    if missing:
        raise DataError(
            f"{path} is not a table of crystals: it has no column "
            f"{', '.join(missing)}; it has {', '.join(names[:12])}. Write one with "
            "matdesign.write."
        )
    try:
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is damaged ({str(error).splitlines()[0]}). Fetch or make it again."
        ) from error
    if rows is None:
        return table
    column, value = rows
    if column not in names:
        raise DataError(
            f"{path} has no column {column!r} to choose rows by; it has "
            f"{', '.join(names)}. Read it whole, and use matdesign.split."
        )
    chosen = table.filter(pc.equal(table[column].cast(pa.string()), value))
    if not len(chosen):
        known = sorted({str(v) for v in table[column].unique().to_pylist()})
        raise DataError(
            f"{path} has no row with {column} = {value!r}; choose one of "
            f"{', '.join(known[:12])}."
        )
    return chosen


def _flat(table: pa.Table, name: str, path: Path) -> np.ndarray[Any, Any]:
    """Return a list column's values in one array."""
    import pyarrow as pa

    column = table[name].combine_chunks()
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and not (
        pa.types.is_fixed_size_list(kind)
    ):
        raise DataError(
            f"{path}: column `{name}` must hold a list per row; got {kind}. "
            "Write tables with matdesign.write."
        )
    values = column.flatten()
    if column.null_count or values.null_count:
        raise DataError(
            f"{path}: column `{name}` has empty entries. Drop those rows first."
        )
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _numeric(table: pa.Table, name: str, path: Path) -> np.ndarray[Any, Any]:
    column = table[name].combine_chunks()
    if column.null_count:
        raise DataError(f"{path}: column `{name}` has empty entries. Drop those rows.")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _has_ids(table: pa.Table) -> bool:
    return "material_id" in table.column_names and not table["material_id"].null_count


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


def _units(path: Path, table: pa.Table) -> dict[str, str]:
    """Return units from the table's metadata, else from the card beside it."""
    stored = (table.schema.metadata or {}).get(b"units")
    card = path.with_name("card.json")
    try:
        if stored is not None:
            found = json.loads(stored)
        elif card.is_file():
            found = json.loads(card.read_text(encoding="utf-8")).get("units", {})
        else:
            found = {}
    except (ValueError, AttributeError):
        found = {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _check_rows(
    path: Path,
    ids: tuple[str, ...],
    species: torch.Tensor,
    frac: torch.Tensor,
    lattice: torch.Tensor,
    counts: np.ndarray[Any, Any],
    max_atoms: int,
) -> None:
    """Refuse the first row that holds no crystal, by its id."""
    count = torch.from_numpy(counts)
    filled = torch.arange(species.shape[1]) < count[:, None]
    known = (species >= 1) & (species <= elements.MAX_Z)
    volume = torch.linalg.det(lattice.double()).abs()
    size = f"has no atoms, or over the limit of {max_atoms}"
    if len(counts) and int(count.max()) > max_atoms:
        size = too_many("it", int(count.max()), max_atoms)
    checks = (
        ((count < 1) | (count > max_atoms), size),
        ((filled & ~known).any(1), "has an element that is none from H to Lr"),
        (~frac.isfinite().all(2).all(1), "has a coordinate that is not a number"),
        (~lattice.isfinite().all(2).all(1), "has a cell that is not a number"),
        (volume < MIN_VOLUME, "has a cell that spans no volume"),
    )
    for bad, what in checks:
        if bool(bad.any()):
            at = int(bad.to(torch.uint8).argmax())
            name = f" ({ids[at]})" if ids else ""
            raise DataError(
                f"{path}: row {at}{name} {what}; {int(bad.sum())} such rows. "
                "Drop or mend them."
            )
