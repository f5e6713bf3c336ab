"""What a campaign refuses, keeps and says: before a call is spent, and where it ends."""

import errno
import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from alloys import ELEMENTS, Alloys
from ase.calculators.emt import EMT

import matdesign as design
from matdesign.constraints.base import Constraint
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.loop.campaign import Campaign
from matdesign.loop.guards import Guards
from matdesign.loop.hull import Hull
from matdesign.loop.iteration import PATIENCE
from matdesign.loop.oracle import ASEOracle, PotentialOracle
from matdesign.loop.results import Column, Results
from matdesign.loop.store import Store
from matdesign.loop.workers import Workers


class Flat:
    """An oracle that knows energies per atom only, and does not say so."""

    name = "flat"

    def __init__(self):
        self.calls = 0

    def evaluate(self, crystals):
        self.calls += len(crystals)
        energy = Column(crystals.species.sum(1).double(), "eV/atom")
        return Results(crystals, {"energy_per_atom": energy}, oracle=self.name)


# ---- objectives ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective", ["energy_above_hull", "formation_energy_per_atom"]
)
def test_an_objective_that_needs_a_hull_is_refused_before_the_first_call(
    tmp_path, objective
):
    where = tmp_path / "a.db"
    with pytest.raises(DataError, match=f"does not compute .* got '{objective}'"):
        Campaign(Alloys(), None, ASEOracle(EMT), where, objective=objective)
    assert not where.exists()
    oracle = ASEOracle(EMT, hull=Hull(ELEMENTS))
    Campaign(Alloys(), None, oracle, where, objective=objective).close()
    Campaign(
        Alloys(), None, ASEOracle(EMT), tmp_path / "b.db", objective="energy_per_atom"
    ).close()


def test_an_objective_that_is_never_a_number_stops_after_one_batch(tmp_path):
    oracle = Flat()
    loop = Campaign(Alloys(), None, oracle, tmp_path / "a.db", budget=20, batch=4)
    with pytest.raises(DataError, match="NaN for all 4 usable results of flat"):
        list(loop)
    assert oracle.calls == 4
    loop.close()


class Broken(Flat):
    """Fails in the calls before one, but for another one."""

    def __init__(self, fine_after, fine=-1):
        super().__init__()
        self.fine_after, self.fine = fine_after, fine

    def evaluate(self, crystals):
        made = super().evaluate(crystals)
        calls = range(self.calls - len(crystals), self.calls)
        bad = [k < self.fine_after and k != self.fine for k in calls]
        why = [f"NameError: volum {k}" * no for k, no in zip(calls, bad, strict=True)]
        nan = torch.tensor(bad).double() * torch.nan
        lost = torch.where(torch.tensor(bad), nan, 0.0)
        columns = {k: Column(x.values + lost, x.unit) for k, x in made.columns.items()}
        return replace(made, columns=columns, reason=tuple(why))


def test_an_oracle_that_only_fails_is_heard_of_before_the_budget_is_spent(tmp_path):
    made = {"objective": "energy_per_atom", "budget": 60, "batch": 6}
    oracle, where = Broken(99), tmp_path / "a.db"
    loop = Campaign(Alloys(bad=0), None, oracle, where, **made)
    with pytest.raises(DataError) as said:
        list(loop)
    assert oracle.calls == loop.spent == 12  # two batches
    for words in ("all 12 oracle calls failed, 12 of", "NameError: volum 0", "resume"):
        assert words in str(said.value)
    loop.close()
    assert "12 of 60" in repr(Campaign.view(where))
    killed = Campaign(Alloys(bad=0), None, Broken(99), tmp_path / "b.db", **made)
    killed.iteration()
    killed.close()
    with pytest.raises(DataError, match="all 12 oracle calls failed"):
        list(Campaign.resume(tmp_path / "b.db", generator=Alloys(bad=0), oracle=oracle))
    oracle.calls = 12
    again = Campaign.resume(where, generator=Alloys(bad=0), oracle=oracle)
    with pytest.raises(DataError, match="all 24 oracle calls failed"):
        list(again)  # what was found before is finished, and two batches are tried
    assert oracle.calls == again.spent == 24
    again.close()
    oracle.fine_after = 0
    again = Campaign.resume(where, generator=Alloys(bad=0), oracle=oracle)
    list(again)
    assert again.spent == 60
    again.close()


