"""The checks of guidance: right passes, mistakes are named."""

import math

import pytest
import torch

from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.guidance.particles import Particles, systematic
from matdesign.teach import exercises_guidance as exercises
from matdesign.teach.torus_toy import TorusToy, cells
from matdesign.teach.toys import WordToy


def masked(table, allowed):
    left = table * allowed
    column = table.sum(1) * allowed.any(1)
    rows = left / left.sum(1, keepdim=True).clamp(min=1e-12)
    return column[:, None] / column.sum() * rows


def wanted(table, allowed):
    return table * allowed / (table * allowed).sum()


def test_the_masked_distribution():
    assert exercises.check_masked(masked)
    assert "drawn first" in exercises.check_masked(wanted).text
    assert "forbidden" in exercises.check_masked(lambda t, a: t).text
    assert "sums to" in exercises.check_masked(lambda t, a: t * a).text
    assert "shape" in exercises.check_masked(lambda t, a: t.flatten()).text
    assert "gave nothing back" in exercises.check_masked(lambda t, a: None).text


def test_the_formula_is_what_the_sampler_draws():
    """The answer of the exercise, against words drawn column by column."""
    table = TorusToy().tilted(lambda x: 0 * x[:, 0], 6)
    allowed = torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) < 0.5

    made = WordToy(table).sample(20_000, seed=0, good=allowed)
    counts = (made[:, 0] * 6 + made[:, 1]).bincount(minlength=36).view(6, 6)
    assert torch.allclose(counts / 20_000, masked(table, allowed).float(), atol=0.012)


def known_step(x, known, now, then, z):
    kept = then**2 / now**2
    away = torus_difference(known, x)
    return wrap(known + kept * away + then / now * math.sqrt(now**2 - then**2) * z)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, known, now, then, z: wrap(known + then * z),
        lambda x, known, now, then, z: known_step(x, known, now, then, 0 * z),
        lambda x, known, now, then, z: known_step(x, known, now, then, z) + 1,
        lambda x, known, now, then, z: wrap(
            known
            + then**2 / now**2 * (x - known)
            + then / now * math.sqrt(now**2 - then**2) * z
        ),
    ],
)
def test_the_step_of_known_coordinates(wrong):
    assert exercises.check_known_step(known_step)
    verdict = exercises.check_known_step(wrong)
    assert not verdict
    assert "now = 0.3, then = 0.2" in verdict.text


def test_the_known_step_is_that_of_the_torus():
    """One step of the sampler with everything known takes the same step."""
    toy, known = TorusToy(), torch.tensor([0.9, 0.2])
    seen = []
    toy.sample(
        200, seed=0, steps=30, known=known, watch=lambda s, x, p, c: seen.append((s, x))
    )
    (now, x), (then, after) = seen[10:12]
    exact = known + then**2 / now**2 * torus_difference(known.expand_as(x), x)
    spread = then / now * math.sqrt(now**2 - then**2)
    z = torus_difference(exact, after) / spread
    assert abs(float(z.mean())) < 0.2 and abs(float(z.std()) - 1) < 0.15


def test_effective_size():
    def right(log_weights):
        w = log_weights.softmax(0)
        return 1 / w.square().sum()

    assert exercises.check_effective_size(right)
    naive = lambda v: v.exp().sum() ** 2 / v.exp().square().sum()  # noqa: E731
    assert "large log-weights" in exercises.check_effective_size(naive).text
    assert not exercises.check_effective_size(lambda v: (v > v.max() - 1).sum() + 1)
    crowd = Particles(1, 4, torch.Generator().manual_seed(0), threshold=0.0)
    crowd.move(torch.tensor([0.1, 1.2, -0.3, 0.4]))
    assert float(right(crowd.log_weight[0])) == pytest.approx(float(crowd.ess))


def test_resampling():
    def right(weights, first):
        marks = (torch.arange(len(weights)) + first) / len(weights)
        return torch.searchsorted(weights.cumsum(0), marks.double(), right=True)

    assert exercises.check_resampling(right)
    assert exercises.check_resampling(lambda w, f: right(w, f).flip(0))
    assert not exercises.check_resampling(lambda w, f: torch.arange(len(w)))
    verdict = exercises.check_resampling(lambda w, f: right(w, 0.5))
    assert "first = 0" in verdict.text
    rng = torch.Generator().manual_seed(3)
    first = float(torch.rand(1, 1, generator=torch.Generator().manual_seed(3)))
    w = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert systematic(w, rng)[0].tolist() == right(w[0].double(), first).tolist()


def test_cells_of_the_chapter_fit_words():
    """A cell drawn as column and row has the number that `cells` gives a point in it."""
    words = torch.tensor([[0, 0], [3, 11], [11, 3]])
    points = (words + 0.5) / 12
    assert cells(points, 12).tolist() == (words[:, 0] * 12 + words[:, 1]).tolist()
