"""Plans: compositions come out exactly, roles keep their word, masks are exact."""

import pytest
import torch

from matdesign.crystals.elements import MASK
from matdesign.generators.planning import (
    Plan,
    allowed_elements,
    decide,
    draw_sizes,
    plan_cells,
)
from matdesign.generators.request import resolve

KNOWN = torch.zeros(104, dtype=torch.bool)
KNOWN[[3, 8, 9, 11, 22, 38]] = True
SIZES = [0, 2, 3, 0, 0, 5, 0, 0, 0, 0, 15]


def ask(conditions=None, n=2, n_atoms=None):
    return resolve(
        conditions, n_atoms, n, allowed=KNOWN, histogram=SIZES, properties={}
    )


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def plan(conditions=None, n=2, n_atoms=None) -> Plan:
    request = ask(conditions, n, n_atoms)
    return plan_cells(request, draw_sizes(request, SIZES, rng()))


def test_sizes_follow_the_histogram():
    sizes = draw_sizes(ask(n=20_000), SIZES, rng())
    share = sizes.bincount(minlength=11) / 20_000
    want = torch.tensor(SIZES) / sum(SIZES)
    assert (share - want).abs().max() < 0.015  # 4 standard errors


def test_sizes_are_multiples_of_the_formula_by_their_frequency():
    request = ask({"composition": "SrTiO3"}, n=8000)
    sizes = draw_sizes(request, SIZES, rng())
    assert set(sizes.tolist()) == {5, 10}
    assert float((sizes == 10).float().mean()) == pytest.approx(0.75, abs=0.02)


def test_given_sizes_are_kept():
    request = ask({"composition": ["SrTiO3", "LiF"]}, n_atoms=[15, 2])
    assert draw_sizes(request, SIZES, rng()).tolist() == [15, 2]


def test_a_cell_has_exactly_the_asked_composition():
    made = plan({"composition": ["SrTiO3", "LiF"]}, n_atoms=[10, 4])
    assert made.species[0].tolist() == [8] * 6 + [22] * 2 + [38] * 2
    assert made.species[1].tolist() == [3, 3, 9, 9] + [0] * 6
    assert not made.open.any() and (made.role == -1).all()
    assert torch.equal(made.start, made.species)


def test_a_pattern_gives_roles():
    made = plan({"composition": ["ABX3", "A2B"]}, n_atoms=[10, 6])
    assert made.role[0].tolist() == [0] * 6 + [1] * 2 + [2] * 2
    assert made.role[1].tolist() == [0] * 4 + [1] * 2 + [-1] * 4
    assert made.open.sum(1).tolist() == [10, 6]
    assert made.start[1].tolist() == [MASK] * 6 + [0] * 4


def test_formula_pattern_and_nothing_in_one_batch():
    made = plan({"composition": ["LiF", "AB"]}, n_atoms=2)
    both = Plan.cat([made, plan(None, n_atoms=5)])
    assert both.species[0].tolist() == [3, 9, 0, 0, 0]
    assert both.role[1].tolist() == [0, 1, -1, -1, -1]
    assert both.open.sum(1).tolist() == [0, 2, 5, 5]
    part = both[torch.tensor([1, 0])]
    assert part.species.shape == (2, 2) and part.n_atoms.tolist() == [2, 2]


def test_without_roles_every_known_element_is_allowed():
    made = plan(None, n_atoms=[1, 3])
    species = made.start.clone()
    species[1, 1] = 8
    mask = allowed_elements(made, species, KNOWN)
    assert torch.equal(mask[0, 0], KNOWN) and torch.equal(mask[1, 0], KNOWN)
    assert mask[1, 1].nonzero().flatten().tolist() == [8]
    assert not mask[0, 1:].any()  # padding


