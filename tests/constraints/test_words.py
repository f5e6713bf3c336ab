"""What may be written where: one parser for formulas, one for space groups."""

import pytest
import torch

import matdesign as design
from matdesign.constraints.conditions import merged
from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.find import SYMPREC, spacegroup, spacegroup_number
from matdesign.display.scene import space_group
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators.request import Request, resolve


def asked(**conditions: object) -> Request:
    return resolve(
        conditions,
        None,
        1,
        allowed=torch.ones(104, dtype=torch.bool),
        histogram=[0] + [1] * 24,
        properties={},
    )


# ---- space groups ----------------------------------------------------------------------

SYMBOLS = {
    "P21/c": 14,
    "P2_1/c": 14,
    "P 1 21/c 1": 14,
    "P21/n": 14,
    "P2\u2081/c": 14,
    "P63/mmc": 194,
    "P6_3/m m c": 194,
    "P212121": 19,
    "Pm3m": 221,
    "Pm-3m": 221,
    "P m \u22123 m": 221,
    "pm-3m": 221,
    "Fd3m": 227,
    "F d -3 m :2": 227,
    "F 4_1/d -3 2/m": 227,
    "Cmca": 64,
    "Cmce": 64,
    "C2/m": 12,
    "R-3m:R": 166,
    "P 4/n 2/m 2/m": 129,
    "P 4/n 21/m 2/m": 129,
    "P 4/n 2_1/m m": 129,
    "P 2/m 2/m 2/m": 47,
    "Pbnm": 62,
    "Ia3d": 230,
    "P31m": 157,
    "P3m1": 156,
    "225": 225,
    " 1 ": 1,
}


@pytest.mark.parametrize(("text", "number"), SYMBOLS.items())
def test_a_symbol_means_the_same_in_both_places(text: str, number: int) -> None:
    assert spacegroup_number(text) == number
    assert design.SpaceGroup(text).numbers == (number,)
    groups = asked(spacegroup=text).groups
    assert groups is not None and groups.nonzero().flatten().tolist() == [number]


def test_every_symbol_that_is_printed_is_read() -> None:
    import spglib

    for number in range(1, 231):
        assert spacegroup_number(number) == number
        words = repr(design.SpaceGroup(number))
        assert spacegroup_number(words.split("(")[1].rstrip(")")) == number
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        for text in (kind.international_short, kind.international_full):
            assert spacegroup_number(text) == kind.number, text


@pytest.mark.parametrize(
    "wrong", ["Xy", "", "0", "231", 0, 231, 2.5, True, None, "Pm-3m or so", "P1 P1"]
)
def test_what_names_no_group_is_refused_in_both_places(wrong: object) -> None:
    with pytest.raises(DataError, match="number from 1 to 230 or a Hermann-Mauguin"):
        design.SpaceGroup(wrong)  # type: ignore[arg-type]
    if wrong is not None:  # there, nothing is asked
        with pytest.raises(DataError, match="number from 1 to 230 or a Hermann"):
            asked(spacegroup=wrong)


def test_numbers_and_symbols_are_merged() -> None:
    both = merged([{"spacegroup": [225, 221]}, {"spacegroup": "Fm-3m"}])
    assert both == {"spacegroup": [225]}
    several = asked(spacegroup=["Fm-3m", 221]).groups
    assert several is not None and several.nonzero().flatten().tolist() == [221, 225]
    with pytest.raises(InfeasibleTarget):
        merged([{"spacegroup": "Pm-3m"}, {"spacegroup": [225]}])


@pytest.mark.parametrize("push", [0.0, 0.03, 0.3])
def test_a_report_and_a_check_name_one_group(push: float) -> None:
    """A nearly cubic crystal is cubic on the page and for the constraint, or for neither."""
    frac = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
    frac[0, 1, 2] += push / 4.1
    one = Crystals(torch.tensor([[55, 17]]), frac, 4.1 * torch.eye(3)[None])
    symbol, number = space_group(one[0])
    assert number == int(spacegroup(one)[0]) and (number == 221) == (push < SYMPREC)
    assert bool(design.SpaceGroup(symbol).satisfied(one)[0])
    assert bool(design.CrystalSystem("cubic").satisfied(one)[0]) == (number == 221)


# ---- compositions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("SrTiO3", (3, 1, 1)),
        ("Sr2Ti2O6", (3, 1, 1)),
        ("Ca(OH)2", (2, 2, 1)),
        ("D2O", (2, 1)),
        ("ABX3", (3, 1, 1)),
        ("A2B2X6", (3, 1, 1)),
        ("BN", (1, 1)),
    ],
)
def test_a_composition_means_the_same_in_both_places(
    text: str, counts: tuple[int, ...]
) -> None:
    one, request = design.Composition(text), asked(composition=text)
    assert one.counts == counts
    assert one.conditions() == {"composition": text}
    assert int(request.unit[0]) == sum(counts)
    pattern = not one.amounts
    assert bool(request.pattern.any()) == pattern
    assert bool(request.formula.any()) != pattern


def test_a_pattern_is_a_pattern_with_and_without_its_name() -> None:
    one, two = design.Composition("ABX3"), design.Composition(pattern="ABX3")
    assert repr(one) == repr(two) == "composition of the pattern ABX3"


def test_deuterium_and_tritium_are_hydrogen() -> None:
    water = design.Composition("D2O")
    assert water.amounts == {"H": 2, "O": 1}
    assert asked(composition="D2O").formula[0, [1, 8]].tolist() == [2, 1]
    assert design.Composition("HDO").amounts == {"H": 2, "O": 1}
    made = Crystals(
        torch.tensor([[1, 8, 1]]), torch.rand(1, 3, 3), 4 * torch.eye(3)[None]
    )
    assert bool(water.satisfied(made)[0])
    assert design.OnlyElements("D", "O").satisfied(made).tolist() == [True]


@pytest.mark.parametrize(
    "wrong", ["ABO3", "BaTiX3", "SrTi0.5O2", "nonsense", "", "A0B"]
)
def test_what_is_no_composition_is_refused_in_both_places(wrong: str) -> None:
    with pytest.raises(DataError):
        design.Composition(wrong)
    with pytest.raises(DataError):
        asked(composition=wrong)
