"""`FlowMatching`: a velocity field that carries noise to crystals in few steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.errors import DataError
from matdesign.generators.contract import Loss
from matdesign.generators.control import Preview, Sample
from matdesign.generators.sampling import normal, uniform
from matdesign.generators.stepwise import (
    Stepwise,
    centred,
    column,
    flattened,
    random_times,
)

Field = Callable[[Tensor, Tensor], Tensor]
"""A velocity: points (crystals, dims) and times (crystals,) -> (crystals, dims)."""

TORUS = math.sqrt(12)
"""One over the spread of a uniform displacement in [-1/2, 1/2): the scale of velocities."""


class FlowMatching(Stepwise):
    """Straight paths from data to noise, and one network that learns their velocity.

    Every training crystal is joined to a random point of noise by the shortest path:
    straight for the lattice code, along the torus for the free coordinates. The network
    learns the mean velocity of all paths through a point; following it backwards makes
    crystals. Species are hidden and found one by one, as in `Diffusion`.

    Equation:
        f_t = wrap(f_0 + t log(f_0, f_1)), u = log(f_0, f_1);  x_t = (1 - t) x_0 + t x_1;
        loss = 12 |v_f - u|^2 + |v_x - (x_1 - x_0)|^2 / 2 + cross entropy of hidden sites

    Args:
        steps: default number of sampling steps.
        slope: the velocity of the coordinates is multiplied by 1 + slope (1 - t) while
            sampling, so that they fall into the modes; 0 follows the learned flow.
        **shared: keywords of `Stepwise`.

    Source:
        Flow matching, Lipman et al., arXiv 2210.02747; on crystals: FlowMM, Miller et
        al., arXiv 2406.04713; the slope: CrystalFlow, arXiv 2412.11693. Changed: time
        runs from data to noise, lattice code, masked species, either representation.
    """

    deterministic: ClassVar[bool] = True
    likelihood = "of coordinates and cell, by integration"

    def __init__(self, *, steps: int = 50, slope: float = 5.0, **shared: Any) -> None:
        super().__init__(steps=steps, **shared)
        self.config |= {"slope": slope}
        self.slope = slope

    def loss(
        self, crystals: Crystals | Encoded, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return the loss of a batch: three terms of equal weight.

        Terms: `frac` and `lattice`, mean square errors of the velocities over their
        variance (1 for an untrained network); `species`, cross entropy in nats per hidden
        site.
        """
        rng = generator(seed, self.device)
        data = self.prepare(crystals)
        lay = data.layout
        t = random_times(len(data), data.u, rng)
        noise = uniform(tuple(data.u.shape), data.u, rng)
        path = torus_difference(data.u, noise) * lay.free  # u, (b, orbits, 3)
        frac = wrap(data.u + column(t, path) * path)
        clean = self.scales.standardize(data.code, lay)
        end = torch.randn(clean.shape, generator=rng, device=clean.device)
        x = torch.lerp(clean, end * lay.code_free, column(t, clean))
        species = self.species_noise.add(data.species, t, rng, self.reveal)
        condition = self.training_condition(data, rng)
        out = self.prediction(lay, species, frac, x, t, condition, 1.0)

        free = lay.free.sum((1, 2)) - 3 * (lay.spacegroup == 1)  # P1: any origin
        wrong = (out.frac - TORUS * centred(path, lay)).square().sum((1, 2))
        off = ((out.lattice - (end - clean)) * lay.code_free).square().sum(1)
        hidden = species == MASK
        each = (
            wrong / free.clamp(min=1) * (free > 0),
            off / lay.code_free.sum(1) / 2,
            self.species_noise.cross_entropy(data.species, hidden, out.species),
        )
        terms = {
            "frac": each[0].sum() / (free > 0).sum().clamp(min=1),
            "lattice": each[1].mean(),
            "species": each[2].sum() / hidden.any(1).sum().clamp(min=1),
        }
        return Loss.of(terms, torch.stack(each).sum(0), flattened(out, lay, hidden))

    def predict(self, x: Sample, t: float) -> Preview:
        """Return where the straight paths through x end, by the learned velocity."""
        lay = x.layout
        if t == 0:
            p = nn.functional.one_hot(x.species, MASK).to(x.u) * lay.orbits[..., None]
            return self.preview(x, t, p, x.u, x.code)
        out = self.output(x, t)
        u = wrap(x.u - t * out.frac / TORUS) * lay.free
        code = self.scales.clamp(x.code - t * out.lattice) * lay.code_free
        return self.preview(x, t, self.species_probabilities(x, out.species), u, code)

    def step(
        self, x: Sample, preview: Preview, t: float, s: float, rng: torch.Generator
    ) -> Sample:
        """Return x at the earlier time s, on the straight path to the preview.

        Equation:
            v = log(f_0, f_t) / t,  f_s = wrap(f_t - min((t - s) (1 + slope (1 - t)), t) v)
            x_s = x_t - (t - s) (x_t - x_0) / t

        A plan with noise a takes the stochastic path with the same marginals (SDE); its
        noise in a step has the variance a^2 t / (1 - t) (t - s), with 1 - t at least t - s.

        Source:
            That schedule: OMatG-IRL, Hoellmer et al., with time turned around.
        """
        free = x.layout.free
        velocity = torus_difference(preview.u, x.u) / t * free
        # never past the preview: that is where the path ends
        reach = min((t - s) * (1 + self.slope * (1 - t)), t)
        if x.plan.noise:  # much near t = 1, none near the data
            kick = x.plan.noise * math.sqrt(t / max(1 - t, t - s) * (t - s))
            left = t - reach
            u = torus_sde(preview.u, velocity, left, kick / TORUS, rng) * free
            code = line_sde(x.code, preview.code, t, s, kick, rng)
        else:
            u = wrap(x.u - reach * velocity) * free
            code = x.code - (t - s) * (x.code - preview.code) / t
        species = self.decide_species(x, preview, t, s, rng)
        return Sample(x.plan, species, u, code)

    def velocity(self, data: Encoded) -> tuple[Field, Tensor, Tensor]:
        """Return the velocity of all free numbers of some crystals as one field.

        Args:
            data: layouts and species, which stay; coordinates and cells, which move.

        Returns:
            The field for `follow`, the points of the crystals, shape
            (crystals, 3 orbits + 6), and which dimensions are free, bool.
        """
        lay = data.layout
        b, width = lay.count.shape
        point = torch.cat(
            [data.u.flatten(1), self.scales.standardize(data.code, lay)], dim=1
        )
        free = torch.cat([lay.free.flatten(1), lay.code_free], dim=1)

        def field(where: Tensor, t: Tensor) -> Tensor:
            u, x = where[:, : 3 * width].view(b, width, 3), where[:, 3 * width :]
            out = self.prediction(lay, data.species, u, x, t, None, 0.0)
            return torch.cat([out.frac.flatten(1) / TORUS, out.lattice], dim=1) * free

        return field, point, free

    def log_prob(
        self,
        crystals: Crystals | Encoded,
        *,
        steps: int = 50,
        trace: Literal["exact", "sampled"] = "sampled",
        seed: int | torch.Generator | None = 0,
    ) -> Tensor:
        """Return the log-density of coordinates and cells, given layout and species.

        The learned flow (slope 0) is followed from each crystal to noise. How species
        are found is left out: hidden species give only a bound.

        Args:
            crystals: where to evaluate.
            steps: midpoint steps of the integration.
            trace: "sampled" or "exact"; see `follow`.
            seed: of the trace estimate.

        Returns:
            Nats, shape (crystals,); density with respect to free coordinates in [0, 1)
            and the free entries of the standardised lattice code.

        Accuracy:
            Of `follow`, with the network in place of an exact velocity.
        """
        if trace not in ("exact", "sampled"):
            raise DataError(f"unknown trace {trace!r}; choose 'exact' or 'sampled'.")
        data = self.prepare(crystals).to(self.device)
        field, point, free = self.velocity(data)
        end, divergence = follow(
            field, point, steps=steps, trace=trace, seed=seed, free=free
        )
        x, there = end[:, -6:], data.layout.code_free
        base = -0.5 * (x.square() + math.log(2 * math.pi)) * there
        return base.sum(1) + divergence

    def preview_std(self, t: float) -> tuple[float, float]:
        """Return how uncertain noise alone makes a preview: coordinates, lattice code.

        Equation:
            of u: t / sqrt(12), uniform; of x: t / sqrt(t^2 + (1 - t)^2), N(0, 1) data.
        """
        return t / TORUS, t / math.hypot(t, 1 - t)


