"""Conditions: what is told is true, every subset occurs, nothing given changes nothing."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.lattice_code import SYSTEMS, system_of
from matdesign.crystals.symmetry.encoded import Encoded, encode
from matdesign.errors import DataError, InfeasibleTarget, ShapeError
from matdesign.generators.conditions import (
    Condition,
    ConditionEncoder,
    combine,
    properties_of,
)
from matdesign.generators.request import resolve

SCALES = {"gap": [1.0, 2.0], "energy": [-1.0, 0.5]}
KNOWN = torch.zeros(104, dtype=torch.bool)
KNOWN[[3, 8, 9, 11, 17, 20, 22, 38, 56]] = True
SIZES = [0, 2, 3, 0, 0, 5, 0, 0, 0, 0, 4]


def ask(conditions=None, n=2, n_atoms=None):
    return resolve(
        conditions,
        n_atoms,
        n,
        allowed=KNOWN,
        histogram=SIZES,
        properties=SCALES,
    )


@pytest.fixture(scope="module")
def batch() -> Encoded:
    n = 4000
    rng = torch.Generator().manual_seed(0)
    species = torch.tensor([38, 22, 8, 8, 8]).expand(n, 5)
    gap = 1 + 2 * torch.randn(n, generator=rng)
    gap[:1000] = torch.nan
    return encode(
        Crystals(
            species,
            torch.rand(n, 5, 3, generator=rng),
            4 * torch.eye(3).expand(n, 3, 3),
            properties={
                "gap": gap,
                "energy": -1 + 0.5 * torch.randn(n, generator=rng),
                "spacegroup": torch.full((n,), 221.0),
            },
        )
    )


def drawn(batch: Encoded, **options) -> Condition:
    encoder = ConditionEncoder(16, SCALES)
    return encoder.training_condition(
        batch, torch.Generator().manual_seed(1), **options
    )


def stirred() -> ConditionEncoder:
    """An encoder as training leaves it: no weight is zero."""
    encoder = ConditionEncoder(16, SCALES)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(2))
    return encoder


def test_crystal_systems_are_those_of_pymatgen():
    from pymatgen.symmetry.groups import SpaceGroup

    ours = system_of(torch.arange(231)).tolist()
    assert ours[0] == 0
    ends = (1, 2, 3, 15, 16, 74, 75, 142, 143, 167, 168, 194, 195, 230)
    for number in ends:
        theirs = SpaceGroup.from_int_number(number).crystal_system
        assert SYSTEMS[ours[number] - 1] == theirs


def test_true_ranges_contain_the_true_value(batch):
    told = drawn(batch, drop=0.0, drop_all=0.0)
    for i, (name, (mean, std)) in enumerate(SCALES.items()):
        true = (batch.labels[name] - mean) / std
        given = told.given[:, i]
        assert torch.equal(given, true.isfinite())
        low, high, x = told.low[given, i], told.high[given, i], true[given]
        assert (low <= x + 1e-6).all() and (high >= x - 1e-6).all()
        assert not (low.isinf() & high.isinf()).any()
        # a value, two ends, an open low end, an open high end: all of them occur
        kinds = (
            (low == high).sum(),
            ((low < high) & low.isfinite() & high.isfinite()).sum(),
            low.isinf().sum(),
            high.isinf().sum(),
        )
        assert min(int(k) for k in kinds) > 0.1 * int(given.sum())


def test_what_is_not_given_is_open(batch):
    told = drawn(batch)
    assert told.low[~told.given].isneginf().all()
    assert told.high[~told.given].isposinf().all()
    assert not told.given[:1000, 0].any()  # NaN labels are never told


def test_every_subset_of_fields_occurs_as_often_as_it_should(batch):
    told = drawn(batch[torch.arange(1000, 4000)], drop=0.5, drop_all=0.1)
    fields = torch.stack(
        [
            told.given[:, 0],
            told.given[:, 1],
            told.spacegroup > 0,
            told.system > 0,
            told.composition.sum(1) > 0,
        ],
        dim=1,
    )
    n = len(fields)
    for subset in itertools.product((False, True), repeat=5):
        seen = int((fields == torch.tensor(subset)).all(1).sum())
        share = 0.9 / 32 + (0.1 if not any(subset) else 0.0)
        spread = (n * share * (1 - share)) ** 0.5
        assert abs(seen - n * share) < 4.5 * spread, subset


def test_structure_fields_are_true(batch):
    told = drawn(batch, drop=0.0, drop_all=0.0)
    assert (told.spacegroup == 221).all() and (told.system == 7).all()
    share = told.composition[0]
    assert share[[38, 22, 8]].tolist() == pytest.approx([0.2, 0.2, 0.6])
    assert torch.allclose(told.composition.sum(1), torch.ones(len(told)))


def test_space_group_comes_from_the_layout_where_there_is_symmetry():
    salt = Crystals(
        torch.tensor([[55, 17]]),
        torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]]),
        4.1 * torch.eye(3)[None],
        properties={"spacegroup": torch.tensor([225.0])},
    )
    encoder = ConditionEncoder(8, {})
    rng = torch.Generator().manual_seed(0)
    for representation, group in (("symmetric", 221), ("cell", 225)):
        told = encoder.training_condition(
            encode(salt, representation), rng, drop=0.0, drop_all=0.0
        )
        assert told.spacegroup.tolist() == [group]


def test_nothing_given_is_exactly_the_unconditional_model():
    made = stirred()(Condition.nothing(3, 2))
    assert torch.equal(made, torch.zeros(3, 16))
    assert stirred()(ask({"gap": 1.0}).condition).abs().sum() > 0


def test_an_untrained_encoder_changes_nothing(batch):
    encoder = ConditionEncoder(16, SCALES)
    assert not encoder(drawn(batch)).any()


def test_each_field_reaches_the_network():
    encoder = stirred()
    wishes = (
        {"gap": (0, None)},
        {"gap": (None, 0)},
        {"gap": 0},
        {"gap": (0, 1)},
        {"energy": 0},
        {"spacegroup": 221},
        {"spacegroup": 225},
        {"crystal_system": "cubic"},
        {"composition": "SrTiO3"},
        {"composition": "BaTiO3"},
    )
    made = torch.cat([encoder(ask(wish, n=1).condition) for wish in wishes])
    apart = torch.cdist(made, made) + torch.eye(len(made))
    assert apart.min() > 1e-3


def test_ends_beyond_the_span_are_clipped_and_finite():
    encoder = stirred()
    far = encoder(ask({"gap": (1e6, None)}, n=1).condition)
    farther = encoder(ask({"gap": (1e9, None)}, n=1).condition)
    assert far.isfinite().all() and torch.equal(far, farther)


def test_a_space_group_says_its_system():
    encoder = stirred()
    told = ask({"spacegroup": 221}, n=1).condition
    blind = Condition(
        told.low,
        told.high,
        told.given,
        told.spacegroup,
        torch.zeros_like(told.system),
        told.composition,
    )
    assert torch.equal(encoder(told), encoder(blind))


def test_combine_is_the_line_through_both_predictions():
    null, told = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.equal(combine(null, told, 0.0), null)
    assert torch.equal(combine(null, told, 1.0), told)
    assert torch.allclose(combine(null, told, 2.0), 2 * told - null, atol=1e-6)


def test_combine_keeps_impossible_elements_impossible():
    null = torch.tensor([[0.0, -torch.inf, 1.0]])
    told = torch.tensor([[1.0, -torch.inf, -torch.inf]])
    assert combine(null, told, 3.0).tolist() == [[3.0, -torch.inf, -torch.inf]]


def test_properties_are_labels_that_vary_and_can_be_asked_for(batch):
    labels = {
        "band_gap": torch.tensor([0.0, 2.0, torch.nan]),
        "density": torch.ones(3),
        "energy_above_hull": torch.full((3,), torch.nan),
        "spacegroup": torch.tensor([1.0, 2.0, 3.0]),
    }
    made = properties_of(dataclasses.replace(batch, labels=labels))
    assert made == {"band_gap": [1.0, pytest.approx(2**0.5, abs=1e-6)]}


def test_wishes_are_standardised():
    told = ask({"gap": (1.0, 3.0), "energy": (None, -2.0)}).condition
    assert told.low[0].tolist() == [0.0, -torch.inf]
    assert told.high[0].tolist() == [1.0, -2.0]
    assert told.given.all()
    each = ask({"gap": torch.tensor([1.0, 5.0])}).condition
    assert each.low[:, 0].tolist() == each.high[:, 0].tolist() == [0.0, 2.0]
    assert not ask({"gap": (None, None)}).condition.anything.any()
    assert not ask({"gap": None}).condition.anything.any()


def test_several_space_groups_and_systems():
    wish = ask({"spacegroup": [221, 225, 1], "crystal_system": "cubic"})
    assert wish.groups is not None
    assert wish.groups.nonzero().flatten().tolist() == [221, 225]
    assert wish.condition.spacegroup.tolist() == [0, 0]
    assert wish.condition.system.tolist() == [7, 7]
    one = ask({"spacegroup": torch.tensor(62)}).condition
    assert one.spacegroup.tolist() == [62, 62] and one.system.tolist() == [3, 3]


def test_compositions_and_patterns_of_each_crystal():
    wish = ask({"composition": ["Sr2Ti2O6", "ABX3"]})
    assert wish.unit.tolist() == [5, 5]
    assert wish.formula[0].nonzero().flatten().tolist() == [8, 22, 38]
    assert wish.pattern.tolist() == [[0, 0, 0], [3, 1, 1]]
    assert wish.condition.composition[0, 8] == pytest.approx(0.6)
    assert not wish.condition.composition[1].any()
    assert "ABX3" in wish[torch.tensor([1])].words(0)


@pytest.mark.parametrize(
    ("conditions", "kind", "words"),
    [
        ({"gapp": 1}, DataError, "'gapp'. Did you mean 'gap'?.*gap, energy"),
        ({"gap": "big"}, DataError, "gap must be a number.*'big'"),
        ({"gap": {1, 2}}, DataError, "range \\(low, high\\)"),
        ({"gap": np.array([0.0, 1.0])}, DataError, "range \\(low, high\\)"),
        ({"gap": (1, 2, 3)}, DataError, "range \\(low, high\\)"),
        ({"gap": (2, 1)}, InfeasibleTarget, "gap is empty: got \\(2, 1\\)"),
        ({"gap": float("nan")}, DataError, "NaN"),
        ({"gap": torch.ones(3)}, ShapeError, "one value for each of 2"),
        ({"spacegroup": 231}, DataError, "1 to 230 .*got 231"),
        ({"spacegroup": 0}, DataError, "1 to 230 .*got 0"),
        ({"spacegroup": "Pnxy"}, DataError, "got 'Pnxy'"),
        ({"spacegroup": []}, DataError, "empty list"),
        ({"crystal_system": "qubic"}, DataError, "Did you mean 'cubic'"),
        (
            {"spacegroup": 62, "crystal_system": "cubic"},
            InfeasibleTarget,
            "62 contradicts .*'cubic'",
        ),
        ({"composition": "FeO"}, InfeasibleTarget, "Fe in 'FeO'.*knows Li O F"),
        ({"composition": "Sr2O5"}, InfeasibleTarget, "7 atoms.*sizes are"),
        ({"composition": "ABO3"}, DataError, "O in the pattern 'ABO3'"),
        ({"composition": "A0B"}, DataError, "amount is zero"),
        ({"composition": "srtio3"}, DataError, "got 'srtio3'"),
        ({"composition": "SrTi0.5O2"}, DataError, "whole numbers"),
        ({"composition": 5}, DataError, "as text; got 5"),
        ({"composition": ["SrTiO3"]}, ShapeError, "each of 2 crystals; got 1"),
        (
            {"composition": "SrTiO3", "n_atoms": 7},
            InfeasibleTarget,
            "7 atoms do not make whole formula units of 'SrTiO3', which has 5",
        ),
        ({"n_atoms": 0}, ShapeError, "between 1 and 40"),
        ({"n_atoms": [1, 2, 3]}, ShapeError, "each of 2 crystals"),
    ],
)
def test_errors_speak(conditions, kind, words):
    with pytest.raises(kind, match=words):
        ask(conditions)


def test_sizes_are_not_given_twice():
    with pytest.raises(DataError, match="twice"):
        ask({"n_atoms": 5}, n_atoms=5)


def test_conditions_move_and_join():
    told = ask({"gap": 1.0, "composition": "SrTiO3"}).condition
    joined = Condition.cat([told, Condition.nothing(1, 2)]).to("cpu")
    assert joined.anything.tolist() == [True, True, False]
    assert joined[torch.tensor([2, 0])].anything.tolist() == [False, True]
