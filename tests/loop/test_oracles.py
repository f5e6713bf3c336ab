"""Oracles from functions, tables and other oracles: known values, failures."""

import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys

import matdesign as design
from matdesign.errors import DataError, ShapeError
from matdesign.loop.campaign import Campaign
from matdesign.loop.results import Column, Results

FEW = Alloys(bad=0).sample(6, seed=0)
VOLUME = {"volume_per_atom": "angstrom^3"}


def size(structure):
    return structure.volume / len(structure)


def test_a_function_gives_the_numbers_of_the_batch():
    oracle = design.FunctionOracle(size, VOLUME)
    found = oracle.evaluate(FEW)
    assert torch.allclose(found.volume_per_atom.float(), FEW.volume / 4)
    assert found.columns["volume_per_atom"].unit == "angstrom^3" and found.ok.all()
    assert oracle.name == found.oracle == "size"
    for call in (
        lambda **how: design.FunctionOracle(lambda one: 1.0, VOLUME, **how),
        lambda **how: design.FunctionOracle(partial(odd), VOLUME, **how),
        lambda **how: design.ASEOracle(lambda: None, **how),
        lambda **how: design.ASEOracle(partial(odd), **how),
    ):
        with pytest.raises(DataError, match=r"a (<lambda>|partial) has no name"):
            call()
        assert "mine 1" in call(name="mine 1").name
    for bad in (("volume / n_atoms", VOLUME), (size, {})):
        with pytest.raises(DataError, match="a function of a structure and its col"):
            design.FunctionOracle(*bad)


def odd(structure):
    """Fails at silver, is no number at gold, hangs at platinum and dies at palladium."""
    symbols = {site.specie.symbol for site in structure}
    if "Ag" in symbols:
        raise ValueError("what is silver?")
    if "Pt" in symbols:
        time.sleep(60)
    if "Pd" in symbols:
        os._exit(3)
    return {"gap": (math.nan if "Au" in symbols else 1.5, 0.2), "sites": len(structure)}


def metal(*numbers):
    return FEW[[0] * len(numbers)].replace(
        species=torch.tensor(numbers)[:, None].expand(-1, 4)
    )


def test_a_function_fails_for_its_own_crystal_only():
    columns = {"gap": "eV", "sites": ""}
    here = design.FunctionOracle(odd, columns, name="odd 1")
    found = here.evaluate(metal(29, 47, 79, 13))
    assert found.reason == (
        "",
        "ValueError: what is silver?",
        "gap is not a number",
        "",
    )
    assert found.gap.tolist()[::3] == [1.5, 1.5] and found.oracle == "odd 1"
    assert found.columns["gap"].std.tolist()[0] == 0.2
    with design.FunctionOracle(odd, columns, workers=1, time_limit=2) as oracle:
        found = oracle.evaluate(metal(29, 47, 78, 46, 13))
    assert found.reason[0] == found.reason[4] == ""
    assert found.reason[1:4] == (
        "ValueError: what is silver?",
        "time limit 2 s",
        "worker died: exit code 3",
    )


def slow(structure):
    time.sleep(0.4)
    return 0.0


def test_two_workers_are_hardly_less_than_twice_as_fast():
    crystals, seconds = Alloys(bad=0).sample(12, seed=1), []
    for workers in (1, 2):
        with design.FunctionOracle(slow, VOLUME, workers=workers) as oracle:
            oracle.evaluate(crystals[:4])  # the processes have started
            began = time.monotonic()
            assert oracle.evaluate(crystals).ok.all()
            seconds.append(time.monotonic() - began)
    assert seconds[0] / (2 * seconds[1]) > 0.8


def test_a_table_knows_the_best_and_refuses_what_it_lacks(tmp_path):
    known = FEW.replace(
        properties={"energy": torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 0.5])},
        units={"energy": "eV"},
    )
    oracle = design.TableOracle(known, "energy")
    shifted = FEW.replace(frac=(FEW.frac + 0.25) % 1)
    found = oracle.evaluate(shifted[[4, 1]])
    assert found.energy.tolist() == [4.0, 1.0] and found.oracle == oracle.name
    assert oracle.regret(found) == 0.5
    assert oracle.evaluate(metal(13)).reason == ("not in the table",)
    assert design.TableOracle(known, "energy").name == oracle.name
    assert design.TableOracle(known[:5], "energy").name != oracle.name
    assert repr(oracle) == "TableOracle(energy of 6 crystals)"
    gap = known.replace(properties={"energy": torch.tensor([3, math.nan, 2, 5, 4, 1])})
    partly = design.TableOracle(gap, "energy")
    assert partly.evaluate(FEW[:2]).reason == ("", "no value in the table")
    assert partly.refusals(FEW[:2]) == ["", "no value in the table"]
    with pytest.raises(DataError, match="they have energy"):
        design.TableOracle(known, "gap")

    class Mixed:
        def sample(self, n, *, seed):
            return design.Crystals.cat([metal(13, 28), FEW])

    where = tmp_path / "a.db"
    loop = Campaign(Mixed(), None, oracle, where, objective="energy", budget=9)
    assert len(list(loop)) and loop.spent == 6  # the two others cost no call
    assert float(loop.best(1).properties["energy"]) == 0.5
    loop.close()


