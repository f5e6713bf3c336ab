"""The checks of learning: right passes, mistakes are named."""

import torch

from matdesign.teach import exercises_loop as exercises


def test_the_optimum_of_a_reward_with_a_prior():
    def right(prior, rewards, beta):
        return (prior.log() + rewards / beta).softmax(0)

    assert exercises.check_tilted(right)
    assert not exercises.check_tilted(lambda p, r, b: p * (r / b).exp())
    assert not exercises.check_tilted(lambda p, r, b: (r / b).softmax(0))


def test_the_clipped_gain():
    def right(q, g, c):
        return float(
            torch.minimum(torch.tensor(q * g), torch.tensor(q).clamp(1 - c, 1 + c) * g)
        )

    assert exercises.check_clipped(right)
    assert not exercises.check_clipped(lambda q, g, c: min(max(q, 1 - c), 1 + c) * g)


def test_the_factor_of_diversity():
    def right(formulas):
        return [max(0, min(1, (6 - formulas.count(x)) / 3)) for x in formulas]

    assert exercises.check_diversity(right)
    assert not exercises.check_diversity(lambda some: [1.0] * len(some))
