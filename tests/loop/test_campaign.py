"""The campaign: honest counts, no crystal paid twice, nothing over budget."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys, CountingOracle, fingerprint

from matdesign.constraints.base import Constraint
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.guidance.guide import Guide
from matdesign.loop import rebuild
from matdesign.loop.campaign import Campaign
from matdesign.loop.iteration import PATIENCE, iteration_seed
from matdesign.loop.known import Known
from matdesign.loop.results import Column, Results
from matdesign.loop.store import crystal_keys

SOME = ("Cu", "Ni", "Al", "Pd", "Ag", "Pt")


class Toy:
    """An oracle without processes: the energy is the share of copper, negative."""

    name = "toy"
    calls = 0

    def evaluate(self, crystals):
        self.calls += len(crystals)
        copper = (crystals.species == 29).sum(1) / crystals.n_atoms
        columns = {
            "energy_per_atom": Column(-copper, "eV/atom"),
            "energy_above_hull": Column(1 - copper.double(), "eV/atom"),
        }
        reason = tuple("" if i % 5 else "broken 3" for i in range(len(crystals)))
        return Results(crystals, columns, reason, oracle=self.name)


class Fixed:
    """Draws from a fixed list, always the same ones."""

    def __init__(self, crystals):
        self.crystals = crystals

    def sample(self, n, *, seed):
        return self.crystals[[i % len(self.crystals) for i in range(n)]]


def campaign(tmp_path, oracle=None, model=None, wanted=None, **keywords):
    keywords = {"budget": 17, "batch": 6, "propose": 12, "seed": 4} | keywords
    return Campaign(
        model or Alloys(), wanted, oracle or Toy(), tmp_path / "c.db", **keywords
    )


def test_a_whole_campaign_with_a_real_oracle(tmp_path):
    wanted = [RequiredElements("Cu"), MinDistance(1.5)]
    oracle = CountingOracle(tmp_path / "side")
    loop = campaign(tmp_path, oracle, wanted=wanted)
    iterations = list(loop)
    lines = (tmp_path / "side").read_text().split()
    assert len(lines) == len(set(lines)) == loop.spent == 17
    assert [t.spent for t in iterations][-1] == 17 and loop.left == 0
    for iteration in iterations:
        assert (
            iteration.proposed
            == 12
            >= iteration.passed
            >= iteration.fresh
            >= iteration.selected
        )
        assert (
            iteration.selected <= 6
            and iteration.usable + sum(iteration.failed.values()) == iteration.selected
        )
        assert f"oracle calls {iteration.spent} of 17" in repr(iteration)
    bests = [t.best for t in iterations]
    assert bests == sorted(bests, reverse=True)
    table = loop.table()
    assert len(table) == 17 and table["objective"].min() == pytest.approx(bests[-1])
    best = loop.best(3)
    assert best.properties["energy_above_hull"][0] == pytest.approx(bests[-1])
    assert (best.properties["energy_above_hull"].diff() >= 0).all()
    assert (best.species == 29).any(1).all()
    known = Known()
    for i in range(len(best)):
        assert known.find(best[[i]]) is None
        known.add(str(i), best[[i]])
    evaluated = loop.store.originals()
    prints = {fingerprint(c[0]) for c in evaluated.values()}
    assert prints == set(lines)
    assert "oracle calls 17 of 17" in repr(loop)
    loop.close()


def test_every_decision_is_a_row(tmp_path):
    loop = campaign(tmp_path, wanted=OnlyElements(*SOME))
    list(loop)
    reasons = set()
    for row in loop.store.iterations():
        rows = loop.store.proposals(row["iteration"])
        assert len(rows) == 12
        decisions = [r.decision for r in rows]
        assert decisions.count("selected") == row["selected"]
        assert row["draw"] == iteration_seed(4, row["iteration"])
        for one in rows:
            assert (one.reason == "") == (one.decision == "selected")
            reasons.add(one.reason.split(" ")[0])
            only = 79 not in one.crystal.species[0].tolist()
            assert only or one.decision == "rejected"
    assert {"misses:", "atoms"} <= reasons  # constraint and cheap check both speak
    loop.close()


def test_same_seed_same_campaign(tmp_path):
    tables = []
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        (tmp_path / name).mkdir()
        loop = campaign(tmp_path / name, seed=seed)
        list(loop)
        tables.append(loop.table().drop(columns="seconds"))
        loop.close()
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])
    assert len({iteration_seed(s, t) for s in range(30) for t in range(30)}) == 900


def test_duplicates_are_never_evaluated(tmp_path):
    base = Alloys(bad=0).sample(3, seed=1)
    base = base.replace(species=torch.tensor([[29] * 4, [28] * 4, [29, 29, 13, 13]]))
    shifted = base.replace(frac=(base.frac + 0.3) % 1)
    swapped = base.replace(
        species=base.species.flip(1),
        frac=base.frac.flip(1),
        lattice=base.lattice * 1.02,
    )
    model = Fixed(Crystals.cat([base, shifted, swapped]))
    loop = campaign(tmp_path, model=model, propose=9, budget=20)
    iterations = list(loop)
    assert (
        iterations[0].selected == 3
        and iterations[0].fresh == 3
        and iterations[0].passed == 9
    )
    assert loop.spent == 3
    assert (
        len(iterations) == 1 + PATIENCE
    )  # it sees that nothing new comes, and says so
    assert not any(one.stopped for one in iterations[:-1])
    assert "45 like one that is known" in repr(iterations[-1])
    assert "makes others" in repr(loop)
    loop.close()


def test_budget_zero_and_surplus(tmp_path):
    loop = campaign(tmp_path, budget=0)
    assert list(loop) == []
    with pytest.raises(DataError, match=r"budget of 0 oracle calls is spent"):
        loop.iteration()
    assert len(loop.best(2)) == 0 and len(loop.table()) == 0
    loop.close()
    longer = Campaign.resume(
        tmp_path / "c.db", generator=Alloys(), oracle=Toy(), budget=8
    )
    assert [t.selected for t in longer] == [6, 2]
    rows = [p for t in (0, 1) for p in longer.store.proposals(t)]
    late = [p for p in rows if p.decision == "passed over"]
    assert late and all("batch or the budget" in p.reason for p in late)
    longer.close()


def test_bad_candidates_do_not_stop_it(tmp_path):
    nan = float("nan")
    good = Alloys(bad=0).sample(2, seed=3)
    odd = Crystals(
        torch.tensor([[29, 29, 0, 0]] * 5 + [[2, 29, 29, 29], [29, 0, 0, 0]]),
        torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0], [0.5, 0, 0]]] * 7),
        torch.eye(3).repeat(7, 1, 1) * 3.0,
    )
    odd.frac[0, 1] = 1e-4  # on top of each other
    odd.lattice[1] = 0.0  # zero volume
    odd.lattice[2] = torch.eye(3) * 200
    odd.frac[3, 0] = nan
    odd.lattice[4, 0, 0] = nan
    odd.lattice[6] = torch.eye(3) * 12  # a lone atom
    model = Fixed(Crystals.cat([odd, good]))
    oracle = CountingOracle(tmp_path / "side")
    loop = campaign(tmp_path, oracle, model=model, batch=9, propose=9, budget=9)
    iteration = loop.iteration()
    assert iteration.passed == iteration.usable == loop.spent == 2
    reasons = [p.reason for p in loop.store.proposals(0)]
    assert reasons[5] == "no reference energy for He"  # and no call is spent on it
    for k, words in enumerate(
        ["too close", "collapsed", "empty", "not numbers", "not numbers"]
    ):
        assert words in reasons[k]
    assert len(list(loop)) == PATIENCE
    loop.close()


def test_own_objective(tmp_path):
    def heaviest(results):
        return -results.structures.mass

    loop = campaign(tmp_path, objective=heaviest)
    list(loop)
    masses = [
        float(e.result.structures.mass) for e in loop.store.evaluations() if e.result.ok
    ]
    assert float(loop.best(1).mass) == pytest.approx(max(masses))
    loop.close()
    with pytest.raises(DataError, match=r"objective, .*Campaign.resume"):
        Campaign.resume(tmp_path / "c.db", generator=Alloys(), oracle=Toy())


def test_resume_reads_everything_back(tmp_path):
    first = campaign(tmp_path, wanted=OnlyElements(*SOME) & MinDistance(1.2))
    first.iteration()
    first.close()
    toy = Toy()
    second = Campaign.resume(tmp_path / "c.db", generator=Alloys(), oracle=toy)
    assert second.constraints.parts[1].limit == 1.2  # made again from the store
    assert second.spent == first.spent > 0
    list(second)
    assert toy.calls == 17 - first.spent
    (tmp_path / "b").mkdir()
    whole = campaign(tmp_path / "b", wanted=OnlyElements(*SOME) & MinDistance(1.2))
    list(whole)
    columns = ["iteration", "id", "formula", "energy_per_atom", "reason"]
    assert whole.table()[columns].equals(second.table()[columns])
    assert crystal_keys(whole.best(3)) == crystal_keys(second.best(3))
    whole.close()
    second.close()


def test_errors_speak(tmp_path):
    loop = campaign(tmp_path, wanted=OnlyElements(*SOME))
    loop.iteration()
    loop.close()
    store = tmp_path / "c.db"
    with pytest.raises(DataError, match=r"holds a campaign already.*resume"):
        campaign(tmp_path)
    with pytest.raises(DataError, match=r"generator, .*generator=\.\.\."):
        Campaign.resume(store)
    with pytest.raises(DataError, match=r"oracle=\.\.\."):
        Campaign.resume(store, generator=Alloys())
    other = Toy()
    other.name = "another"
    with pytest.raises(DataError, match=r"got 'another', it has 'toy'"):
        Campaign.resume(store, generator=Alloys(), oracle=other)
    given = {"generator": Alloys(), "oracle": Toy()}
    with pytest.raises(DataError, match=r"other objective: got '-energy_per_atom'"):
        Campaign.resume(store, objective="-energy_per_atom", **given)
    guide = Guide(OnlyElements("Cu"), "mask")
    with pytest.raises(DataError, match=r"other guide: .*it has \{\}"):
        Campaign.resume(store, guide=guide, **given)
    with pytest.raises(DataError, match=r"other constraints"):
        Campaign.resume(
            store, generator=Alloys(), oracle=Toy(), constraints=OnlyElements("Cu")
        )
    with pytest.raises(DataError, match=r"budget can only grow: got 3"):
        Campaign.resume(store, generator=Alloys(), oracle=Toy(), budget=3)
    with pytest.raises(DataError, match=r"holds no campaign"):
        Campaign.resume(tmp_path / "new.db")
    with pytest.raises(DataError, match=r"batch=0"):
        campaign(tmp_path / "x", batch=0)
    with pytest.raises(DataError, match=r"not compute the objective: got 'beauty'"):
        campaign(tmp_path, objective="beauty")

    class Silent(Toy):
        def stream(self, crystals):
            return iter(())

    (tmp_path / "s").mkdir()
    silent = campaign(tmp_path / "s", Silent())
    with pytest.raises(DataError, match=r"gave 6 of 6 crystals no result"):
        silent.iteration()
    silent.close()


def test_constraints_travel_as_words():
    from matdesign.constraints.between import Between
    from matdesign.constraints.charge import ChargeNeutral
    from matdesign.constraints.composition import Composition

    every = (
        OnlyElements("Sr", "Ti", "O")
        & RequiredElements("O")
        & Composition(pattern="ABX3")
        & Composition("SrTiO3")
        & ChargeNeutral("smact14", mixed_valence=True)
        & MinDistance(1.4)
        & Between("density", 2.0, float("inf"), unit="g/cm^3")
    )
    words = json.loads(json.dumps(rebuild.describe(every)))
    again = Constraint.from_dict(words)
    assert repr(again) == repr(every)
    assert rebuild.describe(again) == words

    class Mine(MinDistance):
        pass

    assert rebuild.describe(Mine(1.0) & MinDistance(1.0)) is None
    assert rebuild.describe(None) == {}


def test_resume_needs_only_the_store_for_what_is_ours(tmp_path):
    from matdesign.generators.diffusion import Diffusion
    from matdesign.loop.oracle import PotentialOracle

    model = Diffusion.for_data(
        Alloys(bad=0).sample(4, seed=0), width=16, layers=1, heads=2
    )
    wanted = MinDistance(1.4) & OnlyElements("Cu", "Ni")
    oracle = PotentialOracle(workers=1, fmax=0.2)
    loop = campaign(tmp_path, oracle, model=model, wanted=wanted, budget=0)
    loop.close()
    again = Campaign.resume(tmp_path / "c.db")
    assert again.oracle.name == oracle.name and repr(again.constraints) == repr(wanted)
    first, second = (m.sample(2, seed=7, steps=3) for m in (model, again.generator))
    assert torch.equal(first.frac, second.frac) and not again.generator.training
    again.close()
