"""Splines: the identity at zero, exact inverses, slopes of autograd, closing of the circle."""

import pytest
import torch

from matdesign.generators.splines import circular_spline, line_spline

BINS = 8


@pytest.fixture
def numbers() -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    return 2 * torch.randn(200, 3 * BINS + 1, generator=rng, dtype=torch.float64)


@pytest.fixture
def x() -> torch.Tensor:
    rng = torch.Generator().manual_seed(4)
    return torch.rand(200, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("spline", [circular_spline, line_spline])
def test_zero_numbers_are_the_identity(spline, x):
    y, log_slope = spline(x, torch.zeros(200, 3 * BINS + 1, dtype=torch.float64))
    assert torch.allclose(y, x, atol=1e-12)
    assert log_slope.abs().max() < 1e-12


@pytest.mark.parametrize("spline", [circular_spline, line_spline])
def test_inverse_and_slope_are_those_of_the_map(spline, x, numbers):
    start = x if spline is circular_spline else 14 * x - 7  # also beyond the spline
    start.requires_grad_()
    y, log_slope = spline(start, numbers)
    (slope,) = torch.autograd.grad(y.sum(), start)
    assert (y - start).abs().max() > 0.1
    assert torch.allclose(log_slope, slope.log(), atol=1e-9)
    back, minus = spline(y.detach(), numbers, inverse=True)
    assert torch.allclose(back, start, atol=1e-9)
    assert torch.allclose(minus, -log_slope, atol=1e-7)


def test_the_circle_closes_in_value_and_slope(numbers):
    """Just below 1 and at 0 the map and its slope are the same, wherever the seam lies."""
    eps = 1e-12
    low, slope_low = circular_spline(torch.zeros(200, dtype=torch.float64), numbers)
    high, slope_high = circular_spline(
        torch.full((200,), 1 - eps, dtype=torch.float64), numbers
    )
    gap = high - low
    assert (gap - gap.round()).abs().max() < 1e-5
    assert (slope_low - slope_high).abs().max() < 1e-4
    # the seam of the spline itself is where the turn takes it
    seam = -numbers[:, -1] % 1
    before, slope_before = circular_spline((seam - eps) % 1, numbers)
    after, slope_after = circular_spline((seam + eps) % 1, numbers)
    gap = before - after
    assert (gap - gap.round()).abs().max() < 1e-5
    assert (slope_before - slope_after).abs().max() < 1e-4


def test_it_goes_round_once(numbers):
    """The slopes of a map of the circle onto itself have mean one."""
    x = (torch.arange(5_000, dtype=torch.float64) + 0.5) / 5_000
    _, log_slope = circular_spline(x[:, None], numbers[:10].expand(5_000, 10, -1))
    assert torch.allclose(log_slope.exp().mean(0), torch.ones(10).double(), atol=2e-2)


def test_float32_stays_in_the_cell():
    rng = torch.Generator().manual_seed(0)
    numbers = 4 * torch.randn(20_000, 3 * BINS + 1, generator=rng)
    x = torch.rand(20_000, generator=rng)
    x[:3] = torch.tensor([0.0, 1 - 2**-24, 0.5])
    for inverse in (False, True):
        y, log_slope = circular_spline(x, numbers, inverse=inverse)
        assert bool(((y >= 0) & (y < 1)).all())
        assert bool(log_slope.isfinite().all())
