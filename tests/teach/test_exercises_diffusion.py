"""The checks of diffusion and of the side-by-side page: right passes, mistakes are named."""

import math

import pytest
import torch

from matdesign.crystals import wrapped_normal
from matdesign.crystals.geometry import wrap
from matdesign.display import plots_families
from matdesign.teach import exercises_generators as exercises


def score(x, centres, weights, sigma):
    away = x[:, None] - centres
    belongs = (wrapped_normal.log_density(away, sigma) + weights.log()).softmax(-1)
    return (belongs * wrapped_normal.score(away, sigma)).sum(-1)


def unweighted(x, centres, weights, sigma):
    away = x[:, None] - centres
    belongs = wrapped_normal.log_density(away, sigma).softmax(-1)
    return (belongs * wrapped_normal.score(away, sigma)).sum(-1)


def on_the_line(x, centres, weights, sigma):
    away = x[:, None] - centres
    belongs = (weights.log() - away.square() / (2 * sigma**2)).softmax(-1)
    return -(belongs * away).sum(-1) / sigma**2


def test_the_score_of_wells():
    assert exercises.check_mixture_score(score)
    for wrong in (unweighted, on_the_line, lambda x, c, w, s: -score(x, c, w, s)):
        verdict = exercises.check_mixture_score(wrong)
        assert not verdict
        assert "centres = " in verdict.text


def test_a_score_that_fails_is_told_how():
    assert "gave nothing back" in exercises.check_mixture_score(lambda *_: None).text
    assert "shape" in exercises.check_mixture_score(lambda x, *_: x[:2]).text
    far = exercises.check_mixture_score(lambda x, *_: x * torch.nan)
    assert not far


def step(x, s, now, then, z):
    gain = now**2 - then**2
    return wrap(x + gain * s + then / now * math.sqrt(gain) * z)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, s, now, then, z: step(x, -s, now, then, z),
        lambda x, s, now, then, z: step(x, s, now, then, 0 * z),
        lambda x, s, now, then, z: wrap(
            x + (now**2 - then**2) * s + math.sqrt(now**2 - then**2) * z
        ),
        lambda x, s, now, then, z: step(x, s, now, then, z) + 1,
    ],
)
def test_the_step_back(wrong):
    assert exercises.check_step_back(step)
    verdict = exercises.check_step_back(wrong)
    assert not verdict
    assert "now = 0.3, then = 0.2" in verdict.text


def test_the_step_is_exact_for_one_point():
    rng = torch.Generator().manual_seed(0)
    x = wrap(0.1 * torch.randn(20_000, generator=rng))
    z = torch.randn(20_000, generator=rng)
    moved = step(x, wrapped_normal.score(x, 0.1), 0.1, 0.04, z)
    spread = float((moved - moved.round()).std())
    assert abs(spread - 0.04) < 0.001  # five standard errors of a spread


def test_differences_and_counts():
    def difference(a, n, b, m):
        p = (a + b) / (n + m)
        return (b / m - a / n) / math.sqrt(p * (1 - p) * (1 / n + 1 / m))

    assert exercises.check_difference(difference)
    assert not exercises.check_difference(lambda a, n, b, m: b / m - a / n)
    assert not exercises.check_difference(lambda *given: -difference(*given))
    assert exercises.check_count(lambda p, d: math.ceil(8 * p * (1 - p) / d**2))
    assert not exercises.check_count(lambda p, d: math.ceil(4 * p * (1 - p) / d**2))


def test_the_time_at_which_half_is_decided():
    times = [1.0, 0.75, 0.5, 0.25, 0.0]
    assert plots_families.half_decided(times, [0, 0, 0.25, 0.75, 1]) == 0.375
    assert plots_families.half_decided(times, [0, 0.6, 0.4, 0.9, 1]) == pytest.approx(
        0.45
    )
    assert plots_families.half_decided(times, [1, 1, 1, 1, 1]) == 1.0
    assert plots_families.half_decided(times, [0, 0, 0, 0, 0]) == 0.0
    shown = plots_families.plot_decided(times, {"volume": [0, 0, 0.25, 0.75, 1]})
    assert "volume half decided at t = 0.38" in shown.alt


def test_a_score_field_counts_what_points_home():
    points = torch.tensor([[0.1, 0.0], [0.9, 0.0], [0.4, 0.0], [0.0, 0.0]])
    arrows = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    shown = plots_families.plot_score_field(
        points,
        arrows,
        home=torch.zeros(2),
        others={"O": torch.tensor([[0.5, 0.5]])},
        moved="Ti",
    )
    assert "at 2 of 3 points" in shown.alt  # 0.9 goes home through the boundary
