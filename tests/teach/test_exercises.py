"""The checks of the exercises: right answers pass, each usual mistake is named."""

import numpy as np
import pytest
import torch

from matdesign.crystals.geometry import displacement, wrap
from matdesign.crystals.lattice_code import free_entries
from matdesign.teach import exercises_crystals as exercises


def nearest(start, end, lattice):
    return displacement(start[None], end[None], lattice[None]).norm()


def histogram(structure):
    return np.histogram(
        structure.get_neighbor_list(r=8.0)[3], np.arange(0.043, 8, 0.1)
    )[0] / len(structure)


def wilson(hits, of):
    middle = (hits + 1.92) / (of + 3.84)
    half = 1.96 / (of + 3.84) * np.sqrt(hits * (of - hits) / of + 0.96)
    return max(0.0, middle - half), min(1.0, middle + half)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (exercises.check_wrap, wrap),
        (exercises.check_minimum_image, nearest),
        (exercises.check_fingerprint, histogram),
        (exercises.check_free_numbers, lambda name: free_entries(name).sum()),
        (exercises.check_interval, wilson),
    ],
)
def test_right_answers_pass(check, answer):
    verdict = check(answer)
    assert verdict, verdict
    assert repr(verdict).startswith("Right: ")


def rounded(start, end, lattice):
    step = end - start
    return ((step - step.round()) @ lattice).norm()


def nearest_by_rounding(structure):
    step = structure.frac_coords[1:] - structure.frac_coords[0]
    return np.linalg.norm(
        (step - step.round()) @ structure.lattice.matrix, axis=1
    ).min()


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        (exercises.check_wrap, lambda x: x % 1, "1.0 is not in"),
        (exercises.check_wrap, lambda x: x.clamp(0, 0.99), "another point"),
        (exercises.check_wrap, lambda x: None, "gave nothing back"),
        (exercises.check_wrap, lambda x: x / None, "raised TypeError"),
        (
            exercises.check_minimum_image,
            rounded,
            "in a hexagonal cell|angle 35|sheared",
        ),
        (
            exercises.check_minimum_image,
            lambda s, e, m: torch.tensor(1.0),
            "a cubic cell",
        ),
        (
            exercises.check_fingerprint,
            lambda s: s.frac_coords,
            "reordering sites: the numbers change",
        ),
        (exercises.check_fingerprint, lambda s: [len(s)], "taking a supercell"),
        (
            exercises.check_fingerprint,
            lambda s: s.density,
            "caesium chloride .* those of rock salt",
        ),
        (exercises.check_fingerprint, lambda s: s.lattice.abc, "taking a supercell"),
        (exercises.check_fingerprint, nearest_by_rounding, "picking primitive edges"),
        (
            exercises.check_free_numbers,
            lambda name: 6,
            "for family = monoclinic: 6 is not right",
        ),
        (exercises.check_interval, lambda h, n: (h / n, h / n), "is not an interval"),
        (exercises.check_interval, lambda h, n: (0.0, 0.1), "must hold 0.5"),
    ],
)
def test_usual_mistakes_are_named(check, answer, says):
    import re

    verdict = check(answer)
    assert not verdict
    assert repr(verdict).startswith("Not yet: ")
    assert re.search(says, verdict.text), verdict.text


def test_an_answer_cannot_change_the_input_of_the_next_call():
    def spoils(x):
        result = wrap(x)
        x.fill_(0.3)
        return result

    assert exercises.check_wrap(spoils)
