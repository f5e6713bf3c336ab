"""Checks for the exercises of the chapter on autoregressive models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from matdesign.crystals.batch import generator
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.filling import fill_table, letter_mask
from matdesign.teach.exercises import Case, exercise, near, numbers, sets


@exercise
def check_chain() -> Iterator[Case]:
    """Check a function: probabilities of the chosen values, row by row, -> nats in all.

    It is given one tensor for each field of the sequence, with the probability that each
    of several crystals' choices had, and must return log p of each crystal. Some are so
    small that their product is zero in float32.
    """
    rng = generator(0)
    for fields in (1, 4, 40):
        small = 1e-3 if fields == 40 else 1.0
        p = [small * (0.01 + 0.9 * torch.rand(5, generator=rng)) for _ in range(fields)]
        yield f"sequences of {fields} fields", (p,), near(torch.stack(p).log().sum(0))


@exercise
def check_letter_mask() -> Iterator[Case]:
    """Check a function (spacegroup, last, left) -> indices of the letters that may follow.

    `last` is the index of the last letter, -1 at the start; `left` counts the atoms that
    are still to be placed.
    """
    table = wyckoff_table()
    fill = fill_table(table.count[:, :NONE], table.freedom[:, :NONE], 8)
    for group in (1, 62, 99, 166, 221, 225):
        for last in range(-1, int((table.count[group] > 0).sum())):
            for left in range(1, 9):
                given = (group, max(last, 0), int(last >= 0), left)
                mask = letter_mask(fill, *map(torch.tensor, given))
                judge = sets([set(mask.nonzero().squeeze(1).tolist())], "list")

                def listed(got: Any, judge: Any = judge) -> str:
                    return str(judge([numbers(list(got)).flatten().tolist()]))

                name = f"space group {group}, last letter {last}, {left} atoms left"
                yield name, (group, last, left), listed


@exercise
def check_joint_mixture() -> Iterator[Case]:
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
        want = torch.logsumexp(weight.log() + each, 0)
        name = f"{k} components of {d} entries"
        yield name, (weight, mean, width, x), near(want, 1e-3)


@exercise
def check_size_posterior() -> Iterator[Case]:
    """Check a function (prior over sizes, log p(sites | size)) -> posterior over sizes."""
    rng = generator(0)
    for sizes in (3, 21):
        prior = torch.rand(sizes, generator=rng)
        prior[0] = 0.0
        prior = prior / prior.sum()
        log_p = -200 - 5 * torch.rand(sizes, generator=rng)
        want = (prior.log() + log_p).softmax(0)
        yield f"{sizes} sizes", (prior, log_p), near(want)
