"""Results: named columns with units and errors, failures as rows with their reason."""

import json

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, ShapeError
from matdesign.loop.results import Column, Results

TWO = Crystals(
    torch.tensor([[29, 28], [13, 0]]),
    torch.rand(2, 2, 3),
    3 * torch.eye(3).repeat(2, 1, 1),
).replace(ids=("a", "b"))


def test_columns_are_attributes_with_unit_and_error():
    gap = Column([1.5, float("nan")], "eV", [0.1, 0.2])
    found = Results(TWO, {"gap": gap, "sites": Column([2, 1])}, oracle="toy")
    assert found.gap.dtype == torch.float64 and found.sites.dtype == torch.int64
    assert found.columns["gap"].unit == found.structures.units["gap"] == "eV"
    assert found.reason == ("", "gap is not a number") and found.ok.tolist() == [
        True,
        False,
    ]
    assert found.failed == {"gap is not a number": 1} and found.seconds.tolist() == [
        0,
        0,
    ]
    assert torch.isnan(found.energy_above_hull).all()  # as of an oracle without a hull
    with pytest.raises(
        AttributeError, match="no column 'colour'; they have gap, sites"
    ):
        print(found.colour)
    assert "1.500 ± 0.1" in repr(found) and "gap eV" in repr(found)
    table = found.to_pandas()
    assert table["gap_std"].tolist() == [0.1, 0.2] and table["id"].tolist() == [
        "a",
        "b",
    ]
    words = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    again = Results.from_dict(TWO, words)
    assert again.to_dict() == found.to_dict() and again.sites.dtype == torch.int64


def test_tables_of_several_oracles_are_joined():
    one = Results(TWO[[1]], {"gap": Column([2.0], "eV", [0.3])}, seconds=torch.ones(1))
    two = Results(TWO[[0]], {"sites": Column([2**24 + 1])}, ("broken",))
    both = Results.cat([two, one])
    assert both.sites[0] == 2**24 + 1  # single precision has no such number
    assert both.reason == ("broken", "") and both.seconds.tolist() == [0, 1]
    assert both.gap.tolist()[1] == 2.0 and torch.isnan(both.gap[0])
    assert both.columns["gap"].std.tolist()[1] == 0.3
    assert both.structures.ids == ("a", "b")
    other = Results(TWO[[0]], {"gap": Column([2.0], "meV")})
    with pytest.raises(DataError, match="gap in 'eV' and in 'meV'"):
        Results.cat([one, other])
    assert len(both[[]]) == 0 and both[[]].gap.shape == (0,)
    assert len(both[both.ok]) == 1 and both[both.ok].structures.ids == ("b",)


def test_errors_speak():
    with pytest.raises(ShapeError, match="column gap does not fit: got 1 values for 2"):
        Results(TWO, {"gap": Column([1.0])})
    for name in ("ok", "formula", "band gap", "seconds"):
        with pytest.raises(DataError, match=f"cannot be called '{name}'"):
            Results(TWO, {name: Column([1.0, 2.0])})
