"""Primitive cells: the same crystals, smaller; found once, and never from a bad file."""

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matdesign.crystals import cached
from matdesign.crystals.batch import Crystals
from matdesign.crystals.data import primitive
from matdesign.crystals.data.primitive import primitive_cells
from matdesign.crystals.symmetry.encoded import encode
from matdesign.crystals.symmetry.find import spacegroup

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
ZINC = Structure.from_spacegroup(
    "P6_3/mmc", Lattice.hexagonal(2.66, 4.95), ["Zn"], [[1 / 3, 2 / 3, 0.25]]
)
QUARTZ = Structure.from_spacegroup(
    "P3_221",
    Lattice.hexagonal(4.91, 5.40),
    ["Si", "O"],
    [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]],
)  # fmt: skip
SKEWED = [[1, 0, 0], [3, 1, 0], [0, 0, 2]]


def batch() -> Crystals:
    """Super-cells, one cell that is primitive, one with two atoms on one site."""
    stacked = Structure(Lattice.cubic(4), ["H", "H"], [[0, 0, 0], [0, 0, 0]])
    kinds = [SALT * SKEWED, ZINC * SKEWED, QUARTZ, QUARTZ * SKEWED]
    return Crystals.from_structures(
        [*kinds, stacked], ids=tuple("abcde"), properties={"gap": torch.arange(5.0)}
    )


def test_a_batch_becomes_primitive_and_stays_the_same_crystals():
    before = batch()
    after = primitive_cells(before)
    assert after.n_atoms.tolist() == [2, 2, 9, 9, 2]
    assert after.ids == before.ids
    assert torch.equal(after.properties["gap"], before.properties["gap"])
    assert after.frac.min() >= 0 and after.frac.max() < 1
    assert spacegroup(after).tolist() == spacegroup(before).tolist()
    assert spacegroup(after).tolist() == [225, 194, 154, 154, 0]
    same = StructureMatcher(primitive_cell=False, attempt_supercell=True)
    for at in range(4):
        assert same.fit(before.structure(at), after.structure(at))
    # a second time changes nothing but rounding
    assert torch.allclose(primitive_cells(after).lattice, after.lattice, atol=1e-5)


def test_a_skewed_supercell_shrinks_and_keeps_its_properties():
    large = Crystals.from_structures(
        [SALT * SKEWED], properties={"band_gap": torch.tensor([5.0])}
    )
    small = primitive_cells(large)[0]
    assert len(small) == 2 and small.properties == {"band_gap": 5.0}
    assert all(59.9 < angle < 120.1 for angle in small.lattice.angles)
    assert small.density == pytest.approx(SALT.density)
    assert StructureMatcher().fit(small, SALT)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The folder of what was found; small batches are kept as well."""
    monkeypatch.setattr(cached, "FEWEST", 1)
    monkeypatch.setattr(cached, "cache_dir", lambda: tmp_path)
    return tmp_path / "found"


def test_cells_and_encodings_are_found_once(kept, monkeypatch):
    first, code = primitive_cells(batch()), encode(batch(), "symmetric").code
    assert len(list(kept.iterdir())) == 2

    def again(*_):
        pytest.fail("found again")

    monkeypatch.setattr(primitive, "_find", again)
    monkeypatch.setattr("matdesign.crystals.symmetry.encoded._read_all", again)
    second = primitive_cells(batch())
    for name in ("species", "frac", "lattice"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert torch.equal(encode(batch(), "symmetric").code, code)


@pytest.mark.parametrize("harm", ["cut", "empty", "altered", "other"])
def test_a_file_that_is_not_whole_is_made_anew(kept, harm):
    first = primitive_cells(batch())
    (file,) = kept.iterdir()
    good = file.read_bytes()
    altered = good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]
    bad = {"cut": good[:-9], "empty": b"", "altered": altered, "other": b"abc" * 9}
    file.write_bytes(bad[harm])
    assert torch.equal(primitive_cells(batch()).lattice, first.lattice)
    assert file.read_bytes() == good
    assert list(kept.iterdir()) == [file]


def test_another_crystal_is_another_file(kept):
    primitive_cells(batch())
    moved = batch()
    primitive_cells(moved.replace(frac=(moved.frac + 0.25) % 1))
    assert len(list(kept.iterdir())) == 2
