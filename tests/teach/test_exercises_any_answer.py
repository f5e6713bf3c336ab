"""Whatever a learner's function gives, a check ends in a verdict that helps."""

import inspect

import numpy as np
import pytest
import torch

from matdesign import (
    exercises,
    exercises_autoregressive,
    exercises_constraints,
    exercises_diffusion,
    exercises_flow,
    exercises_guidance,
    exercises_one_guide,
    exercises_representations,
    exercises_vae,
)
from matdesign.crystals.geometry import wrap
from matdesign.crystals.lattice_code import free_entries

CHECKS = [
    check
    for module in (
        exercises,
        exercises_autoregressive,
        exercises_constraints,
        exercises_diffusion,
        exercises_flow,
        exercises_guidance,
        exercises_one_guide,
        exercises_representations,
        exercises_vae,
    )
    for name, check in inspect.getmembers(module, inspect.isfunction)
    if name.startswith("check_") and name != "check_fooling"
    if check.__module__ == module.__name__
]


def blank(*_):
    raise NotImplementedError("write it")


ANSWERS = {
    "float": lambda *_: 0.123,
    "scalar": lambda *_: torch.tensor(-7.5),
    "numpy": lambda *_: np.array([0.5, 2.5, 9.5]),
    "list": lambda *_: [0.1, 0.2],
    "nested": lambda *_: [[1], [2, 3]],
    "empty": lambda *_: [],
    "set": lambda *_: {17},
    "text": lambda *_: "0.5",
    "dict": lambda *_: {},
    "function": lambda *_: print,
    "complex": lambda *_: 1j,
    "none": lambda *_: None,
    "ellipsis": lambda *_: ...,
    "blank": blank,
    "no arguments": lambda: 1,
    "not a function": 5,
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("kind", ANSWERS)
def test_any_answer_gets_a_verdict(check, kind):
    verdict = check(ANSWERS[kind])
    assert isinstance(verdict, exercises.Verdict)
    assert not verdict and len(verdict.text) > 15
    if kind in ("none", "ellipsis"):
        assert "gave nothing back" in verdict.text
    if kind == "blank":
        assert "raised NotImplementedError: write it" in verdict.text


def test_answers_of_plain_python_are_right_too():
    assert exercises.check_wrap(lambda x: float(wrap(x)))
    from tests import test_exercises_diffusion as diffusion

    given = exercises_diffusion.check_mixture_score(
        lambda *a: diffusion.score(*a).tolist()
    )
    assert given, given


def test_a_text_is_not_taken_for_an_error():
    assert "gave the text '0.5'" in exercises.check_wrap(lambda x: "0.5").text


def test_near_whole_numbers_are_not_whole():
    more = exercises.check_free_numbers(
        lambda name: int(free_entries(name).sum()) + 0.9
    )
    assert not more
    origin = exercises_representations.check_origin(lambda group: 1.9)
    assert not origin and "got 1.9" in origin.text
    count = exercises_diffusion.check_count(lambda p, d: 8 * p * (1 - p) / d**2 + 0.5)
    assert not count and "whole" in count.text


def test_a_wrong_number_of_free_entries_is_not_told_the_right_one():
    for name in ("triclinic", "monoclinic"):
        assert int(free_entries(name).sum()) in (6, 4)
    text = exercises.check_free_numbers(lambda name: 9).text
    assert "triclinic" in text or "cubic" in text
    assert not any(figure in text.replace("9", "") for figure in "123456")
