"""Toys with known answers: what each guidance method does, against what it should do.

Targets on which every guided distribution can be computed exactly: a number with a normal
density, and a word of a few letters with a table of probabilities; the torus has a file
of its own. Their unguided samplers have no error but that of their
steps (the word's has none at all), so that what is left is the method's own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.batch import generator
from matdesign.guidance.particles import Particles
from matdesign.teach.torus_toy import Reward


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
        reward: Reward | None = None,
        particles: int = 1,
        draw: bool = True,
    ) -> Tensor:
        """Return n numbers, shape (n,).

        Args:
            n: how many.
            seed: of all randomness.
            steps: sampling steps.
            preview: moves the mean of the posterior: (mean, x, variance) -> mean, the way in
                which gradients and classifier-free guidance act; None leaves it.
            reward: steers particles, with difference potentials.
            particles: for each number.
            draw: draw x_0 from the posterior and x_s from the bridge to it, which is exact
                for any number of steps; False follows the straight path to its mean.
        """
        rng = generator(seed)
        crowd = Particles(n, particles, rng)
        x = torch.randn(n * particles, generator=rng)
        times = torch.linspace(1, 0, steps + 1).tolist()
        for t, s in itertools.pairwise(times):
            mean, variance = self.posterior(x, t)
            if preview is not None:
                mean = preview(mean, x, variance)
            if reward is not None:
                keep = crowd.move(reward(mean))
                if keep is not None:
                    x, mean = x[keep], mean[keep]
            end = mean
            if draw:
                end = mean + math.sqrt(variance) * torch.randn(len(x), generator=rng)
            x = _bridge(x, end, t, s, rng if draw else None)
        if reward is None:
            return x.view(n, particles)[:, 0]
        return x[crowd.choose(reward(x))]


def _bridge(
    x: Tensor, end: Tensor, t: float, s: float, rng: torch.Generator | None
) -> Tensor:
    """Return x_s given x_t and x_0 on the straight path, from q or along the line."""
    noise = (x - (1 - t) * end) / t
    fresh = 0.0
    if rng is not None and s > 0:
        fresh = s * math.sqrt(max(1 - ((1 - t) * s / ((1 - s) * t)) ** 2, 0.0))
    line = (1 - s) * end + math.sqrt(max(s * s - fresh**2, 0.0)) * noise
    if not fresh:
        return line
    return line + fresh * torch.randn(len(x), generator=rng)


class WordToy:
    """A word of a few letters with any table of probabilities, found letter by letter.

    All places start hidden; at each step one, in order, is drawn from the exact
    conditional given those before, which has no error at all.

    Args:
        table: probability of every word, shape (letters, ..., letters).
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table.double() / table.double().sum()
        self.places, self.letters = table.ndim, table.shape[0]

    def words(self) -> Tensor:
        """Return all words, shape (letters^places, places)."""
        return torch.cartesian_prod(*[torch.arange(self.letters)] * self.places)

    def tilted(self, reward: Reward) -> Tensor:
        """Return the exact probability of every word under p exp(r) / Z, flat."""
        weight = self.table.flatten() * reward(self.words()).double().exp()
        return weight / weight.sum()

    def sample(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        reward: Reward | None = None,
        particles: int = 1,
        allowed: Callable[[Tensor], Tensor] | None = None,
        other: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """Return n words, shape (n, places).

        Args:
            n: how many.
            seed: of all randomness.
            reward: of words; that of an unfinished one is taken at its likeliest end.
            particles: for each word.
            allowed: which letters may come next, (words, places so far) -> bool
                (words, letters).
            other: table of the words without the condition; with `scale` the letters
                follow classifier-free guidance away from it.
            scale: 1 draws from the table alone.
        """
        rng = generator(seed)
        crowd = Particles(n, particles, rng)
        found = torch.zeros(n * particles, 0, dtype=torch.long)
        for _ in range(self.places):
            logits = self._next(self.table, found).log()
            if other is not None:
                null = self._next(other.double() / other.double().sum(), found).log()
                logits = (1 - scale) * null + scale * logits
            if allowed is not None:
                logits = logits.masked_fill(~allowed(found), -torch.inf)
            drawn = torch.multinomial(logits.softmax(1), 1, generator=rng)
            found = torch.cat([found, drawn], 1)
            if reward is not None and found.shape[1] < self.places:
                keep = crowd.move(reward(self.likeliest(found)))
                found = found if keep is None else found[keep]
        if reward is None:
            return found.view(n, particles, -1)[:, 0]
        return found[crowd.choose(reward(found))]

    def likeliest(self, found: Tensor) -> Tensor:
        """Return each unfinished word with its most probable end."""
        rest = self.table[tuple(found.T)].flatten(1).argmax(1)
        ends = torch.cartesian_prod(
            *[torch.arange(self.letters)] * (self.places - found.shape[1])
        ).view(-1, self.places - found.shape[1])
        return torch.cat([found, ends[rest]], 1)

    def _next(self, table: Tensor, found: Tensor) -> Tensor:
        """Return the exact probability of each next letter, (words, letters)."""
        at = table.expand(len(found), *table.shape) if not found.shape[1] else None
        rest = table[tuple(found.T)] if at is None else at
        weight = rest.flatten(2).sum(-1) if rest.ndim > 2 else rest
        return weight / weight.sum(1, keepdim=True)
