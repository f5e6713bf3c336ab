"""Parquet tables: damaged ones name the row, published ones are wrapped."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.io.files import read, read_parquet, write_parquet
from matdesign.errors import DataError

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm",
    Lattice.tetragonal(4.594, 2.959),
    ["Ti", "O"],
    [[0, 0, 0], [0.3053, 0.3053, 0]],
)


def batch() -> Crystals:
    return Crystals.from_structures(
        [SALT, RUTILE, SALT],
        labels={"split": ("train", "val", "test")},
        ids=["salt", "rutile", "again"],
    )


def damaged(tmp_path: Path, **columns: object) -> Path:
    """Write a table whose columns were changed on purpose."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    good: dict[str, object] = {
        "material_id": ["a", "b"],
        "num_atoms": [1, 2],
        "numbers": [[26], [26, 8]],
        "frac_coords": [[0.0, 0, 0], [0.0, 0, 0, 0.5, 0.5, 0.5]],
        "lattice": [np.eye(3).ravel().tolist(), (2 * np.eye(3)).ravel().tolist()],
    }
    kept = {k: v for k, v in (good | columns).items() if v is not None}
    pq.write_table(pa.table(kept), tmp_path / "damaged.parquet")
    return tmp_path / "damaged.parquet"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"lattice": None}, "no column lattice"),
        ({"numbers": [[26], [26]]}, "`numbers` holds 2 values.*asks for 3"),
        ({"numbers": [[26], [26, 104]]}, r"row 1 \(b\) has an unknown element"),
        ({"numbers": [[26], None]}, "`numbers` has empty entries"),
        ({"numbers": [26, 8]}, "must hold a list per row"),
        ({"frac_coords": [[0.0, 0, 0], [0.0, 0, math.nan, 0, 0, 0]]}, r"row 1 \(b\)"),
        ({"lattice": [[0.0] * 9, np.eye(3).ravel().tolist()]}, r"row 0 \(a\).*volume"),
        ({"lattice": [[1.0] * 8, [1.0] * 9]}, "9 numbers per row"),
    ],
)
def test_damaged_tables_name_the_row(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(damaged(tmp_path, **columns))
    assert "damaged.parquet" in str(error.value)


def test_unwrapped_published_coordinates_are_wrapped(tmp_path: Path) -> None:
    path = damaged(
        tmp_path, frac_coords=[[1.25, -0.25, -1e-9], [0.0, 0, 0, 0.5, 0.5, 1]]
    )
    back = read(path)
    assert back.frac[0, 0].tolist() == [0.25, 0.75, 0.0]
    assert ((back.frac >= 0) & (back.frac < 1)).all() and back.ids == ("a", "b")


def test_flags_and_empty_entries_become_numbers(tmp_path: Path) -> None:
    back = read(damaged(tmp_path, gap=[1.0, None], stable=[True, False]))
    assert back.properties["gap"].isnan().tolist() == [False, True]
    assert back.properties["stable"].tolist() == [1.0, 0.0] and back.units == {}


def test_choosing_rows_names_what_exists(tmp_path: Path) -> None:
    path = write_parquet(batch(), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"no row with split = 'dev'.*test, train, val"):
        read_parquet(path, rows=("split", "dev"))
    with pytest.raises(DataError, match="no column 'fold' to choose rows by; it has"):
        read_parquet(path, rows=("fold", "1"))


def test_a_large_table_is_read_without_one_object_per_row(tmp_path: Path) -> None:
    rng = generator(0)
    n = 10_000
    species = torch.randint(1, 100, (n, 20), generator=rng)
    frac = torch.rand(n, 20, 3, generator=rng)
    lattice = 8 * torch.eye(3).repeat(n, 1, 1)
    big = Crystals(species, frac, lattice, ids=tuple(str(i) for i in range(n)))
    back = read(write_parquet(big, tmp_path / "big.parquet"))
    assert torch.equal(back.frac, frac) and torch.equal(back.species, species)


def test_a_truncated_table_is_refused(tmp_path: Path) -> None:
    path = write_parquet(batch(), tmp_path / "whole.parquet")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cut.parquet is not a whole parquet file"):
        read(cut)
