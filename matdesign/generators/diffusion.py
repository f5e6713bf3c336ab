"""`Diffusion`: coordinates, lattice and species denoised together, and two of its noises."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals import wrapped_normal
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.contract import Loss
from matdesign.generators.control import Preview, Sample
from matdesign.generators.sampling import normal
from matdesign.generators.stepwise import (
    Stepwise,
    centred,
    column,
    flattened,
    random_times,
)


class Diffusion(Stepwise):
    """Denoising diffusion of whole crystals, in either representation.

    Three noise processes run side by side: free coordinates spread around the torus, the
    lattice code fades into a normal distribution, species disappear one by one. One
    network undoes all three. Build it with `Diffusion.for_data(train)`.

    Equation:
        loss = |u - s / sqrt(lambda)|^2 + |v - v_target|^2 + cross entropy of hidden sites

    Args:
        steps: default number of sampling steps.
        corrector: size of the Langevin step after each predictor step; 0 for none.
        sharpness: above 1, coordinates follow the score farther in each step and end
            nearer to the modes; 1 draws from the model's own distribution.
        **shared: keywords of `Stepwise`.

    Source:
        DiffCSP, Jiao et al., arXiv 2309.04475, and MatterGen, Zeni et al., arXiv
        2312.03687; symmetry by anchors: DiffCSP++, arXiv 2402.03992. Changed:
        log-symmetric lattice code with a prior at mean density, absorbing species
        normalised over seen elements, free coordinates of the positions instead of
        projected ones, and the network.
    """

    def __init__(
        self,
        *,
        steps: int = 100,
        corrector: float = 0.2,
        sharpness: float = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(steps=steps, **shared)
        self.config |= {"corrector": corrector, "sharpness": sharpness}
        self.corrector, self.sharpness = corrector, sharpness
        self.frac_noise = WrappedNoise()
        self.lattice_noise = GaussianNoise()

    def loss(
        self, crystals: Crystals | Encoded, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return the loss of a batch: three terms of equal weight.

        Terms: `frac`, mean square error of the normalised score (1 for an untrained
        network); `lattice`, mean square error of v (1 for an untrained network);
        `species`, cross entropy in nats per hidden site.
        """
        rng = generator(seed, self.device)
        data = self.prepare(crystals)
        lay = data.layout
        t = random_times(len(data), data.u, rng)
        u, score = self.frac_noise.add(data.u, lay, t, rng)
        code = self.scales.standardize(data.code, lay)
        x, v = self.lattice_noise.add(code, t, rng)
        species = self.species_noise.add(data.species, t, rng, self.reveal)
        condition = self.training_condition(data, rng)
        x = x * lay.code_free
        out = self.prediction(lay, species, u, x, t, condition, 1.0)

        free = lay.free.sum((1, 2)) - 3 * (lay.spacegroup == 1)  # P1: any origin
        wrong = (out.frac - score).square().sum((1, 2)) / free.clamp(min=1)
        off = ((out.lattice - v) * lay.code_free).square().sum(1)
        hidden = species == MASK
        each = (
            wrong * (free > 0),
            off / lay.code_free.sum(1),
            self.species_noise.cross_entropy(data.species, hidden, out.species),
        )
        terms = {
            "frac": each[0].sum() / (free > 0).sum().clamp(min=1),
            "lattice": each[1].mean(),
            "species": each[2].sum() / hidden.any(1).sum().clamp(min=1),
        }
        return Loss.of(terms, torch.stack(each).sum(0), flattened(out, lay, hidden))

    def predict(self, x: Sample, t: float) -> Preview:
        """Return the denoised crystals, by Tweedie's formula and x_0 = a x_t - s v."""
        out, time = self.output(x, t), x.code.new_full((len(x),), t)
        u = self.frac_noise.preview(x.u, out.frac, time) * x.layout.free
        code = self.scales.clamp(self.lattice_noise.preview(x.code, out.lattice, time))
        p = self.species_probabilities(x, out.species)
        return self.preview(x, t, p, u, code * x.layout.code_free)

    def step(
        self, x: Sample, preview: Preview, t: float, s: float, rng: torch.Generator
    ) -> Sample:
        """Return x at the earlier time s: all three processes back towards the preview.

        Then the coordinates relax at the new time (corrector). What a control holds
        follows the exact bridge, whatever the sharpness, and does not relax.
        """
        lay, known = x.layout, preview.known
        now, then = (x.code.new_full((len(x),), time) for time in (t, s))
        sharpness = self.sharpness if known is None else 1.0
        u = self.frac_noise.back(x.u, preview.u, now, then, rng, sharpness) * lay.free
        code = self.lattice_noise.back(x.code, preview.code, now, then, rng)
        species = self.decide_species(x, preview, t, s, rng)
        x = Sample(x.plan, species, u, code * lay.code_free)
        if not self.corrector or s == 0:
            return x
        clean = self.frac_noise.preview(u, self.output(x, s).frac, then)
        if preview.shift is not None:  # the same addition to the score
            less = (self.frac_noise.sigma(then) / self.frac_noise.sigma(now)).square()
            clean = wrap(clean + column(less, u) * preview.shift)
        moved = self.frac_noise.correct(u, clean, then, self.corrector, rng) * lay.free
        u = moved if known is None else torch.where(known, u, moved)
        return dataclasses.replace(x, u=u)

    @torch.no_grad()
    def score(self, crystals: Crystals | Encoded, t: float) -> Tensor:
        """Return the learned score of the coordinates at a noise level.

        Equation:
            s = d log p_t(f) / d f, all species shown, lattice as it is.

        Args:
            crystals: where to ask.
            t: time in (0, 1].

        Returns:
            Per unit of fractional coordinate, shape (crystals, orbits, 3).
        """
        data = self.prepare(crystals).to(self.device)
        now = torch.full((len(data),), float(t), device=self.device)
        x = self.scales.standardize(data.code, data.layout)
        out = self.prediction(data.layout, data.species, data.u, x, now, None, 0.0)
        return out.frac * self.frac_noise.scale(now)[:, None, None]

    def preview_std(self, t: float) -> tuple[float, float]:
        """Return how uncertain noise alone makes a preview: coordinates, lattice code.

        Equation:
            of u: sigma(t), at most that of the uniform density, 1 / sqrt(12);
            of x: sin(pi t / 2), that of N(0, 1) data given x_t.
        """
        sigma = self.frac_noise.low ** (1 - t) * self.frac_noise.high**t
        return min(sigma, 12**-0.5), math.sin(0.5 * math.pi * t)


