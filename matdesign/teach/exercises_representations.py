"""Checks for the exercises of the chapter on representations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from matdesign.teach.exercises import Case, exercise, near, numbers, whole


@exercise
def check_orbit() -> Iterator[Case]:
    """Check a function (x, y, z) -> all images of a point in P2_1/c, each once.

    Unique axis b, as in the International Tables. Three of the points are special.
    """
    from matdesign.crystals.symmetry.wyckoff import images

    def judge(want: Any, got: Any) -> str:
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
        return f"{alien} is no image of it." if off.min(0).max() > 1e-6 else "repeats."

    points = [(0.1, 0.2, 0.3), (0.45, 0.9, 0.05), (0, 0, 0), (0.5, 0, 0.5), (0, 0, 0.5)]
    for point in points:
        found = images(np.array(point, dtype=float), 14)
        found = np.unique(np.round(found, 6), axis=0)
        yield f"the point {point}", tuple(map(float, point)), partial(judge, found)


@exercise
def check_freedom() -> Iterator[Case]:
    """Check a function (spacegroup, letters) -> how many numbers the template leaves free.

    Letters are one per orbit, such as "aab"; the lattice counts, too.
    """
    from matdesign.crystals.symmetry.orbits import symmetric_layout
    from matdesign.crystals.symmetry.wyckoff import LETTERS

    templates = "225 ab, 227 ade, 136 af, 166 acc, 62 cccd, 14 aee, 1 aaa, 2 ai"
    for template in templates.split(", "):
        number, letters = template.split()
        layout = symmetric_layout(int(number), [LETTERS.index(x) for x in letters])
        want = int(layout.free.sum() + layout.code_free.sum())
        name = f"group {number} with letters {letters}"
        yield name, (int(number), letters), whole(want)


@exercise
def check_origin() -> Iterator[Case]:
    """Check a function spacegroup -> directions along which the origin may be moved."""
    from matdesign.crystals.symmetry.wyckoff import operations

    for group in (1, 2, 4, 8, 14, 19, 25, 33, 99, 129, 160, 166, 186, 216, 225):
        rotations, _ = operations(group)
        want = round(float(np.trace(rotations.mean(0))))
        yield f"group {group}", (group,), whole(want)


@exercise
def check_pull_back() -> Iterator[Case]:
    """Check a function (moves, maps) -> shift of u that fits the moves of an orbit best.

    `moves` has one row per atom of the orbit in a cubic cell, `maps` the matrix M of each
    atom: for a shift d of u, atom i moves by d @ maps[i].
    """
    from matdesign.crystals.symmetry.orbits import symmetric_layout

    rng = torch.Generator().manual_seed(0)
    orbits = {
        "general": (195, 9),
        "x, x, x": (221, 6),
        "0, y, z": (200, 9),
        "x, 0, 0": (221, 4),
    }
    for name, (group, letter) in orbits.items():
        layout = symmetric_layout(group, [letter])
        maps = layout.move[0]
        shift = torch.randn(1, 1, 3, generator=rng) * layout.free
        exact = torch.einsum("bi,sij->sj", shift[0], maps)
        free = torch.randn(exact.shape, generator=rng)
        kinds = {"moves that keep the symmetry": exact, "any moves": free}
        for kind, moves in kinds.items():
            want = layout.pull_back(moves[None])[0, 0]
            yield f"{kind} of an orbit {name}", (moves, maps), near(want)
