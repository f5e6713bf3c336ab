"""The two constraints of the first page: harmless elements, formulas that are not known."""

import torch

import matdesign as design
from matdesign.constraints.elements import HARMFUL
from matdesign.crystals.elements import symbols


def rows(*numbers: int) -> design.Crystals:
    """One-atom cells of some elements, and rock salt of pairs."""
    apart = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    species = torch.tensor([[z, 0] for z in numbers])
    cell = 4.0 * torch.eye(3).expand(len(numbers), 3, 3)
    return design.Crystals(species, apart.expand(len(numbers), 2, 3), cell)


def test_harmless_leaves_out_exactly_the_named_elements_and_every_one_has_one_reason():
    named = [symbol for some in HARMFUL.values() for symbol in some]
    assert len(named) == len(set(named)) and set(named) <= set(symbols())
    harmless = design.OnlyElements.harmless()
    assert harmless.excluded == set(named)
    assert str(harmless) == "only harmless elements"
    assert str(design.Constraint.from_dict(harmless.to_dict())) == str(harmless)
    assert harmless.satisfied(rows(26, 82, 8, 94)).tolist() == [
        True,
        False,
        True,
        False,
    ]


def test_every_element_without_a_stable_isotope_is_left_out():
    """Bismuth and lighter have one but for Tc and Pm; from polonium on none has."""
    table = symbols()
    [unstable] = [some for why, some in HARMFUL.items() if "isotope" in why]
    assert set(unstable) == {"Tc", "Pm", *table[84:]}


def test_known_formulas_and_elements_do_not_meet_the_constraint():
    hull = design.Hull({"Na": 0.0, "Cl": 0.0}, [("NaCl", -1.0)])
    new = design.NovelFormula(hull.known)
    salt = rows(11).replace(species=torch.tensor([[11, 17]]))
    other = rows(11, 11).replace(species=torch.tensor([[11, 17], [17, 0]]))
    assert new.satisfied(salt).tolist() == [False]
    assert new.satisfied(other).tolist() == [False, False], "an element is known"
    strange = salt.replace(species=torch.tensor([[11, 9]]))
    assert new.satisfied(strange).tolist() == [True]
    assert new.violation(strange).tolist() == [0.0]
    assert new.violation(salt.soft()).tolist() == [1.0]
    assert str(new) == "a formula that is not known"