class WrappedNoise:
    """Coordinates: a normal distribution that widens and wraps around the torus.

    Equation:
        f_t = wrap(f_0 + sigma(t) e), e ~ N(0, 1);  sigma(t) = low^(1-t) high^t.
        score = d log p / d f_t;  the network predicts score / sqrt(lambda(sigma)),
        where lambda = E[score^2], so its target has unit variance at every t.

    At high = 0.5 the wrapped normal is flat to 3 %, so the prior is uniform.

    Args:
        low: spread at t = 0, in fractions of a cell edge.
        high: spread at t = 1.

    Source:
        DiffCSP, Jiao et al., arXiv 2309.04475, section 4.2. Changed: the network predicts
        plus the score, and the target is centred over the atoms of a crystal (its mean is
        pure noise, because moving all atoms together changes nothing).
    """

    def __init__(self, low: float = 0.005, high: float = 0.5) -> None:
        self.low, self.high = low, high
        self.table: Tensor | None = None

    def sigma(self, t: Tensor) -> Tensor:
        """Return the spread at time t, in fractions of a cell edge."""
        return self.low ** (1 - t) * self.high**t

    def scale(self, t: Tensor) -> Tensor:
        """Return sqrt(lambda), the root mean square of the score at time t.

        Interpolated in a table of 2,048 times; target and sampler use the same table, so
        that what the network learns is the exact score whatever the interpolation does.
        """
        if self.table is None:
            grid = torch.linspace(0, 1, 2049, dtype=torch.float64)
            self.table = wrapped_normal.score_norm(self.sigma(grid), 256).sqrt().log()
        table = self.table.to(t)
        place = t.clamp(0, 1) * (len(table) - 1)
        left = place.long().clamp(max=len(table) - 2)
        return torch.lerp(table[left], table[left + 1], place - left).exp()

    def add(
        self, frac: Tensor, layout: Layout, t: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return noisy coordinates and the network's target, both (crystals, orbits, 3).

        Args:
            frac: free coordinates, shape (crystals, orbits, 3).
            layout: says which of them are free.
            t: time, shape (crystals,).
            rng: source of randomness.
        """
        sigma = column(self.sigma(t), frac)
        moved = sigma * normal(frac, rng)
        target = wrapped_normal.score(moved, sigma) / column(self.scale(t), frac)
        return wrap(frac + moved * layout.free), centred(target, layout)

    def preview(self, frac: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """Return the denoised coordinates by Tweedie's formula, f + sigma^2 score."""
        step = self.sigma(t).square() * self.scale(t)
        return wrap(frac + column(step, frac) * output)

    def back(
        self,
        frac: Tensor,
        clean: Tensor,
        t: Tensor,
        s: Tensor,
        rng: torch.Generator,
        sharpness: float = 1.0,
    ) -> Tensor:
        """Return coordinates at an earlier time s < t (ancestral predictor).

        Equation:
            score = log(f_t, f_0) / st^2, from Tweedie's formula;
            f_s = f_t + c (st^2 - ss^2) score + sqrt(ss^2 (st^2 - ss^2)) / st  z

        Args:
            frac: coordinates at time t, shape (crystals, sites, 3).
            clean: f_0, the denoised coordinates.
            t: time now, shape (crystals,).
            s: earlier time, shape (crystals,).
            rng: source of randomness.
            sharpness: c; 1 is exact, more draws nearer to the modes.
        """
        now, then = self.sigma(t), self.sigma(s)
        gain = 1 - (then / now).square()
        drift = column(sharpness * gain, frac) * torus_difference(frac, clean)
        noise = column(then * gain.sqrt(), frac) * normal(frac, rng)
        return wrap(frac + drift + noise)

    def correct(
        self, frac: Tensor, clean: Tensor, t: Tensor, size: float, rng: torch.Generator
    ) -> Tensor:
        """Return coordinates after one Langevin step at the same time t.

        Equation:
            f <- f + eta score + sqrt(2 eta) z,  eta = size sigma(t)^2
        """
        noise = column(math.sqrt(2 * size) * self.sigma(t), frac) * normal(frac, rng)
        return wrap(frac + size * torus_difference(frac, clean) + noise)


class GaussianNoise:
    """Lattice code: a standardised vector that fades into N(0, 1), variance preserved.

    Equation:
        x_t = a x_0 + s e, a = cos(pi t / 2), s = sin(pi t / 2);
        the network predicts v = a e - s x_0, so x_0 = a x_t - s v, e = s x_t + a v.

    Source:
        Salimans and Ho, arXiv 2202.00512. The code is z-scored with its last entry the
        log volume per atom, so the prior's centre is a cell of mean density.
    """

    @staticmethod
    def rates(t: Tensor) -> tuple[Tensor, Tensor]:
        """Return a(t) and s(t)."""
        return torch.cos(0.5 * math.pi * t), torch.sin(0.5 * math.pi * t)

    def add(self, x: Tensor, t: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the noisy code and the network's target v, both (crystals, 6)."""
        a, s = (column(rate, x) for rate in self.rates(t))
        noise = normal(x, rng)
        return a * x + s * noise, a * noise - s * x

    def preview(self, x: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """Return the denoised code x_0."""
        a, s = (column(rate, x) for rate in self.rates(t))
        return a * x - s * output

    def back(
        self, x: Tensor, clean: Tensor, t: Tensor, s: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Return the code at an earlier time s < t, given the denoised code.

        Equation:
            x_s = a_s x_0 + sqrt(s_s^2 - c^2) e + c z,
            c^2 = (s_s / s_t)^2 (1 - a_t^2 / a_s^2), the ancestral variance.
        """
        a_t, s_t = (column(rate, x) for rate in self.rates(t))
        a_s, s_s = (column(rate, x) for rate in self.rates(s))
        noise = (x - a_t * clean) / s_t
        fresh = (s_s / s_t).square() * (1 - (a_t / a_s).square())
        fresh = torch.minimum(fresh.clamp(min=0.0), s_s.square())
        kept = (s_s.square() - fresh).sqrt()
        return a_s * clean + kept * noise + fresh.sqrt() * normal(x, rng)
