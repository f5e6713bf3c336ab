"""A pool says what it could not read; substitution keeps the group of the table."""

import pytest
import torch

import matdesign as design
from matdesign.constraints.distance import MinDistance
from matdesign.crystals import elements
from matdesign.errors import DataError
from matdesign.loop.iteration import PATIENCE
from matdesign.loop.proposers import Pool, Substitution
from matdesign.loop.store import crystal_keys
from matdesign.loop.worker_oracle import unfit


@pytest.fixture(scope="module")
def known():
    return design.load("perovskites")[:12]


def test_a_pool_of_crystals_draws_each_once(known):
    pool = Pool(known)
    some = pool.sample(5, seed=0)
    assert len(some) == 5 == len(set(some.ids)) and set(some.ids) <= set(known.ids)
    assert pool.sample(5, seed=0).ids == some.ids != pool.sample(5, seed=1).ids
    assert sorted(pool.sample(99, seed=2).ids) == sorted(known.ids)


def test_a_pool_proposes_what_is_new_first_and_nothing_decided_again(known):
    pool = Pool(known)
    order, keys = pool.sample(12, seed=3).ids, dict(zip(known.ids, crystal_keys(known)))
    said = {keys[name]: "passed over" for name in order[:4]}
    said |= {keys[name]: "selected" for name in order[4:6]}
    assert pool.sample(99, seed=3, known=said).ids == order[6:] + order[:4]
    assert pool.candidate_keys == crystal_keys(known)


@pytest.mark.parametrize("select", [None, design.Bayesian(start=2, gate=0.6)])
def test_a_campaign_offers_a_pool_to_its_end(tmp_path, select):
    some = design.load("perovskites")[:40]
    crystals = some.replace(properties={}, units={}, labels={})
    wanted = design.RequiredElements("F")
    fit = int(wanted.satisfied(some).sum())
    oracle = design.TableOracle(some, "formation_energy_per_atom")
    loop = design.Campaign(
        Pool(crystals),
        wanted,
        oracle,
        tmp_path / "a.db",
        objective="formation_energy_per_atom",
        select=select,
        batch=1,
        propose=3,
    )
    list(loop)
    rows = loop.store.decisions()
    assert {one["parent"] for one in rows} == set(some.ids)
    decided = [one["parent"] for one in rows if one["decision"] != "passed over"]
    assert len(decided) == len(set(decided))
    if select is None:
        assert loop.spent == fit == 5 and "a pool has ended" in loop.stopped
        assert PATIENCE < len(loop.store.iterations()) < 40
    else:
        assert "passed over" in loop.stopped
    loop.close()


def test_a_folder_says_what_it_could_not_read(known, tmp_path):
    design.write(known[:4], tmp_path)
    (tmp_path / "broken.cif").write_text("data_x\n_cell_length_a 4\n")
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "notes.txt").write_text("not a crystal, and not asked for")
    pool = Pool(tmp_path)
    assert len(pool.crystals) == 4 and set(pool.unread) == {"broken.cif", "empty.cif"}
    assert "2 could not be read" in repr(pool) and "is empty" in repr(pool)


def test_a_table_of_files_and_formulas_with_descriptors(known, tmp_path):
    [file, *_] = design.write(known[:2], tmp_path / "made")
    (tmp_path / "pool.csv").write_text(
        "file,formula,price,note,mass\n"
        f"made/{file.name},,3.5,good,7\n"
        ",SrTiO3,1.25,known,\n"
        "made/none.cif,,2,lost,\n"
        ",Xy2O,2,no element,\n"
        ",,2,nothing,\n"
        ",Ca0.5O,2,parts,\n"
    )
    pool = Pool(tmp_path / "pool.csv")
    assert pool.crystals.properties["price"].tolist() == [3.5, 1.25]
    assert set(pool.crystals.properties) == {"price", "mass"}
    [mass, blank] = pool.crystals.properties["mass"].tolist()
    assert mass == 7 and blank != blank  # a blank is not known, and costs no other row
    assert pool.crystals.formulas[1] == "SrTiO3"
    assert list(pool.unread) == [
        "line 4, made/none.cif",
        "line 5, Xy2O",
        "line 6, ",
        "line 7, Ca0.5O",
    ]
    assert "was not found" in pool.unread["line 4, made/none.cif"]


def elements_in(crystal):
    return len(crystal.composition)


