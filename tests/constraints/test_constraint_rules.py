"""Each rule against an independent implementation, exactly; and its errors."""

import itertools
import math
import random as python_random

import pytest
import torch
from pymatgen.core import Composition as Parsed
from pymatgen.core import Element, Lattice, Structure

from matdesign.constraints.between import Between
from matdesign.constraints.charge import ChargeNeutral, oxidation_states
from matdesign.constraints.composition import Composition
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.crystals.batch import Crystals
from matdesign.crystals.elements import PLACEHOLDERS
from matdesign.errors import DataError, InfeasibleTarget, UnitError


def of_formula(*formulas: str) -> Crystals:
    """Crystals with the atoms of the formulas, on a line."""
    made = []
    for text in formulas:
        symbols = [s for s, k in Parsed(text).as_dict().items() for _ in range(int(k))]
        n = len(symbols)
        at = [[i / n, 0, 0] for i in range(n)]
        made.append(Structure(Lattice.orthorhombic(3 * n, 4, 4), symbols, at))
    return Crystals.from_structures(made)


def random_formulas(count: int, seed: int, *, most: int = 6) -> list[str]:
    """Formulas of 2-4 elements, one to `most` atoms each."""
    random = python_random.Random(seed)
    symbols = [Element.from_Z(z).symbol for z in range(1, 95)]
    return [
        "".join(f"{s}{random.randint(1, most)}" for s in random.sample(symbols, k))
        for k in (random.randint(2, 4) for _ in range(count))
    ]


# ---- elements ------------------------------------------------------------------------


def test_elements_agree_with_sets(random_crystals: Crystals) -> None:
    only, required = OnlyElements("Na", "Cl", "O"), RequiredElements("O", "Na")
    sets = [{e.symbol for e in s.composition.elements} for s in random_crystals]
    assert only.satisfied(random_crystals).tolist() == [
        s <= {"Na", "Cl", "O"} for s in sets
    ]
    assert required.satisfied(random_crystals).tolist() == [
        {"O", "Na"} <= s for s in sets
    ]
    outside = [
        sum(site.specie.symbol not in {"Na", "Cl", "O"} for site in s)
        for s in random_crystals
    ]
    assert only.violation(random_crystals).tolist() == outside


def test_without_is_the_complement(random_crystals: Crystals) -> None:
    bad = OnlyElements.without("Fe", "Cu")
    sets = [{e.symbol for e in s.composition.elements} for s in random_crystals]
    assert bad.satisfied(random_crystals).tolist() == [
        not s & {"Fe", "Cu"} for s in sets
    ]
    assert str(bad) == "without Cu and Fe"
    assert str(OnlyElements(*bad.symbols)) == str(bad), "the same set, the same words"


def test_expected_missing_elements_by_enumeration() -> None:
    """Two undecided sites: the violation is the mean over all outcomes."""
    soft = of_formula("NaCl").soft()
    p = torch.zeros(1, 2, 104)
    p[0, 0, [11, 17]] = torch.tensor([0.7, 0.3])
    p[0, 1, [11, 8]] = torch.tensor([0.4, 0.6])
    wanted = {11, 8}
    mean = sum(
        float(p[0, 0, a] * p[0, 1, b]) * len(wanted - {a, b})
        for a, b in itertools.product((11, 17), (11, 8))
    )
    undecided = type(soft)(p, soft.frac, soft.lattice, soft.mask)
    found = RequiredElements("Na", "O").violation(undecided)
    assert float(found) == pytest.approx(mean, abs=1e-6)


# ---- composition ---------------------------------------------------------------------


def test_formula_agrees_with_pymatgen(random_crystals: Crystals) -> None:
    for formula in ("NaCl", "H2O", "TiO2", "SrO", "O2", "Fe2O3"):
        wanted = Parsed(formula).reduced_composition
        expected = [
            s.composition.reduced_composition == wanted for s in random_crystals
        ]
        if formula == "O2":  # pymatgen keeps O2 as it is; one element is one element
            expected = [set(s.composition.as_dict()) == {"O"} for s in random_crystals]
        found = Composition(formula).satisfied(random_crystals)
        assert found.tolist() == expected


def test_pattern_agrees_with_pymatgen() -> None:
    formulas = [
        *random_formulas(300, 0),
        "SrTiO3",
        "Sr2Ti2O6",
        "TiSr3O",
        "Na2O",
        "Fe4O6",
    ]
    crystals = of_formula(*formulas)
    for pattern, anonymous in (("ABX3", "ABC3"), ("A2X", "AB2"), ("A2X3", "A2B3")):
        expected = [s.composition.anonymized_formula == anonymous for s in crystals]
        assert any(expected)
        found = Composition(pattern=pattern).satisfied(crystals)
        assert found.tolist() == expected


