"""Every guidance method on a torus, against the exact density that it should give."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from matdesign.crystals import wrapped_normal
from matdesign.errors import InfeasibleTarget
from matdesign.guidance.particles import Particles
from matdesign.teach.torus_toy import TorusToy, cells
from matdesign.teach.toys import WordToy

TOY = TorusToy()
N, BINS, STEPS = 2_500, 12, 40


def nothing(x: Tensor) -> Tensor:
    return 0 * x[:, 0]


def diagonal(x: Tensor) -> Tensor:
    return 2 * torch.cos(2 * math.pi * (x[:, 0] + x[:, 1]))


def band(x: Tensor) -> Tensor:
    """0 where 1/3 <= y <= 2/3, else -inf."""
    inside = (x[:, 1] >= 1 / 3) & (x[:, 1] <= 2 / 3)
    return torch.where(inside, 0.0, -torch.inf).to(x)


def clip(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0], x[:, 1].clamp(1 / 3, 2 / 3 - 1e-6)], 1)


def off(x: Tensor, exact: Tensor) -> float:
    """Return the total variation between points and the probabilities of cells."""
    bins = exact.shape[0]
    counts = cells(x, bins).bincount(minlength=exact.numel())
    return 0.5 * float((counts / len(x) - exact.flatten()).abs().sum())


def floor(exact: Tensor, n: int = N) -> float:
    """Return the total variation that n exact draws have on average, about."""
    rng = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(exact.flatten(), n, replacement=True, generator=rng)
    counts = drawn.bincount(minlength=exact.numel())
    return 0.5 * float((counts / n - exact.flatten()).abs().sum())


def drawn(n: int = N, **how: object) -> Tensor:
    return TOY.sample(n, seed=0, steps=STEPS, **how)  # type: ignore[arg-type]


# ---- what is known exactly -------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5])
def test_density_and_score_are_those_of_wrapped_normals(sigma: float) -> None:
    x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator()) * 3 - 1
    x.requires_grad_()
    spread = math.hypot(TOY.width, sigma)
    log_p = torch.stack(
        [
            wrapped_normal.log_density(x - torch.tensor(m).to(x), spread).sum(1)
            + math.log(w)
            for m, w in zip(TOY.centres, TOY.weights, strict=True)
        ]
    ).logsumexp(0)
    (slope,) = torch.autograd.grad(log_p.sum(), x)
    x = x.detach()
    assert torch.allclose(TOY.density(x, sigma), log_p.exp(), atol=1e-5, rtol=1e-5)
    assert torch.allclose(TOY.score(x, sigma), slope, atol=1e-4, rtol=1e-4)


def test_a_far_point_has_a_finite_score() -> None:
    narrow = TorusToy(((0.0, 0.0),), (1.0,), 0.01)
    score = narrow.score(torch.tensor([[0.4, 0.0]]), 0.0)
    assert torch.allclose(score, torch.tensor([[-4000.0, 0.0]]), rtol=1e-4)


def test_the_grid_holds_all_of_the_density() -> None:
    exact = TOY.tilted(nothing, BINS)
    assert exact.shape == (BINS, BINS)
    assert float(exact.sum()) == pytest.approx(1)
    quarter = exact[: BINS // 2, : BINS // 2].sum()
    # weight of the first well, with what the others leave in its quarter
    assert float(quarter) == pytest.approx(TOY.weights[0], abs=0.003)


def test_a_known_coordinate_leaves_the_exact_conditional() -> None:
    line = torch.linspace(0, 1, 400, dtype=torch.float64)[:-1]
    for place, value in [(0, 0.3), (1, 0.45)]:
        full = torch.full((399, 2), value, dtype=torch.float64)
        full[:, 1 - place] = line
        slice_ = TOY.density(full)
        rest = TOY.given(place, value).density(line[:, None])
        assert torch.allclose(slice_ / slice_.mean(), rest, atol=1e-6)


def test_cells_count_like_the_grid() -> None:
    x = torch.tensor([[0.0, 0.0], [0.99, 0.0], [0.5, 0.999999]])
    assert cells(x, 4).tolist() == [0, 12, 11]


# ---- the methods -----------------------------------------------------------------------


def test_unguided_and_rejected_points_are_exact() -> None:
    exact = TOY.tilted(nothing, BINS)
    assert off(drawn(), exact) < 1.25 * floor(exact)
    for reward, top in [(diagonal, 2.0), (band, 0.0)]:
        exact = TOY.tilted(reward, BINS)
        made, price = TOY.reject(N, reward, top=top, seed=0, steps=STEPS)
        assert len(made) == N
        assert off(made, exact) < 1.25 * floor(exact)
        x = torch.rand(400_000, 2, generator=torch.Generator().manual_seed(1))
        share = float((TOY.density(x) * (reward(x) - top).exp()).mean())
        assert N / price == pytest.approx(share, rel=0.08)  # 3 standard errors


@pytest.mark.parametrize(
    "how",
    [
        {"reward": diagonal, "gradient": 0.0},
        {"reward": diagonal, "gradient": 0.0, "through": True},
        {"towards": TOY.of(1), "scale": 0.0},
        {"known": torch.tensor([math.nan, math.nan])},
    ],
)
def test_scale_zero_is_the_unguided_sampler_bit_for_bit(how: dict[str, object]) -> None:
    assert torch.equal(drawn(50, **how), drawn(50))


def test_particles_without_a_reward_are_the_unguided_ones() -> None:
    free = drawn(40).view(10, 4, 2)
    made = drawn(10, reward=nothing, particles=4)
    assert bool((made[:, None] == free).all(-1).any(1).all())


def test_particles_converge_to_the_tilted_density() -> None:
    exact = TOY.tilted(diagonal, BINS)
    found = [
        off(drawn(1_500, reward=diagonal, particles=k), exact) for k in (1, 2, 4, 16)
    ]
    assert found[0] > 0.5 > found[1] > found[2] > found[3]
    assert found[3] < 1.3 * floor(exact, 1_500)


def test_gradient_is_near_and_nearer_through_the_preview() -> None:
    exact = TOY.tilted(diagonal, BINS)
    at = off(drawn(reward=diagonal, gradient=1.0), exact)
    through = off(drawn(reward=diagonal, gradient=1.0, through=True), exact)
    assert off(drawn(), exact) > 0.5
    assert floor(exact) + 0.03 < through < at - 0.03 < 0.25


def test_gradient_fails_where_the_wish_lies_between_wells() -> None:
    """The pull goes on at every step, into a gap where the model has next to nothing."""

    def between(x: Tensor) -> Tensor:
        return torch.cos(2 * math.pi * x - math.pi * torch.tensor([1.5, 1.0])).sum(1)

    exact = TOY.tilted(between, BINS)
    free, made = drawn(), drawn(reward=between, gradient=1.0)
    assert off(made, exact) > 0.25 and off(made, exact) > 0.6 * off(free, exact)
    in_gap = float(((made[:, 1] - 0.5).abs() < 1 / 12).float().mean())
    assert in_gap > 2 * float(exact[:, 5:7].sum())
    assert off(drawn(1_500, reward=between, particles=8), exact) < 0.15


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_guidance_without_a_classifier_misses_the_product_and_turns_cure_it(
    scale: float,
) -> None:
    """Exact at 1; above, the guided noisy densities are not those of the product."""
    wish = TOY.of(1, 3)

    def product(x: Tensor) -> Tensor:
        return scale * (wish.density(x).log() - TOY.density(x).log())

    exact = TOY.tilted(product, BINS)
    made = off(drawn(towards=wish, scale=scale), exact)
    if scale == 1:
        assert made < 1.25 * floor(exact)
        return
    gap = {2.0: 0.03, 4.0: 0.08}[scale]
    assert made > floor(exact) + gap
    cured = off(drawn(towards=wish, scale=scale, repeats=6), exact)
    assert cured < floor(exact) + gap and cured < made - 0.6 * gap


@pytest.mark.parametrize("value", [0.25, 0.4])
def test_replacement_is_biased_and_turns_cure_it(value: float) -> None:
    exact = TOY.given(1, value).tilted(nothing, 24)
    known = torch.tensor([math.nan, value])
    made = drawn(known=known)
    assert bool((made[:, 1] == value).all())
    once, often = (off(drawn(known=known, repeats=k)[:, :1], exact) for k in (1, 8))
    assert once > floor(exact) + 0.04
    assert often < 0.6 * once


def test_projection_holds_always_and_crowds_the_border() -> None:
    exact = TOY.tilted(band, 48).sum(0)
    late, each = clip(drawn()), drawn(project=clip)
    for made in (late, each):
        assert bool((band(made) == 0).all())
    border = [
        float(((x[:, 1] - 0.5).abs() > 1 / 6 - 1e-5).float().mean())
        for x in (late, each)
    ]
    outside = 1 - float(TOY.tilted(nothing, BINS)[:, 4:8].sum())
    assert border[0] == pytest.approx(outside, abs=0.03)
    assert 0.1 < border[1] < 0.5 * border[0]
    assert off(late[:, 1:], exact) > off(each[:, 1:], exact) > floor(exact) + 0.05


def test_a_mask_allows_nothing_else_and_keeps_the_weights_of_the_columns() -> None:
    """Column, then row: what a column loses by the mask is not given to others."""
    table = TOY.tilted(nothing, BINS)
    allowed = torch.ones(BINS, BINS, dtype=torch.bool)
    allowed[: BINS // 2, : BINS // 2] = False

    made = WordToy(table).sample(N, seed=0, good=allowed)
    counts = (made[:, 0] * BINS + made[:, 1]).bincount(minlength=BINS**2) / N
    assert float(counts[~allowed.flatten()].sum()) == 0
    wanted = table * allowed
    masked = wanted / wanted.sum(1, keepdim=True) * table.sum(1, keepdim=True)
    wanted = wanted / wanted.sum()
    gap = 0.5 * float((masked - wanted).abs().sum())
    assert gap > 0.2
    assert 0.5 * float((counts - masked.flatten()).abs().sum()) < 1.3 * floor(masked)
    assert 0.5 * float((counts - wanted.flatten()).abs().sum()) > gap - floor(masked)


# ---- small things ------------------------------------------------------------------------


def test_a_watcher_sees_every_step_and_changes_nothing() -> None:
    seen: list[tuple[float, int, float]] = []

    def watch(sigma: float, x: Tensor, preview: Tensor, crowd: Particles) -> None:
        seen.append((sigma, len(preview), float(crowd.ess.mean())))

    look: dict[str, Callable[..., object]] = {"watch": watch, "reward": diagonal}
    made = TOY.sample(5, seed=0, steps=6, particles=3, **look)  # type: ignore[arg-type]
    plain = TOY.sample(5, seed=0, steps=6, particles=3, reward=diagonal)
    assert torch.equal(made, plain)
    assert [n for _, n, _ in seen] == [15] * 6
    assert seen[0][0] == pytest.approx(0.5)
    assert all(1 <= ess <= 3 for *_, ess in seen)


def test_errors_say_what_to_do() -> None:
    never = lambda x: torch.full((len(x),), -torch.inf)  # noqa: E731
    with pytest.raises(InfeasibleTarget, match="0 of 2 points found in 2000"):
        TOY.reject(2, never, steps=1)