def torus_sde(
    there: Tensor, v: Tensor, reach: float, kick: float, rng: torch.Generator
) -> Tensor:
    """Return a point of the straight path on the torus with fresh noise.

    A uniform displacement that is moved by any noise and reflected at +-1/2 stays uniform,
    so that all marginals of the path stay what they are.

    Equation:
        f_s = wrap(f_0 + s d'), d' = reflect(v + e), e ~ N(0, (kick / s)^2)

    Args:
        there: preview f_0, shape (crystals, orbits, 3).
        v: velocity, from data to noise, same shape.
        reach: s, how much of the displacement is left.
        kick: standard deviation of the noise on the coordinates.
        rng: source of randomness.
    """
    if reach <= 0:
        return wrap(there)
    moved = v + min(kick / reach, 0.5) * normal(v, rng)
    folded = moved - 2 * torch.floor((moved + 0.5) / 2)  # period 2, from -1/2 to 3/2
    folded = torch.where(folded > 0.5, 1 - folded, folded)
    return wrap(there + reach * folded)


def line_sde(
    x: Tensor, clean: Tensor, t: float, s: float, kick: float, rng: torch.Generator
) -> Tensor:
    """Return a point of the straight path x_t = (1 - t) x_0 + t e with fresh noise.

    Equation:
        x_s = (1 - s) x_0 + sqrt(s^2 - c^2) e + c z,  e = (x_t - (1 - t) x_0) / t

    Every marginal is that of the path for any c up to s; c = 0 is the path itself.

    Args:
        x: x_t, shape (crystals, numbers).
        clean: what the network takes x_0 for.
        t: time now.
        s: earlier time.
        kick: c, at most s.
        rng: source of randomness.
    """
    c = min(kick, s)
    old = (x - (1 - t) * clean) / t
    return (1 - s) * clean + math.sqrt(s * s - c * c) * old + c * normal(x, rng)


