"""Noise processes against exact answers: with the true score, the truth comes back."""

import math

import pytest
import torch

from matdesign.crystals import wrapped_normal
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import torus_difference
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.diffusion import GaussianNoise, WrappedNoise
from matdesign.generators.stepwise import AbsorbingNoise


def back(noise, species, p, t, s, rng):
    """Return species at an earlier time, sites drawn one apart from the other."""
    new = noise.newly_decided(species, t, s, rng)
    drawn = torch.multinomial(p.clamp(min=1e-30).flatten(0, 1), 1, generator=rng)
    return torch.where(new, drawn.view_as(species), species)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def times(steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return [(grid[i].expand(1), grid[i + 1].expand(1)) for i in range(steps)]


@pytest.mark.parametrize("corrector", [0.0, 0.2])
@pytest.mark.parametrize(("mean", "spread"), [(0.3, 0.04), (0.98, 0.1)])
def test_exact_score_returns_a_wrapped_normal(rng, mean, spread, corrector):
    """Data wrapped normal (mean, spread): at time t it is one of width sqrt(s^2 + spread^2)."""
    noise = WrappedNoise()
    count = 4_000
    frac = torch.rand(1, count, 3, generator=rng, dtype=torch.float64)

    def clean(frac, t):
        width = (noise.sigma(t).square() + spread**2).sqrt()
        output = wrapped_normal.score(frac - mean, width) / noise.scale(t)
        return noise.preview(frac, output, t)

    for t, s in times(100):
        frac = noise.back(frac, clean(frac, t), t, s, rng)
        if corrector:
            frac = noise.correct(frac, clean(frac, s), s, corrector, rng)
    frac = clean(frac, torch.zeros(1, dtype=torch.float64))

    assert frac.min() >= 0 and frac.max() < 1
    away = torus_difference(torch.tensor(mean, dtype=torch.float64), frac)
    # 12,000 numbers: the mean is known to spread / 110, five of which are allowed
    assert away.mean().abs() < 5 * spread / math.sqrt(3 * count)
    # the spread is known to 1 %, and 100 steps change it by as much again
    assert float(away.std()) == pytest.approx(spread, rel=0.04)
    assert away[0].mean(0).abs().max() < 6 * spread / math.sqrt(count)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (1.5, 0.3), (-0.4, 0.15)])
def test_exact_denoiser_returns_a_gaussian(rng, mean, spread):
    """Data N(mean, spread^2): E[x_0 | x_t] is linear in x_t."""
    noise = GaussianNoise()
    x = torch.randn(5_000, 6, generator=rng, dtype=torch.float64)
    for t, s in times(200):
        a, b = noise.rates(t)
        gain = a * spread**2 / (a**2 * spread**2 + b**2)
        clean = mean + gain * (x - a * mean)
        x = noise.back(x, clean, t, s, rng)
    assert x.isfinite().all()
    assert float(x.mean()) == pytest.approx(mean, abs=0.03 * spread)
    # the spread is known to 0.4 %; 200 discrete steps lose up to 6 % of it
    assert float(x.std()) == pytest.approx(spread, rel=0.075)


def test_gaussian_target_and_preview_are_inverse(rng):
    noise = GaussianNoise()
    x = torch.randn(50, 6, generator=rng, dtype=torch.float64)
    t = torch.rand(50, generator=rng, dtype=torch.float64)
    noisy, target = noise.add(x, t, rng)
    assert torch.allclose(noise.preview(noisy, target, t), x, atol=1e-12)


def test_coordinate_targets_have_unit_size_and_no_mean(rng):
    noise = WrappedNoise()
    for t in (0.0, 0.3, 0.7, 0.9, 1.0):
        frac = torch.rand(200, 50, 3, generator=rng, dtype=torch.float64)
        mask = torch.ones(200, 50, dtype=torch.bool)
        mask[:, 40:] = False
        at = torch.full((200,), t, dtype=torch.float64)
        layout = Layout.whole_cell(mask.sum(1))
        padded = layout.expand(frac[:, :40])
        noisy, target = noise.add(padded, layout, at, rng)
        assert (noisy >= 0).all() and (noisy < 1).all()
        assert target.sum(1).abs().max() < 1e-9
        # the mean over 40 atoms that is taken out holds 1/40 of the variance
        assert float(target[:, :40].square().mean()) == pytest.approx(39 / 40, rel=0.03)


