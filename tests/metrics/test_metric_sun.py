"""Stable, unique and novel: decided per crystal, never as a product of averages."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.evaluator import Protocol, compare, evaluate


def rocksalt(cation, anion, edge):
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(edge), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()


@pytest.fixture(scope="module")
def salts():
    pairs = [("Na", "Cl", 5.64), ("K", "Br", 6.6), ("Mg", "O", 4.21), ("Ca", "S", 5.69)]
    return Crystals.from_structures([rocksalt(*p) for p in pairs])


def test_stable_unique_and_novel_are_decided_crystal_by_crystal(salts):
    batch = salts[[0, 0, 1, 2, 3]]
    known = salts[[2]]
    above = [-0.02, -0.02, 0.05, 0.0, 0.3]
    found = evaluate(batch, known, hull_distance=above)
    assert found.table["stable"].tolist() == [True, True, True, True, False]
    # the second repeats the first, the fourth is known, the fifth is not stable
    assert found.table["sun"].tolist() == [True, False, True, False, False]
    assert found["S.U.N."].figure() == "2/5"
    assert found["S.U.N., on the hull"].figure() == "1/5"
    assert found["stability"].figure() == "4/5"
    assert found["stability, on the hull"].figure() == "3/5"
    assert found["S.U.N."].low < 0.4 < found["S.U.N."].high


def test_the_rates_alone_would_say_something_else(salts):
    # half stable, half novel, never both: S.U.N. is 0, the product of rates 1/4
    found = evaluate(salts, salts[:2], hull_distance=[0.0, 0.0, 1.0, 1.0])
    assert found["stability"].value == found["novelty"].value == 0.5
    assert found["S.U.N."].count == 0


def test_a_collapsed_mode_scores_one(salts):
    found = evaluate(salts[[1] * 20], salts[:1], hull_distance=np.zeros(20))
    assert found["S.U.N."].figure() == "1/20"


def test_of_equal_crystals_the_one_that_is_stable_counts(salts):
    # the first copy failed to relax, the second lies too high, the third is stable
    batch, above = salts[[0, 0, 0, 1]], [np.nan, 0.3, 0.0, 0.2]
    found = evaluate(batch, salts[2:], hull_distance=above)
    assert found.table["sun"].tolist() == [False, False, True, False]
    assert found.table["unique"].tolist() == [True, False, False, True]
    turned = evaluate(batch[[3, 2, 1, 0]], salts[2:], hull_distance=above[::-1])
    assert turned["S.U.N."].figure() == found["S.U.N."].figure() == "1/4"


def test_failed_relaxations_stay_in_the_denominator(salts):
    above = torch.tensor([0.0, float("nan"), float("nan"), 0.02])
    found = evaluate(salts, salts[:1], hull_distance=above)
    assert found["stability"].figure() == "2/4"
    assert found["S.U.N."].figure() == "1/4"
    assert found["median energy above the hull"].n == 2
    assert "no distance to the hull" in found.table["reason"][1]


def test_an_invalid_crystal_is_not_stable_whatever_an_oracle_says(salts):
    frac = salts.frac.clone()
    frac[0] = 0.0
    found = evaluate(
        salts.replace(frac=frac), salts[1:2], hull_distance=[-9.0, 0.0, 0.0, 0.0]
    )
    assert not found.table["stable"][0] and not found.table["sun"][0]


def test_the_threshold_counts_itself_and_can_be_moved(salts):
    above = np.array([0.1, 0.1000001, 0.05, 0.2])
    assert evaluate(salts, hull_distance=above)["stability"].count == 2
    strict = evaluate(salts, hull_distance=above, protocol=Protocol(stable=0.05))
    assert strict["stability"].count == 1
    assert any("0.05 eV/atom above the hull" in line for line in strict.notes)


def test_without_a_reference_there_is_no_novelty_and_no_sun(salts):
    found = evaluate(salts, hull_distance=np.zeros(4))
    assert found["stability"].count == 4
    assert "S.U.N." not in found.metrics and "sun" not in found.table


def test_distances_can_come_from_a_property(salts):
    values = torch.tensor([0.0, 0.05, 0.2, 0.4])
    batch = salts.replace(properties={"energy_above_hull": values})
    found = evaluate(batch, hull_distance="energy_above_hull")
    assert found["stability"].figure() == "2/4"
    assert found["median energy above the hull"].value == pytest.approx(0.05)
    assert found["median energy above the hull"].unit == "eV/atom"
    with pytest.raises(DataError, match="no property 'hull'"):
        evaluate(batch, hull_distance="hull")


def test_one_distance_per_crystal_is_needed(salts):
    with pytest.raises(DataError, match=r"shape \(4,\)"):
        evaluate(salts, hull_distance=[0.1, 0.2])


def test_batches_side_by_side_with_and_without_distances(salts):
    found = compare(
        {"judged": salts, "not": salts[:2]},
        salts[:1],
        hull_distance={"judged": [0.0] * 4},
    )
    assert found["judged"]["S.U.N."].figure() == "3/4"
    assert "S.U.N." not in found["not"].metrics
    assert "S.U.N." in repr(found)  # a row with one empty cell
