"""The evidence lower bound and its sharper relative, for any model with latent variables."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Normal:
    """Independent normal distributions, one for each entry of a latent.

    Args:
        mean: shape (crystals, ..., size).
        log_std: natural log of the standard deviation, same shape.
        mask: entries that exist, broadcastable; None = all.
    """

    def __init__(
        self, mean: Tensor, log_std: Tensor, mask: Tensor | None = None
    ) -> None:
        self.mean, self.log_std = mean, log_std
        self.mask = torch.ones_like(mean) if mask is None else mask.expand_as(mean)

    def draw(self, rng: torch.Generator) -> Tensor:
        """Return mean + std * noise, through which gradients flow; 0 where masked."""
        noise = torch.randn(
            self.mean.shape, generator=rng, device=rng.device, dtype=self.mean.dtype
        ).to(self.mean.device)
        return (self.mean + self.log_std.exp() * noise) * self.mask

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return the log density in nats, summed over entries, shape (crystals,)."""
        x = (latent - self.mean) * (-self.log_std).exp()
        each = -0.5 * x.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return (each * self.mask).flatten(1).sum(1)

    def kl(self) -> Tensor:
        """Return the divergence from N(0, I) in nats, exact, shape (crystals,).

        Equation:
            KL = 1/2 sum (mean^2 + std^2 - 1) - log std
        """
        each = (self.mean.square() + (2 * self.log_std).exp() - 1) / 2 - self.log_std
        return (each * self.mask).flatten(1).sum(1)


def log_weights(
    log_joint: Callable[[Any], Tensor],
    posterior: Any,
    *,
    samples: int,
    rng: torch.Generator,
) -> Tensor:
    """Return log p(x, z) - log q(z | x) of draws from the posterior.

    Args:
        log_joint: takes a draw, returns log p(x | z) + log p(z) in nats, (crystals,).
        posterior: q(z | x), with `draw` and `log_prob` as `Normal` has them.
        samples: draws for each crystal.
        rng: source of randomness.

    Returns:
        Shape (samples, crystals).
    """
    rows = []
    for _ in range(samples):
        z = posterior.draw(rng)
        rows.append(log_joint(z) - posterior.log_prob(z))
    return torch.stack(rows)


def lower_bound(weights: Tensor) -> Tensor:
    """Return the evidence lower bound from log weights, shape (crystals,).

    Equation:
        ELBO = E_q[log p(x, z) - log q(z | x)] <= log p(x)

    Args:
        weights: from `log_weights`, shape (samples, crystals).
    """
    return weights.mean(0)


def importance_bound(weights: Tensor) -> Tensor:
    """Return the importance-weighted bound from log weights, shape (crystals,).

    It lies between the evidence lower bound of the same draws and, on average, the exact
    value, and approaches the latter as the samples grow.

    Equation:
        log 1/K sum_k p(x, z_k) / q(z_k | x),   z_k from q

    Args:
        weights: from `log_weights`, shape (samples, crystals).

    Source:
        Burda et al. 2015, arXiv:1509.00519, eq. 8.
    """
    return weights.logsumexp(0) - math.log(len(weights))
