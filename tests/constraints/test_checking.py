"""`check_constraint` finds constraints that are broken on purpose, and passes whole ones."""

import dataclasses

import pytest
import torch

import matdesign as design
from matdesign.constraints.checking import check_constraint
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.elements import MASK
from matdesign.errors import DataError

HEAVY = [elements.atomic_number(s) for s in ("Ba", "Pb", "Cs", "Bi", "Tl", "La")]


@pytest.fixture(scope="module")
def some() -> Crystals:
    train = design.load("perovskites", split="train")
    rng = torch.Generator().manual_seed(0)
    return train[torch.randperm(len(train), generator=rng)[:60]]


class Whole(design.Constraint):
    """At most 30 % of the mass is heavy elements: nothing is broken here."""

    unit = "% of the mass"
    hard = False
    scale = 10.0
    limit = 30.0

    def value(self, crystals: Crystals | SoftCrystals) -> torch.Tensor:
        soft = crystals.soft() if isinstance(crystals, Crystals) else crystals
        mass = elements.table("mass").to(soft.species)
        heavy = torch.zeros_like(mass)
        heavy[HEAVY] = mass[HEAVY]
        return 100 * (soft.species @ heavy).sum(1) / (soft.species @ mass).sum(1)

    def violation(self, crystals: Crystals | SoftCrystals) -> torch.Tensor:
        return (self.value(crystals) - self.limit).clamp(min=0)

    def satisfied(self, crystals: Crystals) -> torch.Tensor:
        return self.value(crystals) <= self.limit

    def sentence(self) -> str:
        return "little of it is heavy"


class Masked(Whole):
    """The same with its exact mask: what is decided, and the lightest for the rest."""

    strictness = 0.0

    def allowed(self, orbits):
        counts, found = orbits.counts, design.OnlyElements.without("He").allowed(orbits)
        mass = elements.table("mass").double()
        cost = -self.limit / 100 * mass
        cost[HEAVY] += mass[HEAVY]
        cost = cost.expand(found.shape).masked_fill(~found, torch.inf)
        best = cost.amin(-1) * counts
        rest = best.nan_to_num(0.0).sum(1, keepdim=True) - best.nan_to_num(0.0)
        total = cost * counts[..., None] + rest[..., None]
        return found & (total <= 1e-9 - self.strictness)


class Scaled(design.VolumePerAtom):
    """A constraint with a projection."""


class Negative(Whole):
    def violation(self, crystals):
        return self.value(crystals) - self.limit


class OneNumber(Whole):
    def violation(self, crystals):
        return super().violation(crystals).mean()


class OtherLimit(Whole):
    def satisfied(self, crystals):
        return self.value(crystals) <= self.limit + 15


class Numbers(Whole):
    def satisfied(self, crystals):
        return super().satisfied(crystals).float()


class OfTheBatch(Whole):
    def value(self, crystals):
        own = super().value(crystals)
        return own - own.mean() + 25


class FirstSite(Whole):
    def value(self, crystals):
        soft = crystals.soft() if isinstance(crystals, Crystals) else crystals
        return 100 * soft.species[:, 0, HEAVY].sum(-1)


class Height(Whole):
    def value(self, crystals):
        return 100 * (crystals.frac[..., 2] * crystals.mask).sum(1)


class Frame(Whole):
    def value(self, crystals):
        return 10 * crystals.lattice[:, 2, 2].abs()


class OverPadding(Whole):
    def value(self, crystals):
        soft = crystals.soft() if isinstance(crystals, Crystals) else crystals
        return 200 * soft.species[..., HEAVY].sum(-1).mean(1)


class SoftIsOne(Whole):
    def violation(self, crystals):
        hard = isinstance(crystals, Crystals)
        return super().violation(crystals) if hard else torch.ones(len(crystals))


class Detached(Whole):
    def value(self, crystals):
        return super().value(crystals).detach()


class HalfDetached(Whole):
    def value(self, crystals):
        soft = crystals.soft() if isinstance(crystals, Crystals) else crystals
        mass = elements.table("mass").to(soft.species)
        total = (soft.species @ mass).sum(1).detach()
        return 100 * (soft.species[..., HEAVY] @ mass[HEAVY]).sum(1) / total


class TooStrict(Masked):
    strictness = 60.0


class TooLoose(Masked):
    def allowed(self, orbits):
        return design.OnlyElements.without("He").allowed(orbits)


class Short(Scaled):
    def project(self, soft):
        return dataclasses.replace(soft, lattice=soft.lattice * 1.02)


class Restless(Scaled):
    def project(self, soft):
        middle = design.VolumePerAtom(*[(self.low + self.high) / 2] * 2)
        return middle.project(soft)


