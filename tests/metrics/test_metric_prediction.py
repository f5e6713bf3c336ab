"""Structure prediction: exact on known cases, and every fault costs what it should."""

import math

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, ShapeError
from matdesign.metrics.prediction import evaluate_prediction

STOL = 0.5


def cubic(group, edge, species, sites):
    made = Structure.from_spacegroup(group, Lattice.cubic(edge), species, sites)
    return made.get_primitive_structure()


@pytest.fixture(scope="module")
def targets():
    """Perovskite, rocksalt, and two polymorphs of ZnS-like GaAs."""
    return Crystals.from_structures(
        [
            cubic(
                "Pm-3m", 3.91, ["Sr", "Ti", "O"], [[0] * 3, [0.5] * 3, [0.5, 0.5, 0]]
            ),
            cubic("Fm-3m", 5.64, ["Na", "Cl"], [[0] * 3, [0.5] * 3]),
            cubic("F-43m", 5.65, ["Ga", "As"], [[0] * 3, [0.25] * 3]),
            cubic("Pm-3m", 3.40, ["Ga", "As"], [[0] * 3, [0.5] * 3]),
        ],
        ids=["a", "b", "c", "d"],
    )


def test_a_perfect_prediction(targets):
    found = evaluate_prediction(targets, targets)
    assert found["match rate"].figure() == found["METRe"].figure() == "4/4"
    assert found["RMSE"].value == pytest.approx(0, abs=1e-5)
    assert found["cRMSE"].value == pytest.approx(0, abs=1e-5)
    assert (found.table["reason"] == "").all()
    assert found.table["best"].tolist() == [0, 1, 2, 3]


def test_another_cell_origin_order_and_size_is_the_same_prediction(targets):
    turned = []
    for one in targets:
        other = Structure(
            one.lattice, one.species[::-1], one.frac_coords[::-1] + [0.3, 0.1, 0.2]
        )
        other.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
        other.scale_lattice(other.volume * 1.1)  # the matcher ignores the volume
        turned.append(other)
    found = evaluate_prediction(Crystals.from_structures(turned), targets)
    assert found["match rate"].count == 4
    assert found["cRMSE"].value == pytest.approx(0, abs=1e-4)


def test_a_known_displacement_gives_its_rmse():
    # of two atoms one moves by d; the best origin halves it: rms = d / 2
    d = 0.2
    cell = Lattice.from_parameters(4.0, 4.3, 4.7, 80, 95, 100)
    right = Structure(cell, ["Li", "F"], [[0, 0, 0], [0.3, 0.37, 0.41]])
    off = right.copy()
    off.translate_sites([1], [d, 0, 0], frac_coords=False)
    found = evaluate_prediction(
        Crystals.from_structures([off]), Crystals.from_structures([right])
    )
    unit = (right.volume / 2) ** (1 / 3)
    assert found["RMSE"].value == pytest.approx(d / 2 / unit, rel=1e-3)
    assert found["cRMSE"].value == pytest.approx(d / 2 / unit, rel=1e-3)


def test_swapped_species_do_not_match(targets):
    species = targets.species.clone()
    strontium, titanium = species[0] == 38, species[0] == 22
    species[0][strontium], species[0][titanium] = 22, 38
    found = evaluate_prediction(targets.replace(species=species), targets)
    # A and B of a perovskite stand differently: another crystal of the same formula
    assert found.table["matched"].tolist() == [False, True, True, True]
    assert found.table["reason"][0] == "no candidate matches"
    assert found["cRMSE"].value == pytest.approx(STOL / 4, abs=1e-5)


def test_a_wrong_composition_does_not_match(targets):
    species = targets.species.clone()
    species[1][species[1] == 11] = 19
    found = evaluate_prediction(targets.replace(species=species), targets)
    assert found["match rate"].count == 3
    assert found.table["reason"][1] == "no candidate of its composition"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_collapsed_and_broken_candidates_do_not_match(targets):
    frac, lattice = targets.frac.clone(), targets.lattice.clone()
    frac[0] = 0.0  # all atoms on one site
    frac[1, 0, 0] = math.nan
    lattice[2] = 0.0
    found = evaluate_prediction(targets.replace(frac=frac, lattice=lattice), targets)
    assert found.table["matched"].tolist() == [False, False, False, True]
    assert found["match rate"].figure() == "1/4"  # all stay in the denominator
    assert any("could not be compared" in note for note in found.notes)
    assert found["cRMSE"].value == pytest.approx(3 * STOL / 4, abs=1e-5)


