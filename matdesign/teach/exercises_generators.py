"""Checks for the exercises of part II: the four architectures, and all side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals import wrapped_normal
from matdesign.crystals.batch import generator
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators import elbo
from matdesign.generators.filling import fill_table, letter_mask
from matdesign.teach.exercises import (
    Case,
    checked,
    exercise,
    near,
    numbers,
    on_circle,
    sets,
    whole,
)

# ---- variational autoencoders ----------------------------------------------------------


def _normals() -> Iterator[tuple[Tensor, Tensor]]:
    rng = generator(0)
    for rows, d, size in ((1, 3, 0.0), (2, 1, 1.0), (2, 4, 1.0), (2, 32, 1.0)):
        mean, log_std = size * torch.randn(2, rows, d, generator=rng)
        yield mean, log_std / 2


@exercise(_normals)
def check_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Check a function (mean, log_std) -> KL from N(0, I) in nats, one per row."""
    return elbo.Normal(mean, log_std).kl()


@checked
def check_torus_loss() -> Iterator[Case]:
    """Check a loss of coordinates (made, wanted) that knows the boundary of the cell."""
    pairs = [(0.0, 0.0), (1.3, 0.3), (0.99, 0.01), (0.25, 0.3), (0.9, 0.1), (0.0, 0.5)]
    losses: list[float] = []

    def costs_more(same: bool, got: Any) -> str:
        losses.append(float(numbers(got).sum()))
        if same:
            what = f"they are one point, but the loss is {losses[-1]:.4g}."
            return "" if abs(losses[-1]) <= 1e-6 else what
        if losses[-1] > losses[-2]:
            return ""
        return f"the loss is {losses[-1]:.4g}; points less far apart cost as much."

    def leads_up(made: Tensor, got: Any) -> str:
        if not torch.as_tensor(got).requires_grad:
            return "no gradient reaches `made`; compute with tensors only."
        slope = float(torch.autograd.grad(torch.as_tensor(got).sum(), made)[0])
        what = f"the short way is up, through 1; the gradient {slope:.3g} leads down."
        return "" if slope < 0 else what

    for k, (a, b) in enumerate(pairs):  # in order of their distance
        given = torch.tensor([a]), torch.tensor([b])
        yield f"{a} and {b}", given, partial(costs_more, k < 2)
    made = torch.tensor([0.97], requires_grad=True)
    yield "0.97 and 0.02", (made, torch.tensor([0.02])), partial(leads_up, made)


def _axes() -> dict[str, tuple[Tensor, Tensor]]:
    rng, found = generator(1), {}
    for n in (1, 2, 5):
        x = torch.rand(n, generator=rng, dtype=torch.float64)
        kappa = 5 * torch.rand(n, generator=rng, dtype=torch.float64) + 0.5
        for shift in (0.0, 0.37):
            found[f"{n} atoms shifted by {shift}"] = x + shift, kappa
    return found


@exercise(_axes, off=1e-3, hint="It should not depend on the shift.")
def check_any_origin(x: Tensor, kappa: Tensor) -> Tensor:
    """Check a function (coordinates, kappa) -> log density without a common shift."""
    every = torch.ones(1, len(x), 1, dtype=torch.bool)
    return elbo.log_von_mises_any_origin(x[None, :, None], kappa[None, :, None], every)


# ---- normalizing flows -----------------------------------------------------------------


@exercise(
    lambda: [(0.001,), (0.004,), (0.02,), (0.05,)],
    off=1e-3,
    hint="The loss cannot fall below the entropy of the blur, in nats.",
)
def check_floor(width: float) -> float:
    """Check a function (standard deviation of the blur) -> lowest loss per coordinate."""
    return math.log(width * math.sqrt(2 * math.pi * math.e))


def _maps() -> list[tuple[Any, Tensor]]:
    rng, found = generator(1), []
    for dims in (1, 2, 3, 6):
        matrix = torch.randn(dims, dims, generator=rng, dtype=torch.float64)
        x = torch.randn(dims, generator=rng, dtype=torch.float64) / 2
        found.append((lambda x, m=matrix: x + torch.sinh(m @ x) / 2, x))
    return found


@exercise(_maps, off=1e-6)
def check_log_det(forward: Any, x: Tensor) -> Tensor:
    """Check a function (map, x) -> ln |det| of the Jacobian of the map at x."""
    jacobian: Any = torch.autograd.functional.jacobian(forward, x)
    return torch.linalg.slogdet(jacobian)[1]


def _velocities() -> list[tuple[Any, Tensor]]:
    rng, found = generator(2), []
    for dims in (1, 2, 5):
        matrix = torch.randn(dims, dims, generator=rng, dtype=torch.float64)
        x = torch.rand(4, dims, generator=rng, dtype=torch.float64)
        found.append((lambda x, m=matrix: torch.sin(2 * math.pi * x @ m), x))
    return found


@exercise(_velocities, off=1e-6)
def check_divergence_of(velocity: Any, x: Tensor) -> Tensor:
    """Check a function (velocity, x) -> its divergence at each of several points."""
    each = torch.func.vmap(torch.func.jacrev(lambda one: velocity(one[None])[0]))(x)
    return each.diagonal(dim1=1, dim2=2).sum(1)


# ---- autoregressive models -------------------------------------------------------------


