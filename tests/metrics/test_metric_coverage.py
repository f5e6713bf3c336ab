"""Coverage: exact on identical sets, and it falls when the set is spoiled."""

import math

import numpy as np
import pytest
import torch
from pymatgen.core import Composition, Lattice, Structure

from matdesign.crystals.batch import Crystals
from matdesign.crystals.matching import reduced
from matdesign.errors import DataError
from matdesign.metrics import fingerprints as prints
from matdesign.metrics import magpie, store
from matdesign.metrics.coverage import coverage
from matdesign.metrics.fingerprints import fingerprints


def kinds():
    """Six crystals unlike one another in structure and composition."""
    cubic = Structure.from_spacegroup
    return [
        cubic("Im-3m", Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]),
        cubic("Fd-3m", Lattice.cubic(3.57), ["C"], [[0, 0, 0]]),
        cubic("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]),
        cubic(
            "Pm-3m",
            Lattice.cubic(3.91),
            ["Sr", "Ti", "O"],
            [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]],
        ),
        cubic("F-43m", Lattice.cubic(5.65), ["Ga", "As"], [[0, 0, 0], [0.25] * 3]),
        cubic(
            "P4_2/mnm",
            Lattice.tetragonal(4.59, 2.96),
            ["Ti", "O"],
            [[0, 0, 0], [0.305, 0.305, 0]],
        ),
    ]


@pytest.fixture(scope="module")
def real():
    return Crystals.from_structures([one.get_primitive_structure() for one in kinds()])


@pytest.fixture(scope="module")
def known(real):
    return fingerprints(real)


STRICT = {"structure_cutoff": 0.1, "composition_cutoff": 2.0}
"""Tight enough that each of the six covers only itself."""


def figures(found):
    return {m.name: m.count for m in found.metrics()}


# ---- fingerprints --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_fingerprints_are_those_of_matminer(real, known):
    from matminer.featurizers.composition.composite import ElementProperty
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    sites = CrystalNNFingerprint.from_preset("ops")
    formula = ElementProperty.from_preset("magpie", impute_nan=False)
    mean, deviation = magpie.scale()
    for i in (0, 3):
        one = real[i]
        full = np.mean([sites.featurize(one, k) for k in range(len(one))], axis=0)
        assert np.allclose(known.structure[i], full, atol=1e-6)
        raw = np.array(formula.featurize(one.composition))
        assert np.allclose(known.composition[i], (raw - mean) / deviation, atol=1e-9)


@pytest.mark.parametrize("name", ["CsCl", "Fe2O3", "KMgF3", "HeNe", "PuO2", "LrH"])
def test_magpie_features_are_those_of_matminer(name):
    from matminer.featurizers.composition.composite import ElementProperty

    found = Composition(name)
    counts = tuple(sorted((e.Z, int(n)) for e, n in found.items()))
    theirs = ElementProperty.from_preset("magpie", impute_nan=False).featurize(found)
    assert np.allclose(magpie.features([counts])[0], theirs, equal_nan=True)


def test_what_is_unknown_of_an_element_counts_as_the_mean():
    raw, made = magpie.features([((103, 1),)]), magpie.standardised([((103, 1),)])
    assert np.isnan(raw).any()
    assert (made[np.isnan(raw)] == 0).all() and np.isfinite(made).all()


def test_the_stored_scale_is_one_number_per_feature():
    mean, deviation = magpie.scale()
    assert mean.shape == deviation.shape == (magpie.LENGTH,)
    assert np.isfinite(mean).all() and (deviation > 0).all()


def test_a_measured_scale_gives_mean_zero_and_deviation_one(real):
    made = magpie.measure_scale(real)
    z = (magpie.features(reduced(real.species)) - made["mean"]) / made["deviation"]
    assert np.allclose(np.nanmean(z, axis=0), 0, atol=1e-3)
    varies = np.nanmax(z, axis=0) > np.nanmin(z, axis=0)
    assert (
        np.allclose(np.nanstd(z, axis=0)[varies], 1, atol=1e-3) and varies.sum() > 100
    )


def test_the_same_crystal_in_disguise_has_the_same_fingerprint(real, known):
    one = real[3]
    turned = Structure(
        Lattice.from_parameters(*one.lattice.parameters),
        one.species[::-1],
        one.frac_coords[::-1] + [0.21, 0.13, 0.4],
    )
    double = one.copy()
    double.make_supercell([2, 1, 1])
    found = fingerprints(Crystals.from_structures([turned, double]))
    assert np.allclose(found.structure, known.structure[3], atol=1e-4)
    assert np.allclose(found.composition, known.composition[3], atol=1e-9)


# ---- exact -----------------------------------------------------------------------


def test_a_set_covers_itself_wholly(known):
    found = coverage(known, known, structure_cutoff=1e-9, composition_cutoff=1e-9)
    assert figures(found) == {"COV-R": 6, "COV-P": 6}
    assert (found.batch.structure == 0).all() and (found.batch.composition == 0).all()
    assert all(m.low < 1 for m in found.metrics())  # six do not prove 100 %


def test_distances_are_those_of_the_nearest_in_either_sense(known):
    some = prints.Fingerprints(
        known.structure[:2], known.composition[:2], known.reason[:2]
    )
    found = coverage(some, known)
    apart = np.linalg.norm(known.structure[:2, None] - known.structure, axis=-1)
    assert np.allclose(found.batch.structure, apart.min(1), atol=1e-7)
    assert np.allclose(found.reference.structure, apart.min(0), atol=1e-7)


