"""Checks for the exercises of part III: constraints that hold, guidance, one guide."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor

from matdesign.crystals.geometry import torus_difference
from matdesign.teach.exercises import exercise, near, numbers, on_circle, sets, whole
from matdesign.teach.toys import WordToy

OPEN = "?"
"""An orbit whose element is not chosen yet, in the exercises."""

# ---- constraints that hold -------------------------------------------------------------

_CHARGES = [
    ([1, 1], [[1], [-1]]),
    ([2, 3], [[2, 3], [-2]]),
    ([1, 1, 3], [[1], [2, 3], [-2, -1]]),
    ([4], [[]]),
    ([1, 2, 1], [[4], [-1, 1], [0, 3]]),
    ([k + 1 for k in range(12)], [[-2, -1, 1, 2, 3]] * 12),
]


def _reachable(counts: Iterable[int], states: Iterable[list[int]]) -> set[int]:
    found = {0}
    for n, some in zip(counts, states, strict=True):
        found = {total + n * charge for total in found for charge in some}
    return found


@exercise(lambda: _CHARGES, sets, what="the set")
def check_reachable(counts: list[int], states: list[list[int]]) -> set[int]:
    """Check a function (counts, states) -> all total charges that can be reached."""
    return _reachable(counts, states)


_IONS = {"Na": [1], "Ca": [2], "Fe": [2, 3], "Ti": [4], "O": [-2], "F": [-1]}
_ROWS = [
    (["Na", OPEN, OPEN], [1, 1, 3]),
    ([OPEN, OPEN, OPEN], [1, 1, 3]),
    (["Fe", "Fe", OPEN], [1, 1, 3]),
    (["O", "O", OPEN], [1, 2, 3]),
    (["Ti", OPEN], [1, 2]),
    ([OPEN, "O", OPEN, "F"], [2, 1, 2, 2]),
    (["Ca", "Ca", OPEN], [1, 1, 5]),
    (["Fe", OPEN, "O"], [1, 2, 4]),
]


@exercise(lambda: [(*one, _IONS) for one in _ROWS], sets, what="open orbit")
def check_completion(
    row: Sequence[str], counts: Sequence[int], states: Mapping[str, list[int]]
) -> list[set[str]]:
    """Check a function (row, counts, states) -> elements that each open orbit may take."""

    def neutral(made: Sequence[str]) -> bool:
        atoms = dict.fromkeys(made, 0)
        for element, n in zip(made, counts, strict=True):
            atoms[element] += n
        return 0 in _reachable(atoms.values(), (states[z] for z in atoms))

    return _listed(row, list(states), neutral)


_FEW = [
    (["Ca", OPEN, OPEN], 2),
    (["Ca", "Ti", OPEN], 2),
    (["Ca", "Ti", "O", OPEN], 2),
    ([OPEN, OPEN], 1),
    (["Ca", OPEN, "Ca", OPEN], 3),
    (["Ca", "Ti", OPEN, OPEN], 4),
]


@exercise(
    lambda: [(*one, ["Ca", "Ti", "O", "F"]) for one in _FEW], sets, what="open orbit"
)
def check_few(row: Sequence[str], k: int, vocabulary: Sequence[str]) -> list[set[str]]:
    """Check a mask for "at most k elements": (row, k, vocabulary) -> list of sets."""
    return _listed(row, vocabulary, lambda made: len(set(made)) <= k)


def _listed(
    row: Sequence[str], kinds: Sequence[str], good: Callable[[Sequence[str]], bool]
) -> list[set[str]]:
    """Return what each open orbit is in any good completion, by listing all of them."""
    options = [kinds if z == OPEN else [z] for z in row]
    made = [row for row in itertools.product(*options) if good(row)]
    return [{one[k] for one in made} for k, z in enumerate(row) if z == OPEN]


def tables(*shapes: tuple[int, ...], share: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Return tables of probabilities, and which entries are good: a share of each."""
    rng, found = torch.Generator().manual_seed(0), {}
    for k, shape in enumerate(shapes, 1):
        table = torch.rand(shape, generator=rng, dtype=torch.float64).square()
        good = torch.rand(shape, generator=rng) < share
        good.view(-1)[0], good.view(-1, shape[-1])[-1] = True, False  # a dead end
        found[f"table {k}, {' x '.join(map(str, shape))}"] = table / table.sum(), good
    return found


def _distribution(want: Tensor, got: Any) -> str:
    have = numbers(got)
    if have.shape == want.shape and bool((have[want == 0] != 0).any()):
        return "a forbidden entry has probability."
    if have.shape == want.shape and not math.isclose(have.sum(), 1, abs_tol=1e-6):
        return f"it sums to {float(have.sum()):.3f}."
    return near(want, have, 1e-6, "What comes first is drawn first.")


