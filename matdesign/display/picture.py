"""Still pictures of crystals: an SVG drawing that needs no browser engine, no JavaScript.

It stands where the turning viewer cannot: on paper, without WebGL, in a grid of many.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdesign.tables import render

TURN, TILT = 25.0, 14.0
"""Degrees about the upright axis and towards the reader: where every picture starts."""


def rotation(turn: float = TURN, tilt: float = TILT) -> NDArray[np.float64]:
    """Return the matrix that puts c upright, turned and tilted, for column vectors."""
    from scipy.spatial.transform import Rotation

    angles = [-90, -turn, tilt]
    return np.asarray(Rotation.from_euler("xyx", angles, degrees=True).as_matrix())


def camera() -> list[float]:
    """Return the pictures' turn as a quaternion (x, y, z, w) for NGL's camera."""
    from scipy.spatial.transform import Rotation

    # NGL looks along +z, the drawings look along -z: half a turn about the upright axis.
    seen = Rotation.from_euler("y", 180, degrees=True)
    turned = (seen * Rotation.from_matrix(rotation())).as_quat()
    return [round(float(x), 5) for x in turned]


def draw(
    drawn: dict[str, Any],
    species: list[dict[str, Any]],
    alt: str,
    *,
    width: int = 480,
    height: int = 320,
) -> str:
    """Return an SVG drawing of one frame, nearest atoms last, every atom lettered.

    Args:
        drawn: a frame of `scene.frame`.
        species: the table of `scene.species_table`.
        alt: what the picture shows, in words.
        width: of the drawing's own coordinate box.
        height: of the same box.
    """
    matrix = rotation()
    xyz = np.array(drawn["xyz"]).reshape(-1, 3)
    cell = np.array(drawn["cell"]).reshape(3, 3)
    corners = np.array(list(itertools.product((0, 1), repeat=3))) @ cell
    everything = np.concatenate([xyz, corners]) @ matrix.T
    low, high = everything.min(0), everything.max(0)
    room = max(species[k]["radius"] for k in drawn["kind"]) + 0.2
    scale = min(
        width / (high[0] - low[0] + 2 * room), height / (high[1] - low[1] + 2 * room)
    )
    middle = (low + high) / 2

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = (points @ matrix.T - middle) * scale
        return np.asarray(moved * [1, -1, 1] + [width / 2, height / 2, 0])

    at, edge = place(xyz), place(corners)
    parts: list[tuple[float, Any]] = []
    for p, q in itertools.combinations(range(8), 2):
        if (p ^ q).bit_count() == 1:
            depth = (edge[p, 2] + edge[q, 2]) / 2 - 1e3 * scale
            parts.append((depth, (edge[p], edge[q], "#595966", 1.4)))
    kinds, flat = drawn["kind"], drawn["bonds"]
    for a, b in zip(flat[::2], flat[1::2], strict=True):
        half = (at[a] + at[b]) / 2
        for end in (a, b):
            kind = species[kinds[end]]
            reach = float(np.linalg.norm(half - at[end]))
            skin = min(1.0, 0.9 * kind["radius"] * scale / max(reach, 1e-6))
            start = at[end] + skin * (half - at[end])
            depth = float(start[2] + half[2]) / 2
            parts.append((depth, (start, half, kind["color"], 0.18 * scale)))
    for n, p in enumerate(at):
        kind = species[kinds[n]]
        parts.append((float(p[2]), (p, None, kind, kind["radius"] * scale)))
    parts.sort(key=lambda part: part[0])
    shown = [part for _, part in parts]
    return render("drawing", width=width, height=height, alt=alt, parts=shown)