def _chances() -> dict[str, tuple[list[Tensor]]]:
    """One tensor per field; the product of 40 small ones is zero in float32."""
    rng = generator(0)
    found = {}
    for fields, small in ((1, 1.0), (4, 1.0), (40, 1e-3)):
        p = small * (0.01 + 0.9 * torch.rand(fields, 5, generator=rng))
        found[f"sequences of {fields} fields"] = (list(p),)
    return found


@exercise(_chances)
def check_chain(p: list[Tensor]) -> Tensor:
    """Check a function: probabilities of the chosen values, field by field, -> log p."""
    return torch.stack(p).log().sum(0)


def _letters() -> Iterator[tuple[int, int, int]]:
    table = wyckoff_table()
    for group in (1, 62, 99, 166, 221, 225):
        for last in range(-1, int((table.count[group] > 0).sum())):
            for left in range(1, 9):
                yield group, last, left


@cache
def _filled() -> Tensor:
    table = wyckoff_table()
    return fill_table(table.count[:, :NONE], table.freedom[:, :NONE], 8)


@exercise(_letters, sets, what="the list")
def check_letter_mask(spacegroup: int, last: int, left: int) -> set[int]:
    """Check a function (spacegroup, last, left) -> indices of the letters that may follow."""
    fill = _filled()
    given = (spacegroup, max(last, 0), int(last >= 0), left)
    mask = letter_mask(fill, *map(torch.tensor, given))
    return set(mask.nonzero().squeeze(1).tolist())


def _mixtures() -> Iterator[tuple[Tensor, ...]]:
    rng = generator(0)
    for k, d in ((1, 3), (4, 1), (3, 6)):
        weights = torch.rand(k, generator=rng).softmax(0)
        means = torch.randn(k, d, generator=rng)
        widths = 0.2 + torch.rand(k, d, generator=rng)
        yield weights, means, widths, torch.randn(d, generator=rng)


@exercise(_mixtures, off=1e-3)
def check_joint_mixture(
    weights: Tensor, means: Tensor, widths: Tensor, x: Tensor
) -> Tensor:
    """Check a function (weights, means, widths, x) -> log density of one joint mixture."""
    each = torch.distributions.Normal(means, widths).log_prob(x).sum(1)
    return torch.logsumexp(weights.log() + each, 0)


# ---- diffusion -------------------------------------------------------------------------

_WELLS = [
    ([0.1, 0.6], [0.7, 0.3], 0.05),
    ([0.98, 0.3, 0.5], [0.2, 0.5, 0.3], 0.12),
    ([0.5, 0.0], [0.9, 0.1], 0.4),
    ([0.25], [1.0], 0.02),
]


def _wells() -> list[tuple[Any, ...]]:
    x = torch.linspace(0, 1, 41)[:-1]
    return [(x, *map(torch.tensor, one[:2]), one[2]) for one in _WELLS]


def _score(want: tuple[Tensor, float], got: Any) -> str:
    score, sigma = want
    wrong = near(score * sigma, numbers(got) * sigma, 1e-3)
    return f"score x sigma: {wrong}" if wrong else ""


@exercise(_wells, _score)
def check_mixture_score(
    x: Tensor, centres: Tensor, weights: Tensor, sigma: float
) -> tuple[Tensor, float]:
    """Check a function (x, centres, weights, sigma) -> score of wells on a circle."""
    at = x.double().requires_grad_()
    each = wrapped_normal.log_density(at[:, None] - centres.double(), sigma)
    total = (each + weights.double().log()).logsumexp(-1).sum()
    return torch.autograd.grad(total, at)[0], sigma


def _steps() -> list[tuple[Any, ...]]:
    x = torch.tensor([0.01, 0.4, 0.99, 0.5])
    score = torch.tensor([-3.0, 0.0, 2.0, -1.5])
    z = torch.tensor([0.0, 1.0, -2.0, 0.5])
    widths = [(0.3, 0.2), (0.1, 0.02), (0.5, 0.499), (0.05, 0.0)]
    return [(x, score, now, then, z) for now, then in widths]


@exercise(_steps, on_circle, off=1e-5)
def check_step_back(
    x: Tensor, score: Tensor, now: float, then: float, z: Tensor
) -> Tensor:
    """Check a step of the predictor, (x, score, now, then, z) -> x at the lower noise."""
    gain = now**2 - then**2
    return x + gain * score + then / now * math.sqrt(gain) * z


# ---- side by side ----------------------------------------------------------------------

_COUNTS: Sequence[tuple[int, ...]] = (
    (43, 48, 46, 48),
    (46, 48, 43, 48),
    (90, 100, 90, 100),
    (50, 100, 300, 400),
)


@exercise(lambda: _COUNTS, off=0.02)
def check_difference(a: int, n: int, b: int, m: int) -> float:
    """Check a function of four counts that gives a difference in standard errors."""
    p = (a + b) / (n + m)
    return (b / m - a / n) / math.sqrt(p * (1 - p) * (1 / n + 1 / m))


@exercise(lambda: [(0.95, 0.01), (0.5, 0.1), (0.99, 0.005)], whole, slack=0.02)
def check_count(rate: float, gap: float) -> float:
    """Check a function that says how many crystals tell two rates apart."""
    return 8 * rate * (1 - rate) / gap**2
