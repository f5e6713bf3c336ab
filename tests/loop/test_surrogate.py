"""Surrogates against closed forms; calibration of predictors that are right and wrong."""

import math

import pytest
import torch
from botorch.optim.utils import sample_all_priors
from scipy.stats import norm

import matdesign as design
from matdesign.errors import DataError
from matdesign.loop.surrogate import (
    Ensemble,
    GaussianProcess,
    Prediction,
    composition_features,
    conformal_width,
    interval_coverage,
)

NAME = "formation_energy_per_atom"


@pytest.fixture(scope="module")
def known():
    crystals = design.load("perovskites")
    rng = torch.Generator().manual_seed(0)
    return crystals[torch.randperm(len(crystals), generator=rng)[:300]]


def test_features_are_those_of_the_composition(known):
    x = composition_features(known)
    assert x.shape == (300, 131) and x.dtype == torch.float64
    assert 0 <= x.min() and x.max() <= 1
    assert torch.allclose(x[:, 28:].sum(1), torch.ones(300).double())
    doubled = [one.make_supercell([2, 1, 1], in_place=False) for one in known[:3]]
    twice = design.Crystals.from_structures(doubled)
    assert torch.allclose(composition_features(twice), x[:3])
    assert composition_features(design.load("prototypes")).isfinite().all()


def test_a_second_try_of_a_fit_depends_on_no_random_number_of_others(
    known, monkeypatch
):
    def again(mll):  # what BoTorch does where the first try failed
        sample_all_priors(mll.model)

    monkeypatch.setattr("botorch.fit.fit_gpytorch_mll", again)
    means = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        process = GaussianProcess().fit(known[:8], known[:8].properties[NAME])
        means.append(process.predict(known[8:12]).mean)
    assert torch.equal(*means)


def test_the_gaussian_process_is_its_closed_form(known):
    few, new = known[:8], known[8:20]
    y = few.properties[NAME].double()
    process = GaussianProcess().fit(few, y)
    found = process.predict(new)
    length = process.model.covar_module.lengthscale.item()
    noise = process.model.likelihood.noise.item()
    centre = process.model.mean_module.constant.item()

    def kernel(a, b):
        a, b = composition_features(a), composition_features(b)
        return torch.exp(-torch.cdist(a, b).square() / (2 * length**2))

    inverse = torch.linalg.inv(kernel(few, few) + noise * torch.eye(8))
    across = kernel(new, few)
    z = (y - y.mean()) / y.std()
    mean = centre + across @ inverse @ (z - centre)
    variance = 1 + noise - (across @ inverse * across).sum(1)
    assert torch.allclose(found.mean, mean * y.std() + y.mean(), atol=1e-5)
    assert torch.allclose(found.std, variance.sqrt() * y.std(), atol=1e-5)
    draws = process.draw(new, 20_000, seed=0)
    assert draws.shape == (20_000, 12)
    assert torch.allclose(draws.mean(0), found.mean, atol=0.05 * float(found.std.max()))
    assert torch.allclose(draws.std(0), found.std, rtol=0.05)
    covariance = kernel(new, new) - across @ inverse @ across.T + noise * torch.eye(12)
    assert torch.allclose(torch.cov(draws.T), covariance * y.var(), atol=0.05)
    assert torch.equal(process.draw(new, 3, seed=1), process.draw(new, 3, seed=1))


def test_a_gaussian_process_learns_and_takes_features_of_your_own(known):
    train, rest, y = known[:200], known[200:], known.properties[NAME]
    guess = float((y[200:] - y[:200].mean()).abs().mean())
    for features in (composition_features, lambda c: composition_features(c)[:, :7]):
        process = GaussianProcess(features).fit(train, y[:200])
        wrong = (process.predict(rest).mean - y[200:]).abs().mean()
        assert wrong < 0.6 * guess
    assert GaussianProcess().config == {} and process.config is None


def test_what_cannot_be_learned_is_refused(known):
    y = known.properties[NAME].clone()
    with pytest.raises(DataError, match="learned nothing"):
        GaussianProcess().predict(known)
    with pytest.raises(DataError, match="2 crystals or more"):
        GaussianProcess().fit(known[:1], y[:1])
    y[3] = math.nan
    with pytest.raises(DataError, match=r"1 of 300 .* results\[results.ok\]"):
        GaussianProcess().fit(known, y)
    with pytest.raises(DataError, match="one row for each crystal"):
        GaussianProcess(lambda c: torch.ones(2, 3)).fit(known[:4], y[4:8])
    with pytest.raises(DataError, match="10 crystals or more"):
        Ensemble().fit(known[4:9], y[4:9])
    with pytest.raises(DataError, match="one network has no doubt"):
        Ensemble(members=1)


def test_an_ensemble_learns_and_knows_its_error(known):
    y = known.properties[NAME]
    ensemble = Ensemble(members=2, steps=30, width=24).fit(known[:120], y[:120])
    found = ensemble.predict(known[120:])
    wrong = float((found.mean - y[120:]).abs().mean())
    assert wrong < 0.7 * float((y[120:] - y[:120].mean()).abs().mean())
    assert interval_coverage(found, y[120:]).area < 0.15
    draws = ensemble.draw(known[120:], 5_000, seed=0)
    off = (draws.mean(0) - found.mean).abs() / found.std  # of 5,000: 0.014 each
    assert off.max() < 0.07
    assert torch.allclose(draws.std(0), found.std, rtol=0.06)
    short = ensemble.config | {"steps": 3}
    few = [Ensemble(**short).fit(known[:20], y[:20]) for _ in "ab"]
    assert torch.equal(few[0].predict(known).mean, few[1].predict(known).mean)


@pytest.mark.parametrize(("factor", "inside"), [(1, 0.9), (0.5, 0.589), (3, 1.0)])
def test_calibration_of_a_right_and_of_broken_predictors(factor, inside):
    """Normal values; a std that is half the truth holds 0.589 at the 0.9 level."""
    rng = torch.Generator().manual_seed(0)
    std = 0.1 + torch.rand(20_000, generator=rng, dtype=torch.float64)
    values = 3 + std * torch.randn(20_000, generator=rng, dtype=torch.float64)
    found = interval_coverage(
        Prediction(torch.full_like(values, 3.0), factor * std), values
    )
    assert float(found.coverage[17]) == pytest.approx(inside, abs=0.01)
    exact = 2 * norm.cdf(factor * norm.ppf((1 + found.levels.numpy()) / 2)) - 1
    area = abs(exact - found.levels.numpy()).mean()
    assert found.area == pytest.approx(area, abs=0.01)
    assert f"hold {inside:.0%} of 20000" in repr(found) or factor != 1
    with pytest.raises(DataError, match="got 3 values"):
        interval_coverage(Prediction(values, std), values[:3])


def test_a_conformal_width_holds_what_it_promises():
    """Of heavy tails, too: coverage over many held-out sets of 19 is the level."""
    rng = torch.Generator().manual_seed(0)
    normal = torch.randn(4_000, 2, 20, generator=rng)
    residuals = normal[:, 0] / normal[:, 1]  # Cauchy
    held = [abs(float(row[19])) <= conformal_width(row[:19], 0.9) for row in residuals]
    assert sum(held) / len(held) == pytest.approx(0.9, abs=0.015)
    assert conformal_width(torch.tensor([3.0, -1.0, 2.0]), 0.5) == 2.0
    assert conformal_width(torch.ones(5), 0.9) == math.inf
    with pytest.raises(DataError, match="got 1"):
        conformal_width(torch.ones(5), 1)