@pytest.mark.parametrize(("batch", "calls"), [(1, 10), (4, 12), (20, 40)])
def test_ten_calls_at_least_are_tried(tmp_path, batch, calls):
    made = {"objective": "energy_per_atom", "budget": 60, "batch": batch}
    loop = Campaign(Alloys(bad=0), None, Broken(99), tmp_path / "a.db", **made)
    with pytest.raises(DataError, match=f"all {calls} oracle calls failed"):
        list(loop)
    loop.close()


def test_what_a_filter_keeps_back_is_not_an_oracle_that_fails(tmp_path):
    oracle = design.Cascade(
        Flat(), within={"energy_per_atom": (-99, -98)}, then=ASEOracle(EMT)
    )
    made = {"objective": "energy_per_atom", "budget": 30, "batch": 5}
    loop = Campaign(Alloys(bad=0), None, oracle, tmp_path / "a.db", **made)
    list(loop)
    assert loop.spent == 30 and not loop.table()["ok"].any()
    loop.close()


def test_one_usable_result_is_enough_to_go_on(tmp_path):
    made = {"objective": "energy_per_atom", "budget": 30, "batch": 5}
    oracle = Broken(99, fine=7)
    loop = Campaign(Alloys(bad=0), None, oracle, tmp_path / "a.db", **made)
    list(loop)
    assert loop.spent == 30 and int(loop.table()["ok"].sum()) == 1
    loop.close()


class Wrong(Flat):
    """Knows the objective, and gives rows that are not of the crystals it was asked."""

    def __init__(self, how):
        super().__init__()
        self.how, self.columns = how, {"x": "eV"}

    def evaluate(self, crystals):
        self.calls += 1
        n, unit = len(crystals), "eV"
        if self.how == "order":
            crystals = crystals[list(range(n))[::-1]]
        elif self.how == "many":
            crystals = crystals[[*range(n), *range(n), 0]]
        elif self.how == "unit":
            unit = "J"
        elif self.how == "size":
            cells = [one.make_supercell([2, 1, 1]) for one in crystals]
            crystals = Crystals.from_structures(cells)
        values = Column(torch.arange(len(crystals)).double(), unit)
        return Results(crystals, {"x": values}, oracle=self.name)


@pytest.mark.parametrize(
    ("how", "words", "spent"),
    [
        ("order", "got a result of", 0),
        ("many", "no result of '' is waited for", 4),
        ("unit", "x is told in 'J'; flat has it in 'eV'", 0),
        ("size", "atoms in its cell; got a result of", 0),
    ],
)
def test_rows_of_an_oracle_are_those_of_its_crystals(tmp_path, how, words, spent):
    """What is of another crystal, or in another unit, is never written down."""
    settings = {"objective": "x", "budget": 8, "batch": 4}
    loop = Campaign(Alloys(bad=0), None, Wrong(how), tmp_path / "a.db", **settings)
    with pytest.raises(DataError, match=words):
        list(loop)
    assert loop.spent == spent == len(loop.table())
    loop.close()
    good = Wrong("")
    loop = Campaign.resume(tmp_path / "a.db", generator=Alloys(bad=0), oracle=good)
    list(loop)  # mended, it goes on
    assert loop.spent == 8 and good.calls == 2 - bool(spent)
    loop.close()


def test_an_aim_of_the_surrogate_that_no_column_has_is_refused_at_once(tmp_path):
    select = design.Bayesian(objectives=("x", "-dens"))
    with pytest.raises(DataError, match="does not compute the objective: got '-dens'"):
        Campaign(
            Alloys(), None, Wrong(""), tmp_path / "a.db", objective="x", select=select
        )
    assert not (tmp_path / "a.db").exists()


