"""Sites one after the other: what may come next, drawing with noise, drawing again."""

import itertools

import pytest
import torch

from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.elements import RequiredElements
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.lookahead import Lookahead, can_begin, unit_of
from matdesign.generators.mixtures import perturbed
from matdesign.generators.retries import resample
from matdesign.guidance.masks import Masks

MASK = 104
KNOWN = torch.zeros(MASK, dtype=torch.bool)
KNOWN[[7, 8, 11, 17, 26, 52, 74, 81, 83]] = True  # no anion is as heavy as W


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
def test_sites_of_rising_elements_seldom_meet_a_dead_end(seed: int) -> None:
    """P1, where each site follows on the same letter: most are filled, and all of these
    are neutral."""
    rng, crystals, sites = torch.Generator().manual_seed(seed), 60, 6
    one = torch.ones(crystals, dtype=torch.long)
    kinds: list[torch.Tensor] = []
    for k in range(sites):
        ahead = Lookahead(
            Masks((ChargeNeutral(),)), one, kinds, [one] * k, one * (sites - k), KNOWN
        )
        ranked = torch.rand(crystals, MASK, generator=rng)
        lighter = torch.arange(MASK) < (kinds[-1] if kinds else 0 * one)[:, None]
        ranked = ranked.masked_fill(lighter | ~KNOWN, -torch.inf)
        kinds.append(ahead.draw(0 * one, ranked, torch.arange(crystals)))
    filled = torch.stack(kinds, 1)
    filled = filled[(filled > 0).all(1)]
    assert len(filled) > 0.8 * crystals
    for made in filled.tolist():
        amounts = {z: made.count(z) for z in made}
        assert made == sorted(made) and ChargeNeutral().residual(amounts) == 0


def test_what_follows_on_the_same_letter_is_not_lighter() -> None:
    """Ca first in P1 leaves no place for oxygen; in Pm-3m others may follow elsewhere."""
    known = torch.zeros(MASK, dtype=torch.bool)
    known[[8, 20]] = True
    order = torch.full((2, MASK), -torch.inf)
    order[:, [20, 8]] = torch.tensor([2.0, 1.0])
    masks = Masks((ChargeNeutral() & RequiredElements("O"),))
    group, left = torch.tensor([1, 221]), torch.tensor([2, 2])
    ahead = Lookahead(masks, group, [], [], left, known)
    found = ahead.draw(torch.zeros(2, dtype=torch.long), order, torch.arange(2))
    assert found.tolist() == [8, 20]


@pytest.mark.parametrize(("group", "atoms"), [(221, 5), (225, 4), (12, 4), (62, 8)])
def test_a_mask_rules_out_nothing_that_some_crystal_has(group: int, atoms: int) -> None:
    """Against all crystals of four elements: letters, then elements, all listed."""
    table, rule, palette = wyckoff_table(), ChargeNeutral(), [8, 11, 22, 26]
    known = torch.zeros(MASK, dtype=torch.bool)
    known[palette] = True
    count, free = table.count[group].tolist(), table.freedom[group].tolist()

    def fill(letter: int, left: int) -> list[tuple[int, ...]]:
        if not left:
            return [()]
        found = []
        for k in range(letter, NONE):
            if 0 < count[k] <= left:
                rest = fill(k if free[k] else k + 1, left - count[k])
                found += [(k, *one) for one in rest]
        return found

    good: dict[int, set[int]] = {}
    for letters in fill(0, atoms):
        sizes = [count[k] for k in letters]
        assert all(n % unit_of(group, letters[0], atoms) == 0 for n in sizes)
        for kinds in itertools.product(palette, repeat=len(letters)):
            amounts: dict[int, int] = {}
            for z, n in zip(kinds, sizes, strict=True):
                amounts[z] = amounts.get(z, 0) + n
            if not rule.residual(amounts):
                good.setdefault(letters[0], set()).add(kinds[0])
    one = torch.tensor([0])
    whole = torch.tensor([atoms])
    masks = Masks((rule,))
    begin = can_begin(masks, whole, [unit_of(group, 0, atoms)], [((), [])], known)
    assert bool(begin)
    for letter, kinds_there in good.items():
        for z in kinds_there:
            only = torch.full((1, MASK), -torch.inf)
            only[0, z] = 0.0
            ahead = Lookahead(masks, torch.tensor([group]), [], [], whole, known)
            found = ahead.draw(torch.tensor([letter]), only, one)
            assert found.tolist() == [z], (letter, z)


def test_rows_are_drawn_again_until_they_are_good() -> None:
    seen: list[list[int]] = []
    value = torch.zeros(4)

    def draw(rows: torch.Tensor, attempt: int) -> None:
        seen.append(rows.tolist())
        value[rows] = rows * (attempt + 1.0)

    left = resample(draw, lambda rows: value[rows] >= 3, 4, tries=3)
    assert left.tolist() == [0]
    assert seen == [[0, 1, 2, 3], [0, 1, 2], [0, 1]]
    assert value.tolist() == [0, 3, 4, 3]
    assert len(resample(draw, lambda rows: value[rows] >= 3, 0, tries=3)) == 0
