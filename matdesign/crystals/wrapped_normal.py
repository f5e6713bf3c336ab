"""The normal distribution on a circle of length 1: density, score and its size.

A coordinate that takes a Gaussian step of width sigma in a periodic cell is wrapped
normal. Both sums below are exact with infinitely many terms; each needs only a few
where the other needs many, so the width decides which one is used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SWITCH = 0.25
"""Width at which the image sum hands over to the Fourier sum."""

IMAGES = 2
"""Images on each side in the image sum: 5 in all."""

TERMS = 5
"""Terms of the Fourier sum."""


def log_density(x: Tensor, sigma: Tensor | float) -> Tensor:
    """Return the log density of the wrapped normal with mean 0, in nats.

    Equation:
        p(x) = sum_k N(x + k; 0, sigma^2)                            (images)
             = 1 + 2 sum_n exp(-2 pi^2 n^2 sigma^2) cos(2 pi n x)    (Fourier)

    Args:
        x: position on the circle, any real number (wrapped here).
        sigma: width, positive, broadcastable with `x`.

    Returns:
        Log density over the unit circle, in nats, shape of `x` and `sigma` together.

    Accuracy:
        Images -2..2 below sigma = 0.25, five Fourier terms from there on: below 1e-6 in
        float64, tested against sums of 100 terms.

    Example:
        >>> log_density(torch.tensor([0.0, 0.5]), 2.0)  # wide: uniform
        tensor([0., 0.])
    """
    x, sigma = _prepare(x, sigma)
    narrow = sigma < SWITCH
    images = torch.logsumexp(_exponents(x, sigma.clamp_max(SWITCH)), dim=-1)
    images = images - torch.log(sigma.clamp_max(SWITCH) * math.sqrt(2 * math.pi))
    density, _ = _fourier(x, sigma.clamp_min(SWITCH))
    return torch.where(narrow, images, torch.log(density))


def score(x: Tensor, sigma: Tensor | float) -> Tensor:
    """Return the score of the wrapped normal, d log p / dx.

    It points towards the mean, is zero at 0 and at 1/2, and vanishes for wide
    distributions, where nothing is left to say about where the point came from.

    Equation:
        s(x) = -sum_k w_k (x + k) / sigma^2,   w = softmax_k(-(x + k)^2 / (2 sigma^2))
             = p'(x) / p(x)

    Args:
        x: position on the circle, any real number (wrapped here).
        sigma: width, positive, broadcastable with `x`.

    Returns:
        The score, shape of `x` and `sigma` together; multiply by sigma for unit scale.

    Accuracy:
        sigma * score is within 1e-6 of the exact value everywhere in float64; tested
        against sums of 100 terms.

    Source:
        Jing et al. 2022, arXiv:2206.01729 (score of the wrapped normal). We switch
        between the two sums instead of enumerating many images, and the sign is that of
        the score itself.

    Example:
        >>> score(torch.tensor([0.1, -0.1]), 0.1)
        tensor([-10.0000,  10.0000])
    """
    x, sigma = _prepare(x, sigma)
    narrow, small = sigma < SWITCH, sigma.clamp_max(SWITCH)
    weights = torch.softmax(_exponents(x, small), dim=-1)
    images = -(weights * (x.unsqueeze(-1) + _whole(x))).sum(-1) / small.square()
    density, slope = _fourier(x, sigma.clamp_min(SWITCH))
    return torch.where(narrow, images, slope / density)


def score_norm(sigma: Tensor | float, points: int = 2048) -> Tensor:
    """Return the mean squared score, lambda(sigma) = E[s(x)^2].

    The scale that a denoising loss divides by, so that all widths weigh the same. Found
    by the trapezoid rule on the circle, which converges faster than any power of the
    number of points; no random draws.

    Args:
        sigma: widths, positive.
        points: quadrature points; they lie in +-12 sigma where that is narrower than
            the circle.

    Returns:
        lambda(sigma), shape of `sigma`; sigma^2 lambda is 1 for narrow widths, 0.76 at
        sigma = 0.2, 0.21 at 0.3, 0.001 at 0.5.

    Example:
        >>> round(score_norm(0.05).item() * 0.05**2, 3)
        1.0
    """
    width = torch.as_tensor(sigma)
    exact = width.double()
    reach = (12 * exact).clamp_max(0.5)
    unit = torch.linspace(-1, 1, points + 1, dtype=torch.float64, device=exact.device)
    x = reach.unsqueeze(-1) * unit[:-1]
    wide = exact.unsqueeze(-1)
    integrand = log_density(x, wide).exp() * score(x, wide).square()
    out = integrand.mean(dim=-1) * 2 * reach
    return out.to(width.dtype if width.is_floating_point() else torch.float32)


def _prepare(x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return x in [-1/2, 1/2] and sigma, broadcast to one shape and dtype."""
    width = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    shape = (x + width).shape
    return (x - torch.round(x)).expand(shape), width.expand(shape)


def _whole(x: Tensor) -> Tensor:
    return torch.arange(-IMAGES, IMAGES + 1, dtype=x.dtype, device=x.device)


def _exponents(x: Tensor, sigma: Tensor) -> Tensor:
    """Return -(x + k)^2 / (2 sigma^2) for all images, shape (..., 5)."""
    image = x.unsqueeze(-1) + _whole(x)
    return -image.square() / (2 * sigma.square().unsqueeze(-1))


def _fourier(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return density and its slope from the Fourier sum."""
    n = torch.arange(1, TERMS + 1, dtype=x.dtype, device=x.device)
    decay = torch.exp(-2 * (math.pi * n * sigma.unsqueeze(-1)).square())
    angle = 2 * math.pi * n * x.unsqueeze(-1)
    density = 1 + 2 * (decay * angle.cos()).sum(-1)
    slope = -4 * math.pi * (n * decay * angle.sin()).sum(-1)
    return density, slope
