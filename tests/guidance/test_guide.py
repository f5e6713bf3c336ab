"""Rejection: exact counts, honest failure, and contradictions refused beforehand."""

import math
from typing import Any

import pytest
import torch

from matdesign.constraints.base import Constraint
from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral
from matdesign.constraints.composition import Composition
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.guidance.guide import Guide, contradictions


class Dice:
    """A generator whose crystals are rock salts of a random cation and cell."""

    def __init__(self, cations: tuple[int, ...] = (3, 11, 19, 37)) -> None:
        self.cations = torch.tensor(cations)
        self.calls: list[int] = []
        self.drawn: list[Crystals] = []

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        n_atoms: list[int] | None = None,
        steps: int = 10,
    ) -> Crystals:
        random = torch.Generator().manual_seed(seed or 0)
        cation = self.cations[torch.randint(len(self.cations), (n,), generator=random)]
        species = torch.stack([cation, torch.full_like(cation, 17)], dim=1)
        frac = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]).repeat(n, 1, 1)
        if n_atoms is not None:
            species[torch.tensor(n_atoms) == 1, 1] = 0
        edge = 3 + 2 * torch.rand(n, 1, 1, generator=random)
        made = Crystals(species, frac, torch.eye(3) * edge)
        self.calls.append(n)
        self.drawn.append(made)
        return made.replace(
            info={"seed": seed, "network_evaluations": steps, "model": "x"}
        )


def density(low: float, high: float) -> Between:
    return Between("density", low, high, unit="g/cm^3")


def test_returns_exactly_n_and_all_meet() -> None:
    model, wanted = Dice(), OnlyElements("Na", "Cl") & MinDistance(3.0)
    made = Guide(wanted).sample(model, 20, seed=0)
    assert len(made) == 20 and bool(wanted.satisfied(made).all())


def test_log_counts_everything_that_was_drawn() -> None:
    model, wanted = Dice(), OnlyElements("Na", "Cl") & MinDistance(3.0)
    made = Guide(wanted).sample(model, 20, seed=0, steps=7)
    log = made.info["guide"]
    everything = Crystals.cat(model.drawn)
    assert log["drawn"] == sum(model.calls) == len(everything)
    assert log["met"] == int(wanted.satisfied(everything).sum()) >= 20
    assert log["met_each"] == {
        str(one): int(one.satisfied(everything).sum()) for one in wanted.parts
    }
    assert log["network_evaluations"] == 7 * len(model.calls)
    assert log["asked"] == 20 and log["seconds"] >= 0 and log["method"] == "reject"
    assert made.info["model"] == "x"


def test_is_the_model_conditioned_and_nothing_else() -> None:
    """Kept crystals are, in order, the first ones drawn that meet the constraint."""
    model, wanted = Dice(), density(1.5, 3)
    made = Guide(wanted).sample(model, 50, seed=3)
    everything = Crystals.cat(model.drawn)
    first = everything[wanted.satisfied(everything)][:50]
    assert torch.equal(made.species, first.species)
    assert torch.equal(made.lattice, first.lattice)


def test_an_always_true_constraint_costs_one_draw_each() -> None:
    model = Dice()
    Guide(MinDistance(0.1)).sample(model, 32, seed=0)
    assert 32 <= sum(model.calls) <= 40


def test_same_seed_same_crystals_and_a_fresh_seed_is_told() -> None:
    guide = Guide(OnlyElements("Na", "Cl"))
    one, two = (guide.sample(Dice(), 8, seed=5) for _ in range(2))
    assert torch.equal(one.lattice, two.lattice) and one.info["seed"] == 5
    fresh = guide.sample(Dice(), 8)
    again = guide.sample(Dice(), 8, seed=fresh.info["seed"])
    assert torch.equal(fresh.lattice, again.lattice)


def test_sizes_asked_for_are_kept_in_order() -> None:
    sizes = [1, 2, 2, 1, 2]
    made = Guide(MinDistance(3.3)).sample(Dice(), 5, seed=0, n_atoms=sizes)
    assert made.n_atoms.tolist() == sizes
    made = Guide(MinDistance(3.3)).sample(Dice(), 4, seed=0, n_atoms=1)
    assert made.n_atoms.tolist() == [1] * 4


def test_none_asked_none_given() -> None:
    made = Guide(MinDistance(1.0)).sample(Dice(), 0, seed=0)
    assert len(made) == 0 and made.info["guide"]["drawn"] == 0


