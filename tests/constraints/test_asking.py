"""Drawing with noise, and asking about elements instead of working out a mask."""

import random as python_random

import pytest
import torch

from matdesign.constraints.base import Constraint
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.elements import RequiredElements
from matdesign.generators.asking import Question, first_allowed, perturbed
from matdesign.guidance.masks import Masks

MASK = 104
KNOWN = torch.arange(MASK) > 0


def test_noise_on_scores_draws_and_orders() -> None:
    """Shares of the first, and of the second where the first was refused."""
    n, score = 40_000, torch.tensor([1.0, 3, 0, -1, -torch.inf])
    rng = torch.Generator().manual_seed(0)
    for temperature in (1.0, 2.0):
        ranked = perturbed(score.expand(n, -1), rng, temperature)
        assert bool((ranked[:, 4] == -torch.inf).all())
        share = (score / temperature).softmax(0)
        first, second = ranked.argsort(1, descending=True)[:, :2].T
        found = torch.bincount(first, minlength=5) / n
        assert (found - share).abs().max() < 5 * (0.25 / n) ** 0.5
        after = second[first == 1]
        left = (
            score.masked_fill(torch.arange(5) == 1, -torch.inf) / temperature
        ).softmax(0)
        found = torch.bincount(after, minlength=5) / len(after)
        assert (found - left).abs().max() < 5 * (0.25 / len(after)) ** 0.5
    assert torch.equal(perturbed(score, rng, 0.0), score)


@pytest.mark.parametrize("seed", range(3))
def test_asking_gives_the_first_that_a_mask_allows(seed: int) -> None:
    """The quick way against the mask of the default, with one and several ways to end."""
    random, rule = python_random.Random(seed), ChargeNeutral()
    rng = torch.Generator().manual_seed(seed)
    asked, masks = [], []
    known = KNOWN & (torch.rand(MASK, generator=rng) < 0.6)
    palette = known.nonzero().flatten().tolist()
    for _ in range(150):
        kinds = random.sample(palette, random.randint(0, 3))
        there = {z: random.randint(1, 4) for z in kinds}
        ways = tuple(
            tuple(random.randint(1, 3) for _ in range(random.randint(0, 3)))
            for _ in range(random.choice([0, 1, 1, 2]))
        )
        asked.append(Question(there, random.randint(1, 4), ways, False))
        mask = torch.zeros(MASK, dtype=torch.bool)
        for way in ways:
            question = there, asked[-1].size, way, frozenset(palette)
            mask |= Constraint.next_elements(rule, *question)
        masks.append(mask)
    allowed = torch.stack(masks)
    # the elements that are refused come first, so that many are asked about
    ranked = torch.rand(150, MASK, generator=rng) - 2 * allowed.float()
    ranked = ranked.masked_fill(torch.rand(150, MASK, generator=rng) < 0.1, -torch.inf)
    ranked = ranked.masked_fill(~known, -torch.inf)
    quick = first_allowed(Masks((rule,)), ranked, known, lambda: asked, no_mask)
    slow = Masks((RequiredElements("O"),))
    assert not slow.quick
    masked = first_allowed(slow, ranked, known, no_questions, lambda: allowed)
    assert torch.equal(quick, masked)
    best = ranked.masked_fill(~allowed, -torch.inf).max(1)
    assert torch.equal(quick, torch.where(best.values.isfinite(), best.indices, 0))
    assert 0 < int((quick == 0).sum()) < 100


def test_what_follows_on_the_same_letter_is_not_lighter() -> None:
    """Ca, then another on its letter that balances it: no lighter element is left."""
    asked = [Question({}, 1, ((1,),), rising) for rising in (True, False)]
    order = torch.full((2, MASK), -torch.inf)
    order[:, [20, 8]] = torch.tensor([2.0, 1.0])
    known = torch.zeros(MASK, dtype=torch.bool)
    known[[8, 20]] = True
    masks = Masks((ChargeNeutral() & RequiredElements("O"),))
    masks.quick = True  # by what a mask says
    found = first_allowed(masks, order, known, lambda: asked, no_mask)
    assert found.tolist() == [8, 20]


@pytest.mark.parametrize("seed", range(3))
def test_sites_of_rising_elements_never_meet_a_dead_end(seed: int) -> None:
    """P1, where each site follows on the same letter: whatever is drawn, all are filled."""
    rule, rng = Masks((ChargeNeutral(),)), torch.Generator().manual_seed(seed)
    there: list[dict[int, int]] = [{} for _ in range(200)]
    last, sites = torch.zeros(200, dtype=torch.long), 6
    known = torch.zeros(MASK, dtype=torch.bool)
    known[[7, 8, 11, 17, 26, 52, 74, 81, 83]] = True  # no anion is as heavy as W
    for left in reversed(range(sites)):
        asked = [Question(one, 1, ((1,) * left,), True) for one in there]
        ranked = torch.rand(200, MASK, generator=rng)
        lighter = torch.arange(MASK) < last[:, None]
        ranked = ranked.masked_fill(lighter | ~known, -torch.inf)
        last = first_allowed(rule, ranked, known, lambda now=asked: now, no_mask)
        assert bool((last > 0).all()), (left, there[int(last.argmin())])
        for one, z in zip(there, last.tolist(), strict=True):
            one[z] = one.get(z, 0) + 1
    assert all(sum(one.values()) == sites for one in there)
    assert all(ChargeNeutral().residual(one) == 0 for one in there)


def no_mask() -> torch.Tensor:
    raise AssertionError("nothing may ask for a mask")


def no_questions() -> list[Question]:
    raise AssertionError("nothing may ask")
