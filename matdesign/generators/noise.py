"""The three noise processes of `Diffusion`: coordinates, lattice, species.

Each knows how to add noise (training) and how to take one step back towards a preview
(sampling). Time t runs from 0 = data to 1 = noise.
"""

import math

import torch
from torch import Tensor

from matdesign.crystals import wrapped_normal
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.crystals.symmetry.layout import Layout


def column(value: Tensor, like: Tensor) -> Tensor:
    """Return per-crystal numbers (crystals,) shaped to multiply a tensor of a batch."""
    return value.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def normal(like: Tensor, rng: torch.Generator) -> Tensor:
    """Return standard normal noise of the same shape, type and device."""
    return torch.randn(like.shape, generator=rng, device=like.device, dtype=like.dtype)


def uniform(shape: tuple[int, ...], like: Tensor, rng: torch.Generator) -> Tensor:
    """Return uniform noise in [0, 1) with the type and device of a tensor."""
    return torch.rand(shape, generator=rng, device=like.device, dtype=like.dtype)


def random_times(n: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """Return a time in [0, 1) for each crystal of a batch, shape (n,).

    One time falls into each of n equal parts of [0, 1), which makes losses less noisy;
    which crystal gets which part is drawn. (Parts that follow the order of the batch tie
    time to whatever the batch is sorted by, such as the size of the crystals.)

    Equation:
        t_i = (pi(i) + e_i) / n, pi a random permutation of 0 .. n - 1, e_i ~ U(0, 1)
    """
    part = torch.randperm(n, generator=rng, device=like.device)
    return (part + uniform((n,), like, rng)) / n


def centred(vector: Tensor, layout: Layout) -> Tensor:
    """Return displacements of orbits without their mean, in crystals without symmetry.

    Moving all atoms together changes nothing, so that the mean of a random displacement
    cannot be learned. Where symmetry elements hold the origin, nothing is taken off.

    Args:
        vector: shape (crystals, orbits, 3).
        layout: which coordinates are free.
    """
    vector = vector * layout.free
    n_atoms = column(layout.n_atoms.clamp(min=1), vector)
    mean = (
        vector.sum(1, keepdim=True) / n_atoms * column(layout.spacegroup == 1, vector)
    )
    return (vector - mean) * layout.free


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


class AbsorbingNoise:
    """Species: every site is undecided with probability m(t), else its true element.

    Equation:
        m(t) = clip((t - settled) / (1 - settled), 0, 1);
        back from t to s an undecided site is decided with probability 1 - m(s) / m(t),
        its element drawn from the preview's probabilities; decided sites stay.

    With `settled` > 0 all elements are decided before the coordinates are sharp, so the
    last part of a trajectory fits positions to a composition that no longer changes.

    Args:
        settled: time below which every element is decided.

    Source:
        Absorbing D3PM, Austin et al., arXiv 2107.03006, in continuous time. Changed: the
        probabilities are normalised over the elements seen in training (never "undecided"), and
        nothing is left undecided at t = 0.
    """

    def __init__(self, settled: float = 0.0) -> None:
        self.settled = settled

    def undecided(self, t: Tensor) -> Tensor:
        """Return m(t), the probability that a site is undecided."""
        return ((t - self.settled) / (1 - self.settled)).clamp(0.0, 1.0)

    def add(
        self, species: Tensor, t: Tensor, rng: torch.Generator, reveal: float = 0.0
    ) -> Tensor:
        """Return species with sites hidden, shape (crystals, sites).

        Args:
            species: elements, 0 on padding, shape (crystals, sites).
            t: time, shape (crystals,).
            rng: source of randomness.
            reveal: share of the crystals in which nothing is hidden, so that the network
                also learns to find the structure of a given composition.
        """
        chance = uniform(tuple(species.shape), t, rng)
        hide = (chance < self.undecided(t)[:, None]) & (species > 0)
        if reveal:
            hide &= uniform((len(species), 1), t, rng) >= reveal
        return species.masked_fill(hide, MASK)

    @staticmethod
    def cross_entropy(species: Tensor, hidden: Tensor, logits: Tensor) -> Tensor:
        """Return the cross entropy in nats per hidden site, a mean over crystals.

        Args:
            species: true elements, shape (crystals, sites).
            hidden: which of them the network did not see, bool, of the same shape.
            logits: what it predicts, shape (crystals, sites, 104).
        """
        log_p = logits.log_softmax(-1)
        each = -log_p.gather(-1, species.unsqueeze(-1)).squeeze(-1)
        each = each.masked_fill(~hidden, 0.0).sum(1) / hidden.sum(1).clamp(min=1)
        return each.sum() / hidden.any(1).sum().clamp(min=1)

    @staticmethod
    def probabilities(species: Tensor, logits: Tensor, may_be: Tensor) -> Tensor:
        """Return probabilities of elements; certain where decided, zero on padding.

        Args:
            species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, sites).
            logits: of the network, shape (crystals, sites, 104).
            may_be: elements that each site may be, bool, of the same shape as logits.
        """
        undecided = (species == MASK)[..., None]
        open_sites = logits.masked_fill(~(may_be | ~undecided), -torch.inf).softmax(-1)
        decided = torch.nn.functional.one_hot(species, MASK + 1)[..., :MASK].to(logits)
        return torch.where(undecided, open_sites, decided) * (species > 0)[..., None]

    def back(
        self,
        species: Tensor,
        probabilities: Tensor,
        t: Tensor,
        s: Tensor,
        rng: torch.Generator,
    ) -> Tensor:
        """Return species at an earlier time s < t.

        Args:
            species: with undecided sites, shape (crystals, sites).
            probabilities: of every element, shape (crystals, sites, 104).
            t: time now, shape (crystals,).
            s: earlier time, shape (crystals,).
            rng: source of randomness.
        """
        decide = self.newly_decided(species, t, s, rng)
        species = species.clone()
        if decide.any():
            drawn = torch.multinomial(probabilities[decide], 1, generator=rng)
            species[decide] = drawn.squeeze(1)
        return species

    def newly_decided(
        self, species: Tensor, t: Tensor, s: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Return which sites are decided between t and s, bool, (crystals, sites).

        Args:
            species: with undecided sites, shape (crystals, sites).
            t: time now, shape (crystals,).
            s: earlier time, shape (crystals,).
            rng: source of randomness.
        """
        now, then = self.undecided(t), self.undecided(s)
        keep = torch.where(now > 0, then / now.clamp(min=1e-12), torch.zeros_like(now))
        chance = uniform(tuple(species.shape), t, rng)
        return (chance >= keep[:, None]) & (species == MASK)
