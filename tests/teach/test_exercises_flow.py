"""Checks of the chapter on flows: right answers pass, near misses are told what is wrong."""

import math

import torch

from matdesign.teach import exercises_generators


def floor(width):
    return math.log(width * math.sqrt(2 * math.pi * math.e))


def log_det(forward, x):
    return torch.linalg.slogdet(torch.autograd.functional.jacobian(forward, x))[1]


def divergence(velocity, x):
    x = x.clone().requires_grad_()
    v = velocity(x)
    return sum(
        torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i]
        for i in range(x.shape[1])
    )


def test_right_answers_pass():
    assert exercises_generators.check_floor(floor)
    assert exercises_generators.check_log_det(log_det)
    assert exercises_generators.check_divergence_of(divergence)


def test_near_misses_fail_and_say_why():
    wrong = exercises_generators.check_floor(lambda width: -floor(width))
    assert not wrong and "entropy" in wrong.text
    wrong = exercises_generators.check_log_det(
        lambda f, x: (
            torch.autograd.functional.jacobian(f, x).diagonal().abs().log().sum()
        )
    )
    assert not wrong and "for x = [" in wrong.text
    wrong = exercises_generators.check_divergence_of(
        lambda v, x: divergence(v, x).sum().reshape(1)
    )
    assert not wrong and "give numbers of shape (4,)" in wrong.text
    wrong = exercises_generators.check_divergence_of(lambda v, x: 1 / 0)
    assert not wrong