class Counting:
    """Counts what it is asked."""

    name, columns = "counting", {"energy": "eV"}

    def __init__(self):
        self.asked = 0

    def evaluate(self, crystals):
        self.asked += len(crystals)
        values = Column(-crystals.species.sum(1), "eV")
        seconds = torch.full((len(crystals),), 100.0)
        return Results(crystals, {"energy": values}, seconds=seconds, oracle=self.name)


def test_a_value_comes_alone_or_with_its_error():
    for given, words in (((1.0, 2.0, 3.0), "value and its error"), ((1.0, -1.0), "")):
        oracle = design.FunctionOracle(lambda _, x=given: x, VOLUME, name="odd")
        found = oracle.evaluate(FEW[:2])
        assert not found.ok.any() and words in found.reason[0]
    with pytest.raises(ShapeError, match="volume_std does not fit: got 3 values for 2"):
        Results(FEW[:2], {"volume": Column(torch.ones(2), "", torch.ones(3))})


@pytest.mark.parametrize(
    "within",
    [
        {"volum": (0, 9)},
        {"volume_per_atom": (9, 1)},
        {"volume_per_atom": (1,)},
        {"volume_per_atom": 3},
    ],
)
def test_limits_of_a_cascade_are_checked_before_anything_is_asked(within):
    cheap = design.FunctionOracle(size, VOLUME)
    with pytest.raises(DataError, match="a lowest and a highest value of a column"):
        design.Cascade(cheap, Counting(), within=within)
    potential = design.PotentialOracle()
    design.Cascade(
        potential, Counting(), within={"steps": (0, 99), "competing": (1, 9)}
    )
    other = design.FunctionOracle(size, {"volume_per_atom": "nm^3"})
    with pytest.raises(DataError, match=r"'volume_per_atom'. in different units"):
        design.Cascade(cheap, other, within={"volume_per_atom": (0, 9)})


def test_a_cascade_spares_the_dear_oracle(tmp_path):
    cheap = design.FunctionOracle(size, VOLUME)
    volume = (FEW.volume / 4).tolist()
    middle = sorted(volume)[3]
    dear = Counting()
    both = design.Cascade(cheap, dear, within={"volume_per_atom": (0, middle - 1e-3)})
    found = both.evaluate(FEW)
    assert dear.asked == 3 and found.ok.tolist() == [v < middle for v in volume]
    assert found.failed == {"volume_per_atom outside the limits": 3}
    assert (found.seconds >= 100).tolist() == found.ok.tolist()
    assert torch.allclose(found.volume_per_atom, torch.tensor(volume).double())
    assert set(both.columns) == {"volume_per_atom", "energy"}
    assert repr(both) == f"Cascade({both.name})"
    both = design.Cascade(cheap, dear, within={"volume_per_atom": (0, 14.8)})
    loop = Campaign(
        Alloys(), None, both, tmp_path / "a.db", objective="energy", budget=8
    )
    list(loop)
    table = loop.table()
    assert table["volume_per_atom"].notna().all() and loop.spent == 8
    assert 0 < table["energy"].notna().sum() == dear.asked - 3 < 8
    loop.close()


def test_what_is_known_on_this_machine_is_not_asked_again(tmp_path):
    dear = Counting()
    oracle = design.Cached(dear, tmp_path / "known" / "oracles.db")
    first = oracle.evaluate(FEW[:4])
    second = design.Cached(dear, oracle.path).evaluate(FEW)
    assert dear.asked == 6 and oracle.name == dear.name
    assert torch.equal(second.energy[:4], first.energy)
    assert torch.equal(second.structures.frac, FEW.frac)
    assert second.seconds.tolist() == [0, 0, 0, 0, 100, 100]
    dear.columns = {"energy": "kJ/mol"}  # other numbers by the same name
    design.Cached(dear, oracle.path).evaluate(FEW[:1])
    assert dear.asked == 7
    kept = design.Cached(design.FunctionOracle(size, VOLUME), oracle.path)
    where, aim = tmp_path / "a.db", {"objective": "volume_per_atom"}
    Campaign(Alloys(), None, kept, where, **aim).close()
    with pytest.raises(DataError, match=r"Campaign\.resume.*oracle=\.\.\."):
        Campaign.resume(where, generator=Alloys())
    Campaign.resume(where, generator=Alloys(), oracle=kept).close()
    broken = design.Cached(design.FunctionOracle(odd, {"gap": "eV"}), oracle.path)
    for _ in range(2):  # a failure is tried again
        assert not broken.evaluate(metal(47)).ok.any()
