"""Checks for the exercises of the chapter on autoregressive models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from matdesign.crystals.batch import generator
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.filling import fill_table, letter_mask
from matdesign.teach.exercises import Verdict, _call, checked


@checked
def check_chain(answer: Callable[[Sequence[Tensor]], Any]) -> Verdict:
    """Check a function: probabilities of the chosen values, row by row, -> nats in all.

    It is given one tensor for each field of the sequence, with the probability that each
    of several crystals' choices had, and must return log p of each crystal. Some are so
    small that their product is zero in float32.
    """
    rng = generator(0)
    for fields in (1, 4, 40):
        p = [0.01 + 0.9 * torch.rand(5, generator=rng) for _ in range(fields)]
        if fields == 40:
            p = [one * 1e-3 for one in p]
        true = torch.stack(p).log().sum(0)
        got = _call(answer, [one.clone() for one in p])
        where = f"for sequences of {fields} fields"
        if isinstance(got, str):
            return Verdict(False, f"{where} it {got}")
        given = torch.as_tensor(got)
        if given.shape != true.shape:
            return Verdict(False, f"{where} give 5 values; got {tuple(given.shape)}.")
        if not torch.allclose(given.to(true), true, rtol=1e-4):
            return Verdict(
                False,
                f"{where} the first is {float(true[0]):.3f} nats; got "
                f"{float(given[0]):.3f}.",
            )
    return Verdict(True, "1, 4 and 40 fields, the last too small to multiply.")


@checked
def check_letter_mask(answer: Callable[[int, int, int], Any]) -> Verdict:
    """Check a function (spacegroup, last, left) -> indices of the letters that may follow.

    `last` is the index of the last letter, -1 at the start; `left` counts the atoms that
    are still to be placed.
    """
    table = wyckoff_table()
    fill = fill_table(table.count[:, :NONE], table.freedom[:, :NONE], 8)
    tried = 0
    for group in (1, 62, 99, 166, 221, 225):
        for last in range(-1, int((table.count[group] > 0).sum())):
            for left in range(1, 9):
                mask = letter_mask(
                    fill,
                    torch.tensor(group),
                    torch.tensor(max(last, 0)),
                    torch.tensor(int(last >= 0)),
                    torch.tensor(left),
                )
                true = mask.nonzero().squeeze(1).tolist()
                got = _call(answer, group, last, left)
                where = f"space group {group}, last letter {last}, {left} atoms left"
                if isinstance(got, str):
                    return Verdict(False, f"for {where} it {got}")
                if sorted(float(x) for x in got) != true:
                    return Verdict(False, f"for {where} expected {true}; got {got}.")
                tried += 1
    return Verdict(True, f"{tried} situations in six space groups.")


@checked
def check_joint_mixture(
    answer: Callable[[Tensor, Tensor, Tensor, Tensor], Any],
) -> Verdict:
    """Check a function (weights, means, widths, x) -> log density of one joint mixture.

    Weights (K,), means and widths (K, d), x (d,). Many try the sum of the logs of one
    mixture for each entry, which agrees only if there is one component or one entry.
    """
    rng = generator(0)
    for k, d in ((1, 3), (4, 1), (3, 6)):
        weight = torch.rand(k, generator=rng).softmax(0)
        mean = torch.randn(k, d, generator=rng)
        width = 0.2 + torch.rand(k, d, generator=rng)
        x = torch.randn(d, generator=rng)
        each = torch.distributions.Normal(mean, width).log_prob(x).sum(1)
        true = torch.logsumexp(weight.log() + each, 0)
        got = _call(answer, weight.clone(), mean.clone(), width.clone(), x.clone())
        where = f"for {k} components of {d} entries"
        if isinstance(got, str):
            return Verdict(False, f"{where} it {got}")
        if not math.isclose(float(got), float(true), abs_tol=1e-3):
            return Verdict(
                False,
                f"{where} the density is {float(true):.3f} nats; got {float(got):.3f}.",
            )
    return Verdict(True, "1 x 3, 4 x 1 and 3 x 6: joint where it matters.")


@checked
def check_size_posterior(answer: Callable[[Tensor, Tensor], Any]) -> Verdict:
    """Check a function (prior over sizes, log p(sites | size)) -> posterior over sizes."""
    rng = generator(0)
    for sizes in (3, 21):
        prior = torch.rand(sizes, generator=rng)
        prior[0] = 0.0
        prior = prior / prior.sum()
        said = -200 - 5 * torch.rand(sizes, generator=rng)
        true = (prior.log() + said).softmax(0)
        got = _call(answer, prior.clone(), said.clone())
        where = f"for {sizes} sizes"
        if isinstance(got, str):
            return Verdict(False, f"{where} it {got}")
        given = torch.as_tensor(got)
        if given.shape != true.shape or not torch.allclose(given, true, atol=1e-4):
            return Verdict(
                False,
                f"{where} expected {[round(x, 3) for x in true[:3].tolist()]} first; got "
                f"{[round(float(x), 3) for x in given.reshape(-1)[:3]]}.",
            )
    return Verdict(
        True, "3 and 21 sizes, with likelihoods far below what exp can hold."
    )