def test_violation_counts_the_atoms_to_change() -> None:
    crystals = of_formula("SrTiO3", "SrTiO2F", "Ca2Ti2O6", "NaCl")
    found = Composition("SrTiO3").violation(crystals)
    assert torch.allclose(found, torch.tensor([0.0, 1.0, 2.0, 2.0]), atol=1e-6)
    found = Composition(pattern="ABX3").violation(crystals)
    assert torch.allclose(found, torch.tensor([0.0, 1.0, 0.0, 0.6]), atol=1e-6)


def test_formula_in_any_notation() -> None:
    for text in ("CaO2H2", "Ca(OH)2", "H4Ca2O4"):
        assert bool(Composition(text).satisfied(of_formula("CaH2O2")))
    assert Composition("FeO").counts == (1, 1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Composition("SrX3"), 'such as "ABX3"'),
        (lambda: Composition("SrTjO3"), "known elements"),
        (lambda: Composition("SrTi0.5O2"), "whole numbers"),
        (lambda: Composition(""), "formula"),
        (lambda: Composition(), "one formula or pattern"),
        (lambda: Composition("NaCl", pattern="AX"), "one formula or pattern"),
        (lambda: Composition(pattern="ABO3"), r'RequiredElements\("O"\)'),
        (lambda: Composition(pattern="AB0"), "zero"),
        (lambda: Composition(pattern="SrX"), "capital letters"),
        (lambda: OnlyElements(), "at least one"),
        (lambda: RequiredElements("Xx"), "Xx"),
        (lambda: MinDistance(-1.0), "positive"),
        (lambda: MinDistance(math.nan), "positive"),
        (lambda: ChargeNeutral("all"), "smact14"),
        (lambda: Between("hardness", 1, 2, unit="GPa"), "volume_per_atom"),
        (lambda: Between("density", math.nan, 2, unit="g/cm^3"), "-inf"),
    ],
)
def test_wrong_arguments_say_what_to_do(make: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        make()  # type: ignore[operator]


def test_placeholders_are_not_common_elements() -> None:
    assert not set(PLACEHOLDERS) & set("HNOFPSIKVWYU")


# ---- charge --------------------------------------------------------------------------


def neutral_by_listing(
    formula: str, name: str, *, mixed: bool = False, alloys: bool = False
) -> bool:
    """Try every choice of states, one after the other."""
    amounts = {Element(s).Z: int(k) for s, k in Parsed(formula).as_dict().items()}
    states = oxidation_states(name)
    metals = [Element.from_Z(z).is_metal for z in amounts]
    if len(amounts) == 1 or (alloys and all(metals)):
        return True
    choices = []
    for (z, k), metal in zip(amounts.items(), metals, strict=True):
        if mixed and metal:
            choices.append([sum(c) for c in itertools.product(states[z], repeat=k)])
        else:
            choices.append([k * q for q in states[z]])
    return any(sum(choice) == 0 for choice in itertools.product(*choices))


@pytest.mark.parametrize("name", ["common", "smact14"])
@pytest.mark.parametrize("mixed", [False, True])
def test_charge_agrees_with_listing_every_choice(name: str, mixed: bool) -> None:
    formulas = random_formulas(150, 1, most=3)
    formulas += ["Fe3O4", "NaCl", "NaO", "He2O", "Na3K", "Fe", "Co3O4", "PbTiO3", "O2"]
    constraint = ChargeNeutral(name, mixed_valence=mixed)
    found = constraint.satisfied(of_formula(*formulas)).tolist()
    expected = [neutral_by_listing(f, name, mixed=mixed) for f in formulas]
    assert found == expected
    assert 10 < sum(expected) < len(formulas) - 10


def test_charge_agrees_with_smact() -> None:
    """smact's own test, without its electronegativity rule, on the same states."""
    from smact.screening import smact_validity

    formulas = [*random_formulas(200, 2), "NaCl", "SrTiO3", "NaO", "Fe3O4", "CaF2"]
    expected = [
        smact_validity(
            Parsed(f),
            use_pauling_test=False,
            include_alloys=False,
            oxidation_states_set="smact14",
        )
        for f in formulas
    ]
    found = ChargeNeutral("smact14").satisfied(of_formula(*formulas)).tolist()
    assert found == expected


def test_charge_agrees_with_pymatgen() -> None:
    """pymatgen's guess over its common states; it lets no element mix either."""
    formulas = [
        "NaCl",
        "NaO",
        "SrTiO3",
        "Fe2O3",
        "CaCl",
        "Al2O3",
        "MgSO4",
        "K2Mg",
        "CaH2",
    ]
    expected = [
        bool(Parsed(f).oxi_state_guesses(oxi_states_override=_common(f)))
        for f in formulas
    ]
    assert ChargeNeutral().satisfied(of_formula(*formulas)).tolist() == expected


def _common(formula: str) -> dict[str, list[int]]:
    return {
        e.symbol: list(Element(e.symbol).common_oxidation_states)
        for e in Parsed(formula).elements
    }


def test_charge_left_over_and_options() -> None:
    crystals = of_formula("NaO", "Fe3O4", "Na3K", "HeO")
    left = ChargeNeutral().violation(crystals)
    assert left.tolist() == [1.0, 1.0, 4.0, math.inf]
    assert ChargeNeutral(mixed_valence=True).satisfied(crystals).tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert bool(ChargeNeutral(alloys=True).satisfied(crystals)[2])


def test_charge_of_many_elements_is_quick() -> None:
    """A cell where listing choices would take 10^12 of them."""
    symbols = [s for s in oxidation_symbols() if len(Element(s).oxidation_states) > 5]
    amounts = {Element(s).Z: k + 1 for k, s in enumerate(symbols[:16])}
    product = math.prod(len(oxidation_states("smact14")[z]) for z in amounts)
    assert product > 1e9
    assert ChargeNeutral("smact14").residual(amounts) == 0.0


def oxidation_symbols() -> list[str]:
    return [Element.from_Z(z).symbol for z in range(1, 95)]


# ---- distance and ranges -------------------------------------------------------------


def shortest_by_pymatgen(structure: Structure) -> float:
    """The shortest distance from any site to any other, or to an image of itself."""
    near = structure.get_all_neighbors(12.0)
    return min(n.nn_distance for sites in near for n in sites)


def test_distance_agrees_with_pymatgen(random_crystals: Crystals) -> None:
    few = random_crystals[:80]
    shortest = torch.tensor([shortest_by_pymatgen(s) for s in few])
    assert not ((shortest - 1.4).abs() < 1e-4).any(), "no crystal on the edge"
    constraint = MinDistance(1.4)
    assert torch.equal(constraint.satisfied(few), shortest >= 1.4)
    shortfall = (1.4 - shortest).clamp(min=0).float()
    assert torch.allclose(constraint.violation(few), shortfall, atol=1e-4)


def test_distance_sees_an_atom_and_its_own_image() -> None:
    flat = Crystals(
        torch.tensor([[26]]),
        torch.zeros(1, 1, 3),
        torch.diag(torch.tensor([1.2, 5.0, 5.0]))[None],
    )
    assert not bool(MinDistance(1.4).satisfied(flat))
    assert float(MinDistance(1.4).violation(flat)) == pytest.approx(0.2, abs=1e-6)


def test_a_crystal_that_is_not_a_number_meets_nothing() -> None:
    broken = of_formula("NaCl")
    broken = broken.replace(
        frac=broken.frac * math.nan, lattice=broken.lattice * math.nan
    )
    assert not bool(MinDistance(1.0).satisfied(broken))
    assert not bool(Between("density", 0, 99, unit="g/cm^3").satisfied(broken))


def test_ranges_agree_with_pymatgen(random_crystals: Crystals) -> None:
    density = torch.tensor([float(s.density) for s in random_crystals])
    inside = (density >= 2) & (density <= 5)
    constraint = Between("density", 2, 5, unit="g/cm^3")
    assert torch.equal(constraint.satisfied(random_crystals), inside)
    volume = torch.tensor([s.volume / len(s) for s in random_crystals])
    constraint = Between("volume_per_atom", 8, math.inf, unit="Å^3")
    assert torch.equal(constraint.satisfied(random_crystals), volume >= 8)
    short = (8 - volume).clamp(min=0).float()
    assert torch.allclose(constraint.violation(random_crystals), short, atol=1e-4)


def test_both_ends_belong_to_the_range() -> None:
    cell = Crystals(torch.tensor([[26]]), torch.zeros(1, 1, 3), 2 * torch.eye(3)[None])
    exactly = Between("volume_per_atom", 8, 8, unit="angstrom^3")
    assert bool(exactly.satisfied(cell)) and float(exactly.violation(cell)) == 0


def test_wrong_unit_and_empty_range() -> None:
    with pytest.raises(UnitError, match=r"density is in g/cm\^3; got unit='kg/m\^3'"):
        Between("density", 2000, 5000, unit="kg/m^3")
    for odd in (None, 5):
        with pytest.raises(UnitError, match=f"got unit={odd}"):
            Between("density", 2, 5, unit=odd)  # type: ignore[arg-type]
    for spelt in ("g/cm3", "g/cm³"):
        assert Between("density", 2, 5, unit=spelt).unit == "g/cm^3"
    for spelt in ("Å^3", "Å³"):
        assert Between("volume_per_atom", 2, 5, unit=spelt).unit == "angstrom^3"
    with pytest.raises(InfeasibleTarget, match="swap the ends"):
        Between("density", 5, 2, unit="g/cm^3")
