"""The checks of the chapters on constraints: right answers pass, mistakes are named."""

import itertools
import math
import re

import pytest
import torch

from matdesign.teach import exercises_guidance as exercises
from matdesign.teach.toys import WordToy


def reachable(counts, states):
    found = {0}
    for n, some in zip(counts, states, strict=True):
        found = {s + n * q for s in found for q in some}
    return found


def each_atom(counts, states):
    found = {0}
    for n, some in zip(counts, states, strict=True):
        for _ in range(n):
            found = {s + q for s in found for q in some}
    return found


def completion(row, counts, states):
    open_ = [k for k, z in enumerate(row) if z == "?"]
    found = [set() for _ in open_]
    for choice in itertools.product(states, repeat=len(open_)):
        made = list(row)
        for k, z in zip(open_, choice, strict=True):
            made[k] = z
        atoms = {z: sum(n for n, y in zip(counts, made) if y == z) for z in made}
        if 0 in reachable(list(atoms.values()), [states[z] for z in atoms]):
            for some, z in zip(found, choice, strict=True):
                some.add(z)
    return found


def by_orbit(row, counts, states):
    """Wrong: the orbits of one element may have different charges."""
    open_ = [k for k, z in enumerate(row) if z == "?"]
    found = [set() for _ in open_]
    for choice in itertools.product(states, repeat=len(open_)):
        made = list(row)
        for k, z in zip(open_, choice, strict=True):
            made[k] = z
        if 0 in reachable(counts, [states[z] for z in made]):
            for some, z in zip(found, choice, strict=True):
                some.add(z)
    return found


def masked_by_hand(table, good):
    """Word by word, with plain loops."""
    found = torch.zeros_like(table)
    for a, b, c in itertools.product(range(3), repeat=3):
        if not good[a, b, c]:
            continue
        first = [table[i].sum() for i in range(3) if good[i].any()]
        then = [table[a, j].sum() for j in range(3) if good[a, j].any()]
        last = [table[a, b, k] for k in range(3) if good[a, b, k]]
        found[a, b, c] = (
            table[a].sum()
            / sum(first)
            * (table[a, b].sum() / sum(then))
            * (table[a, b, c] / sum(last))
        )
    return found


def weights(table, good):
    return table / masked_by_hand(table, good)


def draws(rate, n):
    total = n
    while (
        sum(math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(n))
        > 0.05 + 1e-12
    ):
        total += 1
    return total


def few(row, k, vocabulary):
    there = {z for z in row if z != "?"}
    open_ = sum(z == "?" for z in row)
    if len(there) > k:
        return [set()] * open_
    return [set(vocabulary) if len(there) < k else there] * open_


def test_right_answers_pass():
    assert exercises.check_reachable(reachable)
    assert not exercises.check_reachable(lambda *a: {q + 0.4 for q in reachable(*a)})
    assert exercises.check_completion(completion)
    assert exercises.check_masked_words(masked_by_hand)
    assert exercises.check_weights(weights)
    assert exercises.check_draws(draws)
    assert exercises.check_few(few)


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        (exercises.check_reachable, each_atom, r"counts .* does not belong"),
        (exercises.check_reachable, lambda c, s: {0}, "does not belong|is missing"),
        (exercises.check_reachable, lambda c, s: None, "gave nothing back"),
        (exercises.check_completion, by_orbit, "does not belong to open orbit"),
        (
            exercises.check_completion,
            lambda row, c, s: [set(s) for z in row if z == "?"],
            r"'Na', '\?', '\?'.* does not belong",
        ),
        (
            exercises.check_completion,
            lambda r, c, s: [],
            "each of 2 open orbits; got 0",
        ),
        (
            exercises.check_masked_words,
            lambda t, g: t * g / (t * g).sum(),
            "entry .* not right",
        ),
        (exercises.check_masked_words, lambda t, g: t.sum(0), "shape"),
        (exercises.check_weights, lambda t, g: t * 0 + 1, "weighted, word"),
        (exercises.check_weights, lambda t, g: t, "weighted, word"),
        (exercises.check_weights, lambda t, g: -weights(t, g), "weighted, word"),
        (exercises.check_draws, lambda rate, n: math.ceil(n / rate), "not right"),
        (
            exercises.check_draws,
            lambda rate, n: draws(rate, n) + 1,
            "not right",
        ),
        (
            exercises.check_few,
            lambda row, k, v: [set(v) for z in row if z == "?"],
            "k = 2, .* does not belong",
        ),
    ],
)
def test_wrong_answers_are_named(check, answer, says):
    verdict = check(answer)
    assert not verdict
    assert re.search(says, verdict.text), verdict.text


def test_the_masked_distribution_is_that_of_the_masked_sampler():
    """Against draws of the toy, whose steps have no error of their own."""
    table, good = next(iter(exercises.tables((3, 3, 3), share=0.25).values()))
    want = WordToy(table).masked(good)
    assert float(want.sum()) == pytest.approx(1)
    assert float(want[~good].sum()) == 0
    n = 20_000
    drawn = WordToy(table).sample(n, seed=0, good=good)
    seen = torch.zeros(27, dtype=torch.float64)
    at = (drawn * torch.tensor([9, 3, 1])).sum(1)
    seen.scatter_add_(0, at, torch.ones(n, dtype=torch.float64))
    error = (want.flatten() * (1 - want.flatten()) / n).sqrt()
    assert bool(((seen / n - want.flatten()).abs() <= 4.5 * error + 1e-9).all())
