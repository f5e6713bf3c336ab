"""Checks for the exercises of the chapters on constraints that hold, and on one's own."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from matdesign.teach.exercises import Case, exercise, near, number, numbers, sets

OPEN = "?"
"""An orbit whose element is not chosen yet, in the exercises."""


@exercise
def check_reachable() -> Iterator[Case]:
    """Check a function (counts, states) -> all total charges that can be reached.

    `counts[i]` atoms of element i all take one of `states[i]`. The last input has twelve
    elements of five states: its choices are too many to list.
    """
    cases: list[tuple[list[int], list[list[int]]]] = [
        ([1, 1], [[1], [-1]]),
        ([2, 3], [[2, 3], [-2]]),
        ([1, 1, 3], [[1], [2, 3], [-2, -1]]),
        ([4], [[]]),
        ([1, 2, 1], [[4], [-1, 1], [0, 3]]),
        ([k + 1 for k in range(12)], [[-2, -1, 1, 2, 3]] * 12),
    ]
    for counts, states in cases:
        want = {0}
        for n, some in zip(counts, states, strict=True):
            want = {s + n * q for s in want for q in some}
        right = sets([want], "set")
        name = f"counts {counts} with states {states}"
        name = name if len(name) < 80 else f"{len(counts)} elements"

        def judge(got: Any, right: Any = right) -> str:
            return str(right([numbers(list(got)).flatten().tolist()]))

        yield name, (counts, states), judge


@exercise
def check_completion() -> Iterator[Case]:
    """Check a function (row, counts, states) -> elements that each open orbit may take.

    `row` names the element of each orbit, "?" where it is open; `counts` are its atoms;
    all atoms of an element carry one state. The answer is a list of sets, in the order of
    the open orbits, compared with a list of all completions.
    """
    ions = {"Na": [1], "Ca": [2], "Fe": [2, 3], "Ti": [4], "O": [-2], "F": [-1]}
    cases = [
        (["Na", OPEN, OPEN], [1, 1, 3]),
        ([OPEN, OPEN, OPEN], [1, 1, 3]),
        (["Fe", "Fe", OPEN], [1, 1, 3]),
        (["O", "O", OPEN], [1, 2, 3]),
        (["Ti", OPEN], [1, 2]),
        ([OPEN, "O", OPEN, "F"], [2, 1, 2, 2]),
        (["Ca", "Ca", OPEN], [1, 1, 5]),
        (["Fe", OPEN, "O"], [1, 2, 4]),
    ]
    for row, counts in cases:
        want = _listed(row, list(ions), partial(_neutral, counts, ions))
        name = f"{' '.join(row)} with {counts} atoms"
        yield name, (row, counts, ions), sets(want, "open orbit")


@exercise
def check_few() -> Iterator[Case]:
    """Check a mask for "at most k elements": (row, k, vocabulary) -> list of sets.

    One set for every open orbit of `row`, compared with a list of all completions; empty
    sets where there is none.
    """
    cases = [
        (["Ca", OPEN, OPEN], 2),
        (["Ca", "Ti", OPEN], 2),
        (["Ca", "Ti", "O", OPEN], 2),
        ([OPEN, OPEN], 1),
        (["Ca", OPEN, "Ca", OPEN], 3),
        (["Ca", "Ti", OPEN, OPEN], 4),
    ]
    kinds = ["Ca", "Ti", "O", "F"]
    for row, k in cases:
        want = _listed(row, kinds, partial(_at_most, k))
        name = f"{' '.join(row)} and at most {k}"
        yield name, (row, k, kinds), sets(want, "open orbit")


@exercise
def check_masked() -> Iterator[Case]:
    """Check a function (table, good) -> probability of each word under a masked sampler.

    `table[a, b, c]` is the probability of a word of three letters, `good` says which are
    wanted. The sampler draws letter by letter from the exact conditional, among letters
    from which a wanted word can still be reached.
    """
    for k, (table, good) in enumerate(_words(), start=1):
        yield f"table {k} of words", (table, good), near(masked(table, good), 1e-6)


@exercise
def check_weights() -> Iterator[Case]:
    """Check a function (table, good) -> the weight of each word of a masked sampler.

    With these weights masked words have the distribution of wanted words; a common factor
    is free, and so are the weights of unwanted words.
    """

    def judge(table: Tensor, good: Tensor, got: Any) -> str:
        weight = numbers(got)
        if weight.shape != table.shape:
            return near(table)(weight)
        have = torch.where(good, weight * masked(table, good), 0.0)
        want = torch.where(good, table, 0.0)
        off = (have / have.sum() - want / want.sum()).abs().nan_to_num(torch.inf)
        at = torch.unravel_index(off.argmax(), off.shape)
        word = tuple(int(k) for k in at)
        what = f"weighted, word {word} has not its share among the wanted words."
        return "" if float(off.max()) < 1e-6 else what

    for k, (table, good) in enumerate(_words(), start=1):
        yield f"table {k} of words", (table, good), partial(judge, table, good)


@exercise
def check_draws() -> Iterator[Case]:
    """Check a function (rate, n) -> draws after which n have met, with 95 % certainty."""

    def judge(rate: float, n: int, got: Any) -> str:
        have = number(got)
        if not have.is_integer():
            return f"a number of draws is whole; got {have:g}."
        if have < n or _fewer(n, int(have), rate) > 0.05:
            return f"{have:g} draws are too few for 0.95."
        if have > n and _fewer(n, int(have) - 1, rate) <= 0.05:
            return f"{have:g} draws are more than are needed."
        return ""

    for rate, n in [(0.5, 1), (0.1, 1), (0.3, 12), (0.05, 20), (1.0, 7)]:
        yield f"rate {rate} and n = {n}", (rate, n), partial(judge, rate, n)


def masked(table: Tensor, good: Tensor) -> Tensor:
    """Return the exact distribution of a masked sampler of words of three letters.

    Equation:
        q(abc) = p(a | A) p(b | a, B(a)) p(c | a b, C(a, b)), each renormalised over the
        letters from which a wanted word can still be reached.

    Args:
        table: probability of each word, shape (letters, letters, letters).
        good: which words are wanted, bool, same shape; at least one is.
    """
    p = table.double() / table.double().sum()
    found = torch.ones_like(p)
    for place in range(3):
        behind = tuple(range(place + 1, 3))
        share = p.sum(behind, keepdim=True) if behind else p
        may = good.any(-1, keepdim=True) if behind else good
        if len(behind) == 2:
            may = may.any(1, keepdim=True)
        allowed = torch.where(may, share, 0.0)
        total = allowed.sum(place, keepdim=True)
        found = found * torch.where(total > 0, allowed / total, 0.0)
    return found


def _words() -> Iterator[tuple[Tensor, Tensor]]:
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        table = torch.rand(3, 3, 3, generator=rng, dtype=torch.float64).square()
        good = torch.rand(3, 3, 3, generator=rng) < 0.25
        good[0, 0, 0] = True
        good[1, 1] = False  # a dead end after two letters
        yield table / table.sum(), good


def _fewer(n: int, draws: int, rate: float) -> float:
    """Return the probability of fewer than n hits."""
    return sum(
        math.comb(draws, k) * rate**k * (1 - rate) ** (draws - k)
        for k in range(min(n, draws + 1))
    )


def _at_most(k: int, made: Sequence[str]) -> bool:
    return len(set(made)) <= k


def _neutral(
    counts: Sequence[int], ions: Mapping[str, Sequence[int]], made: Sequence[str]
) -> bool:
    atoms = dict.fromkeys(made, 0)
    for z, n in zip(made, counts, strict=True):
        atoms[z] += n
    return any(
        sum(n * q for n, q in zip(atoms.values(), charges, strict=True)) == 0
        for charges in itertools.product(*(ions[z] for z in atoms))
    )


def _listed(
    row: Sequence[str], kinds: Sequence[str], good: Callable[[Sequence[str]], bool]
) -> list[set[str]]:
    """Return what each open orbit is in any good completion, by listing all of them."""
    free = [k for k, z in enumerate(row) if z == OPEN]
    found: list[set[str]] = [set() for _ in free]
    for choice in itertools.product(kinds, repeat=len(free)):
        made = list(row)
        for k, z in zip(free, choice, strict=True):
            made[k] = z
        if good(made):
            for some, z in zip(found, choice, strict=True):
                some.add(z)
    return found
