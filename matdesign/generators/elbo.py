"""Densities of latent variables and of coordinates, and the evidence lower bound from them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


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
            KL = sum [(mean^2 + std^2 - 1) / 2 - log std]
        """
        each = (self.mean.square() + (2 * self.log_std).exp() - 1) / 2 - self.log_std
        return (each * self.mask).flatten(1).sum(1)


class Latent(NamedTuple):
    """One draw of the latent variables.

    Args:
        whole: of the crystal, shape (crystals, size).
        orbits: of each orbit, 0 on padding, shape (crystals, orbits, size).
    """

    whole: Tensor
    orbits: Tensor


class LatentPosterior(NamedTuple):
    """q(z | x): independent normal distributions of all latent variables."""

    whole: Normal
    orbits: Normal

    def draw(self, rng: torch.Generator) -> Latent:
        """Return one draw for every crystal."""
        return Latent(self.whole.draw(rng), self.orbits.draw(rng))

    def log_prob(self, latent: Latent) -> Tensor:
        """Return the log density in nats, shape (crystals,)."""
        return self.whole.log_prob(latent.whole) + self.orbits.log_prob(latent.orbits)


class Prior(nn.Module):
    """p(z) = N(0, I).

    Args:
        size: of the latent.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density in nats, shape (crystals,)."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """Return KL(q, p) in nats, (crystals,); z is a draw from q, not needed here."""
        return q.kl()

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Return n draws, shape (n, size)."""
        return torch.randn((n, self.size), generator=rng, device=rng.device)


class MixturePrior(Prior):
    """A mixture of normals, all of equal weight.

    Equation:
        p(z) = 1/K sum_k N(z; m_k, diag s_k^2)

    Args:
        parts: the normals, for example the posteriors of K crystals.
    """

    mean: Tensor
    log_std: Tensor

    def __init__(self, parts: Normal) -> None:
        super().__init__(parts.mean.shape[1])
        self.register_buffer("mean", parts.mean)
        self.register_buffer("log_std", parts.log_std.clamp(-3.0, 1.0))

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        """Take files of before, too, whose equal weights are zeros of a layer."""
        for name in (f"{prefix}weight.weight", f"{prefix}weight.bias"):
            if name in state and not state[name].any():
                del state[name]
        super()._load_from_state_dict(state, prefix, *rest)
        self.log_std.clamp_(-3.0, 1.0)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density in nats, shape (crystals,)."""
        x = (z[:, None] - self.mean) * (-self.log_std).exp()
        each = -0.5 * (x.square() + math.log(2 * math.pi)) - self.log_std
        return each.sum(2).logsumexp(1) - math.log(len(self.mean))

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """Return KL(q, p) in nats by one draw z from q, shape (crystals,)."""
        return q.log_prob(z) - self.log_prob(z)

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Return n draws, shape (n, size)."""
        noise = super().draw(n, rng)
        k = torch.multinomial(noise.new_ones(n, len(self.mean)), 1, generator=rng)
        k = k.squeeze(1).to(self.mean.device)
        return self.mean[k] + self.log_std[k].exp() * noise.to(self.mean)


def log_von_mises(x: Tensor, kappa: Tensor) -> Tensor:
    """Return the log density of a coordinate about 0, in nats.

    Equation:
        p(x) = exp(kappa cos 2 pi x) / I0(kappa),   integral over [0, 1) = 1

    Args:
        x: position on the circle minus the mean, any real number.
        kappa: concentration, not negative: 0 is uniform; the standard deviation of a
            narrow one is 1 / (2 pi sqrt(kappa)).
    """
    return kappa * torch.cos(2 * math.pi * x) - _log_bessel(kappa)


def log_von_mises_any_origin(x: Tensor, kappa: Tensor, mask: Tensor) -> Tensor:
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
    return _log_bessel(length) - _log_bessel(kappa).sum(1)


def _log_bessel(kappa: Tensor) -> Tensor:
    """Return log I0(kappa), safe for large kappa."""
    return torch.special.i0e(kappa).log() + kappa


def log_weights(
    log_joint: Callable[[Any], Tensor],
    posterior: Any,
    *,
    samples: int,
    rng: torch.Generator,
) -> Tensor:
    """Return log p(x, z) - log q(z | x) of draws from the posterior.

    Their mean is the evidence lower bound.

    Equation:
        ELBO = E_q[log p(x, z) - log q(z | x)] <= log p(x)

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
