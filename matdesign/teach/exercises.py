"""Checks for the book's exercises: they say what failed, and on which input."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.geometry import displacement

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matdesign.crystals.batch import Crystals

    Samples = NDArray[np.float64]


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


def checked(check: Callable[[Any], Verdict]) -> Callable[[Any], Verdict]:
    """Let a check of a function always end in a verdict, whatever the function gives.

    What the check does with an answer of the wrong kind (a list, a number, a text) may
    fail in any way; then the last answer is shown.

    Args:
        check: takes a function, and asks it with `_call`.
    """

    @wraps(check)
    def safe(answer: Any) -> Verdict:
        last: list[Any] = []

        def noted(*given: Any) -> Any:
            last.clear()
            last.append(answer(*given))
            return last[0]

        try:
            return check(noted)
        except Exception as problem:  # a learner's answer may be of any kind
            if last and (last[0] is None or last[0] is Ellipsis):
                return Verdict(False, "it gave nothing back; end it with a return.")
            if not last:
                return Verdict(False, f"it raised {type(problem).__name__}: {problem}")
            return Verdict(
                False,
                f"it gave {_shown(last[0])}, which cannot be compared with what is asked "
                "for. Look at the text of the exercise: what should it give back?",
            )

    return safe


@checked
def check_wrap(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check a function that moves fractional coordinates into [0, 1).

    It is given float32 and float64 numbers, among them those just beside whole numbers.
    """
    values = [
        0.0,
        0.25,
        -0.25,
        1.0,
        -1.0,
        2.75,
        -1e-9,
        1 - 1e-9,
        -1e-17,
        1e-9,
        7.999999,
    ]
    for dtype in (torch.float64, torch.float32):
        for value in values:
            given = torch.tensor([value], dtype=dtype)
            got = _call(answer, given.clone())
            where = f"wrap({value!r}) in {dtype}"
            if isinstance(got, str):
                return Verdict(False, f"{where} {got}")
            number = float(np.asarray(got, dtype=float).reshape(-1)[0])
            if not 0 <= number < 1:
                return Verdict(
                    False, f"{where} gave {number!r}, which is not in [0, 1)."
                )
            off = abs((number - float(given[0]) + 0.5) % 1 - 0.5)
            if off > 1e-6:
                return Verdict(False, f"{where} gave {number!r}: {off:.3g} away.")
    return Verdict(True, f"{2 * len(values)} numbers wrapped.")


@checked
def check_minimum_image(answer: Callable[[Tensor, Tensor, Tensor], Any]) -> Verdict:
    """Check a function (start, end, lattice) -> distance to the nearest image, in Å.

    The last cells are so skewed that the nearest image is not in a neighbouring cell.
    """
    cells = [
        ("a cubic cell", torch.eye(3) * 4),
        ("a hexagonal cell", torch.tensor([[3.0, 0, 0], [-1.5, 2.598, 0], [0, 0, 5]])),
        (
            "a cell with angle 35°",
            torch.tensor([[4.0, 0, 0], [3.28, 2.29, 0], [0, 0, 6]]),
        ),
        ("a sheared cell", torch.tensor([[3.0, 0, 0], [7.3, 2.5, 0], [0.4, 9.1, 2.8]])),
    ]
    rng = torch.Generator().manual_seed(0)
    tried = 0
    for name, lattice in cells:
        for _ in range(20):
            start, end = torch.rand(2, 3, generator=rng)
            true = float(displacement(start[None], end[None], lattice[None]).norm())
            got = _call(answer, start.clone(), end.clone(), lattice.clone())
            if isinstance(got, str):
                return Verdict(False, f"in {name} it {got}")
            if abs(float(got) - true) > 1e-3:
                pair = f"{_short(start)} and {_short(end)}"
                return Verdict(
                    False,
                    f"in {name}, sites {pair} are {true:.3f} Å apart; got {float(got):.3f}.",
                )
            tried += 1
    return Verdict(True, f"{tried} pairs in {len(cells)} cells.")


@checked
def check_fingerprint(answer: "Callable[[Structure], Any]") -> Verdict:
    """Check a function structure -> numbers that describes the crystal, not its cell.

    The numbers must stay when sites are reordered, shifted together or moved by whole
    cells, when the crystal is rotated, and when a supercell is taken; they must differ
    for two polymorphs of one composition.
    """
    from pymatgen.core import Lattice, Structure

    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    middle = [0.5, 0.5, 0.5]
    other = Structure(Lattice.cubic(3.1498), ["Cs", "Cl"], [[0.0] * 3, middle])
    twist = _rotation()
    n = len(salt)
    frac: Any = salt.frac_coords
    shift = np.array([0.13, 0.41, 0.77])
    whole = np.arange(3 * n).reshape(n, 3) % 3 - 1.0
    same = {
        "reordering sites": Structure(
            salt.lattice, salt.species[::-1], frac[::-1], to_unit_cell=True
        ),
        "shifting all sites": Structure(salt.lattice, salt.species, frac + shift),
        "adding whole numbers": Structure(salt.lattice, salt.species, frac + whole),
        "rotating the crystal": Structure(
            Lattice(salt.lattice.matrix @ twist), salt.species, frac
        ),
        "taking a supercell": salt * (2, 1, 1),
    }
    first = _call(answer, salt.copy())
    if isinstance(first, str):
        return Verdict(False, f"on rock salt it {first}")
    base = np.asarray(first, dtype=float).ravel()
    for change, structure in same.items():
        got = _call(answer, structure)
        if isinstance(got, str):
            return Verdict(False, f"after {change} it {got}")
        row = np.asarray(got, dtype=float).ravel()
        if row.shape != base.shape or not np.allclose(row, base, atol=1e-3):
            return Verdict(False, f"{change} changes the numbers, but not the crystal.")
    got = _call(answer, other)
    if isinstance(got, str):
        return Verdict(False, f"on caesium chloride it {got}")
    row = np.asarray(got, dtype=float).ravel()
    if row.shape == base.shape and np.allclose(row, base, atol=1e-3):
        return Verdict(
            False, "rock salt and caesium chloride of one density get the same numbers."
        )
    return Verdict(
        True, f"{len(same)} changes leave it alone, another structure does not."
    )


