"""The checks of the chapter on judging: right answers pass, usual mistakes are named."""

import re

import numpy as np
import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import wrap
from matdesign.teach import exercises_crystals as exercises


def carried(values, reference):
    grid = np.sort(np.concatenate([values, reference]))
    steps = [
        np.searchsorted(np.sort(s), grid[:-1], side="right") / len(s)
        for s in (values, reference)
    ]
    return np.abs(steps[0] - steps[1]) @ np.diff(grid)


def test_right_answers_pass():
    assert exercises.check_wasserstein(carried)


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        (
            exercises.check_wasserstein,
            lambda a, b: np.abs(np.sort(a) - np.sort(b)).mean(),
            "samples of 30 and 70: it raised ValueError",
        ),
        (
            exercises.check_wasserstein,
            lambda a, b: abs(a.mean() - b.mean()),
            "is not right",
        ),
        (exercises.check_wasserstein, lambda a, b: a - None, "raised TypeError"),
    ],
)
def test_usual_mistakes_are_named(check, answer, says):
    verdict = check(answer)
    assert not verdict
    assert re.search(says, verdict.text), verdict


def alloys(n, edge=3.3):
    metals = torch.tensor([3, 11, 12, 13, 19, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30])
    pairs = torch.combinations(torch.cat([metals, metals + 18]).unique())[:n]
    sites = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]]).repeat(n, 1, 1)
    return Crystals(pairs, sites, edge * torch.eye(3).repeat(n, 1, 1))


def test_fooling_needs_enough_crystals_and_every_rate():
    batch = alloys(110)
    known = alloys(3, edge=3.4)
    assert exercises.check_fooling(batch, known)
    few = exercises.check_fooling(batch[:50], known)
    assert not few and "100 crystals are needed; got 50" in few.text
    copies = exercises.check_fooling(batch[[0] * 100], known)
    assert not copies and "uniqueness 1/100" in copies.text
    known_ones = exercises.check_fooling(batch, batch)
    assert not known_ones and "novelty 0/110" in known_ones.text
    overlapping = batch.replace(frac=wrap(batch.frac * 0.01))
    collapsed = exercises.check_fooling(overlapping, known)
    assert not collapsed and "structural validity" in collapsed.text