# ---- parts that are made again ---------------------------------------------------------


def test_oracles_that_give_other_numbers_have_other_names():
    hull, other = Hull(ELEMENTS), Hull({**ELEMENTS, "Cu": -0.5})
    oracles = [
        *(ASEOracle(EMT, hull=one) for one in (None, hull, other)),
        ASEOracle(EMT, guards=Guards(shortest_bond=0.4)),
        *(PotentialOracle(hull=one) for one in ("shipped", None, hull, other)),
        PotentialOracle(guards=Guards(volume_factor=1.5)),
    ]
    assert len({one.name for one in oracles}) == len(oracles)
    assert PotentialOracle().name == PotentialOracle(hull="shipped").name
    assert Hull.shipped().key in PotentialOracle().name  # the hull may be made anew
    assert ASEOracle(EMT, hull=Hull(ELEMENTS)).name == oracles[1].name


@pytest.mark.parametrize(
    "settings",
    [{"hull": None}, {"guards": Guards(alloy_volume=(0.5, 2.0))}, {"fmax": 0.3}],
)
def test_the_oracle_of_a_store_is_made_again_as_it_was(tmp_path, settings):
    oracle = PotentialOracle(**settings)
    objective = "energy_per_atom"
    where = tmp_path / "a.db"
    Campaign(Alloys(), None, oracle, where, objective=objective, budget=0).close()
    again = Campaign.resume(where, generator=Alloys())
    assert again.oracle.name == oracle.name  # it tells the hull
    assert again.oracle.guards == oracle.guards
    made, first = again.oracle.hull, oracle.hull
    assert (made and made.calibration) == (first and first.calibration)
    again.close()


def test_an_oracle_with_a_hull_of_ones_own_must_be_given_again(tmp_path):
    oracle, where = PotentialOracle(hull=Hull(ELEMENTS)), tmp_path / "a.db"
    Campaign(Alloys(), None, oracle, where, budget=0).close()
    with pytest.raises(DataError, match=r"campaign's oracle.*oracle=\.\.\."):
        Campaign.resume(where, generator=Alloys())
    for other in (PotentialOracle(), PotentialOracle(hull=Hull({"Cu": -1.0}))):
        with pytest.raises(DataError, match="made with other oracle"):
            Campaign.resume(where, generator=Alloys(), oracle=other)
    Campaign.resume(where, generator=Alloys(), oracle=oracle).close()


OURS = [
    design.Density(2, 5),
    design.VolumePerAtom(10, float("inf")),
    design.NumberOfAtoms(2, 10),
    design.SpaceGroup("Pm-3m", 225),
    design.CrystalSystem("cubic", "trigonal"),
    design.Motif("kagome", element="Fe", bond=2.6),
    design.Coordination("Ti", "O", (5, 6), cutoff=2.4),
    design.ElectronegativityOrder(),
    design.OnlyElements.without("Pb"),
    design.Property("energy-prototypes", high=-1, name="formation_energy_per_atom"),
]


@pytest.mark.parametrize("one", OURS, ids=str)
def test_constraints_of_the_package_are_written_down(one):
    words = json.loads(json.dumps(one.to_dict()))
    again = Constraint.from_dict(words)
    assert type(again) is type(one) and repr(again) == repr(one)
    assert again.to_dict() == words
    both = one & design.MinDistance(1.0)
    assert repr(Constraint.from_dict(both.to_dict())) == repr(both)