def test_what_a_pool_holds_twice_is_evaluated_once(tmp_path):
    names = "NaCl KCl LiF MgO CaO SrO BaO RbI".split()
    (tmp_path / "pool.csv").write_text("\n".join(["formula", *names, *names]))
    oracle = design.FunctionOracle(elements_in, {"x": ""})
    made = {"objective": "x", "batch": 2, "propose": 6, "budget": 100}
    where = tmp_path / "a.db"
    loop = design.Campaign(Pool(tmp_path / "pool.csv"), None, oracle, where, **made)
    list(loop)
    assert sorted(loop.table()["formula"]) == sorted(names)
    loop.close()


def test_a_view_does_not_take_a_pool_for_ended(tmp_path):
    some = design.load("perovskites")[:200].replace(properties={}, units={}, labels={})
    where, wanted = tmp_path / "a.db", design.RequiredElements("Kr")
    oracle = design.Experiment({"x": "eV"})
    how = {"objective": "x", "batch": 1, "propose": 3}
    loop = design.Campaign(Pool(some), wanted, oracle, where, **how)
    for _ in range(PATIENCE + 1):
        loop.iteration()
    view = design.Campaign.view(where)
    assert loop.stopped == view.stopped == ""
    view.close()
    loop.close()


def test_cells_and_rows_that_say_no_number(tmp_path):
    table = "formula,price\nNaCl,NaN\n\nKCl,inf\nLiF, 3 \nMgO,NA\nCaO,1,000\nBaO,2\n"
    (tmp_path / "pool.csv").write_text(table)
    pool = Pool(tmp_path / "pool.csv")
    assert pool.crystals.formulas == ("NaCl", "KCl", "LiF", "MgO", "BaO")
    price = pool.crystals.properties["price"]
    assert price.isfinite().tolist() == [False, False, True, False, True]
    assert list(pool.unread) == ["line 4, price", "line 7, CaO"]
    (tmp_path / "pool.csv").write_text("name,price\na,1,2\n")
    with pytest.raises(DataError, match="it has name, price"):
        Pool(tmp_path / "pool.csv")


def test_a_text_among_numbers_costs_its_cell_only_and_is_named(tmp_path):
    table = "formula,price,note\nNaCl,1,\nKCl,n/a,\nLiF,3,7?\n"
    (tmp_path / "pool.csv").write_text(table)
    pool = Pool(tmp_path / "pool.csv")
    first, none, last = pool.crystals.properties["price"].tolist()
    assert (first, last) == (1, 3) and none != none
    assert set(pool.crystals.properties) == {"price"}
    assert pool.unread == {"line 3, price": "'n/a' is no number"}
    assert "1 could not be read in the pool" in repr(pool)


def test_a_campaign_says_what_its_pool_could_not_read(tmp_path):
    lines = "".join(f"\nXy{k}O" for k in range(1, 10))
    (tmp_path / "pool.csv").write_text(f"formula\nNaCl\nKCl{lines}\n")
    where, oracle = tmp_path / "a.db", design.Experiment({"x": "eV"})
    made = Pool(tmp_path / "pool.csv")
    design.Campaign(made, None, oracle, where, objective="x").close()
    for loop in (design.Campaign.view(where), design.Campaign.resume(where)):
        text = repr(loop)
        assert "9 could not be read in the pool" in text
        assert "line 4, Xy1O: " in text and "line 9, " not in text
        loop.close()


def test_a_formula_is_sound_and_says_that_it_has_no_structure(tmp_path):
    (tmp_path / "pool.csv").write_text("formula\nNaCl\nCa3Al2Si3O12\nFe\n")
    crystals = Pool(tmp_path / "pool.csv").crystals
    assert crystals.n_atoms.tolist() == [2, 20, 1]
    assert unfit(crystals) == ["", "", ""]
    assert MinDistance(2.9).satisfied(crystals).all()


def test_what_is_no_pool_is_refused(tmp_path):
    with pytest.raises(DataError, match="is neither"):
        Pool(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="holds no file of a crystal"):
        Pool(tmp_path)
    table = tmp_path / "pool.csv"
    table.write_text("name,price\nSrTiO3,1\n")
    with pytest.raises(DataError, match=r"a column `file` or `formula`; it has name"):
        Pool(table)
    table.write_text("formula\nnonsense\n")
    with pytest.raises(DataError, match=r"nothing can be read .*not a formula"):
        Pool(table)


def test_substitution_stays_in_the_group():
    known = design.load("perovskites")  # every group has elements enough
    made = Substitution(known).sample(32, seed=0)
    again = Substitution(known).sample(32, seed=0)
    assert len(made) == 32 and torch.equal(made.species, again.species)
    old = known.species[[known.ids.index(one) for one in made.ids]]
    group = elements.table("group")
    assert torch.equal(group[made.species], group[old])
    assert (made.species != old)[old > 0].all()
