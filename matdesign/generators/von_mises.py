"""The von Mises distribution on a circle of length 1, also with its origin averaged out."""

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
