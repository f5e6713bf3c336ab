"""Masks in the families that make their own layouts: exact, and without dead ends."""

import dataclasses
import itertools
import json
import random as python_random
from functools import cache

import pytest
import torch
from bench import engine

import matdesign as design
from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.composition import Composition
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.constraints.spacegroups import CrystalSystem
from matdesign.crystals import elements
from matdesign.crystals.elements import MASK
from matdesign.crystals.symmetry.wyckoff import NONE
from matdesign.errors import InfeasibleTarget
from matdesign.generators.conditions import Condition
from matdesign.generators.contract import Generator
from matdesign.generators.filling import fillable
from matdesign.generators.planning import Plan, allowed_elements, plan_cells
from matdesign.generators.request import Request
from matdesign.generators.site_mask import (
    Amounts,
    SiteMask,
    wanted_amounts,
)
from matdesign.guidance.guide import Guide
from matdesign.guidance.masks import Masks
from matdesign.guidance.moves import proximal_step

SYMBOLS = ("Na", "Ca", "Ti", "Al", "O", "Cl", "Fe", "S")
PALETTE = tuple(elements.atomic_number(s) for s in SYMBOLS)
LIGHT = OnlyElements("Ca", "Sr", "Ba", "Na", "Ti", "Zr", "O", "S", "Cl", "Fe")


@cache
def shipped(name: str) -> Generator:
    return design.load_model(name)


def known() -> torch.Tensor:
    table = torch.zeros(104, dtype=torch.bool)
    table[list(PALETTE)] = True
    return table


# ---- roles of a pattern --------------------------------------------------------------


def restricted(group: int, counts: tuple[int, ...], first: int, rule) -> Amounts:
    """Return the amounts of one crystal, its open roles left what a rule leaves."""
    kinds = [first, *[0] * (len(counts) - 1)]
    site = SiteMask(torch.tensor([group]), [(counts, kinds)], Masks((rule,)), known())
    every, none = torch.ones(1, NONE, dtype=torch.bool), torch.tensor([NONE])
    site.letters(every, torch.tensor([True]), none, torch.tensor([0]))
    return site.amounts[0]


@pytest.mark.parametrize("counts", [(3, 1, 1), (4, 2, 1), (1, 1)])
@pytest.mark.parametrize("first", [0, *PALETTE[:3]])
def test_roles_may_take_what_some_neutral_crystal_has(
    counts: tuple[int, ...], first: int
) -> None:
    """Against all assignments of eight elements, one by one."""
    rule = ChargeNeutral()
    wanted: list[set[int]] = [set() for _ in counts]
    for kinds in itertools.permutations(PALETTE, len(counts)):
        amounts = dict(zip(kinds, counts, strict=True))
        if first in (0, kinds[0]) and not rule.residual(amounts):
            for of_role, z in zip(wanted, kinds, strict=True):
                of_role.add(z)
    assert [set(row) for row in restricted(1, counts, first, rule).may] == wanted


def test_a_fresh_element_goes_to_a_role_that_may_have_it() -> None:
    """Ti on a single site of ABX3: never in the role that needs three."""
    titanium = elements.atomic_number("Ti")
    for seed in range(8):
        roles = restricted(1, (3, 1, 1), 0, ChargeNeutral())
        roles.ordered = False
        assert roles.letters([0], NONE, 0) == [0] and titanium in roles.elements(0)
        roles.place(0, titanium, torch.Generator().manual_seed(seed))
        assert roles.element.index(titanium) in (1, 2)


def test_without_an_order_a_letter_takes_elements_as_they_come() -> None:
    for ordered in (True, False):
        roles = Amounts(1, (1, 1), [8, 22], PALETTE, ordered)
        # titanium first would leave no place for oxygen, were there an order
        assert roles.elements(0) == ([8] if ordered else [8, 22])


def test_an_element_that_nothing_can_follow_is_not_taken() -> None:
    """In P1 the lightest comes first: the lightest of some neutral crystal, listed."""
    pattern, rule = (3, 1, 1), ChargeNeutral()
    found = set(restricted(1, pattern, 0, rule).elements(0))
    possible = {
        min(kinds)
        for kinds in itertools.permutations(PALETTE, 3)
        if not rule.residual(dict(zip(kinds, pattern, strict=True)))
    }
    assert possible <= found < set(PALETTE)


@pytest.mark.parametrize("group", [1, 8, 15, 99, 161, 221])
def test_a_formula_never_comes_to_a_dead_end(group: int) -> None:
    """Letters and elements at random: oxygen, titanium and strontium are all placed."""
    random, rng = python_random.Random(group), torch.Generator().manual_seed(group)
    for times in (1, 2, 4):
        counts = (3 * times, times, times)
        if not fillable(group, 0, counts):
            continue
        for _ in range(40):
            left = Amounts(group, counts, [8, 22, 38], PALETTE)
            letter, kind = NONE, 0
            while any(left.left):
                before = letter if kind else 0
                letters = left.letters(range(before, NONE), letter, kind)
                assert letters, (left, letter, kind)
                new = random.choice(letters)
                least = kind if new == letter else 0
                may = [z for z in left.elements(new) if z >= least]
                assert may, (left, new, letter, kind)
                letter, kind = new, random.choice(may)
                left.place(letter, kind, rng)


