"""Checks for the exercises of the chapters on constraints that hold, and on one's own."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from matdesign.teach.exercises import Verdict, _call, _is, checked

OPEN = "?"
"""An orbit whose element is not chosen yet, in the exercises."""


@checked
def check_reachable(answer: Callable[[list[int], list[list[int]]], Any]) -> Verdict:
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
        got = _call(answer, list(counts), [list(some) for some in states])
        name = f"counts {counts} with states {states}"
        name = name if len(name) < 80 else f"{len(counts)} elements"
        if isinstance(got, str):
            return Verdict(False, f"for {name} it {got}")
        want = {0}
        for n, some in zip(counts, states, strict=True):
            want = {s + n * q for s in want for q in some}
        have = {int(s) for s in got}
        if have != want:
            wrong = sorted(want ^ have, key=abs)[0]
            word = "can" if wrong in want else "cannot"
            return Verdict(False, f"for {name} the sum {wrong} {word} be reached.")
    return Verdict(True, f"{len(cases)} sets of sums.")


@checked
def check_completion(
    answer: Callable[[list[str], list[int], dict[str, list[int]]], Any],
) -> Verdict:
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
        got = _call(
            answer, list(row), list(counts), {k: list(v) for k, v in ions.items()}
        )
        name = f"{' '.join(row)} with {counts} atoms"
        if isinstance(got, str):
            return Verdict(False, f"for {name} it {got}")
        want = _completions(row, counts, ions)
        have = [set(some) for some in got]
        if len(have) != len(want):
            return Verdict(
                False, f"{name} has {len(want)} open orbits; got {len(have)} sets."
            )
        for place, (a, b) in enumerate(zip(want, have, strict=True)):
            if a != b:
                z = sorted(a ^ b)[0]
                word = "is possible" if z in a else "leads nowhere"
                return Verdict(
                    False, f"for {name}: {z} on open orbit {place + 1} {word}."
                )
    return Verdict(True, f"{len(cases)} half-decided crystals.")


@checked
def check_masked(answer: Callable[[Tensor, Tensor], Any]) -> Verdict:
    """Check a function (table, good) -> probability of each word under a masked sampler.

    `table[a, b, c]` is the probability of a word of three letters, `good` says which are
    wanted. The sampler draws letter by letter from the exact conditional, among letters
    from which a wanted word can still be reached.
    """
    for table, good in _words():
        got = _call(answer, table.clone(), good.clone())
        if isinstance(got, str):
            return Verdict(False, f"for {tuple(table.shape)} words it {got}")
        want = masked(table, good)
        have = torch.as_tensor(got, dtype=torch.float64)
        if have.shape != want.shape:
            return Verdict(
                False, f"shape {tuple(have.shape)}, want {tuple(want.shape)}."
            )
        if not float((have - want).abs().max()) < 1e-6:
            at = _worst(have, want)
            return Verdict(
                False,
                f"word {at} has {float(want[at]):.4f}; got {float(have[at]):.4f}.",
            )
    return Verdict(True, "3 tables of 27 words.")


@checked
def check_weights(answer: Callable[[Tensor, Tensor], Any]) -> Verdict:
    """Check a function (table, good) -> the weight of each word of a masked sampler.

    With these weights masked words have the distribution of wanted words; a common factor
    is free, and so are the weights of unwanted words.
    """
    for table, good in _words():
        got = _call(answer, table.clone(), good.clone())
        if isinstance(got, str):
            return Verdict(False, f"for {tuple(table.shape)} words it {got}")
        weight = torch.as_tensor(got, dtype=torch.float64)
        if weight.shape != table.shape:
            return Verdict(
                False, f"shape {tuple(weight.shape)}, want {tuple(table.shape)}."
            )
        have = torch.where(good, weight * masked(table, good), 0.0)
        have = have / have.sum()
        want = torch.where(good, table, 0.0)
        want = want / want.sum()
        if not float((have - want).abs().max()) < 1e-6:
            at = _worst(have, want)
            return Verdict(
                False,
                f"weighted, word {at} has {float(have[at]):.4f}; of the wanted words it "
                f"is {float(want[at]):.4f}.",
            )
    return Verdict(True, "3 tables of 27 words.")


@checked
def check_draws(answer: Callable[[float, int], Any]) -> Verdict:
    """Check a function (rate, n) -> draws after which n have met, with 95 % certainty."""
    for rate, n in [(0.5, 1), (0.1, 1), (0.3, 12), (0.05, 20), (1.0, 7)]:
        got = _call(answer, rate, n)
        if isinstance(got, str):
            return Verdict(False, f"for rate {rate} and n = {n} it {got}")
        want = n
        while _fewer(n, want, rate) > 0.05:
            want += 1
        if not _is(got, want):
            if not float(got).is_integer():
                return Verdict(False, f"a number of draws is whole; got {got}.")
            sure = 1 - _fewer(n, int(got), rate)
            return Verdict(
                False,
                f"rate {rate}, n = {n}: after {int(got)} draws the chance is {sure:.3f}; "
                f"{want} draws are the fewest with 0.95.",
            )
    return Verdict(True, "5 rates and numbers.")


@checked
def check_few(answer: Callable[[list[str], int, list[str]], Any]) -> Verdict:
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
        got = _call(answer, list(row), k, list(kinds))
        name = f"{' '.join(row)} and at most {k}"
        if isinstance(got, str):
            return Verdict(False, f"for {name} it {got}")
        want = _listed(row, kinds, partial(_at_most, k))
        have = [set(some) for some in got]
        if have != want:
            return Verdict(False, f"for {name} it should be {want}; got {have}.")
    return Verdict(True, f"{len(cases)} half-decided crystals.")


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


def _worst(have: Tensor, want: Tensor) -> tuple[int, ...]:
    at = int((have - want).abs().nan_to_num(torch.inf).argmax())
    return tuple(int(k) for k in torch.unravel_index(torch.tensor(at), want.shape))


def _fewer(n: int, draws: int, rate: float) -> float:
    """Return the probability of fewer than n hits."""
    return sum(
        math.comb(draws, k) * rate**k * (1 - rate) ** (draws - k)
        for k in range(min(n, draws + 1))
    )


def _completions(
    row: Sequence[str], counts: Sequence[int], ions: Mapping[str, Sequence[int]]
) -> list[set[str]]:
    def neutral(made: Sequence[str]) -> bool:
        atoms = dict.fromkeys(made, 0)
        for z, n in zip(made, counts, strict=True):
            atoms[z] += n
        return any(
            sum(n * q for n, q in zip(atoms.values(), charges, strict=True)) == 0
            for charges in itertools.product(*(ions[z] for z in atoms))
        )

    return _listed(row, list(ions), neutral)


def _at_most(k: int, made: Sequence[str]) -> bool:
    return len(set(made)) <= k


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