def test_polymorphs_in_the_wrong_order_count_for_metre_only(targets):
    found = evaluate_prediction(targets[[0, 1, 3, 2]], targets)
    assert found["match rate"].figure() == "2/4"
    assert found["METRe"].figure() == "4/4"
    assert found["cRMSE"].value == pytest.approx(0, abs=1e-5)
    assert found.table["best"].tolist() == [0, 1, -1, -1]
    assert found.table["best_of_any"].tolist() == [0, 1, 3, 2]


def test_a_collapsed_mode_finds_one_polymorph_of_two(targets):
    found = evaluate_prediction(targets[[0, 1, 2, 2]], targets)
    assert found["METRe"].figure() == found["match rate"].figure() == "3/4"


def test_the_best_of_k_candidates_counts(targets):
    wrong = targets[[1, 0, 1, 0]]
    both = Crystals.cat([wrong, targets])
    of = torch.arange(4).repeat(2)
    found = evaluate_prediction(both, targets, of=of)
    assert found["match rate"].count == 4
    assert found.table["best"].tolist() == [4, 5, 6, 7]
    assert found.table["candidates"].tolist() == [2, 2, 2, 2]
    # without `of`, the first k are for the first target
    order = torch.arange(8).reshape(2, 4).T.reshape(-1)
    again = evaluate_prediction(both[order], targets)
    assert again["match rate"].count == 4


def test_a_closer_candidate_wins(targets):
    one = targets[1]
    off = one.copy()
    off.translate_sites([1], [0.05, 0, 0], frac_coords=False)
    made = Crystals.from_structures([off, one, off])
    found = evaluate_prediction(made, targets[[1]])
    assert found.table["best"].tolist() == [1]
    assert found["RMSE"].value == pytest.approx(0, abs=1e-5)


def test_targets_without_a_candidate_stay_in_the_denominator(targets):
    found = evaluate_prediction(targets[[1]], targets, of=torch.tensor([1]))
    assert found["match rate"].figure() == "1/4"
    assert found.table["reason"].tolist() == ["no candidate", "", *["no candidate"] * 2]
    assert np.isnan(found.table["rmse"][0])


def test_nothing_matched_gives_the_full_cost(targets):
    found = evaluate_prediction(
        targets[[1, 0]], targets[[0, 2]], of=torch.tensor([0, 1])
    )
    assert found["METRe"].count == 1  # the second candidate is the first target
    found = evaluate_prediction(targets[[1, 1]], targets[[0, 2]])
    assert found["match rate"].count == 0
    assert found["cRMSE"].value == STOL
    assert np.isnan(found["RMSE"].value)
    assert "no crystal qualified" in repr(found)


def test_tighter_tolerances_match_less(targets):
    one = targets[2]
    off = one.copy()
    off.translate_sites([1], [0.9, 0, 0], frac_coords=False)
    made, right = Crystals.from_structures([off]), targets[[2]]
    assert evaluate_prediction(made, right)["match rate"].count == 1
    tight = evaluate_prediction(made, right, tolerances="mattergen")
    assert tight["match rate"].value <= 1
    assert "stol 0.3" in repr(tight)


def test_what_cannot_be_judged_is_refused(targets):
    with pytest.raises(DataError, match="candidates and targets"):
        evaluate_prediction(targets[:0], targets)
    with pytest.raises(ShapeError, match="do not divide"):
        evaluate_prediction(targets[:3], targets)
    with pytest.raises(ShapeError, match="from 0 to 3"):
        evaluate_prediction(targets, targets, of=torch.tensor([0, 1, 2, 4]))
    with pytest.raises(DataError, match="no matcher settings"):
        evaluate_prediction(targets, targets, tolerances="loose")


def test_the_record_is_plain_and_names_the_protocol(targets):
    import json

    record = evaluate_prediction(targets, targets).record()
    assert json.loads(json.dumps(record))["metrics"]["METRe"]["count"] == 4
    assert any("pymatgen" in line for line in record["protocol"])
    assert any("METRe" in line for line in record["protocol"])