def test_wanted_amounts_of_formulas_patterns_and_neither() -> None:
    formula, pattern = torch.zeros(2, 3, 104, dtype=torch.long)
    formula[1, [8, 22]] = torch.tensor([2, 1])
    pattern = pattern[:, :4].clone()
    pattern[0, :3] = torch.tensor([3, 1, 1])
    nothing = Condition.nothing(3, 0)
    request = Request(torch.zeros(3).long(), None, formula, pattern, nothing, {})
    assert wanted_amounts(request, torch.tensor([10, 6, 4])) == [
        ((6, 2, 2), [0, 0, 0]),
        ((4, 2), [8, 22]),
        ((), []),
    ]


# ---- samplers ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["autoregressive-prototypes", "vae-prototypes"])
@pytest.mark.parametrize(
    "wanted",
    [
        LIGHT & RequiredElements("O", "Ti") & ChargeNeutral(),
        Composition(pattern="ABX3") & RequiredElements("O") & ChargeNeutral(),
        Composition(pattern="A2BX4") & CrystalSystem("cubic"),
    ],
    ids=["elements", "pattern", "symmetry"],
)
def test_what_is_masked_holds_with_little_drawn_again(
    name: str, wanted, recwarn: pytest.WarningsRecorder
) -> None:
    made = shipped(name).sample(12, seed=7, guide=Guide(wanted))
    assert bool(wanted.satisfied(made).all())
    log = made.info["guide"]
    # a symmetry may come out higher than it was asked for, elements never other
    # and what the mask could not finish is drawn without it
    lost = sum("could not be finished" in str(one.message) for one in recwarn)
    assert log["drawn"] <= 18
    for one in wanted.parts:
        if not lost and not isinstance(one, CrystalSystem):
            assert log["met_each"][str(one)] == log["drawn"]


@pytest.mark.parametrize("name", ["autoregressive-prototypes", "vae-prototypes"])
def test_a_size_that_leaves_no_elements_is_refused(name: str) -> None:
    guide = Guide(RequiredElements("O", "Ti"))
    with pytest.raises(InfeasibleTarget, match="for 2 of 2 crystals"):
        shipped(name).sample(2, seed=0, n_atoms=1, guide=guide)


def test_only_undecided_crystals_are_asked_about() -> None:
    request = shipped("diffusion-prototypes-cell").request(3, [2, 2, 1])
    plan = plan_cells(request, request.n_atoms)
    asked = []

    def choices(
        species: torch.Tensor, counts: torch.Tensor, role: object, among: torch.Tensor
    ) -> torch.Tensor:
        asked.append(species.tolist())
        return among & (torch.arange(104) == 8)

    plan = Plan(plan.layout, plan.species, plan.role, plan.condition, choices)
    species = torch.tensor([[22, MASK], [22, 8], [MASK, 0]])
    may = allowed_elements(plan, species, known())
    assert asked == [[[22, MASK], [MASK, 0]]]
    assert [row.nonzero().tolist() for row in may] == [
        [[0, 22], [1, 8]],
        [[0, 22], [1, 8]],
        [[0, 8]],
    ]


# ---- gradients -----------------------------------------------------------------------


def test_a_step_has_the_size_of_the_reward_or_of_the_preview() -> None:
    """Against V g by hand: lambda V g at least 0, lambda standard deviations at least 1."""
    model = shipped("coupling-flow-perovskites")
    preview = list(model.trajectory(6, seed=0))[-1].preview
    narrow = dataclasses.replace(preview, std=(0.0, 0.1))
    wanted = Between("density", 30, 40, unit="g/cm^3")  # far away
    code = preview.code.clone().requires_grad_()
    (slope,) = torch.autograd.grad(
        wanted.violation(preview.soft(code=code)).sum(), code
    )
    slope = 0.1 * slope * preview.layout.code_free  # in standard deviations
    size = slope.norm(dim=1, keepdim=True)
    assert float(size.max()) < 1
    for least, step in ((0.0, slope), (1.0, slope / size)):
        moved, _ = proximal_step(narrow, [wanted], 0.3, least=least)
        away = (moved.code - preview.code) / 0.1
        assert torch.allclose(away, -0.3 * step, atol=1e-4)
        assert torch.equal(moved.u, preview.u)


@pytest.mark.parametrize("name", ["flow-matching", "diffusion"])
def test_at_scale_one_gradients_halve_the_miss_in_both_families(name: str) -> None:
    model = shipped(f"{name}-perovskites")
    wanted = Between("density", 6.5, 7, unit="g/cm^3")
    free = model.sample(16, seed=1, steps=8)
    guide = Guide(wanted, "gradient", strict="hard")
    made = model.sample(16, seed=1, steps=8, guide=guide)
    before, after = (float(wanted.violation(one).mean()) for one in (free, made))
    assert after < 0.5 * before


# ---- the benchmark -------------------------------------------------------------------


def test_prices_are_ratios_of_pairs_and_refusals_are_kept(tmp_path) -> None:
    path = tmp_path / "prices.json"
    ways = ["mask: elements", "steer: density, K = 4"]
    names = ["--models", "coupling-flow-perovskites", "--ways", *ways]
    words = [*names, "--n", "2", "--pairs", "1", "--output", str(path)]
    assert engine.run("guidance-cost", words) == 0
    found = json.loads(path.read_text())["prices"]["coupling-flow-perovskites"]
    assert set(found) == set(ways)
    for way in ways:
        assert found[way]["low"] == found[way]["median"] == found[way]["high"] > 0
    assert found[ways[1]]["evaluations"] == 1
