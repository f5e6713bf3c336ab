"""The von Mises distribution on a circle of length 1, also with its origin averaged out."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_bessel(kappa: Tensor) -> Tensor:
    """Return log I0(kappa), safe for large kappa."""
    return torch.special.i0e(kappa).log() + kappa


def log_density(x: Tensor, kappa: Tensor) -> Tensor:
    """Return the log density of a coordinate about 0, in nats.

    Equation:
        p(x) = exp(kappa cos 2 pi x) / I0(kappa),   integral over [0, 1) = 1

    Args:
        x: position on the circle minus the mean, any real number.
        kappa: concentration, not negative: 0 is uniform; the standard deviation of a
            narrow one is 1 / (2 pi sqrt(kappa)).
    """
    return kappa * torch.cos(2 * math.pi * x) - log_bessel(kappa)


def log_density_any_origin(x: Tensor, kappa: Tensor, mask: Tensor) -> Tensor:
    """Return the log density of coordinates whose common origin means nothing.

    All atoms of a crystal may be shifted together along an axis on which the origin is a
    free choice. The average over that shift has a closed form for von Mises densities,
    so that the result does not change when the crystal is shifted.

    Equation:
        log int ds prod_i p_i(x_i - s) = log I0(|R|) - sum_i log I0(kappa_i),
        R = sum_i kappa_i exp(2 pi i x_i)

    Args:
        x: coordinate minus its mean, shape (crystals, sites, axes).
        kappa: concentrations, same shape.
        mask: sites and axes that count, bool, same shape.

    Returns:
        In nats, shape (crystals, axes); 0 where nothing counts.
    """
    kappa = kappa * mask
    angle = 2 * math.pi * x
    real, imaginary = (kappa * angle.cos()).sum(1), (kappa * angle.sin()).sum(1)
    length = (real.square() + imaginary.square() + 1e-12).sqrt()
    return log_bessel(length) - log_bessel(kappa).sum(1)


@torch.no_grad()
def draw(kappa: Tensor, rng: torch.Generator, rounds: int = 40) -> Tensor:
    """Return draws about 0, in [-1/2, 1/2), of the shape of kappa.

    Args:
        kappa: concentrations, not negative.
        rng: source of randomness.
        rounds: tries for each entry; one succeeds with a chance above 0.65, so that none
            is left after 40 but once in 1e18.

    Source:
        Best and Fisher 1979, Applied Statistics 28, 152: wrapped Cauchy envelope.
    """
    k = kappa.double().clamp(min=1e-4)
    tau = 1 + (1 + 4 * k.square()).sqrt()
    rho = (tau - (2 * tau).sqrt()) / (2 * k)
    r = (1 + rho.square()) / (2 * rho)
    result = torch.zeros_like(k)
    open_ = torch.ones_like(k, dtype=torch.bool)
    for _ in range(rounds):
        u = torch.rand((3, *k.shape), generator=rng, device=rng.device).double()
        u = u.to(k.device)
        z = torch.cos(math.pi * u[0])
        f = (1 + r * z) / (r + z)
        c = k * (r - f)
        fits = (c * (2 - c) - u[1] > 0) | ((c / u[1]).log() + 1 - c >= 0)
        angle = torch.where(u[2] > 0.5, 1.0, -1.0) * torch.acos(f.clamp(-1, 1))
        result = torch.where(open_ & fits, angle, result)
        open_ = open_ & ~fits
        if not bool(open_.any()):
            break
    return (result / (2 * math.pi)).to(kappa.dtype)