def test_roles_allow_their_own_element_or_an_unused_one():
    made = plan({"composition": "AB2"}, n=2, n_atoms=6)
    assert made.role[0].tolist() == [0] * 4 + [1] * 2
    species = made.start.clone()
    species[0, 2] = 8
    mask = allowed_elements(made, species, KNOWN)
    for site in (0, 1, 2, 3):
        assert mask[0, site].nonzero().flatten().tolist() == [8]
    rest = KNOWN.clone()
    rest[8] = False
    assert torch.equal(mask[0, 4], rest) and torch.equal(mask[0, 5], rest)
    assert torch.equal(mask[1, 0], KNOWN)  # the other crystal has decided nothing


def slow_rule(role, species, known):
    """Return the same mask, one orbit at a time."""
    mask = torch.zeros(*species.shape, MASK, dtype=torch.bool)
    for b, row in enumerate(species.tolist()):
        held = {int(role[b, o]): z for o, z in enumerate(row) if 0 < z < MASK}
        for o, z in enumerate(row):
            if z == 0:
                continue
            if z < MASK:
                mask[b, o, z] = True
            elif int(role[b, o]) in held and role[b, o] >= 0:
                mask[b, o, held[int(role[b, o])]] = True
            else:
                mask[b, o] = known
                if role[b, o] >= 0:
                    mask[b, o, list(held.values())] = False
    return mask


def test_masks_agree_with_the_rule_written_out():
    made = plan({"composition": ["ABX3", "A3B2"]}, n_atoms=10)
    generator = rng(3)
    for _ in range(50):
        element = torch.tensor([[8, 22, 38], [3, 9, 0]])
        told = element.gather(1, made.role.clamp(min=0))
        hide = torch.rand(told.shape, generator=generator) < 0.8
        species = told.masked_fill(hide, MASK)
        ours = allowed_elements(made, species, KNOWN)
        assert torch.equal(ours, slow_rule(made.role, species, KNOWN))


def test_roles_hold_from_the_first_draw_to_the_last():
    n = 200
    made = plan({"composition": "ABX3"}, n=n, n_atoms=10)
    generator, species = rng(1), made.start
    for _ in range(6):
        belief = torch.rand(n, 10, MASK, generator=generator) * KNOWN
        belief = belief * allowed_elements(made, species, KNOWN)
        belief = belief / belief.sum(-1, keepdim=True)
        turned = torch.rand(n, 10, generator=generator) < 0.2
        settled = decide(made, species, turned, belief, KNOWN, generator)
        held = (species != MASK).nonzero(as_tuple=True)
        assert torch.equal(settled[held], species[held])  # decided orbits stay
        species = settled
        for role in range(3):  # a role is decided as a whole
            part = species[:, made.role[0] == role]
            assert (part == part[:, :1]).all()
    done = (species != MASK).all(1)
    assert done.sum() > 20
    for row in species[done].tolist():
        assert len(set(row)) == 3 and all(KNOWN[z] for z in row)


def test_a_role_follows_the_belief_of_all_its_orbits():
    n = 4000
    made = plan({"composition": "A2B"}, n=n, n_atoms=3)
    belief = torch.zeros(n, 3, MASK)
    belief[:, 0, [3, 8]] = torch.tensor([0.8, 0.2])
    belief[:, 1, [3, 8]] = torch.tensor([0.5, 0.5])
    belief[:, 2, 9] = 1.0
    turned = torch.tensor([True, False, False]).expand(n, -1)
    settled = decide(made, made.start, turned, belief, KNOWN, rng())
    want = 0.4**0.5 / (0.4**0.5 + 0.1**0.5)  # geometric mean of both, normalised
    share = float((settled[:, 1] == 3).float().mean())
    assert share == pytest.approx(want, abs=0.03)
    assert (settled[:, 2] == MASK).all()


def test_an_empty_plan():
    made = plan(n=0)
    assert len(made) == 0 and made.condition.low.shape == (0, 0)
    assert allowed_elements(made, made.start, KNOWN).shape == (0, 0, 104)
