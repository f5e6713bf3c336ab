"""Choosing: formulas, batches of different ideas, the gate, and no gift from chance."""

import math
import warnings

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

import matdesign as design
from matdesign.errors import DataError
from matdesign.loop.acquisition import (
    NAMES,
    Bayesian,
    expected_improvement,
    one_by_one,
    probability_of_improvement,
)
from matdesign.loop.results import Column, Results
from matdesign.loop.surrogate import Ensemble, GaussianProcess, Prediction

NAME = "formation_energy_per_atom"


class Stated:
    """A surrogate whose predictions are given; independent draws."""

    def __init__(self, mean, std):
        self.mean, self.std = torch.tensor(mean).double(), torch.tensor(std).double()
        self.learned = None

    def fit(self, crystals, values):
        self.learned = len(crystals), values
        return self

    def predict(self, crystals):
        return Prediction(self.mean, self.std)

    def draw(self, crystals, n, *, seed):
        at = [int(x) for x in crystals.properties["at"]]
        rng = torch.Generator().manual_seed(seed)
        noise = torch.randn(n, len(at), generator=rng).double()
        return self.mean[at] + self.std[at] * noise


@pytest.fixture(scope="module")
def known():
    crystals = design.load("perovskites")
    rng = torch.Generator().manual_seed(0)
    some = crystals[torch.randperm(len(crystals), generator=rng)[:300]]
    places = torch.arange(300.0)
    return some.replace(properties={NAME: some.properties[NAME], "at": places})


def seen(crystals):
    return Results(crystals, {})


def test_expected_improvement_and_probability_are_their_integrals():
    found = Prediction(
        torch.tensor([0.0, 0.3, -1.0, 2.0]).double(),
        torch.tensor([1.0, 0.2, 0.5, 0.4]).double(),
    )
    best = 0.1
    for i, (got, chance) in enumerate(
        zip(expected_improvement(found, best), probability_of_improvement(found, best))
    ):
        mean, std = float(found.mean[i]), float(found.std[i])

        def gain(y, mean=mean, std=std):
            return (best - y) * norm.pdf(y, mean, std)

        exact, _ = quad(gain, mean - 12 * std, best, points=[mean], epsabs=1e-13)
        assert float(got) == pytest.approx(exact, rel=1e-6)
        assert float(chance) == pytest.approx(norm.cdf(best, mean, std))
    sure = Prediction(torch.tensor([0.0, 1.0]), torch.zeros(2))
    assert expected_improvement(sure, 0.5).tolist() == pytest.approx([0.5, 0.0])
    assert probability_of_improvement(sure, 0.5).tolist() == [1.0, 0.0]


def test_a_batch_holds_different_ideas():
    """Twins promise most but are worth one; what is independent comes second."""
    rng = torch.Generator().manual_seed(0)
    twin, other = torch.randn(2, 4_000, generator=rng).double()
    gain = torch.stack([1.1 * twin, 1.1 * twin, other], dim=1).clamp(min=0)
    assert set(one_by_one(gain, gain.mean(0), 2)) in ({0, 2}, {1, 2})
    pair = torch.tensor([1.0, 3.0, 2.0]).double()
    assert one_by_one(torch.zeros(5, 3).double(), pair, 3) == [1, 2, 0]


@pytest.mark.parametrize(
    ("acquisition", "first"),
    [("mean", 0), ("expected_improvement", 1), ("upper_confidence_bound", 2)],
)
def test_each_rule_asks_for_another_candidate(known, acquisition, first):
    stated = Stated([0.1, 0.2, 0.6, 0.5], [0.01, 0.3, 0.6, 0.05])
    chooser = Bayesian(stated, acquisition)
    values = torch.linspace(0.15, 1, 12)
    found = chooser.select(known[:4], seen(known[4:16]), values, 3, seed=0)
    assert found.order[0] == first and len(set(found.order)) == 3
    assert stated.learned[0] == 12 and torch.equal(stated.learned[1], values)
    assert found.reason[1].startswith("predicted 0.2 ± 0.3, probability of improvement")


def test_thompson_asks_as_often_as_a_candidate_is_lowest(known):
    stated = Stated([0.0, 0.0, 5.0], [1.0, 1.0, 1.0])
    chooser, values = Bayesian(stated, "thompson"), torch.arange(12.0)
    first = [
        chooser.select(known[:3], seen(known[4:16]), values, 1, seed=k).order[0]
        for k in range(200)
    ]
    assert first.count(0) == pytest.approx(100, abs=25) and 2 not in first


