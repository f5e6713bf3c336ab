"""Checks for the exercises of the chapter on representations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matdesign.teach.exercises import Verdict, _call, _is, _short, checked


@checked
def check_orbit(answer: Callable[[float, float, float], Any]) -> Verdict:
    """Check a function (x, y, z) -> all images of a point in P2_1/c, each once.

    Unique axis b, as in the International Tables. Three of the points are special.
    """
    from matdesign.crystals.symmetry.operations import images

    points = [(0.1, 0.2, 0.3), (0.45, 0.9, 0.05), (0, 0, 0), (0.5, 0, 0.5), (0, 0, 0.5)]
    for point in points:
        got = _call(answer, *map(float, point))
        name = f"({point[0]}, {point[1]}, {point[2]})"
        if isinstance(got, str):
            return Verdict(False, f"for {name} it {got}")
        want = images(np.array(point, dtype=float), 14)
        want = np.unique(np.round(want, 6), axis=0)
        have = np.asarray(got, dtype=float)
        if have.ndim != 2 or have.shape[1] != 3:
            return Verdict(False, f"for {name} give rows x, y, z; got {have.shape}.")
        if len(have) != len(want):
            return Verdict(
                False, f"{name} has {len(want)} images in the cell; got {len(have)}."
            )
        apart = want[:, None] - have[None]
        near = np.abs(apart - np.round(apart)).max(-1).min(1)
        if near.max() > 1e-6:
            lost = want[int(near.argmax())].round(3).tolist()
            return Verdict(False, f"among the images of {name}, {lost} is missing.")
    return Verdict(True, f"{len(points)} points, three of them special.")


@checked
def check_freedom(answer: Callable[[int, str], Any]) -> Verdict:
    """Check a function (spacegroup, letters) -> how many numbers the template leaves free.

    Letters are one per orbit, such as "aab"; the lattice counts, too.
    """
    from matdesign.crystals.symmetry.orbits import symmetric_layout
    from matdesign.crystals.symmetry.wyckoff import LETTERS

    given = [
        (225, "ab"),
        (227, "ade"),
        (136, "af"),
        (166, "acc"),
        (62, "cccd"),
        (14, "aee"),
        (1, "aaa"),
        (2, "ai"),
    ]
    for spacegroup, letters in given:
        layout = symmetric_layout(spacegroup, [LETTERS.index(x) for x in letters])
        want = int(layout.free.sum() + layout.code_free.sum())
        got = _call(answer, spacegroup, letters)
        name = f"group {spacegroup} with letters {letters}"
        if isinstance(got, str):
            return Verdict(False, f"for {name} it {got}")
        if not _is(got, want):
            return Verdict(False, f"{name} leaves {want} numbers free; got {got}.")
    return Verdict(True, f"{len(given)} templates.")


@checked
def check_origin(answer: Callable[[int], Any]) -> Verdict:
    """Check a function spacegroup -> directions along which the origin may be moved."""
    from matdesign.crystals.symmetry.operations import operations

    groups = (1, 2, 4, 8, 14, 19, 25, 33, 99, 129, 160, 166, 186, 216, 225)
    for spacegroup in groups:
        rotations, _ = operations(spacegroup)
        want = round(float(np.trace(rotations.mean(0))))
        got = _call(answer, spacegroup)
        if isinstance(got, str):
            return Verdict(False, f"for group {spacegroup} it {got}")
        if not _is(got, want):
            return Verdict(
                False, f"in group {spacegroup} there are {want} directions; got {got}."
            )
    return Verdict(True, f"{len(groups)} space groups.")


@checked
def check_pull_back(answer: Callable[[Tensor, Tensor], Any]) -> Verdict:
    """Check a function (moves, maps) -> shift of u that fits the moves of an orbit best.

    `moves` has one row per atom of the orbit in a cubic cell, `maps` the matrix M of each
    atom: for a shift d of u, atom i moves by d @ maps[i].
    """
    from matdesign.crystals.symmetry.orbits import symmetric_layout

    rng = torch.Generator().manual_seed(0)
    given = [
        ("general", 195, 9),
        ("x, x, x", 221, 6),
        ("0, y, z", 200, 9),
        ("x, 0, 0", 221, 4),
    ]
    for name, spacegroup, letter in given:
        layout = symmetric_layout(spacegroup, [letter])
        maps = layout.move[0]
        shift = torch.randn(1, 1, 3, generator=rng) * layout.free
        exact = torch.einsum("bi,sij->sj", shift[0], maps)
        wild = torch.randn(exact.shape, generator=rng)
        for kind, moves in (
            ("moves that keep the symmetry", exact),
            ("any moves", wild),
        ):
            want = layout.pull_back(moves[None])[0, 0]
            got = _call(answer, moves.clone(), maps.clone())
            where = f"for {kind} of an orbit {name}"
            if isinstance(got, str):
                return Verdict(False, f"{where} it {got}")
            have = torch.as_tensor(got).reshape(-1)
            if have.shape != (3,) or not torch.allclose(have, want, atol=1e-4):
                return Verdict(
                    False, f"{where} expect {_short(want)}; got {_short(have)}."
                )
    return Verdict(True, f"{len(given)} orbits, with and without noise.")