def verdicts(constraint: design.Constraint, some: Crystals) -> dict[str, str]:
    return {r.check: r.verdict for r in check_constraint(constraint, some).rows}


@pytest.mark.parametrize("whole", [Whole(), Masked(), Scaled(13, 18)], ids=str)
def test_whole_constraints_pass(whole, some):
    found = check_constraint(whole, some)
    assert found, found
    assert not found.failed
    assert "0 checks failed" in repr(found)


@pytest.mark.parametrize(
    "library",
    [
        design.OnlyElements.without("O", "Pb"),
        design.RequiredElements("O"),
        design.ChargeNeutral(),
        design.MinDistance(2.0),
        design.Density(3, 6),
        design.NumberOfAtoms(5),
    ],
    ids=str,
)
def test_the_library_passes(library, some):
    found = check_constraint(library, some)
    assert found, found
    said = {row.verdict for row in found.rows}
    assert said <= {"passed", "none"}, found


def test_what_is_offered_is_told_from_what_is_not(some):
    plain, masked, scaled = (
        verdicts(one, some) for one in (Whole(), Masked(), Scaled(13, 18))
    )
    assert plain["gradient"] == masked["gradient"] == "passed"
    assert plain["mask keeps what meets it"] == "none"
    assert masked["mask keeps what meets it"] == "passed"
    assert masked["mask leads to what meets it"] == "passed"
    assert plain["projection arrives"] == "none"
    assert scaled["projection arrives"] == "passed"
    assert verdicts(design.NumberOfAtoms(5), some)["gradient"] == "none"


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Negative(), "violation: shape, >= 0, no NaN"),
        (OneNumber(), "violation: shape, >= 0, no NaN"),
        (OtherLimit(), "satisfied where violation is 0"),
        (Numbers(), "satisfied where violation is 0"),
        (OfTheBatch(), "each crystal alone"),
        (FirstSite(), "same after reordering sites"),
        (Height(), "same after shifting all sites"),
        (Frame(), "same after rotating the crystal"),
        (OverPadding(), "same after adding empty sites"),
        (SoftIsOne(), "undecided reading is 0 where met"),
        (Detached(), "gradient"),
        (HalfDetached(), "gradient"),
        (TooStrict(), "mask keeps what meets it"),
        (Short(13, 18), "projection arrives"),
        (Restless(13, 18), "projection arrives"),
    ],
    ids=lambda one: type(one).__name__ if not isinstance(one, str) else "",
)
def test_a_broken_constraint_is_found(broken, check, some):
    found = check_constraint(broken, some)
    assert not found
    assert check in found.failed, found


def test_a_fault_is_named_with_a_crystal(some):
    (row,) = [
        r
        for r in check_constraint(OtherLimit(), some).rows
        if r.check == "satisfied where violation is 0"
    ]
    assert any(row.detail.startswith(f) for f in some.formulas)
    assert "satisfied says True" in row.detail


def test_a_mask_that_forbids_too_little_is_loose_and_no_fault(some):
    found = check_constraint(TooLoose(), some)
    assert found
    (row,) = [r for r in found.rows if r.check == "mask leads to what meets it"]
    assert row.verdict == "loose"
    assert "ended in a miss" in row.detail


def test_crystals_of_one_kind_leave_promises_untested(some):
    light = some[Whole().satisfied(some)]
    found = verdicts(Whole(), light)
    assert found["satisfied where violation is 0"] == "untested"
    none = verdicts(Masked(), some[~Whole().satisfied(some)])
    assert none["mask keeps what meets it"] == "untested"


def test_a_reading_that_knows_a_setting_is_found(some):
    """The space group's measure belongs to one origin, as its description says."""
    found = check_constraint(design.SpaceGroup(221), some[:12])
    assert found.failed == ("same after shifting all sites",)


def test_the_same_seed_says_the_same(some):
    one, two = (check_constraint(Masked(), some, seed=3) for _ in range(2))
    assert one == two


def test_what_cannot_be_checked_is_refused(some):
    with pytest.raises(DataError, match="needs a constraint; got 'dense'"):
        check_constraint("dense", some)
    with pytest.raises(DataError, match="no crystals"):
        check_constraint(Whole(), some[:0])


def test_hidden_sites_are_hidden(some):
    """The mask is asked about undecided sites, or it would prove nothing."""
    asked = []

    class Listening(Masked):
        def allowed(self, orbits):
            asked.append(orbits.species == MASK)
            return super().allowed(orbits)

    check_constraint(Listening(), some)
    assert any(bool(one.any()) and not bool(one.all()) for one in asked)
