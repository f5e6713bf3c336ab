"""The interface: combining, sentences, the printed check, what every part promises."""

import pytest
import torch
from torch import Tensor

from matdesign.constraints.base import All, Constraint
from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.checks import check
from matdesign.constraints.composition import Composition
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.constraints.unfinished import Orbits
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError

LIBRARY: list[Constraint] = [
    OnlyElements("Na", "Cl", "O", "Ti", "Sr"),
    RequiredElements("O"),
    Composition("O2"),
    Composition(pattern="ABX3"),
    ChargeNeutral(),
    ChargeNeutral("smact14", mixed_valence=True, alloys=True),
    MinDistance(1.0),
    Between("density", 2, 5, unit="g/cm^3"),
    Between("volume_per_atom", 5, 20, unit="angstrom^3"),
]


@pytest.mark.parametrize("one", LIBRARY, ids=str)
class TestEveryConstraint:
    def test_zero_violation_is_satisfied(
        self, one: Constraint, random_crystals: Crystals
    ) -> None:
        violation = one.violation(random_crystals)
        satisfied = one.satisfied(random_crystals)
        assert violation.shape == satisfied.shape == (len(random_crystals),)
        assert satisfied.dtype == torch.bool
        assert (violation >= 0).all()
        assert torch.equal(violation <= 1e-5, satisfied)
        assert 0 < int(satisfied.sum()) < len(random_crystals), "the test must see both"

    def test_one_hot_crystals_are_never_worse(
        self, one: Constraint, random_crystals: Crystals
    ) -> None:
        """Exact for all but the charge, whose soft violation is a lower bound."""
        hard = one.violation(random_crystals)
        soft = one.violation(random_crystals.soft())
        if isinstance(one, ChargeNeutral):
            compounds = hard.isfinite() & (hard > 0)
            assert (soft[compounds] <= hard[compounds] + 1e-5).all()
        else:
            assert torch.allclose(hard, soft, atol=1e-4)

    def test_same_after_reordering_and_supercell(
        self, one: Constraint, random_crystals: Crystals
    ) -> None:
        place = torch.arange(random_crystals.species.shape[1])
        order = (-place * random_crystals.mask + 99 * ~random_crystals.mask).argsort(1)
        turned = random_crystals.replace(
            species=random_crystals.species.gather(1, order),
            frac=random_crystals.frac.gather(1, order[..., None].expand(-1, -1, 3)),
        )
        assert torch.equal(one.satisfied(turned), one.satisfied(random_crystals))
        few = random_crystals[:40]
        doubled = Crystals.from_structures([s.make_supercell([2, 1, 1]) for s in few])
        if isinstance(one, ChargeNeutral) and one.mixed_valence:
            # more atoms, more choices: what was neutral stays neutral
            assert (one.satisfied(doubled) | ~one.satisfied(few)).all()
        else:
            assert torch.equal(one.satisfied(doubled), one.satisfied(few))

    def test_repr_is_a_sentence(self, one: Constraint) -> None:
        assert repr(one) == one.sentence()
        assert " " in repr(one) and "object at" not in repr(one)

    def test_empty_batch(self, one: Constraint, random_crystals: Crystals) -> None:
        assert one.satisfied(random_crystals[:0]).shape == (0,)
        assert one.violation(random_crystals[:0]).shape == (0,)


