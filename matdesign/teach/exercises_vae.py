"""Checks for the exercises of the chapter on variational autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals.batch import generator
from matdesign.generators import elbo, von_mises
from matdesign.teach.exercises import Verdict, _call, checked


@checked
def check_divergence(answer: Callable[[Tensor, Tensor], Any]) -> Verdict:
    """Check a function (mean, log_std) -> KL from N(0, I) in nats, one per row."""
    rng = generator(0)
    cases = [(torch.zeros(1, 3), torch.zeros(1, 3))]
    cases += [
        (torch.randn(2, d, generator=rng), torch.randn(2, d, generator=rng) / 2)
        for d in (1, 4, 32)
    ]
    for mean, log_std in cases:
        true = elbo.Normal(mean, log_std).kl()
        got = _call(answer, mean.clone(), log_std.clone())
        where = f"for {tuple(mean.shape)} numbers"
        if isinstance(got, str):
            return Verdict(False, f"{where} it {got}")
        given = torch.as_tensor(got)
        if given.shape != true.shape:
            return Verdict(
                False, f"{where} give {tuple(true.shape)} values; got {given.shape}."
            )
        if not torch.allclose(given.to(true), true, atol=1e-4):
            return Verdict(
                False,
                f"{where} the divergence is {float(true[0]):.4f}; got "
                f"{float(given.reshape(-1)[0]):.4f}.",
            )
    return Verdict(True, f"{len(cases)} posteriors, one of them the prior itself.")


@checked
def check_torus_loss(answer: Callable[[Tensor, Tensor], Any]) -> Verdict:
    """Check a loss of coordinates (made, wanted) that knows the boundary of the cell.

    It must be 0 for equal numbers, the same for 0.99 as for -0.01, larger for a larger
    distance on the circle, and have a gradient that points the short way round.
    """
    pairs = [(0.0, 0.0), (0.99, 0.01), (0.25, 0.3), (0.9, 0.1), (0.0, 0.5), (1.3, 0.3)]

    def value(a: float, b: float) -> float | str:
        got = _call(answer, torch.tensor([a]), torch.tensor([b]))
        return got if isinstance(got, str) else float(torch.as_tensor(got).sum())

    losses = [value(a, b) for a, b in pairs]
    for (a, b), one in zip(pairs, losses, strict=True):
        if isinstance(one, str):
            return Verdict(False, f"for {a} and {b} it {one}")
        apart = abs(a - b - round(a - b))
        if apart < 1e-6 and abs(one) > 1e-6:
            return Verdict(
                False, f"{a} and {b} are one point, but the loss is {one:.4g}."
            )
    far = [
        (abs(a - b - round(a - b)), x) for (a, b), x in zip(pairs, losses, strict=True)
    ]
    for (near, low), (away, high) in zip(
        sorted(far)[:-1], sorted(far)[1:], strict=True
    ):
        if away > near + 1e-6 and not float(high) > float(low):
            return Verdict(
                False,
                f"points {away:.2f} apart must cost more than points {near:.2f} apart; "
                f"got {high:.4g} and {low:.4g}.",
            )
    made = torch.tensor([0.97], requires_grad=True)
    got = answer(made, torch.tensor([0.02]))
    if not torch.as_tensor(got).requires_grad:
        return Verdict(False, "no gradient reaches `made`; compute with tensors only.")
    slope = torch.autograd.grad(torch.as_tensor(got).sum(), made)[0]
    if not float(slope) < 0:
        return Verdict(
            False,
            "from 0.97 to 0.02 the short way is up, through 1; the gradient is "
            f"{float(slope):.3g} and leads down.",
        )
    return Verdict(True, f"{len(pairs)} pairs, and the gradient across the boundary.")


@checked
def check_any_origin(answer: Callable[[Tensor, Tensor], Any]) -> Verdict:
    """Check a function (coordinates, kappa) -> log density without a common shift.

    Coordinates are of the atoms of one crystal along one axis, minus their means.
    """
    rng = generator(1)
    for n in (1, 2, 5):
        x = torch.rand(n, generator=rng, dtype=torch.float64)
        kappa = 5 * torch.rand(n, generator=rng, dtype=torch.float64) + 0.5
        every = torch.ones(1, n, 1, dtype=torch.bool)
        true = von_mises.log_density_any_origin(
            x[None, :, None], kappa[None, :, None], every
        )
        for shift in (0.0, 0.37):
            got = _call(answer, x + shift, kappa)
            if isinstance(got, str):
                return Verdict(False, f"for {n} atoms it {got}")
            if abs(float(got) - float(true)) > 1e-3:
                return Verdict(
                    False,
                    f"for {n} atoms shifted by {shift} the log density is "
                    f"{float(true):.4f}; got {float(got):.4f}.",
                )
    return Verdict(True, "1, 2 and 5 atoms, each also shifted by 0.37.")