def test_structure_and_composition_may_come_from_two_references(known):
    # as published: SrTiO3's composition in rutile's structure is covered by both
    chimera = prints.Fingerprints(known.structure[[5]], known.composition[[3]], ("",))
    assert figures(coverage(chimera, known, **STRICT))["COV-P"] == 1


# ---- faults --------------------------------------------------------------------------


def test_a_collapsed_mode_keeps_precision_and_loses_recall(known):
    mode = prints.Fingerprints(
        known.structure[[2] * 6], known.composition[[2] * 6], ("",) * 6
    )
    assert figures(coverage(mode, known, **STRICT)) == {"COV-R": 1, "COV-P": 6}


def test_a_truncated_reference_loses_precision(known):
    few = prints.Fingerprints(
        known.structure[:2], known.composition[:2], known.reason[:2]
    )
    assert figures(coverage(known, few, **STRICT)) == {"COV-R": 2, "COV-P": 2}


def test_swapped_species_are_not_covered(real, known):
    species = real.species.clone()
    species[2][species[2] == 11] = 54  # xenon chloride
    species[3][species[3] == 8] = 92
    found = coverage(fingerprints(real.replace(species=species)), known)
    assert found.batch.near.tolist() == [True, True, False, False, True, True]
    assert (found.batch.composition[2:4] > 10).all()


def test_scattered_atoms_are_not_covered(real, known):
    random = torch.Generator().manual_seed(0)
    frac = torch.rand(real.frac.shape, generator=random)
    found = coverage(fingerprints(real.replace(frac=frac)), known, **STRICT)
    # a single atom (iron) cannot be scattered
    assert figures(found)["COV-P"] == 1 and found.batch.near[0]


def test_broken_crystals_are_misses_with_a_reason(real, known):
    frac, lattice = real.frac.clone(), real.lattice.clone()
    frac[1, 0, 0] = math.nan
    lattice[2] = 0.0
    lattice[3] *= 1e-2
    frac[4, 1] = frac[4, 0]  # two atoms on one site
    broken = fingerprints(real.replace(frac=frac, lattice=lattice))
    found = coverage(broken, known)
    assert found.batch.near.tolist() == [True, False, False, False, False, True]
    assert broken.reason[1] == "no fingerprint (not a number)"
    assert broken.reason[2] == broken.reason[3] == "no fingerprint (flat cell)"
    assert np.isnan(found.batch.structure[1])
    # the broken ones stay in the denominator
    assert found.metrics()[1].n == 6


def test_a_reference_without_fingerprint_is_left_out(real, known):
    frac = real.frac.clone()
    frac[1, 0, 0] = math.nan
    found = coverage(known, fingerprints(real.replace(frac=frac)), **STRICT)
    assert [m.figure() for m in found.metrics()] == ["5/5", "5/6"]


def test_nothing_to_compare_is_refused(real, known):
    with pytest.raises(DataError, match="reference is empty"):
        coverage(known, real[:0])


# ---- the store and the processes -----------------------------------------------------


def test_fingerprints_are_kept_by_content(real, known, tmp_path, monkeypatch):
    file = tmp_path / "kept" / "prints.sqlite"
    first = fingerprints(real[:3], cache=file)
    monkeypatch.setattr(prints, "fingerprint", lambda *_, **__: pytest.fail("again"))
    # in another order, under other names
    again = fingerprints(real[[2, 0]].replace(ids=("x", "y")), cache=file)
    assert np.array_equal(again.structure, first.structure[[2, 0]])
    assert np.allclose(first.structure, known.structure[:3])
    monkeypatch.setattr(prints, "fingerprint", lambda *_, **__: "asked")
    moved = real[:1].replace(lattice=real.lattice[:1] * 1.01)
    assert fingerprints(moved, cache=file).reason == ("asked",)


@pytest.mark.parametrize("outcome", [prints.TOO_SLOW, store.DIED])
def test_what_the_machine_failed_at_is_tried_again(
    real, tmp_path, monkeypatch, outcome
):
    file = tmp_path / "prints.sqlite"
    monkeypatch.setattr(prints, "fingerprint", lambda *_, **__: outcome)
    assert fingerprints(real[:1], cache=file).reason == (outcome,)
    monkeypatch.setattr(prints, "fingerprint", lambda *_, **__: np.ones(prints.LENGTH))
    assert fingerprints(real[:1], cache=file).reason == ("",)


def test_the_same_crystal_is_computed_once(real, monkeypatch):
    calls = []

    def count(one):
        calls.append(one)
        return np.ones(prints.LENGTH)

    monkeypatch.setattr(prints, "fingerprint", count)
    fingerprints(real[[1] * 5])
    assert len(calls) == 1


def test_a_time_limit_ends_what_would_not_end():
    with pytest.raises(TimeoutError), store.deadline(0.05):
        while True:
            pass


def test_two_processes_and_one_that_dies(tmp_path):
    # strings for `eval`: the third ends its process, each time it is tried
    items = ["'a'", "'b'", "__import__('os')._exit(3)", "'d'", "'e'"]
    found = dict(store.in_processes(eval, items, workers=2))
    assert found == {0: "a", 1: "b", 2: store.DIED, 3: "d", 4: "e"}


@pytest.mark.slow
def test_processes_give_the_same_fingerprints(real, known):
    made = fingerprints(real, workers=2)
    assert np.allclose(made.structure, known.structure, atol=1e-12)
