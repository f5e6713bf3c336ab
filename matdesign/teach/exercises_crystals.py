"""Checks for the exercises of part I: crystals as data, representations, judging."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import displacement
from matdesign.crystals.lattice_code import FAMILIES, free_entries
from matdesign.crystals.symmetry.layout import symmetric_layouts
from matdesign.crystals.symmetry.wyckoff import LETTERS, images, operations
from matdesign.metrics.distances import wasserstein
from matdesign.metrics.evaluator import evaluate
from matdesign.metrics.intervals import wilson
from matdesign.teach.exercises import (
    Case,
    Verdict,
    checked,
    exercise,
    numbers,
    on_circle,
    shown,
    whole,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure

# ---- crystals as data ------------------------------------------------------------------

_EDGES = (0.0, 0.25, -0.25, 1.0, -1.0, 2.75, -1e-9, 1 - 1e-9, -1e-17, 1e-9, 7.999999)


def _coordinates() -> dict[str, tuple[Tensor]]:
    return {
        f"the number {value!r} in {dtype}": (torch.tensor([value], dtype=dtype),)
        for dtype in (torch.float64, torch.float32)
        for value in _EDGES
    }


@exercise(_coordinates, on_circle, off=1e-6)
def check_wrap(x: Tensor) -> Tensor:
    """Check a function that moves fractional coordinates into [0, 1)."""
    return x  # any number of the same point


def _pairs() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    cells = {
        "a cubic cell": [[4.0, 0, 0], [0, 4, 0], [0, 0, 4]],
        "a hexagonal cell": [[3.0, 0, 0], [-1.5, 2.598, 0], [0, 0, 5]],
        "a cell with angle 35°": [[4.0, 0, 0], [3.28, 2.29, 0], [0, 0, 6]],
        "a sheared cell": [[3.0, 0, 0], [7.3, 2.5, 0], [0.4, 9.1, 2.8]],
    }
    rng = torch.Generator().manual_seed(0)
    found = {}
    for name, rows in cells.items():
        for _ in range(20):
            start, end = torch.rand(2, 3, generator=rng)
            pair = " and ".join(str(x.numpy().round(2).tolist()) for x in (start, end))
            found[f"sites {pair} in {name}"] = start, end, torch.tensor(rows)
    return found


@exercise(_pairs, off=1e-3, hint="Is there a nearer image?")
def check_minimum_image(start: Tensor, end: Tensor, lattice: Tensor) -> Tensor:
    """Check a function (start, end, lattice) -> distance to the nearest image, in Å."""
    return displacement(start[None], end[None], lattice[None]).norm()


@checked
def check_fingerprint() -> Iterator[Case]:
    """Check a function structure -> numbers that describes the crystal, not its cell."""
    from pymatgen.core import Lattice, Structure
    from scipy.spatial.transform import Rotation

    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    other = Structure(Lattice.cubic(3.1498), ["Cs", "Cl"], [[0.0] * 3, [0.5] * 3])
    turned = Rotation.from_euler("xyz", [0.4, -0.7, 1.1]).as_matrix()
    cell, kinds, frac = salt.lattice, salt.species, np.asarray(salt.frac_coords)
    whole_cells = np.arange(frac.size).reshape(-1, 3) % 3 - 1.0
    same: dict[str, Structure] = {
        "rock salt": salt,
        "reordering sites": Structure(cell, kinds[::-1], frac[::-1]),
        "shifting all sites": Structure(cell, kinds, frac + [0.13, 0.41, 0.77]),
        "adding whole numbers": Structure(cell, kinds, frac + whole_cells),
        "rotating the crystal": Structure(Lattice(cell.matrix @ turned), kinds, frac),
        "taking a supercell": salt * (2, 1, 1),
        "picking primitive edges": salt.get_primitive_structure(),
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


@exercise(
    lambda: [(name,) for name in FAMILIES],
    whole,
    hint="Count what the symmetry leaves of three lengths and three angles.",
)
def check_free_numbers(family: str) -> int:
    """Check a function family -> how many numbers of the lattice code are free."""
    return int(free_entries(family).sum())


# ---- representations -------------------------------------------------------------------


def _orbit(want: Any, got: Any) -> str:
    have = numbers(got).numpy()
    if have.ndim != 2 or have.shape[1] != 3:
        return f"give rows x, y, z; got shape {have.shape}."
    if len(have) != len(want):
        few = "an image is missing" if len(have) < len(want) else "one comes twice"
        return f"{len(have)} images are not right: {few}."
    apart = want[:, None] - have[None]
    off = np.abs(apart - np.round(apart)).max(-1)
    if off.min(1).max() <= 1e-6:
        return ""
    alien = have[int(off.min(0).argmax())].round(3).tolist()
    return f"{alien} is no image of it." if off.min(0).max() > 1e-6 else "one repeats."


@exercise(
    lambda: [(0.1, 0.2, 0.3), (0.45, 0.9, 0.05), (0, 0, 0), (0.5, 0, 0.5), (0, 0, 0.5)],
    _orbit,
)
def check_orbit(x: float, y: float, z: float) -> Any:
    """Check a function (x, y, z) -> all images in P2_1/c, unique axis b, each once."""
    found = images(np.array([x, y, z], dtype=float), 14)
    return np.unique(np.round(found, 6), axis=0)


_TEMPLATES = "225 ab, 227 ade, 136 af, 166 acc, 62 cccd, 14 aee, 1 aaa, 2 ai"


@exercise(
    lambda: [(int(n), word) for n, word in map(str.split, _TEMPLATES.split(", "))],
    whole,
)
def check_freedom(spacegroup: int, letters: str) -> int:
    """Check a function (spacegroup, letters) -> numbers that the template leaves free."""
    layout = symmetric_layouts([spacegroup], [[LETTERS.index(x) for x in letters]])
    return int(layout.free.sum() + layout.code_free.sum())


_GROUPS = (1, 2, 4, 8, 14, 19, 25, 33, 99, 129, 160, 166, 186, 216, 225)


@exercise(lambda: [(group,) for group in _GROUPS], whole)
def check_origin(spacegroup: int) -> int:
    """Check a function spacegroup -> directions along which the origin may be moved."""
    return round(float(np.trace(operations(spacegroup)[0].mean(0))))


_ORBITS = (("general", 195, 9), ("x, x, x", 221, 6), ("0, y, z", 200, 9))


def _moves() -> dict[str, tuple[Tensor, Tensor]]:
    rng, found = torch.Generator().manual_seed(0), {}
    for name, group, letter in _ORBITS:
        maps = symmetric_layouts([group], [[letter]]).move[0]
        exact = torch.randn(3, generator=rng) @ maps
        free = torch.randn(exact.shape, generator=rng)
        found[f"moves that keep the symmetry of an orbit {name}"] = exact, maps
        found[f"any moves of an orbit {name}"] = free, maps
    return found


@exercise(_moves)
def check_pull_back(moves: Tensor, maps: Tensor) -> Tensor:
    """Check a function (moves, maps) -> shift of u that fits the moves of an orbit best."""
    return moves.flatten() @ torch.linalg.pinv(torch.cat(list(maps), dim=1))


# ---- judging crystals ------------------------------------------------------------------


def _interval(want: tuple[float, float, float], got: Any) -> str:
    have = numbers(got)
    if have.shape != (2,):
        return "give two numbers, low and high."
    (low, high), (share, *ends) = have.tolist(), want
    if not 0 <= low <= share <= high <= 1:
        return f"({low:.3f}, {high:.3f}) must hold {share} and lie in [0, 1]."
    off = max(abs(low - ends[0]), abs(high - ends[1]))  # of a bootstrap: up to 0.03
    found = f"({low:.3f}, {high:.3f}) is not an interval of 95 %."
    return "" if off <= 0.03 else found


@exercise(lambda: [(50, 100), (3, 40), (0, 25), (25, 25), (870, 1000)], _interval)
def check_interval(hits: int, of: int) -> tuple[float, float, float]:
    """Check a function (hits, of) -> (low, high), a 95 % interval of a share."""
    return hits / of, *wilson(hits, of)


def _samples() -> dict[str, tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    return {
        "one value against another": (np.array([1.0]), np.array([4.0])),
        "equal samples": (np.array([1.0, 2.0, 5.0]), np.array([5.0, 1.0, 2.0])),
        "a sample of two against one of one": (np.array([0.0, 2.0]), np.array([0.0])),
        "unsorted samples": (rng.normal(size=40), rng.normal(size=40)),
        "samples of 30 and 70": (rng.normal(size=30), rng.normal(1, 2, size=70)),
    }


@exercise(_samples, off=1e-6)
def check_wasserstein(values: Any, reference: Any) -> float:
    """Check a function (values, reference) -> Wasserstein-1 distance of two samples."""
    return wasserstein(values, reference)


def check_fooling(batch: Any, reference: Crystals) -> Verdict:
    """Check that 100 crystals fool the usual metrics: 95 % valid, unique and novel."""
    if not isinstance(batch, Crystals):
        return Verdict(False, f"give crystals, a `Crystals`; got {shown(batch)}.")
    if len(batch) < 100:
        return Verdict(False, f"100 crystals are needed; got {len(batch)}.")
    judged = evaluate(batch, reference)
    for metric in judged.metrics.values():
        if metric.better == "higher" and metric.value < 0.95:
            return Verdict(False, f"{metric}; 0.95 is needed.")
    return Verdict(True, f"{judged['valid, unique and novel']}.")
