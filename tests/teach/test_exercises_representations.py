"""The checks of the chapter on representations: right answers pass, mistakes are named."""

import re

import numpy as np
import pytest
import torch

from matdesign.crystals.lattice_code import family, free_entries
from matdesign.crystals.symmetry.wyckoff import operations, positions
from matdesign.teach import exercises_crystals as exercises


def images(x, y, z):
    rows = [(x, y, z), (-x, -y, -z), (-x, y + 0.5, 0.5 - z), (x, 0.5 - y, z + 0.5)]
    return np.unique((np.array(rows) % 1).round(9) % 1, axis=0)


def count(group, letters):
    free = {place.letter: len(place.axes) for place in positions(group)}
    return int(free_entries(family(group)).sum()) + sum(free[x] for x in letters)


def directions(group):
    return round(float(np.trace(operations(group)[0].mean(0))))


def pull(moves, maps):
    return moves.flatten() @ torch.linalg.pinv(torch.cat(list(maps), dim=1))


def test_right_answers_pass():
    assert exercises.check_orbit(images)
    assert exercises.check_freedom(count)
    assert exercises.check_origin(directions)
    assert exercises.check_pull_back(pull)


def four_always(x, y, z):
    rows = [(x, y, z), (-x, -y, -z), (-x, y + 0.5, 0.5 - z), (x, 0.5 - y, z + 0.5)]
    return np.array(rows)


def forgets_half(x, y, z):
    rows = [(x, y, z), (-x, -y, -z), (-x, y + 0.5, -z), (x, 0.5 - y, z)]
    return np.unique((np.array(rows) % 1).round(9) % 1, axis=0)


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        (
            exercises.check_orbit,
            four_always,
            "x = 0, y = 0, z = 0: 4 images are not right",
        ),
        (
            exercises.check_orbit,
            forgets_half,
            "x = 0.1, y = 0.2, z = 0.3: .* is no image of it",
        ),
        (exercises.check_orbit, lambda x, y, z: [x, y, z], r"give rows"),
        (exercises.check_orbit, lambda x, y, z: None, "gave nothing back"),
        (
            exercises.check_freedom,
            lambda g, w: count(g, set(w)),
            "spacegroup = 166, .* is not right",
        ),
        (
            exercises.check_freedom,
            lambda g, w: 6,
            "spacegroup = 225, letters = ab: 6 is not right",
        ),
        (exercises.check_freedom, lambda g: 1, "raised TypeError"),
        (exercises.check_origin, lambda g: 0, "spacegroup = 1: 0 is not right"),
        (
            exercises.check_origin,
            lambda g: int(g == 1) * 3,
            "spacegroup = 4: 0 is not right",
        ),
        (exercises.check_origin, lambda g: None, "gave nothing back"),
        (exercises.check_pull_back, lambda v, m: v.mean(0), "that keep the symmetry"),
        (exercises.check_pull_back, lambda v, m: v[0] @ torch.linalg.pinv(m[0]), "any"),
        (exercises.check_pull_back, lambda v, m: v[0, :2], "give numbers of shape"),
        (exercises.check_pull_back, lambda v, m: v @ None, "raised TypeError"),
    ],
)
def test_usual_mistakes_are_named(check, answer, says):
    verdict = check(answer)
    assert not verdict
    assert re.search(says, verdict.text), verdict