def test_the_gate_closes(known):
    stated = Stated([0.0, 0.5, 0.9], [0.1, 0.1, 0.1])
    values = torch.linspace(0.4, 1, 12)  # best 0.4: chances 1, 0.16 and 3e-7
    for acquisition in NAMES:
        for gate, most in ((None, 3), (0.1, 2), (0.5, 1)):
            chooser = Bayesian(stated, acquisition, gate=gate)
            found = chooser.select(known[:3], seen(known[4:16]), values, 3, seed=0)
            assert len(found.order) == most
        assert found.order == [0]
        assert "below the gate of 0.5" in found.reason[2]
    nothing = Bayesian(Stated([2.0] * 3, [0.1] * 3), gate=0.1)
    assert nothing.select(known[:3], seen(known[4:16]), values, 3, seed=0).order == []


def test_before_there_is_anything_to_learn_from_it_draws(known):
    chooser = Bayesian(Stated([0.0], [1.0]), start=20)
    orders = {
        tuple(chooser.select(known, seen(known[:5]), torch.zeros(5), 7, seed=k).order)
        for k in (0, 0, 1)
    }
    assert len(orders) == 2 and all(len(set(one)) == 7 for one in orders)
    none = chooser.select(known[:0], seen(known[:0]), torch.zeros(0), 7, seed=0)
    assert none.order == [] and none.reason == []


def test_same_seed_same_choice(known):
    y = known.properties[NAME]
    for acquisition in NAMES:
        orders = [
            Bayesian(GaussianProcess(), acquisition).select(
                known[40:], seen(known[:40]), y[:40], 8, seed=seed
            )
            for seed in (3, 3, 4)
        ]
        assert orders[0] == orders[1]
        assert len(set(orders[0].order)) == 8
        one = orders[0].order[0] == orders[2].order[0]
        assert one or acquisition == "thompson"


def calls_to_best(known, chooser, shuffled=False, seed=0, most=120):
    """Return oracle calls until the lowest of all is found; `most` where it is not."""
    y = known.properties[NAME]
    rng = torch.Generator().manual_seed(seed)
    done = []
    while len(done) < most:
        left = [i for i in range(len(known)) if i not in done]
        values = y[done]
        if shuffled:
            values = values[torch.randperm(len(done), generator=rng)]
        seen_now = seen(known[done]) if done else seen(known[:0])
        chosen = chooser.select(known[left], seen_now, values, 10, seed=seed)
        done += [left[i] for i in chosen.order]
        if int(y.argmin()) in done:
            return done.index(int(y.argmin())) + 1
    return most


def test_it_finds_the_best_early_and_shuffled_labels_do_not_help(known):
    """Random needs 150 calls of 300 in the mean."""
    found = [calls_to_best(known, Bayesian(), seed=k) for k in range(3)]
    assert sorted(found)[1] <= 60
    lost = [calls_to_best(known, Bayesian(), True, seed=k, most=70) for k in range(3)]
    assert sorted(lost)[1] > 60


def test_a_selector_is_written_and_made_again(known):
    for surrogate in (GaussianProcess(), Ensemble(members=3, steps=50, width=24)):
        first = Bayesian(surrogate, "thompson", gate=0.01, start=12)
        again = Bayesian.from_dict(first.to_dict())
        assert again.to_dict() == first.to_dict() and repr(again) == repr(first)
    for own in (Stated([0.0], [1.0]), GaussianProcess(lambda c: c.volume[:, None])):
        with pytest.raises(DataError, match="your own cannot be written as JSON"):
            Bayesian(own).to_dict()


def test_what_makes_no_sense_is_refused():
    with pytest.raises(DataError, match="no acquisition 'best'; choose one of"):
        Bayesian(acquisition="best")
    for options in ({"gate": 1.0}, {"gate": -0.1}, {"beta": -1.0}, {"start": 1}):
        with pytest.raises(DataError, match="gate is a probability below 1"):
            Bayesian(**options)
    assert math.isclose(Bayesian().beta, 4.0)


def size(crystals):
    return crystals.volume[:, None].double() ** (1 / 3) - 4.0


def cubes(x):
    """Crystals of which `size` is x."""
    edge = (torch.as_tensor(x).float() + 4.0)[:, None, None]
    n = len(edge)
    species = torch.full((n, 1), 29)
    return design.Crystals(species, torch.zeros(n, 1, 3), edge * torch.eye(3))


