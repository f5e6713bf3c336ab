"""The split of reduced MP-20: fixed, disjoint, and of the stated sizes."""

import mp20
import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.parquet import write_parquet
from matdesign.errors import DataError


@pytest.fixture
def table(tmp_path):
    """Eight crystals as doubled cells: each has a primitive cell of one atom."""
    n = 8
    frac = torch.tensor([[[0.0, 0, 0], [0.0, 0, 0.5]]]).repeat(n, 1, 1)
    lattice = torch.diag(torch.tensor([3.0, 3.1, 6.4])).repeat(n, 1, 1)
    crystals = Crystals(
        torch.arange(21, 21 + n)[:, None].repeat(1, 2),
        frac,
        lattice,
        properties={"formation_energy_per_atom": torch.arange(n).float()},
        labels={"split": ("train",) * n},
        ids=tuple(f"mp-{i}" for i in range(n)),
    )
    return write_parquet(crystals, tmp_path / "tiny.parquet")


def test_the_split_has_the_stated_sizes_and_no_row_twice():
    ids = tuple(f"mp-{i}" for i in range(40))
    parts = mp20.parts_of(ids, test=10, val=5)
    assert [parts.count(p) for p in ("train", "val", "test")] == [25, 5, 10]


def test_the_split_does_not_depend_on_the_order_of_rows():
    ids = tuple(f"mp-{i}" for i in range(40))
    forward = dict(zip(ids, mp20.parts_of(ids, test=10, val=5)))
    back = ids[::-1]
    assert forward == dict(zip(back, mp20.parts_of(back, test=10, val=5)))


def test_the_split_is_the_one_that_models_were_trained_with():
    # a changed rule would put held-out rows into training: this must never change
    ids = tuple(f"mp-{i}" for i in range(12))
    test = [i for i, p in zip(ids, mp20.parts_of(ids, test=3, val=2)) if p == "test"]
    assert test == ["mp-2", "mp-8", "mp-10"]


def test_too_few_rows_or_a_repeated_id_are_refused():
    with pytest.raises(DataError, match="more than 3 rows"):
        mp20.parts_of(("mp-1", "mp-2"), test=2, val=1)
    with pytest.raises(DataError, match="different ids"):
        mp20.parts_of(("mp-1", "mp-1", "mp-2"), test=1, val=1)


def test_parts_hold_primitive_cells_with_ids_properties_and_units(table):
    parts = mp20.load_reduced(table, test=3, val=2)
    assert {k: len(v) for k, v in parts.items()} == {"train": 3, "val": 2, "test": 3}
    for name, part in parts.items():
        assert part.n_atoms.tolist() == [1] * len(part)
        assert set(part.labels["split"]) == {name}
        # the row keeps its own element and property
        energies = part.properties["formation_energy_per_atom"]
        assert (part.species[:, 0] - 21).tolist() == energies.tolist()
        assert part.units["formation_energy_per_atom"] == "eV/atom"
    volume = torch.cat([p.volume for p in parts.values()])
    assert torch.allclose(volume, torch.full((8,), 3.0 * 3.1 * 3.2), rtol=1e-5)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        mp20.load_reduced(tmp_path / "none.parquet")
