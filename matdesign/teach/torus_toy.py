"""A torus with known answers: every guidance method against the density it should give."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from matdesign.crystals.batch import generator
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.errors import InfeasibleTarget
from matdesign.generators.conditions import combine
from matdesign.guidance.particles import Particles

Reward = Callable[[Tensor], Tensor]
"""Reward of finished samples in nats, (samples, ...) -> (samples,)."""

WIDEST, NARROWEST = 0.5, 0.01
"""Width of the noise at the first step and after the last."""

REACH = 6
"""Periodic copies of a well count while they are nearer than so many of its widths."""

MOST_DRAWS = 1000
"""Draws for each point before rejection gives up."""


@dataclass(frozen=True)
class TorusToy:
    """A point on a torus [0, 1)^d with wells of known places: a mixture of wrapped normals.

    Noise widens every well, so that density and score are known in closed form at any
    time. Methods of guidance differ from the unguided sampler in one thing only: what
    they make of the preview, the expected end.

    Equation:
        p_sigma(x) = sum_k w_k prod_d WN(x_d; m_kd, width^2 + sigma^2),
        preview = x + sigma^2 grad ln p_sigma(x),
        x' = x + (sigma^2 - s^2) / sigma^2 (preview - x)
             + s / sigma sqrt(sigma^2 - s^2) z,  z ~ N(0, 1),
        with sigma going down geometrically from 0.5 to 0.01.

    Args:
        centres: of the wells, each of d numbers.
        weights: of the wells, summing to 1.
        width: standard deviation of each well, in turns.

    Example:
        >>> [round(w, 3) for w in TorusToy().given(0, 0.25).weights]  # where x is known
        [0.667, 0.0, 0.333, 0.0]
    """

    centres: tuple[tuple[float, ...], ...] = (
        (0.25, 0.25),
        (0.75, 0.25),
        (0.25, 0.75),
        (0.75, 0.75),
    )
    weights: tuple[float, ...] = (0.4, 0.1, 0.2, 0.3)
    width: float = 0.08

    # ---- what is known exactly -------------------------------------------------------

    def density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Return the density at points, with noise of a given width.

        Args:
            x: points, shape (..., d).
            sigma: standard deviation of the noise.
        """
        return self._wells(x, sigma)[0].logsumexp(-1).exp()

    def score(self, x: Tensor, sigma: float) -> Tensor:
        """Return the gradient of the log density of noisy points, shape of `x`.

        Args:
            x: points, shape (..., d).
            sigma: standard deviation of the noise.
        """
        log_p, pull = self._wells(x, sigma)
        return (log_p.softmax(-1)[..., None] * pull).sum(-2)

    def of(self, *wells: int) -> TorusToy:
        """Return the toy with some of its wells: the data that carry one label.

        Args:
            wells: their numbers.
        """
        share = [self.weights[k] for k in wells]
        return TorusToy(
            tuple(self.centres[k] for k in wells),
            tuple(w / sum(share) for w in share),
            self.width,
        )

    def given(self, place: int, value: float) -> TorusToy:
        """Return the exact conditional of the other coordinates when one is known.

        Args:
            place: of the known coordinate.
            value: its value.
        """
        line = tuple((m[place],) for m in self.centres)
        known = TorusToy(line, self.weights, self.width)
        log_p, _ = known._wells(torch.tensor([value], dtype=torch.float64), 0.0)
        rest = tuple(m[:place] + m[place + 1 :] for m in self.centres)
        return TorusToy(rest, tuple(log_p.softmax(-1).tolist()), self.width)

    def tilted(self, reward: Reward, bins: int) -> Tensor:
        """Return the exact probability of each cell of a grid under p exp(r) / Z.

        Args:
            reward: of points, (points, d) -> (points,); -inf forbids.
            bins: cells along each edge.

        Returns:
            Sums to 1, float64, shape (bins,) * d.
        """
        d = len(self.centres[0])
        fine = 64 if d == 1 else 8
        line = (torch.arange(bins * fine, dtype=torch.float64) + 0.5) / (bins * fine)
        x = torch.stack(torch.meshgrid(*[line] * d, indexing="ij"), -1).view(-1, d)
        weight = self.density(x) * reward(x).exp()
        cells = (weight / weight.sum()).view([bins, fine] * d)
        return cells.sum(tuple(range(1, 2 * d, 2)))

    # ---- sampling --------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        seed: int | torch.Generator | None = None,
        steps: int = 200,
        reward: Reward | None = None,
        particles: int = 1,
        gradient: float = 0.0,
        through: bool = False,
        towards: TorusToy | None = None,
        scale: float = 1.0,
        project: Callable[[Tensor], Tensor] | None = None,
        known: Tensor | None = None,
        repeats: int = 1,
        watch: Callable[[float, Tensor, Tensor, Particles], None] | None = None,
    ) -> Tensor:
        """Return n points in [0, 1)^d, shape (n, d).

        Args:
            n: how many.
            seed: of all randomness.
            steps: sampling steps, geometric in sigma.
            reward: of finished points; steers particles where there are several.
            particles: for each point.
            gradient: lambda; moves the preview by lambda sigma^2 dr/dx, which adds
                lambda dr/dx to the score.
            through: take the gradient through the preview, d r(preview(x)) / dx, instead
                of at the preview.
            towards: the toy with the condition, for classifier-free guidance.
            scale: of classifier-free guidance: 0 ignores the condition, 1 follows it.
            project: puts points into a range; done to every preview and to the end.
            known: coordinates that are known, NaN where free, shape (d,): replacement.
            repeats: how often each step is taken; in between, noise is added again.
            watch: is shown (sigma, x, preview, particles) of each step's last repeat
                before anything is moved.
        """
        rng = generator(seed)
        crowd = Particles(n, particles, rng)
        x = torch.rand(n * particles, len(self.centres[0]), generator=rng)
        ends = math.log10(WIDEST), math.log10(NARROWEST)
        widths = torch.logspace(*ends, steps + 1).tolist()
        for now, then in itertools.pairwise(widths):
            gain = now**2 - then**2
            for repeat in range(repeats):
                score = self.score(x, now)
                if towards is not None:
                    score = combine(score, towards.score(x, now), scale)
                mean = x + now**2 * score
                last = repeat == repeats - 1
                if last and watch is not None:
                    watch(now, x, wrap(mean), crowd)
                if last and reward is not None and particles > 1:
                    keep = crowd.move(reward(mean))
                    if keep is not None:
                        x, score, mean = x[keep], score[keep], mean[keep]
                if reward is not None and gradient:
                    score = score + gradient * self._slope(reward, x, now, through)
                if project is not None:
                    inside = project(wrap(x + now**2 * score))
                    score = torus_difference(x, inside) / now**2
                if known is not None:
                    ahead = torus_difference(x, known.to(x)) / now**2
                    score = torch.where(known.isfinite(), ahead, score)
                noise = torch.randn(x.shape, generator=rng)
                x = wrap(x + gain * score + math.sqrt(gain) * then / now * noise)
                if not last:
                    back = torch.randn(x.shape, generator=rng)
                    x = wrap(x + math.sqrt(gain) * back)
        if project is not None:
            x = project(x)
        if known is not None:
            x = torch.where(known.isfinite(), known.to(x), x)
        if reward is None or particles == 1:
            return x.view(n, particles, -1)[:, 0]
        return x[crowd.choose(reward(x))]

    def reject(
        self,
        n: int,
        reward: Reward,
        *,
        top: float = 0.0,
        seed: int | torch.Generator | None = None,
        steps: int = 200,
    ) -> tuple[Tensor, int]:
        """Return n points drawn and kept with probability exp(r - top), and how many drawn.

        Args:
            n: how many.
            reward: of finished points in nats, -inf forbids.
            top: largest reward there is.
            seed: of all randomness.
            steps: sampling steps.

        Raises:
            InfeasibleTarget: a thousand draws for each point were not enough.
        """
        rng = generator(seed)
        kept, drawn = torch.zeros(0, len(self.centres[0])), 0
        while drawn < MOST_DRAWS * n:
            x = self.sample(n, seed=rng, steps=steps)
            good = torch.rand(n, generator=rng) < (reward(x) - top).exp()
            places, missing = good.nonzero().squeeze(1), n - len(kept)
            kept = torch.cat([kept, x[places[:missing]]])
            if len(places) >= missing:
                return kept, drawn + int(places[missing - 1]) + 1
            drawn += n
        raise InfeasibleTarget(
            f"{len(kept)} of {n} points found in {drawn} draws. Ask for fewer, or for "
            "what is less rare."
        )

    def _slope(self, reward: Reward, x: Tensor, sigma: float, through: bool) -> Tensor:
        """Return the gradient of the reward of previews: by them, or by the points."""
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            end = at + sigma**2 * self.score(at, sigma)
            if not through:
                at = end = end.detach().requires_grad_()
            return torch.autograd.grad(reward(end).sum(), at)[0]

    def _wells(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Return ln (weight x density) of each well, (..., k), and its score, (..., k, d)."""
        deviation = math.sqrt(self.width**2 + sigma**2)
        away = x[..., None, :] - torch.tensor(self.centres).to(x)
        away = away - away.round()
        far = math.ceil(REACH * deviation)
        image = away[..., None] + torch.arange(-far, far + 1).to(x)
        # in units of the nearest image, so that nothing underflows
        over = (away[..., None].square() - image.square()) / (2 * deviation**2)
        share = over.exp()
        total = share.sum(-1)
        pull = -(share * image).sum(-1) / (total * deviation**2)
        log_p = total.log() - away.square() / (2 * deviation**2)
        log_p = log_p.sum(-1) - x.shape[-1] * math.log(
            deviation * math.sqrt(2 * math.pi)
        )
        return log_p + torch.tensor(self.weights).to(x).log(), pull


def cells(x: Tensor, bins: int) -> Tensor:
    """Return the number of the cell that each point is in, as a flat grid counts them.

    Args:
        x: points in [0, 1)^d, shape (points, d).
        bins: cells along each edge.

    Returns:
        Long, 0 to bins^d - 1, shape (points,).
    """
    at = (x * bins).long().clamp(0, bins - 1)
    place = bins ** torch.arange(x.shape[-1] - 1, -1, -1)
    return (at * place).sum(-1)
