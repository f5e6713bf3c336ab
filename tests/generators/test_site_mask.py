"""Sites one after the other: what may come next, drawing again."""

import itertools

import pytest
import torch

from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.elements import RequiredElements
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.filling import unit_of
from matdesign.generators.planning import resample
from matdesign.generators.shipped import load_model
from matdesign.generators.site_mask import SiteMask
from matdesign.guidance.masks import Masks

MASK = 104


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
    one, whole = torch.tensor([True]), torch.tensor([atoms])
    for letter, kinds_there in good.items():
        site = SiteMask(torch.tensor([group]), [((), [])], Masks((rule,)), known)
        found = site.elements(known[None], one, torch.tensor([letter]), whole)
        assert kinds_there <= set(found[0].nonzero().squeeze(1).tolist()), letter


def test_the_last_site_is_masked_exactly() -> None:
    """Ti and O in Pm-3m, three atoms left on one position: oxygen for Sr Ti X3."""
    known = torch.zeros(MASK, dtype=torch.bool)
    known[[8, 9, 22, 38]] = True
    one, rng = torch.tensor([True]), torch.Generator()
    masks = Masks((ChargeNeutral() & RequiredElements("O"),))
    site = SiteMask(torch.tensor([221]), [((), [])], masks, known)
    for letter, z in ((0, 38), (1, 22)):
        site.place(one, torch.tensor([letter]), torch.tensor([z]), rng)
    may = site.elements(known[None], one, torch.tensor([2]), torch.tensor([3]))
    assert may[0].nonzero().tolist() == [[8]]


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


@pytest.mark.parametrize("name", ["vae-prototypes", "autoregressive-prototypes"])
def test_plans_hold_nothing_on_padding(name):
    model = load_model(name)
    plan = model.plan(model.request(100), torch.Generator().manual_seed(100))
    assert not bool(((plan.species > 0) & ~plan.layout.orbits).any())
