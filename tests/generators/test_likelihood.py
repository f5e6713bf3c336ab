"""Log-densities along a flow, against flows whose answer is known."""

import math

import pytest
import torch

from matdesign.crystals import wrapped_normal
from matdesign.generators.flow_matching import follow


@pytest.mark.parametrize("trace", ["exact", "sampled"])
def test_wrapped_normal_on_a_torus(trace):
    """Data is a wrapped normal of width 0.1 that spreads until it is flat at t = 1.

    Its width grows geometrically, its probability flow is dx/dt = -1/2 d(sigma^2)/dt
    score, and the density at t = 1 is that of a width of 0.62, flat to 0.1 %.
    """
    first, last_width = 0.1, 0.62
    rate = math.log(last_width / first)
    torch.manual_seed(0)
    x = torch.rand(64, 3, dtype=torch.float64)

    def velocity(x, t):
        sigma = (first * torch.exp(rate * t))[:, None]
        return -rate * sigma.square() * wrapped_normal.score(x - 0.3, sigma)

    end, divergence = follow(velocity, x, steps=200, trace=trace, seed=1)
    last = wrapped_normal.log_density(end - 0.3, last_width).sum(1)
    exact = wrapped_normal.log_density(x - 0.3, first).sum(1)
    # each axis moves on its own, so that one probe gives the trace exactly too;
    # midpoint rule with 200 steps
    assert torch.allclose(last + divergence, exact, atol=0.02)
    assert float(exact.std()) > 1  # the answer is not a constant


def test_linear_flow_of_a_gaussian():
    """dx/dt = A x carries N(0, 1) at t = 1 to a normal of covariance exp(-A) exp(-A)^T."""
    torch.manual_seed(1)
    a = 0.3 * torch.randn(4, 4, dtype=torch.float64)
    x = torch.randn(32, 4, dtype=torch.float64)
    back = torch.matrix_exp(-a)
    exact = torch.distributions.MultivariateNormal(
        torch.zeros(4, dtype=torch.float64), back @ back.T
    ).log_prob(x)

    def density(steps, trace):
        end, divergence = follow(
            lambda x, t: x @ a.T, x, steps=steps, trace=trace, seed=0
        )
        return -0.5 * (end.square() + math.log(2 * math.pi)).sum(1) + divergence

    assert torch.allclose(density(100, "exact"), exact, atol=1e-4)
    coarse = (density(5, "exact") - exact).abs().max()
    fine = (density(10, "exact") - exact).abs().max()
    assert 3 < float(coarse / fine) < 5  # second order: half the step, a quarter
    sampled = density(400, "sampled") - exact
    assert abs(float(sampled.mean())) < 0.05
    assert float(sampled.std()) > 1e-3  # an estimate, not the trace


def test_held_dimensions_neither_move_nor_count():
    free = torch.tensor([[True, False]]).expand(3, 2)

    def velocity(x, t):
        return x * free

    x = torch.ones(3, 2, dtype=torch.float64)
    end, divergence = follow(velocity, x, steps=50, trace="exact", free=free)
    assert torch.equal(end[:, 1], x[:, 1])
    assert torch.allclose(divergence, torch.ones(3, dtype=torch.float64))
