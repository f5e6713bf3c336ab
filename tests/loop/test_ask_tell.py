"""A campaign whose oracle is a furnace: crystals out, results in, nothing lost."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys
from test_campaign import Toy

import matdesign as design
from matdesign.errors import DataError
from matdesign.loop.campaign import Campaign
from matdesign.loop.iteration import PATIENCE
from matdesign.loop.store import crystal_keys

COLUMNS = ["iteration", "id", "formula", "energy_above_hull", "reason"]
FURNACE = design.Experiment({"energy_above_hull": "eV/atom"}, name="furnace")


def campaign(where, oracle=FURNACE, **keywords):
    keywords = {"budget": 10, "batch": 4, "propose": 8, "seed": 4} | keywords
    return Campaign(Alloys(bad=0), None, oracle, where, **keywords)


def resume(where):
    return Campaign.resume(where, generator=Alloys(bad=0))  # the experiment is rebuilt


def test_what_is_asked_waits_until_it_is_told(tmp_path):
    where = tmp_path / "a.db"
    loop = campaign(where)
    asked = loop.ask()
    assert len(asked) == 4 and asked.ids == ("0-0", "0-1", "0-2", "0-3")
    assert loop.ask().ids == asked.ids
    loop.close()
    loop = resume(where)  # pending crystals survive a restart
    assert crystal_keys(loop.ask()) == crystal_keys(asked) and loop.spent == 0
    measured = Toy().evaluate(asked)
    loop.tell(measured[[2, 0]])  # in parts and in any order
    loop.close()
    loop = resume(where)
    assert loop.ask().ids == ("0-1", "0-3") and loop.spent == 2
    loop.tell(measured[[1, 3]])
    assert len(loop.store.iterations()) == 1 and len(loop.ask(3)) == 3
    while len(more := loop.ask()):
        loop.tell(Toy().evaluate(more))
    assert loop.spent == 10 and loop.left == 0
    assert loop.table()["objective"].min() == pytest.approx(
        float(loop.best(1).properties["energy_above_hull"])
    )
    assert set(loop.store.evaluations()[0].result.oracle.split()) == {"furnace"}
    loop.close()


def test_by_hand_it_is_the_same_campaign(tmp_path):
    automatic = campaign(tmp_path / "a.db", oracle=Toy())
    list(automatic)
    manual = campaign(tmp_path / "b.db")
    while len(asked := manual.ask()):
        manual.tell(Toy().evaluate(asked))
    assert manual.table()[COLUMNS].equals(automatic.table()[COLUMNS])
    automatic.close()
    manual.close()


def test_what_does_not_belong_is_refused_whole(tmp_path):
    loop = campaign(tmp_path / "a.db")
    asked = loop.ask()
    good = Toy().evaluate(asked)
    with pytest.raises(
        DataError, match=r"furnace is not done by this program.*ask\(\)"
    ):
        loop.iteration()
    for change, words in (
        ({"ids": ("0-0", "0-1", "0-2", "9-9")}, "no result of '9-9' is waited for"),
        ({"ids": ("0-0", "0-0", "0-2", "0-3")}, "told twice"),
        ({"ids": ()}, "no result of '' is waited for"),
        ({"species": torch.full((4, 4), 29)}, "0-0 is .*; got a result of Cu"),
    ):
        with pytest.raises(DataError, match=words):
            loop.tell(replace(good, structures=good.structures.replace(**change)))
    one = asked[0].make_supercell([2, 1, 1])
    twice = design.Crystals.from_structures([one]).replace(ids=("0-0",))
    with pytest.raises(DataError, match=r"0-0 is .* 4 atoms in its cell; .* with 8"):
        loop.tell(Toy().evaluate(twice))
    wrong = {
        "energy_above_hull": replace(good.columns["energy_above_hull"], unit="meV")
    }
    with pytest.raises(DataError, match="told in 'meV'; furnace has it in 'eV/atom'"):
        loop.tell(replace(good, columns=wrong))
    with pytest.raises(DataError, match="not among what is told: got no column"):
        loop.tell(replace(good, columns={}))
    assert loop.spent == 0 and len(loop.ask()) == 4
    loop.tell(replace(good, reason=("broke",) * 4))
    assert loop.spent == 4 and loop.history.lowest()[0] == ""
    loop.close()


def test_a_column_of_ones_own_keeps_its_unit(tmp_path):
    loop = campaign(tmp_path / "a.db")

    def told(unit):
        good = Toy().evaluate(loop.ask())
        gap = design.Column(torch.ones(len(good)), unit)
        return replace(good, columns={**good.columns, "gap": gap})

    loop.tell(told("eV"))
    with pytest.raises(DataError, match="gap is told in 'meV'; furnace has it in 'eV'"):
        loop.tell(told("meV"))
    assert loop.spent == 4
    loop.tell(told("eV"))
    assert loop.best(2).units["gap"] == "eV"
    loop.close()


def test_an_infinite_value_is_none_live_and_after_a_resume(tmp_path):
    loop = campaign(tmp_path / "a.db")
    good = Toy().evaluate(loop.ask())
    column = good.columns["energy_above_hull"]
    values = column.values.clone()
    values[0] = -torch.inf
    told = {"energy_above_hull": replace(column, values=values)}
    loop.tell(replace(good, columns=told, reason=("",) * 4))
    live = loop.history.usable()[1].tolist()
    loop.close()
    loop = resume(tmp_path / "a.db")
    assert loop.history.usable()[1].tolist() == live and len(live) == 3
    loop.close()


def test_it_ends_where_nothing_new_comes(tmp_path):
    class Same:
        def sample(self, n, *, seed):
            return Alloys(bad=0).sample(1, seed=1)

    loop = Campaign(Same(), None, FURNACE, tmp_path / "a.db")
    loop.tell(Toy().evaluate(loop.ask()))
    assert len(loop.ask()) == 0 and len(loop.store.iterations()) == 1 + PATIENCE
    assert "like one that is known" in loop.stopped
    loop.close()


def test_a_parent_whose_name_is_a_number_keeps_it(tmp_path):
    pool = (
        Alloys(bad=0).sample(4, seed=0).replace(ids=("1000041", "NaN", "True", "(x)"))
    )
    parts = {"generator": design.Pool(pool), "oracle": FURNACE}
    loop = Campaign(parts["generator"], None, FURNACE, tmp_path / "a.db", batch=4)
    parents = loop.ask().labels["parent"]
    loop.close()
    loop = Campaign.resume(tmp_path / "a.db", **parts)
    assert loop.ask().labels["parent"] == parents and set(parents) == set(pool.ids)
    assert {one["parent"] for one in loop.store.decisions()} == set(pool.ids)
    loop.close()


@pytest.mark.parametrize("name", ["id", "parent", "reason", "iteration", "objective"])
def test_a_column_that_the_table_has_itself_is_refused(tmp_path, name):
    columns = {"capacity": "mAh/g", name: ""}
    formula = design.FunctionOracle(
        lambda _: {"capacity": 1.0, name: 2.0}, columns, name="f"
    )
    for oracle in (design.Experiment(columns), formula):
        with pytest.raises(
            DataError, match=f"cannot be called '{name}'.*none of .*parent"
        ):
            Campaign(Alloys(), None, oracle, tmp_path / "a.db", objective="capacity")
    assert not (tmp_path / "a.db").exists()


def test_a_batch_without_a_value_is_one_of_failures_and_the_next_is_asked(tmp_path):
    loop = campaign(tmp_path / "a.db")
    for reason in ((), ("",) * 4):
        asked = loop.ask()
        none = design.Column(torch.full((4,), torch.nan), "eV/atom")
        loop.tell(design.Results(asked, {"energy_above_hull": none}, reason))
    assert loop.spent == 8 and not loop.table()["ok"].any()
    assert set(loop.table()["reason"][4:]) == {"the objective is not a number"}
    assert len(loop.ask()) == 2
    loop.close()