def follow(
    velocity: Field,
    x: Tensor,
    *,
    steps: int = 50,
    trace: Literal["exact", "sampled"] = "sampled",
    seed: int | torch.Generator | None = 0,
    free: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Follow points from t = 0 (data) to t = 1 (noise) and add up the divergence.

    Equation:
        dx/dt = v(x, t);  log p_0(x_0) = log p_1(x_1) + int_0^1 div v dt

    Args:
        velocity: v; must be differentiable in the points.
        x: points at t = 0, shape (crystals, dims). On a torus nothing is wrapped: the
            velocity is periodic.
        steps: midpoint steps.
        trace: "exact" takes one backward pass per dimension; "sampled" estimates the
            trace by one Rademacher probe per step.
        seed: of the probes.
        free: which dimensions move, bool, shape (crystals, dims); None for all.

    Returns:
        Points at t = 1, shape (crystals, dims), and the integral of the divergence in
        nats, shape (crystals,).

    Accuracy:
        Midpoint rule: the error falls with the square of the number of steps. The
        sampled trace is unbiased; its spread falls with the root of the steps.

    Source:
        Chen et al., arXiv 1806.07366; the trace estimator of Hutchinson (1990) as in
        FFJORD, arXiv 1810.01367. Changed: a fixed midpoint rule, and time from data to
        noise.
    """
    rng = generator(seed, x.device)
    b, dims = x.shape
    x, total = x.detach(), x.new_zeros(b)
    h = 1.0 / steps
    for step in range(steps):
        now = x.new_full((b,), step * h)
        with torch.no_grad():
            half = x + 0.5 * h * velocity(x, now)
        half = half.requires_grad_()
        v = velocity(half, now + 0.5 * h)
        if trace == "exact":
            probes = torch.eye(dims, dtype=x.dtype, device=x.device)
            probes = probes[:, None].expand(-1, b, -1)
        else:
            signs = torch.randint(0, 2, (1, b, dims), generator=rng, device=x.device)
            probes = 2 * signs.to(x) - 1
        if free is not None:
            probes = probes * free
        for probe in probes:
            (slope,) = torch.autograd.grad((v * probe).sum(), half, retain_graph=True)
            total = total + h * (slope * probe).sum(1)
        x = (x + h * v).detach()
    return x, total.detach()