@checked
def check_free_numbers(answer: Callable[[str], Any]) -> Verdict:
    """Check a function family -> how many numbers of the lattice code are free."""
    from matdesign.crystals.lattice_code import FAMILIES, free_entries

    for name in FAMILIES:
        want = int(free_entries(name).sum())
        got = _call(answer, name)
        if isinstance(got, str):
            return Verdict(False, f"for {name} it {got}")
        if not _is(got, want):
            return Verdict(
                False,
                f"for {name}: {got} is not the number of free entries. Count what the "
                "symmetry of the family leaves of three lengths and three angles.",
            )
    return Verdict(True, f"{len(FAMILIES)} families.")


@checked
def check_interval(answer: Callable[[int, int], Any]) -> Verdict:
    """Check a function (hits, of) -> (low, high), a 95 % interval of a share.

    Wilson's interval is the reference; a bootstrap of it may differ by 0.03.
    """
    for hits, of in ((50, 100), (3, 40), (0, 25), (25, 25), (870, 1000)):
        got = _call(answer, hits, of)
        if isinstance(got, str):
            return Verdict(False, f"for {hits} of {of} it {got}")
        if np.shape(got) != (2,):
            return Verdict(False, f"for {hits} of {of} give two numbers, low and high.")
        low, high = float(got[0]), float(got[1])
        if not 0 <= low <= hits / of <= high <= 1:
            return Verdict(
                False,
                f"for {hits} of {of}: ({low:.3f}, {high:.3f}) must hold {hits / of}.",
            )
        z = 1.96
        middle = (hits + z * z / 2) / (of + z * z)
        half = z / (of + z * z) * math.sqrt(hits * (of - hits) / of + z * z / 4)
        if max(abs(low - middle + half), abs(high - middle - half)) > 0.03:
            return Verdict(
                False,
                f"for {hits} of {of} expect about ({middle - half:.3f}, "
                f"{middle + half:.3f}); got ({low:.3f}, {high:.3f}).",
            )
    return Verdict(True, "five shares, also none and all.")


@checked
def check_neutral(answer: Callable[[list[int], list[list[int]]], Any]) -> Verdict:
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
    for counts, states, want in inputs:
        got = _call(answer, list(counts), [list(some) for some in states])
        name = f"counts {counts} with states {states}"
        if isinstance(got, str):
            return Verdict(False, f"for {name} it {got}")
        if bool(got) != want:
            word = "can" if want else "cannot"
            return Verdict(False, f"{name} {word} be neutral; got {got!r}.")
    return Verdict(True, f"{len(inputs)} formulas, two of them with 14 elements.")


@checked
def check_wasserstein(answer: "Callable[[Samples, Samples], Any]") -> Verdict:
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
    for name, (values, reference) in inputs.items():
        want = wasserstein(values, reference)
        got = _call(answer, values.copy(), reference.copy())
        if isinstance(got, str):
            return Verdict(False, f"for {name} it {got}")
        if not abs(float(got) - want) < 1e-6:
            return Verdict(False, f"for {name} expect {want:.4f}; got {got}.")
    return Verdict(True, f"{len(inputs)} pairs of samples.")


def check_fooling(batch: "Crystals", reference: "Crystals") -> Verdict:
    """Check that a batch fools the usual metrics: 95 % valid, unique and novel.

    It must hold 100 crystals at least; the reference is what counts as known.
    """
    from matdesign.metrics.evaluator import evaluate

    if len(batch) < 100:
        return Verdict(False, f"100 crystals are needed; got {len(batch)}.")
    judged = evaluate(batch, reference)
    for metric in judged.metrics.values():
        if metric.better != "higher":
            continue
        if metric.value < 0.95:
            return Verdict(False, f"{metric}; 0.95 is needed.")
    return Verdict(True, f"{judged['valid, unique and novel']}.")


class Instead(str):
    """What a function did in place of an answer."""


def _call(answer: Callable[..., Any], *given: Any) -> Any:
    """Return the answer, or `Instead`: what the function did in its place."""
    try:
        got = answer(*given)
    except Exception as problem:  # a learner's function may fail in any way
        return Instead(f"raised {type(problem).__name__}: {problem}")
    if got is None or got is Ellipsis:
        return Instead("gave nothing back; end it with a return.")
    if isinstance(got, str):
        return Instead(f"gave the text {got!r}; numbers are asked for.")
    return got


def _shown(got: Any) -> str:
    """Return a short description of an answer."""
    text = " ".join(repr(got).split())
    return f"{type(got).__name__} {text[:80]}{'...' if len(text) > 80 else ''}"


def _is(got: Any, want: int) -> bool:
    """Return whether an answer is a whole number and that one; 1.9 is not 1."""
    return float(got) == want


def _short(row: Tensor) -> str:
    return "(" + ", ".join(f"{x:.2f}" for x in row.tolist()) + ")"


def _rotation() -> Any:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", [0.4, -0.7, 1.1]).as_matrix()
