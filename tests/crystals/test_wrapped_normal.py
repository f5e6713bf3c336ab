"""The wrapped normal against sums long enough to be exact."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matdesign.crystals.batch import generator
from matdesign.crystals.geometry import wrap
from matdesign.crystals.wrapped_normal import log_density, score, score_norm

SIGMAS = torch.tensor(
    [
        1e-4,
        0.005,
        0.01,
        0.05,
        0.1,
        0.15,
        0.2,
        0.2499,
        0.25,
        0.2501,
        0.3,
        0.4,
        0.5,
        1.0,
        5,
    ],
    dtype=torch.float64,
)[:, None]
X = torch.linspace(-0.5, 0.5, 401, dtype=torch.float64)[None]


def long_sum(x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log density and score from 201 images, enough for sigma up to 10."""
    image = x.unsqueeze(-1) + torch.arange(-100, 101, dtype=x.dtype)
    exponent = -image.square() / (2 * sigma.square().unsqueeze(-1))
    log = torch.logsumexp(exponent, -1) - torch.log(sigma * math.sqrt(2 * math.pi))
    weighted = torch.softmax(exponent, -1) * image
    return log, -weighted.sum(-1) / sigma.square()


def test_density_and_score_match_the_long_sum() -> None:
    log, slope = long_sum(X, SIGMAS)
    assert (log_density(X, SIGMAS) - log).abs().max() < 1e-6
    assert (SIGMAS * (score(X, SIGMAS) - slope)).abs().max() < 1e-6


def test_seven_images_are_not_enough_for_wide_noise() -> None:
    """Why the Fourier sum is there: the truncated image sum invents a force."""
    x, sigma = torch.tensor([0.4]).double(), torch.tensor(1.84).double()
    image = x.unsqueeze(-1) + torch.arange(-3, 4)
    weights = torch.softmax(-image.square() / (2 * sigma**2), -1)
    truncated = -(weights * image).sum(-1) / sigma**2
    assert (sigma * truncated).abs().item() > 0.05
    assert (sigma * score(x, sigma)).abs().item() < 1e-12


def test_float32_keeps_five_digits() -> None:
    _, slope = long_sum(X, SIGMAS)
    single = SIGMAS.float() * score(X.float(), SIGMAS.float())
    # rounding x to float32 moves sigma * score by 6e-8 * x / sigma
    wide = (SIGMAS >= 0.005).squeeze()
    assert (single - SIGMAS * slope)[wide].abs().max() < 2e-4


@pytest.mark.parametrize("sigma", [0.003, 0.1, 0.25, 0.3, 2.0])
def test_density_integrates_to_one(sigma: float) -> None:
    x = torch.arange(20_000, dtype=torch.float64) / 20_000
    assert log_density(x, sigma).exp().mean().item() == pytest.approx(1, abs=1e-6)


@given(st.floats(-3, 3), st.floats(0.01, 2))
def test_score_is_the_derivative_of_the_log_density(x: float, sigma: float) -> None:
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_density(at, sigma), at)
    assert sigma * abs((score(at, sigma) - slope).item()) < 1e-5


@given(st.floats(-0.49, 0.49), st.floats(0.01, 2), st.integers(-5, 5))
def test_score_is_odd_and_periodic(x: float, sigma: float, whole: int) -> None:
    at = torch.tensor(x, dtype=torch.float64)
    assert torch.allclose(score(-at, sigma), -score(at, sigma), atol=1e-9)
    moved = sigma * (score(at + whole, sigma) - score(at, sigma)).abs()
    assert moved.item() < 1e-9 / sigma


def test_score_norm_matches_the_table_and_random_draws() -> None:
    sigma = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.5], dtype=torch.float64)
    scaled = sigma**2 * score_norm(sigma)
    want = torch.tensor([1.0, 1.0, 0.76, 0.21, 0.0010], dtype=torch.float64)
    assert (scaled - want).abs().max() < 0.006
    noise = torch.randn(200_000, generator=generator(0), dtype=torch.float64)
    for s, exact in zip(sigma.tolist(), scaled.tolist(), strict=True):
        drawn = (s * score(wrap(s * noise), s)).square()
        # five standard errors of the mean
        error = 5 * drawn.std().item() / math.sqrt(len(noise))
        assert abs(drawn.mean().item() - exact) < error


def test_score_norm_is_converged_and_broadcasts() -> None:
    sigma = SIGMAS.reshape(3, 5)
    fine, coarse = score_norm(sigma, points=8192), score_norm(sigma)
    assert fine.shape == (3, 5)
    assert (sigma**2 * (fine - coarse)).abs().max() < 1e-9
    assert score_norm(torch.tensor(0.1)).dtype == torch.float32


def test_gradients_are_finite_on_both_sides_of_the_switch() -> None:
    x = X.clone().requires_grad_()
    sigma = SIGMAS.clone().requires_grad_()
    (log_density(x, sigma).sum() + (sigma * score(x, sigma)).sum()).backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert sigma.grad is not None and sigma.grad.isfinite().all()
