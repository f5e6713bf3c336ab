"""Checks for the book's exercises: they name the input that failed, never the answer.

An exercise is a generator of cases: where, what is given, and how to judge what comes
back. `exercise` turns it into a check that ends in a verdict, whatever it is given.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import displacement

if TYPE_CHECKING:
    from pymatgen.core import Structure

Judge = Callable[[Any], str]
"""What came back -> what is wrong with it; "" where it is right."""

Case = tuple[str, tuple[Any, ...], Judge]
"""Which input in words, the arguments, and the judge of the answer."""


@dataclass(frozen=True)
class Verdict:
    """What a check found; true when the answer is right.

    Args:
        right: whether every input gave what it must.
        text: which input failed and how, or how many passed.
    """

    right: bool
    text: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.text}"


def exercise(cases: Callable[[], Iterable[Case]]) -> Callable[[Any], Verdict]:
    """Return the check of an exercise: a function's answers to all cases, judged.

    Args:
        cases: yields the cases; its name and docstring become those of the check.
    """

    def check(answer: Any) -> Verdict:
        if not callable(answer):
            return Verdict(False, f"give the function itself; got {_shown(answer)}.")
        passed = 0
        for where, given, judge in cases():
            wrong = _wrong(answer, given, judge)
            if wrong:
                return Verdict(False, f"for {where} {wrong}")
            passed += 1
        return Verdict(True, f"all {passed} inputs.")

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(check, name, getattr(cases, name))
    return check


def _wrong(answer: Callable[..., Any], given: tuple[Any, ...], judge: Judge) -> str:
    try:
        got = answer(*map(_own, given))
    except Exception as problem:  # a learner's function may fail in any way
        return f"it raised {type(problem).__name__}: {problem}"
    if got is None or got is Ellipsis:
        return "it gave nothing back; end it with a return."
    if isinstance(got, str):
        return f"it gave the text {got!r}; numbers are asked for."
    try:
        return judge(got)
    except Exception:  # and its answer may be of any kind
        return (
            f"it gave {_shown(got)}, which cannot be compared with what is asked for. "
            "Look at the text of the exercise: what should it give back?"
        )


def _own(given: Any) -> Any:
    """Return a copy, so that an answer cannot change the input of the next call."""
    wants_gradient = isinstance(given, Tensor) and given.requires_grad
    return given if wants_gradient else copy.deepcopy(given)


def _shown(got: Any) -> str:
    """Return a short description of an answer."""
    text = " ".join(repr(got).split())
    return f"{type(got).__name__} {text[:80]}{'...' if len(text) > 80 else ''}"


# ---- judges ---------------------------------------------------------------------------


def numbers(got: Any) -> Tensor:
    """Return an answer as a float64 tensor; raises where it is not real numbers."""
    if not isinstance(got, Tensor):
        return torch.as_tensor(np.asarray(got, dtype=float), dtype=torch.float64)
    if got.is_complex():
        raise TypeError("complex numbers")
    return got.detach().double()


def number(got: Any) -> float:
    """Return an answer as one number; raises where it is not one."""
    return float(numbers(got).reshape(()) if numbers(got).numel() == 1 else math.nan)


def near(want: Any, off: float = 1e-4, hint: str = "") -> Judge:
    """Return the judge of numbers: the right shape, and each within a distance.

    Args:
        want: the right numbers.
        off: largest difference; in units of the number where that is above 1.
        hint: said where a number is wrong.
    """

    def judge(got: Any) -> str:
        have, right = numbers(got), numbers(want)
        if right.numel() == have.numel() == 1:
            have = have.reshape(right.shape)
        if have.shape != right.shape:
            return f"give numbers of shape {_shape(right)}; got shape {_shape(have)}."
        far = ((have - right).abs() / right.abs().clamp(min=1)).nan_to_num(torch.inf)
        if not have.numel() or bool((far <= off).all()):
            return ""
        at = np.unravel_index(int(far.argmax()), far.shape)
        entry = f"entry {', '.join(map(str, at))} of " if at else ""
        what = f"{entry}your answer is {float(have[at]):.4g}, which is not right."
        return f"{what} {hint}".strip()

    return judge


def whole(want: int, hint: str = "") -> Judge:
    """Return the judge of one whole number; 1.9 is not 1."""

    def judge(got: Any) -> str:
        have = number(got)
        if not have.is_integer():
            return f"a whole number is asked for; got {_shown(got)}."
        return "" if have == want else f"{have:g} is not right. {hint}".strip()

    return judge


def within(wrong: Callable[[Tensor], Tensor], want: Tensor, off: float) -> Judge:
    """Return the judge of fractional coordinates: in [0, 1), and the right point.

    Args:
        wrong: the distance on the circle of each coordinate to the right one.
        want: the right coordinates.
        off: largest distance.
    """

    def judge(got: Any) -> str:
        have = numbers(got)
        if have.shape != want.shape:
            return f"give numbers of shape {_shape(want)}; got shape {_shape(have)}."
        outside = ~((have >= 0) & (have < 1))
        if bool(outside.any()):
            return f"{float(have[outside][0])!r} is not in [0, 1)."
        far = wrong(have)
        at = int(far.argmax())
        if float(far[at]) <= off:
            return ""
        return f"{float(have[at]):.4g}, entry {at} of your answer, is another point."

    return judge


def sets(want: Sequence[set[Any]], what: str) -> Judge:
    """Return the judge of one set for each open place: no member too many, none lacking."""

    def judge(got: Any) -> str:
        have = [set(some) for some in got]
        if len(have) != len(want):
            return f"give one set for each of {len(want)} {what}s; got {len(have)}."
        for k, (mine, right) in enumerate(zip(have, want, strict=True), start=1):
            if mine - right:
                return f"{min(mine - right)} does not belong to {what} {k}."
            if right - mine:
                return f"something is missing from {what} {k}."
        return ""

    return judge


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


# ---- crystals as data ------------------------------------------------------------------

_EDGES = (0.0, 0.25, -0.25, 1.0, -1.0, 2.75, -1e-9, 1 - 1e-9, -1e-17, 1e-9, 7.999999)


@exercise
def check_wrap() -> Iterator[Case]:
    """Check a function that moves fractional coordinates into [0, 1).

    It is given float32 and float64 numbers, among them those just beside whole numbers.
    """

    def off(given: Tensor, got: Tensor) -> Tensor:
        return ((got - given.double() + 0.5) % 1 - 0.5).abs()

    for dtype in (torch.float64, torch.float32):
        for value in _EDGES:
            given = torch.tensor([value], dtype=dtype)
            inside = within(partial(off, given), given, 1e-6)

            def judge(got: Any, inside: Judge = inside) -> str:
                return inside(numbers(got).reshape(-1))

            yield f"the number {value!r} in {dtype}", (given,), judge


@exercise
def check_minimum_image() -> Iterator[Case]:
    """Check a function (start, end, lattice) -> distance to the nearest image, in Å.

    The last cells are so skewed that the nearest image is not in a neighbouring cell.
    """
    cells = {
        "a cubic cell": [[4.0, 0, 0], [0, 4, 0], [0, 0, 4]],
        "a hexagonal cell": [[3.0, 0, 0], [-1.5, 2.598, 0], [0, 0, 5]],
        "a cell with angle 35°": [[4.0, 0, 0], [3.28, 2.29, 0], [0, 0, 6]],
        "a sheared cell": [[3.0, 0, 0], [7.3, 2.5, 0], [0.4, 9.1, 2.8]],
    }
    rng = torch.Generator().manual_seed(0)
    for name, rows in cells.items():
        lattice = torch.tensor(rows)
        for _ in range(20):
            start, end = torch.rand(2, 3, generator=rng)
            want = displacement(start[None], end[None], lattice[None]).norm()
            pair = " and ".join(str(x.numpy().round(2).tolist()) for x in (start, end))
            hint = "Is there a nearer image?"
            yield (
                f"sites {pair} in {name}",
                (start, end, lattice),
                near(want, 1e-3, hint),
            )


@exercise
def check_fingerprint() -> Iterator[Case]:
    """Check a function structure -> numbers that describes the crystal, not its cell.

    The numbers must stay when sites are reordered, shifted together or moved by whole
    cells, when the crystal is rotated, and when a supercell is taken; they must differ
    for two polymorphs of one composition.
    """
    from pymatgen.core import Lattice, Structure
    from scipy.spatial.transform import Rotation

    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    other = Structure(Lattice.cubic(3.1498), ["Cs", "Cl"], [[0.0] * 3, [0.5] * 3])
    turned = Rotation.from_euler("xyz", [0.4, -0.7, 1.1]).as_matrix()
    cell, kinds, frac = salt.lattice, salt.species, np.asarray(salt.frac_coords)
    shift = np.array([0.13, 0.41, 0.77])
    whole_cells = np.arange(frac.size).reshape(-1, 3) % 3 - 1.0
    same: dict[str, Structure] = {
        "rock salt": salt,
        "reordering sites": Structure(cell, kinds[::-1], frac[::-1]),
        "shifting all sites": Structure(cell, kinds, frac + shift),
        "adding whole numbers": Structure(cell, kinds, frac + whole_cells),
        "rotating the crystal": Structure(Lattice(cell.matrix @ turned), kinds, frac),
        "taking a supercell": salt * (2, 1, 1),
    }
    seen: list[Tensor] = []

    def equal(got: Any) -> bool:
        seen.append(numbers(got).flatten())
        first, last = seen[0], seen[-1]
        return first.shape == last.shape and torch.allclose(first, last, atol=1e-3)

    def stays(got: Any) -> str:
        return "" if equal(got) else "the numbers change, but not the crystal."

    def differs(got: Any) -> str:
        return "the numbers are those of rock salt." if equal(got) else ""

    for change, structure in same.items():
        yield change, (structure,), stays
    yield "caesium chloride of the same density", (other,), differs


@exercise
def check_free_numbers() -> Iterator[Case]:
    """Check a function family -> how many numbers of the lattice code are free."""
    from matdesign.crystals.lattice_code import FAMILIES, free_entries

    hint = "Count what the symmetry leaves of three lengths and three angles."
    for name in FAMILIES:
        yield name, (name,), whole(int(free_entries(name).sum()), hint)


# ---- judging crystals ------------------------------------------------------------------


@exercise
def check_interval() -> Iterator[Case]:
    """Check a function (hits, of) -> (low, high), a 95 % interval of a share.

    Wilson's interval is the reference; a bootstrap of it may differ by 0.03.
    """
    from matdesign.metrics.intervals import wilson

    def judge(hits: int, of: int, got: Any) -> str:
        have = numbers(got)
        if have.shape != (2,):
            return "give two numbers, low and high."
        low, high = have.tolist()
        if not 0 <= low <= hits / of <= high <= 1:
            return f"({low:.3f}, {high:.3f}) must hold {hits / of} and lie in [0, 1]."
        off = max(
            abs(a - b) for a, b in zip((low, high), wilson(hits, of), strict=True)
        )
        found = f"({low:.3f}, {high:.3f}) is not an interval of 95 %."
        return "" if off <= 0.03 else found

    for hits, of in ((50, 100), (3, 40), (0, 25), (25, 25), (870, 1000)):
        yield f"{hits} of {of}", (hits, of), partial(judge, hits, of)


@exercise
def check_neutral() -> Iterator[Case]:
    """Check a function (counts, states) -> whether some choice of charges is neutral.

    `counts[i]` atoms of element i all take one of `states[i]`. The last input has 14
    elements with five states each: trying every choice would take an hour.
    """
    inputs = [
        ([1, 1], [[1], [-1]], True),
        ([2, 3], [[2, 3], [-2]], True),
        ([3, 4], [[2, 3], [-2]], False),
        ([1, 2], [[1], [-1]], False),
        ([1, 1, 3], [[2], [2, 3, 4], [-2]], True),
        ([1, 6], [[0, 2], [0, -1]], True),
        ([1] * 14, [[-2, -1, 1, 2, 3]] * 14, True),
        ([1] * 14, [[1, 2, 3, 4, 5]] * 14, False),
    ]

    def judge(want: bool, got: Any) -> str:
        return "" if bool(got) == want else f"{got!r} is not right."

    for counts, states, want in inputs:
        name = f"counts {counts} with states {states}"
        yield name, (counts, states), partial(judge, want)


@exercise
def check_wasserstein() -> Iterator[Case]:
    """Check a function (values, reference) -> Wasserstein-1 distance of two samples."""
    from matdesign.metrics.distances import wasserstein

    rng = np.random.default_rng(0)
    inputs = {
        "one value against another": (np.array([1.0]), np.array([4.0])),
        "equal samples": (np.array([1.0, 2.0, 5.0]), np.array([5.0, 1.0, 2.0])),
        "a sample of two against one of one": (np.array([0.0, 2.0]), np.array([0.0])),
        "unsorted samples": (rng.normal(size=40), rng.normal(size=40)),
        "samples of 30 and 70": (rng.normal(size=30), rng.normal(1, 2, size=70)),
    }
    for name, given in inputs.items():
        yield name, given, near(wasserstein(*given), 1e-6)


def check_fooling(batch: Any, reference: Crystals) -> Verdict:
    """Check that a batch fools the usual metrics: 95 % valid, unique and novel.

    It must hold 100 crystals at least; the reference is what counts as known.
    """
    from matdesign.metrics.evaluator import evaluate

    if not isinstance(batch, Crystals):
        return Verdict(False, f"give crystals, a `Crystals`; got {_shown(batch)}.")
    if len(batch) < 100:
        return Verdict(False, f"100 crystals are needed; got {len(batch)}.")
    judged = evaluate(batch, reference)
    for metric in judged.metrics.values():
        if metric.better == "higher" and metric.value < 0.95:
            return Verdict(False, f"{metric}; 0.95 is needed.")
    return Verdict(True, f"{judged['valid, unique and novel']}.")