@exercise(lambda: tables(*[(3, 3, 3)] * 3, share=0.25), _distribution)
def check_masked_words(table: Tensor, good: Tensor) -> Tensor:
    """Check a function (table, good) -> probability of each word under a masked sampler."""
    return WordToy(table).masked(good)


def _weighted(want: tuple[Tensor, Tensor], got: Any) -> str:
    (masked, wanted), weight = want, numbers(got)
    if weight.shape != masked.shape:
        return near(masked, weight)
    have = torch.where(wanted > 0, weight * masked, 0.0)
    off = (have / have.sum().abs() - wanted).abs().nan_to_num(torch.inf)
    word = tuple(int(k) for k in torch.unravel_index(off.argmax(), off.shape))
    what = f"weighted, word {word} has not its share among the wanted words."
    return "" if float(off.max()) < 1e-6 else what


@exercise(lambda: tables(*[(3, 3, 3)] * 3, share=0.25), _weighted)
def check_weights(table: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
    """Check a function (table, good) -> the weight of each word of a masked sampler."""
    wanted = torch.where(good, table, 0.0)
    return WordToy(table).masked(good), wanted / wanted.sum()


@exercise(lambda: [(0.5, 1), (0.1, 1), (0.3, 12), (0.05, 20), (1.0, 7)], whole)
def check_draws(rate: float, n: int) -> int:
    """Check a function (rate, n) -> draws after which n have met, with 95 % certainty."""
    return next(m for m in itertools.count(n) if binom.sf(n - 1, m, rate) >= 0.95)


# ---- guidance while sampling -----------------------------------------------------------


@exercise(lambda: tables((2, 2), (3, 3), (6, 6), share=0.5), _distribution)
def check_masked(table: Tensor, allowed: Tensor) -> Tensor:
    """Check a function (table, allowed) -> distribution of a masked sampler."""
    return WordToy(table).masked(allowed)


def _known() -> list[tuple[Any, ...]]:
    x = torch.tensor([0.02, 0.4, 0.99, 0.5])
    known = torch.tensor([0.98, 0.4, 0.05, 0.75])
    z = torch.tensor([0.0, 1.0, -2.0, 0.5])
    widths = [(0.3, 0.2), (0.5, 0.05), (0.1, 0.0)]
    return [(x, known, now, then, z) for now, then in widths]


@exercise(_known, on_circle, off=1e-5)
def check_known_step(
    x: Tensor, known: Tensor, now: float, then: float, z: Tensor
) -> Tensor:
    """Check a step of known coordinates, (x, known, now, then, z) -> x at lower noise."""
    noise = then / now * math.sqrt(now**2 - then**2) * z
    return known + then**2 / now**2 * torus_difference(known, x) + noise


@exercise(
    lambda: {
        "equal weights": (torch.full((5,), -3.0),),
        "one particle that counts": (torch.tensor([0.0, -800.0, -900.0]),),
        "two of four": (torch.tensor([1.0, 1.0, -700.0, -700.0]),),
        "large log-weights": (torch.tensor([1000.0, 1000.0 + math.log(2)]),),
    },
    off=1e-3,
)
def check_effective_size(log_weights: Tensor) -> Tensor:
    """Check a function from the log-weights of K particles to their effective number."""
    return 1 / log_weights.softmax(0).square().sum()


def _populations() -> Iterator[tuple[Tensor, float]]:
    for weights in ([0.5, 0.3, 0.2, 0.0], [0.25] * 4, [0.0, 0.0, 1.0], [0.1, 0.9]):
        for first in (0.0, 0.35, 0.999):
            yield torch.tensor(weights, dtype=torch.float64), first


def _drawn(want: list[int], got: Any) -> str:
    have = numbers(got).flatten().sort().values.tolist()
    return "" if have == want else f"{have} are not the particles under the marks."


@exercise(_populations, _drawn)
def check_resampling(weights: Tensor, first: float) -> list[int]:
    """Check systematic resampling of one population, (weights, first) -> K particles."""
    marks = (torch.arange(len(weights)) + first).double() / len(weights)
    found = torch.searchsorted(weights.cumsum(0), marks, right=True)
    return list(found.clamp(max=len(weights) - 1).tolist())


# ---- one guide -------------------------------------------------------------------------


@exercise(lambda: [(6, 50, 4), (1, 10, 10), (0, 20, 5), (3, 8, 1), (5, 6, 3)], off=1e-6)
def check_best_of(hits: int, m: int, n: int) -> float:
    """Check a function (hits, m, n) -> chance that one of n out of m is a hit."""
    return 1 - math.comb(m - hits, n) / math.comb(m, n)


@exercise(lambda: [(0.1, 0.5, 8.0), (0.02, 0.4, 2.0), (0.3, 0.3, 1.0)], off=1e-6)
def check_price(p: float, g: float, c: float) -> float:
    """Check a function (p, g, c) -> cost of a guided hit over that of an unguided one."""
    return c * p / g
