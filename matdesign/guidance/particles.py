"""`Particles`: several candidates for each sample, weighed and drawn again on the way."""

from typing import Any

import torch
from torch import Tensor

WORST = -1e4
"""Log-weights below this count as this, so that differences of two stay finite."""


class Particles:
    """Populations of particles that are steered towards a reward by resampling.

    Every particle walks as the unguided sampler does. Its weight grows by what its
    reward has gained since the step before; where the weights of a population become
    uneven, its particles are drawn again by them, the good ones several times. Weights
    that did not lead to resampling are kept, so that the product of all of them is
    exp(reward) of the end, and the population stands for the tilted distribution.

    Equation:
        G_s = exp(r(x_s) - r(x_t)) at each step from t to s, exp(r) at the first;
        log w <- log w + log G; resample where (sum w)^2 / sum w^2 < threshold K;
        as K grows, a particle drawn by the last weights follows p(x) exp(r(x)) / Z.

    Args:
        groups: populations, one for each sample that is wanted.
        size: K, particles in each.
        rng: source of randomness, on the device of the rewards.
        threshold: share of K below which the effective sample size may not fall.

    Source:
        Feynman-Kac steering, Singhal et al., arXiv 2501.06848, with the difference
        potential. Changed: log-weights survive steps without resampling, and resampling
        is systematic (Kitagawa, J. Comput. Graph. Stat. 5, 1, 1996).

    Example:
        >>> crowd = Particles(1, 4, torch.Generator().manual_seed(0))
        >>> crowd.move(torch.tensor([0.0, 0.0, 0.0, 9.0])).tolist()
        [3, 3, 3, 3]
    """

    def __init__(
        self, groups: int, size: int, rng: torch.Generator, threshold: float = 0.5
    ) -> None:
        self.groups, self.size, self.rng = groups, size, rng
        self.threshold = threshold
        self.log_weight = torch.zeros(groups, size, device=rng.device)
        self.before = torch.zeros_like(self.log_weight)
        self.ess_before = torch.full((groups,), float(size), device=rng.device)
        """Effective sample sizes of the last move, before resampling, shape (groups,)."""
        self.resampled = 0
        """Populations that the last move resampled."""

    @property
    def ess(self) -> Tensor:
        """Effective sample size of each population, 1 to K, shape (groups,)."""
        w = self.log_weight.softmax(1)
        return 1 / w.square().sum(1)

    def move(self, reward: Tensor) -> Tensor | None:
        """Take note of new rewards; return which particles go on, or None for all.

        Args:
            reward: in nats, shape (groups x size,), population after population; what is
                not a number counts as very bad.

        Returns:
            Long, shape (groups x size,), or None where nothing is resampled.
        """
        self._add(reward)
        self.ess_before = self.ess
        poor = self.ess_before < self.threshold * self.size
        self.resampled = int(poor.sum())
        if not self.resampled:
            return None
        keep = torch.arange(self.size, device=poor.device).expand(self.groups, -1)
        drawn = systematic(self.log_weight.softmax(1), self.rng)
        keep = torch.where(poor[:, None], drawn, keep)
        self.log_weight = torch.where(poor[:, None], 0.0, self.log_weight)
        self.before = self.before.gather(1, keep)
        start = torch.arange(self.groups, device=keep.device)[:, None] * self.size
        return (start + keep).flatten()

    def record(self) -> dict[str, Any]:
        """Return how the last move went, as plain JSON, with the weights of the first."""
        return {
            "ess": round(float(self.ess_before.mean()), 4),
            "resampled": self.resampled,
            "weights": [round(w, 4) for w in self.log_weight[0].softmax(0).tolist()],
        }

    def choose(self, reward: Tensor, good: Tensor | None = None) -> Tensor:
        """Return one particle of each population, drawn by its last weights.

        Args:
            reward: of the finished samples, shape (groups x size,).
            good: those that may be chosen, bool, same shape; in a population without any
                all may be.

        Returns:
            Long, shape (groups,): rows among all particles.
        """
        self._add(reward)
        logits = self.log_weight
        if good is not None:
            good = good.view(self.groups, self.size)
            good = good | ~good.any(1, keepdim=True)
            logits = logits.masked_fill(~good, -torch.inf)
        drawn = torch.multinomial(logits.softmax(1), 1, generator=self.rng)
        start = torch.arange(self.groups, device=drawn.device) * self.size
        return start + drawn.squeeze(1)

    def _add(self, reward: Tensor) -> None:
        """Multiply the weights by the difference potential."""
        now = reward.detach().to(self.log_weight).view(self.groups, self.size)
        now = now.nan_to_num(WORST, neginf=WORST).clamp(min=WORST)
        self.log_weight = self.log_weight + now - self.before
        self.before = now


def systematic(weights: Tensor, rng: torch.Generator) -> Tensor:
    """Return which particle stands at each place after systematic resampling.

    One uniform number for each population places K equally spaced marks on the line of
    cumulated weights: a particle of weight w stands at floor(K w) or ceil(K w) places,
    K w on average, with less scatter than independent draws.

    Args:
        weights: of each population, sums 1, shape (groups, size).
        rng: source of randomness.

    Returns:
        Long, shape (groups, size), rising.
    """
    groups, size = weights.shape
    first = torch.rand(groups, 1, generator=rng, device=rng.device).to(weights)
    marks = (torch.arange(size, device=weights.device) + first) / size
    edges = weights.cumsum(1)
    edges = edges / edges[:, -1:]
    return torch.searchsorted(edges, marks, right=True).clamp(max=size - 1)