def test_what_holds_more_than_words_is_given_again(tmp_path):
    known = Alloys(bad=0).sample(3, seed=0)
    for one in (design.Novelty(known), design.Property(len, 0, 1, name="size")):
        with pytest.raises(DataError, match="cannot be written as JSON"):
            one.to_dict()
    wanted, where = design.Novelty(known), tmp_path / "a.db"
    objective = "energy_per_atom"
    settings = {"objective": objective, "budget": 0}
    Campaign(Alloys(), wanted, Flat(), where, **settings).close()
    with pytest.raises(DataError, match=r"plain words and numbers.*constraints=\.\.\."):
        Campaign.resume(where, generator=Alloys(), oracle=Flat())
    with pytest.raises(DataError, match="no constraint of this package is called"):
        Constraint.from_dict({"class": "load", "args": [], "settings": {}})


# ---- what is proposed, and where it ends -----------------------------------------------


def test_masks_of_the_constraints_are_on_by_default(tmp_path):
    model = design.load_model("coupling-flow-perovskites")
    wanted = design.OnlyElements("Ca", "Ti", "O") & design.Density(0, 5)
    loop = Campaign(
        model,
        wanted,
        Flat(),
        tmp_path / "a.db",
        objective="energy_per_atom",
        budget=4,
        batch=4,
    )
    assert "mask" in repr(loop.guide) and "density" not in repr(loop.guide)
    iteration = loop.iteration()
    proposals = loop.store.proposals(0)
    assert iteration.proposed == len(proposals) == 8
    for one in proposals:
        assert set(one.crystal.species[0].tolist()) <= {0, 8, 20, 22}
    loop.close()
    again = Campaign.resume(tmp_path / "a.db", oracle=Flat(), budget=6)
    assert repr(again.guide) == repr(loop.guide)
    again.close()
    free = design.Guide(wanted, scale=0)
    other = Campaign(
        model,
        wanted,
        Flat(),
        tmp_path / "b.db",
        guide=free,
        budget=0,
        objective="energy_per_atom",
    )
    assert other.guide is free
    other.close()
    with pytest.raises(InfeasibleTarget, match="excluded by"):
        both = design.OnlyElements("Ca") & design.RequiredElements("O")
        Campaign(model, both, Flat(), tmp_path / "c.db", objective="energy_per_atom")


def test_a_campaign_that_finds_nothing_says_why_and_what_to_loosen(tmp_path):
    wanted = design.MinDistance(2.6) & design.Density(0, 1)
    loop = Campaign(
        Alloys(bad=0),
        wanted,
        Flat(),
        tmp_path / "a.db",
        objective="energy_per_atom",
        budget=4,
        propose=3,
    )
    iterations = list(loop)
    assert len(iterations) == PATIENCE and iterations[-1].stopped == loop.stopped
    text = repr(iterations[-1])
    assert "stopped with 4 oracle calls left: 5 iterations in a row" in text
    assert "Of 15 crystals:" in text and "density from 0 to 1 g/cm^3" in text
    assert "Begin one with looser constraints" in text
    loop.close()
    again = Campaign.resume(tmp_path / "a.db", generator=Alloys(bad=0), oracle=Flat())
    assert list(again) == [] and "density from 0 to 1" in repr(again)
    again.close()


def test_a_guide_that_finds_nothing_leaves_an_empty_iteration_with_its_reason(tmp_path):
    model = design.load_model("coupling-flow-perovskites")
    wanted = design.OnlyElements("Ca", "Ti", "O") & design.Density(0, 0.1)
    loop = Campaign(
        model,
        None,
        Flat(),
        tmp_path / "a.db",
        objective="energy_per_atom",
        budget=4,
        propose=2,
        guide=design.Guide(wanted, "reject", draws=2),
    )
    first = loop.iteration()
    assert first.proposed == 0 and "Loosen" in first.nothing
    assert first.nothing in repr(first) and not first.stopped
    loop.close()
    again = Campaign.resume(tmp_path / "a.db", oracle=Flat(), guide=loop.guide)
    iterations = list(again)
    assert (
        len(iterations) == PATIENCE - 1
        and iterations[-1].nothing in iterations[-1].stopped
    )
    assert "4 oracle calls left" in iterations[-1].stopped and again.spent == 0
    again.close()


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    def found(name):
        columns = {"sites": ""}
        oracle = design.FunctionOracle(len, columns, workers=1, time_limit=30)
        settings = {"objective": "sites", "budget": 6, "batch": 3}
        loop = Campaign(Alloys(), None, oracle, tmp_path / name, **settings)
        assert sum(one.selected for one in loop) == loop.spent == 6
        table = loop.table()
        loop.close()
        assert table["ok"].all() and table["seconds"].between(0, 30).all()
        return table.drop(columns="seconds")

    whole, jumps = found("a.db"), itertools.cycle([0.0, -1e8, 1e8, 3600.0])
    monkeypatch.setattr("time.time", lambda: 1.8e9 + next(jumps))
    assert found("b.db").equals(whole)


