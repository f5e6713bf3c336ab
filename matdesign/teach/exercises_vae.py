"""Checks for the exercises of the chapter on variational autoencoders."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals.batch import generator
from matdesign.generators import elbo, von_mises
from matdesign.teach.exercises import Case, exercise, near, numbers


@exercise
def check_divergence() -> Iterator[Case]:
    """Check a function (mean, log_std) -> KL from N(0, I) in nats, one per row."""
    rng = generator(0)
    given = [(torch.zeros(1, 3), torch.zeros(1, 3))]
    given += [
        (torch.randn(2, d, generator=rng), torch.randn(2, d, generator=rng) / 2)
        for d in (1, 4, 32)
    ]
    for mean, log_std in given:
        rows, entries = mean.shape
        want = elbo.Normal(mean, log_std).kl()
        yield f"{rows} rows of {entries} numbers", (mean, log_std), near(want)


@exercise
def check_torus_loss() -> Iterator[Case]:
    """Check a loss of coordinates (made, wanted) that knows the boundary of the cell.

    It must be 0 for one point of the circle (1.3 and 0.3 are one), larger for a larger
    distance on the circle, and have a gradient that points the short way round.
    """
    pairs = [(0.0, 0.0), (1.3, 0.3), (0.99, 0.01), (0.25, 0.3), (0.9, 0.1), (0.0, 0.5)]
    losses: list[float] = []

    def costs_more(apart: float, got: Any) -> str:
        losses.append(float(numbers(got).sum()))
        if apart < 1e-6:
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

    for a, b in sorted(
        pairs, key=lambda pair: abs((pair[0] - pair[1] + 0.5) % 1 - 0.5)
    ):
        apart = abs((a - b + 0.5) % 1 - 0.5)
        given = torch.tensor([a]), torch.tensor([b])
        yield f"{a} and {b}", given, partial(costs_more, round(apart, 6))
    made = torch.tensor([0.97], requires_grad=True)
    yield "0.97 and 0.02", (made, torch.tensor([0.02])), partial(leads_up, made)


@exercise
def check_any_origin() -> Iterator[Case]:
    """Check a function (coordinates, kappa) -> log density without a common shift.

    Coordinates are of the atoms of one crystal along one axis, minus their means.
    """
    rng = generator(1)
    for n in (1, 2, 5):
        x = torch.rand(n, generator=rng, dtype=torch.float64)
        kappa = 5 * torch.rand(n, generator=rng, dtype=torch.float64) + 0.5
        every = torch.ones(1, n, 1, dtype=torch.bool)
        want = von_mises.log_density_any_origin(
            x[None, :, None], kappa[None, :, None], every
        )
        for shift in (0.0, 0.37):
            name = f"{n} atoms shifted by {shift}"
            hint = "It should not depend on the shift."
            yield name, (x + shift, kappa), near(want, 1e-3, hint)