def test_scale_is_the_root_mean_square_of_the_score():
    noise = WrappedNoise()
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    exact = wrapped_normal.score_norm(noise.sigma(t)).sqrt()
    # linear interpolation of the logarithm between 2,048 points
    assert torch.allclose(noise.scale(t), exact, rtol=1e-4)


def test_prior_of_coordinates_is_uniform_to_three_percent():
    noise = WrappedNoise()
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    density = wrapped_normal.log_density(x, float(noise.sigma(torch.tensor(1.0)))).exp()
    assert (density - 1).abs().max() < 0.03


@pytest.mark.parametrize("settled", [0.0, 0.4])
@pytest.mark.parametrize("steps", [3, 100])
def test_exact_posterior_returns_a_known_joint_of_species(rng, settled, steps):
    """Two sites, joint p: one step decides both at once with a chance that steps divide."""
    joint = torch.tensor([[0.30, 0.10], [0.05, 0.55]], dtype=torch.float64)
    values = torch.tensor([11, 17])
    count = 10_000
    noise = AbsorbingNoise(settled)
    species = torch.full((count, 2), MASK)

    def belief(species):
        table = torch.zeros(count, 2, MASK, dtype=torch.float64)
        for site in (0, 1):
            p = joint if site == 0 else joint.T  # rows: this site
            other = species[:, 1 - site]
            alone = p.sum(1).expand(count, 2)
            given = p.T[(other == values[1]).long()]
            given = given / given.sum(1, keepdim=True)
            row = torch.where((other == MASK)[:, None], alone, given)
            table[:, site, values] = row
            known = species[:, site] != MASK
            table[known, site] = 0
            table[known, site, species[known, site]] = 1
        return table

    def one(t):
        return t.expand(count)

    for t, s in times(steps):
        species = back(noise, species, belief(species), one(t), one(s), rng)
    assert ((species == 11) | (species == 17)).all()
    first, second = (species == 17).long().unbind(1)
    found = torch.bincount(2 * first + second, minlength=4).double() / count
    # sites decided in the same step are drawn apart: a share of about 1 / steps
    apart = torch.outer(joint.sum(1), joint.sum(0))
    share = _together(noise, steps)
    expected = (1 - share) * joint + share * apart
    error = (found - expected.flatten()).abs().max()
    assert error < 5 * math.sqrt(0.25 / count)
    if steps == 100:
        assert (found - joint.flatten()).abs().max() < 0.03


def _together(noise: AbsorbingNoise, steps: int) -> float:
    """Return the chance that two sites are decided in the same step."""
    grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return float(noise.undecided(grid).diff().square().sum())


def test_all_species_are_decided_at_the_end_and_below_settled(rng):
    noise = AbsorbingNoise(0.5)
    species = torch.full((100, 4), MASK)
    belief = torch.zeros(100, 4, MASK)
    belief[..., 8] = 1.0
    at = torch.full((100,), 0.6)
    done = back(noise, species, belief, at, torch.full((100,), 0.45), rng)
    assert (done == 8).all()
    assert (noise.add(done, torch.full((100,), 0.5), rng) == 8).all()
    assert (noise.add(done, torch.ones(100), rng) == MASK).all()


def test_padding_and_decided_sites_stay(rng):
    noise = AbsorbingNoise()
    species = torch.tensor([[3, MASK, 0]])
    belief = torch.zeros(1, 3, MASK)
    belief[:, :, 9] = 1.0
    one, zero = torch.ones(1), torch.zeros(1)
    assert back(noise, species, belief, one, zero, rng).tolist() == [[3, 9, 0]]
    assert noise.add(torch.tensor([[3, 4, 0]]), one, rng)[0, 2] == 0
