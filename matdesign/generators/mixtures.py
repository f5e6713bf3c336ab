"""Mixtures with exact densities: on the circle for coordinates, in R^6 for lattices."""

import math

import torch
from torch import Tensor

from matdesign.crystals.geometry import wrap
from matdesign.generators.sampling import choose

NARROW, WIDE = 0.003, 0.08
"""Least and largest width of a component on the circle of length 1."""

LEAST, MOST = 0.02, 2.0
"""Least and largest width of a lattice component, in standard deviations of the data."""


class CircleMixture:
    """Wrapped normals whose means stay near a fixed grid on the circle.

    Choosing a component is choosing one of `components` bins, which a network learns as
    fast as any classification; mean and width inside the bin make the density smooth and
    exact. The widths have a floor, so that no single value can win without limit.

    Equation:
        p(u) = sum_k w_k WN(u; (k + tanh o_k) / K, sigma_k^2)

    Args:
        components: K.

    Source:
        CrystalFormer, Cao et al., arXiv 2403.15734, mixes 16 von Mises. Changed: wrapped
        normals, means tied to a grid, and a floor on the widths.
    """

    def __init__(self, components: int) -> None:
        self.components = components
        self.size = 3 * components

    def parts(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log weights, means and widths, shapes (..., components).

        Args:
            raw: outputs of a network, shape (..., size).
        """
        logits, offset, width = raw.unflatten(-1, (3, self.components)).unbind(-2)
        grid = torch.arange(self.components, device=raw.device).to(raw)
        mean = (grid + torch.tanh(offset)) / self.components
        return logits.log_softmax(-1), mean, _bounded_width(NARROW, WIDE, width)

    def log_prob(self, raw: Tensor, u: Tensor) -> Tensor:
        """Return the log density in nats over [0, 1), shape of `u`.

        Args:
            raw: outputs of a network, shape (..., size).
            u: positions on the circle, shape (...).
        """
        weight, mean, sigma = self.parts(raw)
        x = u[..., None] - mean
        x = x - torch.round(x)  # images are far beyond 6 sigma: the widths stop at WIDE
        each = -0.5 * (x / sigma).square() - torch.log(sigma * math.sqrt(2 * math.pi))
        return torch.logsumexp(weight + each, dim=-1)

    def sample(
        self, raw: Tensor, rng: torch.Generator, temperature: float = 1.0
    ) -> Tensor:
        """Return draws in [0, 1), shape (...).

        Args:
            raw: outputs of a network, shape (..., size).
            rng: source of randomness.
            temperature: below 1, likelier components and narrower ones.
        """
        weight, mean, sigma = self.parts(raw)
        k = choose(weight, rng, temperature)[..., None]
        noise = torch.randn(k.shape, generator=rng, device=raw.device, dtype=raw.dtype)
        width = math.sqrt(temperature) * sigma.gather(-1, k)
        return wrap(mean.gather(-1, k) + width * noise).squeeze(-1)


class LatticeMixture:
    """Gaussians over all six entries of the standardised lattice code at once.

    Equation:
        p(x) = sum_k w_k prod_{d free} N(x_d; mu_kd, sigma_kd^2)

    Args:
        components: number of Gaussians.

    Source:
        CrystalFormer, arXiv 2403.15734. Changed: its loss sums over entries the logs of
        one mixture each, while its sampler draws one component for all six; here loss
        and sampler are the same joint mixture.
    """

    def __init__(self, components: int) -> None:
        self.components = components
        self.size = 13 * components

    def parts(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log weights (..., K), means and widths (..., K, 6).

        Args:
            raw: outputs of a network, shape (..., size).
        """
        k = self.components
        logits, mean, width = raw.split([k, 6 * k, 6 * k], dim=-1)
        sigma = _bounded_width(LEAST, MOST, width).unflatten(-1, (k, 6))
        return logits.log_softmax(-1), mean.unflatten(-1, (k, 6)), sigma

    def log_prob(self, raw: Tensor, x: Tensor, free: Tensor) -> Tensor:
        """Return the log density of the free entries in nats, shape (...).

        Args:
            raw: outputs of a network, shape (..., size).
            x: standardised code, shape (..., 6).
            free: which entries count, bool, shape (..., 6).
        """
        weight, mean, sigma = self.parts(raw)
        z = (x[..., None, :] - mean) / sigma
        each = -0.5 * z.square() - torch.log(sigma * math.sqrt(2 * math.pi))
        joint = (each * free[..., None, :]).sum(-1)  # (..., K)
        return torch.logsumexp(weight + joint, dim=-1)

    def sample(self, raw: Tensor, rng: torch.Generator) -> Tensor:
        """Return draws of all six entries, shape (..., 6); use the free ones.

        Args:
            raw: outputs of a network, shape (..., size).
            rng: source of randomness.
        """
        weight, mean, sigma = self.parts(raw)
        k = choose(weight, rng)[..., None, None]
        k = k.expand(*weight.shape[:-1], 1, 6)
        noise = torch.randn(k.shape, generator=rng, device=raw.device, dtype=raw.dtype)
        return (mean.gather(-2, k) + sigma.gather(-2, k) * noise).squeeze(-2)


def _bounded_width(least: float, most: float, raw: Tensor) -> Tensor:
    """Return widths between two bounds, evenly on a logarithmic scale."""
    low, high = math.log(least), math.log(most)
    return torch.exp(low + (high - low) * torch.sigmoid(raw))