def test_several_objectives_are_traded_against_each_other():
    """a = x^2 and b = (x - 1)^2: what is worth trying lies between 0 and 1."""
    chooser = Bayesian(GaussianProcess(size), objectives=("a", "b"), start=4)
    x = torch.tensor([-1.0, -0.5, 0.0, 1.0, 1.5, 2.0]).double()
    found = Results(cubes(x), {"a": Column(x**2, "eV"), "b": Column((x - 1) ** 2)})
    tried = torch.linspace(-1, 2, 31)
    chosen = chooser.select(cubes(tried), found, x, 3, seed=0)
    for stream in range(5):  # nothing hangs on the stream that all share
        torch.manual_seed(stream)
        again = chooser.select(cubes(tried), found, x, 3, seed=0)
        assert again.order == chosen.order
        assert torch.initial_seed() == stream
    best = tried[chosen.order]
    assert ((best > 0) & (best < 1)).all()
    assert best.sort().values.diff().min() > 0.15  # not the same idea three times
    assert chosen.reason[10].startswith("a ") and ", b " in chosen.reason[0]
    blind = found.columns | {"a": Column(torch.where(x == 1.5, torch.nan, x**2), "eV")}
    part = chooser.select(cubes(tried), Results(cubes(x), blind), x, 2, seed=0)
    assert len(part.order) == 2
    blind["a"] = Column(torch.where(x > -0.7, torch.nan, x), "eV")  # one is left
    part = chooser.select(cubes(tried), Results(cubes(x), blind), x, 2, seed=0)
    assert len(part.order) == 2 and part.reason[0].startswith("at random")
    raised = {"a": Column(-(x**2), "eV"), "b": found.columns["b"]}
    chooser.objectives = ["-a", "b"]
    again = chooser.select(cubes(tried), Results(cubes(x), raised), x, 3, seed=0)
    assert again.order == chosen.order and again.reason[0].startswith("-a ")
    several = Bayesian(objectives=["a", "b"])
    assert Bayesian.from_dict(several.to_dict()).objectives == ["a", "b"]
    assert (
        "hypervolume of a, b" in repr(several)
        and "objectives" not in Bayesian().to_dict()
    )
    for wrong in ({"gate": 0.1}, {"surrogate": Ensemble()}, {"objectives": ["a"]}):
        with pytest.raises(DataError, match="two columns or more"):
            Bayesian(**{"objectives": ["a", "b"], **wrong})


def test_a_campaign_selects_from_a_pool_and_goes_on(known, tmp_path):
    some = known[:60].replace(
        properties={"above": known.properties[NAME][:60]}, units={}
    )
    oracle, pool = design.TableOracle(some, "above"), design.Pool(some)

    def options(name):
        return {
            "store": tmp_path / name,
            "objective": "above",
            "batch": 4,
            "propose": 60,
            "select": Bayesian(start=4, gate=1e-4),
        }

    whole = design.Campaign(pool, None, oracle, **options("a.db"), budget=12)
    assert [one.selected for one in whole] == [4, 4, 4]
    reasons = [one.reason for one in whole.store.proposals(1)]
    assert sum(why.startswith("predicted") for why in reasons) >= 50
    part = design.Campaign(pool, None, oracle, **options("b.db"), budget=8)
    list(part)
    part.close()
    resumed = design.Campaign.resume(
        tmp_path / "b.db", generator=pool, oracle=oracle, budget=12
    )
    list(resumed)
    assert isinstance(resumed.select, Bayesian) and resumed.select.gate == 1e-4
    assert resumed.table()["formula"].tolist() == whole.table()["formula"].tolist()


def test_rounding_among_polymorphs_is_not_the_users_business(known):
    """Equal compositions make a covariance singular: a jitter is added, silently."""
    twice = known[[*range(20), *range(20)]]
    columns = {
        name: Column(torch.arange(40.0) * sign) for name, sign in (("a", 1), ("b", -1))
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chooser = Bayesian(objectives=("a", "b"), start=4)
        chooser.select(twice, Results(twice, columns), torch.arange(40.0), 3, seed=0)
        warnings.warn("A not p.d., but not ours", RuntimeWarning, stacklevel=1)
    assert not [one for one in caught if "Numerical" in one.category.__name__]
    assert caught[-1].category is RuntimeWarning  # and the filter is gone again