def test_spent_budget_says_how_many_and_what_to_loosen() -> None:
    model = Dice()
    wanted = MinDistance(1.0) & OnlyElements("Cs", "Cl")
    with pytest.raises(InfeasibleTarget) as caught:
        Guide(wanted, draws=77).sample(model, 4, seed=0)
    assert sum(model.calls) == 77
    text = str(caught.value)
    assert "0 of 4 crystals found: 0 of 77 drawn" in text
    assert "Loosen 'only Cl and Cs' first (without it 77 of 77 would do)" in text
    assert "draws=" in text


def test_budget_that_finds_some_but_not_all_is_an_error_too() -> None:
    with pytest.raises(InfeasibleTarget, match="of 40 crystals found"):
        Guide(OnlyElements("Na", "Cl"), draws=60).sample(Dice(), 40, seed=0)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (density(1, 2) & density(3, 4), "exclude each other"),
        (OnlyElements("Ca", "O") & RequiredElements("Ti"), "Ti is required"),
        (OnlyElements.without("Ti") & RequiredElements("Ti"), "without Ti"),
        (OnlyElements("Ca") & OnlyElements("O"), "exclude each other"),
        (
            Composition("SrTiO3") & OnlyElements("Sr", "O"),
            "Ti is required by: formula SrTiO3",
        ),
        (Composition("SrO") & RequiredElements("Ti"), "Ti is required"),
        (Composition("SrO") & Composition("CaO"), "exclude each other"),
        (Composition("SrO") & Composition(pattern="ABX3"), "exclude each other"),
        (Composition(pattern="AX") & Composition(pattern="AX2"), "exclude each other"),
        (
            Composition(pattern="AX") & RequiredElements("O", "H", "Li"),
            "exclude each other",
        ),
        (Composition(pattern="ABX3") & OnlyElements("O", "Ti"), "exclude each other"),
        (Composition("NaO") & ChargeNeutral(), "exclude each other"),
        (
            MinDistance(4) & Between("volume_per_atom", 0, 10, unit="angstrom^3"),
            "at least 45.3",
        ),
        (OnlyElements("Li", "H") & MinDistance(3) & density(5, 6), "at most 2.31"),
        (
            Composition("NaCl") & density(2, 3) & density(2.5, 9) & MinDistance(9),
            "atom",
        ),
    ],
    ids=str,
)
def test_contradictions_are_refused_before_sampling(
    wanted: Constraint, says: str
) -> None:
    with pytest.raises(InfeasibleTarget, match="no crystal can meet") as caught:
        Guide(wanted)
    assert says in str(caught.value)


def test_whatever_a_crystal_meets_is_not_a_contradiction(
    random_crystals: Crystals,
) -> None:
    """Constraints written down from a real crystal are never refused."""
    for structure in random_crystals[:150]:
        symbols = [e.symbol for e in structure.composition.elements]
        shortest = min(
            n.nn_distance for sites in structure.get_all_neighbors(12) for n in sites
        )
        volume = structure.volume / len(structure)
        wanted = (
            OnlyElements(*symbols)
            & RequiredElements(*symbols)
            & Composition(structure.composition.formula.replace(" ", ""))
            & MinDistance(shortest * (1 - 1e-5))
            & density(float(structure.density), math.inf)
            & Between("volume_per_atom", volume * 0.999, volume, unit="angstrom^3")
        )
        batch = Crystals.from_structures([structure])
        neutral = ChargeNeutral()
        if bool(neutral.satisfied(batch)):
            wanted = wanted & neutral
        assert contradictions(wanted) == []


def test_arguments_are_checked() -> None:
    with pytest.raises(DataError, match="unknown guidance method"):
        Guide(MinDistance(1.0), method="magic")
    with pytest.raises(DataError, match="needs a constraint"):
        Guide("NaCl")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least 1"):
        Guide(MinDistance(1.0), draws=0)
    with pytest.raises(DataError, match=">= 0"):
        Guide(MinDistance(1.0)).sample(Dice(), -1)
    with pytest.raises(DataError, match="one for each of 3"):
        Guide(MinDistance(1.0)).sample(Dice(), 3, n_atoms=[1, 2])


def test_repr_says_what_is_wanted() -> None:
    settings: dict[str, Any] = {"draws": 9}
    assert repr(Guide(MinDistance(1.4), **settings)) == (
        "Guide by the best methods: no two atoms closer than 1.4 angstrom"
    )