@pytest.mark.parametrize(
    "one",
    [
        OnlyElements("Na", "Cl"),
        RequiredElements("Na", "O"),
        Composition("NaCl"),
        Composition(pattern="AB2"),
        ChargeNeutral(),
        MinDistance(6.0),
        Between("density", 90, 99, unit="g/cm^3"),
        Between("volume_per_atom", 90, 99, unit="angstrom^3"),
    ],
    ids=str,
)
def test_gradient_is_that_of_finite_differences(
    one: Constraint, random_crystals: Crystals
) -> None:
    batch = random_crystals[random_crystals.n_atoms == 4][:3]
    random = torch.Generator().manual_seed(1)
    weights = torch.rand(
        *batch.species.shape, 104, generator=random, dtype=torch.float64
    )
    weights[..., 0] = 0
    weights = weights * batch.mask[..., None]
    inputs = [
        weights / weights.sum(-1, keepdim=True).clamp(min=1e-9),
        batch.frac.double(),
        batch.lattice.double(),
    ]

    def total(species: Tensor, frac: Tensor, lattice: Tensor) -> Tensor:
        return one.violation(SoftCrystals(species, frac, lattice, batch.mask)).sum()

    leaves = [t.clone().requires_grad_() for t in inputs]
    value = total(*leaves)
    value.backward()
    moves = [torch.randn(t.shape, generator=random, dtype=t.dtype) for t in inputs]
    for leaf, move in zip(leaves, moves, strict=True):
        step = 1e-6
        shifted = [
            [t + sign * step * move if t is leaf else t for t in leaves]
            for sign in (1, -1)
        ]
        with torch.no_grad():
            slope = (total(*shifted[0]) - total(*shifted[1])) / (2 * step)
        exact = (leaf.grad * move).sum() if leaf.grad is not None else torch.zeros(())
        assert torch.allclose(exact.double(), slope.double(), rtol=1e-4, atol=1e-5)


def test_and_flattens_and_means_all(random_crystals: Crystals) -> None:
    a, b, c = LIBRARY[0], LIBRARY[4], LIBRARY[6]
    both = (a & b) & c
    assert isinstance(both, All) and both.parts == (a, b, c)
    each = a.satisfied(random_crystals) & b.satisfied(random_crystals)
    assert torch.equal(
        both.satisfied(random_crystals), each & c.satisfied(random_crystals)
    )
    summed = sum(one.violation(random_crystals) for one in (a, b, c))
    assert torch.allclose(both.violation(random_crystals), torch.as_tensor(summed))
    assert str(both) == f"{a}, and {b}, and {c}"


def test_a_new_constraint_takes_ten_lines(random_crystals: Crystals) -> None:
    class FewAtoms(Constraint):
        unit = "atoms"

        def violation(self, crystals: Crystals | SoftCrystals) -> Tensor:
            return (crystals.mask.sum(1) - 4.0).clamp(min=0)

        def satisfied(self, crystals: Crystals) -> Tensor:
            return crystals.n_atoms <= 4

        def sentence(self) -> str:
            return "at most four atoms"

    report = check(random_crystals, FewAtoms() & RequiredElements("O"))
    assert report.counts["at most four atoms"] == int(
        (random_crystals.n_atoms <= 4).sum()
    )


def test_a_mask_that_forgets_what_others_leave_is_joined_with_them() -> None:
    """Two tables that take no notice of each other: their common part, and an end."""

    class No(OnlyElements):
        def allowed(self, orbits):
            return super().allowed(Orbits(orbits.species, orbits.counts))

    species, counts = torch.full((1, 2), 104), torch.ones(1, 2, dtype=torch.long)
    both = All(No("Na", "Cl"), No("Cl", "K")).allowed(Orbits(species, counts))
    assert both is not None
    assert both[0, 0].nonzero().flatten().tolist() == [17]


def test_check_counts_prints_and_explains(random_crystals: Crystals) -> None:
    wanted = OnlyElements("Na", "Cl", "O") & MinDistance(1.0)
    few = random_crystals[:30].replace(ids=tuple(f"c{i}" for i in range(30)))
    report = check(few, wanted)
    held = wanted.satisfied(few)
    assert torch.equal(report.met, held)
    assert report.counts["all of them"] == int(held.sum())
    text = repr(report)
    assert text.startswith(f"{int(held.sum())} of 30 crystals meet every constraint")
    assert "only Cl, Na and O" in text and "angstrom" in text and "and 10 more" in text
    for i, reason in enumerate(report.reasons()):
        assert (reason == "") == bool(held[i])
        assert ("misses: only" in reason) == (
            not bool(wanted.parts[0].satisfied(few)[i])
        )
    table = report.to_pandas()
    assert len(table) == 30 and table["id"][3] == "c3"
    assert table["met"].tolist() == held.tolist()


def test_errors_speak(random_crystals: Crystals) -> None:
    with pytest.raises(DataError, match="needs a constraint"):
        check(random_crystals, "NaCl")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="give at least one"):
        All()
    with pytest.raises(TypeError):
        OnlyElements("O") & 3  # type: ignore[operator]
