"""Toys with known answers: a number with a normal density, and a word of a few letters.

Every guided distribution of them can be computed exactly; the torus has a file of its
own. Their unguided samplers have no error, so that what is left is the method's own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.batch import generator


@dataclass(frozen=True)
class NormalToy:
    """A number with data density N(mean, std^2), noised along a straight line.

    Equation:
        x_t = (1 - t) x_0 + t e;  E[x_0 | x_t] = mean + a std^2 (x_t - a mean) / c,
        Var[x_0 | x_t] = std^2 t^2 / c, with a = 1 - t and c = a^2 std^2 + t^2.

    Args:
        mean: of the data.
        std: of the data.
    """

    mean: float = 0.0
    std: float = 1.0

    def posterior(self, x: Tensor, t: float) -> tuple[Tensor, float]:
        """Return the exact mean and variance of x_0 given x_t.

        Args:
            x: noisy numbers.
            t: time, 0 data to 1 noise.
        """
        a, c = 1 - t, (1 - t) ** 2 * self.std**2 + t**2
        mean = self.mean + a * self.std**2 / c * (x - a * self.mean)
        return mean, self.std**2 * t**2 / c

    def sample(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        steps: int = 50,
        preview: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    ) -> Tensor:
        """Return n numbers, shape (n,).

        At each step x_0 is drawn from the posterior and x_s from the bridge to it, which
        is exact for any number of steps.

        Args:
            n: how many.
            seed: of all randomness.
            steps: sampling steps.
            preview: moves the mean of the posterior: (mean, x, variance) -> mean, the way
                in which gradients and classifier-free guidance act; None leaves it.
        """
        rng = generator(seed)
        x = torch.randn(n, generator=rng)
        times = torch.linspace(1, 0, steps + 1).tolist()
        for t, s in itertools.pairwise(times):
            mean, variance = self.posterior(x, t)
            if preview is not None:
                mean = preview(mean, x, variance)
            end = mean + math.sqrt(variance) * torch.randn(n, generator=rng)
            noise, fresh = (x - (1 - t) * end) / t, 0.0
            if s > 0:
                fresh = s * math.sqrt(max(1 - ((1 - t) * s / ((1 - s) * t)) ** 2, 0.0))
            x = (1 - s) * end + math.sqrt(max(s * s - fresh**2, 0.0)) * noise
            x = x + fresh * torch.randn(n, generator=rng)
        return x


class WordToy:
    """A word of a few letters with any table of probabilities, found letter by letter.

    Each letter is drawn from the exact conditional given those before, which has no error
    at all. A mask leaves the letters from which a good word can still be reached.

    Args:
        table: probability of every word, shape (letters, ..., letters).
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table.double() / table.double().sum()

    def masked(self, good: Tensor) -> Tensor:
        """Return the exact distribution of the masked sampler.

        Equation:
            q(abc) = p(a | A) p(b | a, B(a)) p(c | a b, C(a, b)), each renormalised over
            the letters from which a good word can still be reached.

        Args:
            good: which words are, bool, shape of the table; at least one is.
        """
        found = torch.ones_like(self.table)
        for k in range(good.ndim):
            left, may = self.table, good
            for later in range(k + 1, good.ndim):
                left, may = left.sum(later, keepdim=True), may.any(later, keepdim=True)
            left = torch.where(may, left, 0.0)
            found = found * (left / left.sum(k, keepdim=True)).nan_to_num(0.0)
        return found

    def sample(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        good: Tensor | None = None,
    ) -> Tensor:
        """Return n words, shape (n, letters of a word).

        Args:
            n: how many.
            seed: of all randomness.
            good: what a mask leaves, see `masked`; None leaves all.
        """
        rng = generator(seed)
        may = torch.ones_like(self.table, dtype=torch.bool) if good is None else good
        found = torch.zeros(n, 0, dtype=torch.long)
        for _ in range(may.ndim):
            table, left = (
                one[tuple(found.T)] if found.shape[1] else one.expand(n, *one.shape)
                for one in (self.table, may)
            )
            weight = table.reshape(n, table.shape[1], -1).sum(-1)
            weight = weight * left.reshape(n, table.shape[1], -1).any(-1)
            drawn = torch.multinomial(weight, 1, generator=rng)
            found = torch.cat([found, drawn], 1)
        return found