# ---- workers and locks -----------------------------------------------------------------


def _set(value):
    import builtins

    builtins.prepared = value


def _get(_):
    import builtins

    return builtins.prepared


def _first():
    _set("first")


def _second():
    _set("second")


def test_two_remote_oracles_have_processes_of_their_own():
    import os

    with ThreadPoolExecutor(1) as threads:
        one, two = (
            Workers(executor=threads, prepare=ready) for ready in (_first, _second)
        )
        told = [r.submit(_get, 0, time_limit=60).result() for r in (one, two, one)]
        assert told == ["first", "second", "first"]
        pids = [r.submit(os.getpid, time_limit=60).result() for r in (one, two, one)]
        assert pids[0] == pids[2] != pids[1]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOLCK, "offers no locks.*Put the store on a local disk"),
        (errno.EOPNOTSUPP, "offers no locks.*Put the store on a local disk"),
        (errno.EWOULDBLOCK, "another process is writing"),
    ],
)
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number, says):
    def flock(*_):
        raise OSError(number, "no locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(DataError, match=says):
        Store(tmp_path / "a.db")


def test_a_database_is_locked_as_a_file_is(monkeypatch):
    """By a server that gives each lock to one connection at a time."""
    taken = {}

    class Connection:
        def cursor(self):
            return self

        def execute(self, statement):
            key = statement.split("'")[1]
            self.answer = int(taken.setdefault(key, self) is self)

        def fetchone(self):
            return (self.answer,)

        def close(self):
            for key in [k for k, who in taken.items() if who is self]:
                del taken[key]

    class Database:
        type = "postgresql"

        def _connect(self):
            return Connection()

    monkeypatch.setattr("ase.db.connect", lambda *_, **__: Database())
    url = "postgresql://me:secret@host:5432/lab"
    first = Store(url)
    with pytest.raises(DataError, match="another process is writing to host") as caught:
        Store(url.replace("me", "you"))
    assert "secret" not in str(caught.value)
    Store(url.replace("lab", "other")).close()
    first.close()
    Store(url).close()


def test_a_database_without_a_known_lock_is_refused(monkeypatch):
    class Database:
        type = "folder"

    monkeypatch.setattr("ase.db.connect", lambda *_, **__: Database())
    with pytest.raises(DataError, match="no lock is known"):
        Store("folder://x/y")


def test_crystals_without_a_reference_cost_nothing(tmp_path):
    """Iron has no energy here: the crystals with it are rejected, not evaluated."""

    class Half:
        def sample(self, n, *, seed):
            made = Alloys(bad=0).sample(n, seed=seed)
            made.species[::2] = 26
            return made

    oracle = ASEOracle(EMT, hull=Hull(ELEMENTS), steps=0, fmax=1e9, workers=1)
    loop = Campaign(Half(), None, oracle, tmp_path / "a.db", budget=3, batch=3)
    iteration = loop.iteration()
    rows = loop.store.proposals(0)
    assert [one.decision for one in rows[::2]] == ["rejected"] * 3
    assert {one.reason for one in rows[::2]} == {"no reference energy for Fe"}
    assert iteration.selected == loop.spent == 3 and not iteration.failed
    assert isinstance(loop.best(1), Crystals) and torch.is_tensor(loop.best(1).frac)
    loop.close()
