"""Whatever a learner's function gives, a check ends in a verdict that helps."""

import inspect
import re

import numpy as np
import pytest
import torch

from matdesign.crystals.geometry import wrap
from matdesign.crystals.lattice_code import free_entries
from matdesign.teach import (
    exercises,
    exercises_crystals,
    exercises_generators,
    exercises_guidance,
    exercises_loop,
)

MODULES = (
    exercises_crystals,
    exercises_generators,
    exercises_guidance,
    exercises_loop,
)
CHECKS = [
    check
    for module in MODULES
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
    assert exercises_crystals.check_wrap(lambda x: float(wrap(x)))
    chain = exercises_generators.check_chain(
        lambda p: sum(one.log() for one in p).tolist()
    )
    assert chain, chain


def test_a_text_is_not_taken_for_an_error():
    assert "gave the text '0.5'" in exercises_crystals.check_wrap(lambda x: "0.5").text


def test_near_whole_numbers_are_not_whole():
    more = exercises_crystals.check_free_numbers(
        lambda name: int(free_entries(name).sum()) + 0.9
    )
    assert not more
    origin = exercises_crystals.check_origin(lambda group: 1.9)
    assert not origin and "float 1.9" in origin.text
    count = exercises_generators.check_count(lambda p, d: 8 * p * (1 - p) / d**2 + 0.5)
    assert not count and "whole" in count.text


def test_what_is_no_function_is_told_so():
    for given in (5, None, ..., "wrap", [1.0]):
        verdict = exercises_crystals.check_wrap(given)
        assert not verdict and "give the function itself" in verdict.text
    fooled = exercises_crystals.check_fooling("crystals", None)
    assert not fooled and "give crystals" in fooled.text


WRONG = {
    exercises_crystals.check_free_numbers: lambda name: 99,
    exercises_generators.check_chain: lambda p: 99.0 + 0 * p[0],
    exercises_guidance.check_draws: lambda rate, n: 99,
    exercises_generators.check_difference: lambda *_: 99.0,
    exercises_generators.check_count: lambda *_: 99,
    exercises_generators.check_floor: lambda width: 99.0,
    exercises_guidance.check_effective_size: lambda w: 99.0,
    exercises_guidance.check_best_of: lambda *_: 99.0,
    exercises_crystals.check_freedom: lambda *_: 99,
    exercises_crystals.check_origin: lambda group: 99,
    exercises_generators.check_divergence: lambda m, s: 99.0 + 0 * m.sum(-1),
}


@pytest.mark.parametrize("check", WRONG, ids=lambda c: c.__name__)
def test_a_wrong_answer_is_not_told_the_right_one(check):
    """The text names the input, then the learner's number, and no number after it."""
    where, mine, what = check(WRONG[check]).text.partition("99")
    assert where.startswith("for ") and mine
    assert "not right" in what
    assert not re.search(r"\d", what)


def test_every_check_keeps_its_name_and_its_text():
    for check in CHECKS:
        assert check.__name__.startswith("check_") and check.__doc__.startswith("Check")
        assert list(inspect.signature(check).parameters) == ["answer"]
