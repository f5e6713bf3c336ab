"""Uniqueness and novelty: equal in disguise is equal, different is not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from matdesign.crystals import matching
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError


def rocksalt():
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def caesium_chloride():
    frac = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure(Lattice.cubic(3.6), ["Na", "Cl"], frac)


def rutile():
    return Structure.from_spacegroup(
        "P4_2/mnm",
        Lattice.tetragonal(4.594, 2.959),
        ["Ti", "O"],
        [[0, 0, 0], [0.305, 0.305, 0]],
    )


def search(structures, **keywords):
    batch = Crystals.from_structures(structures)
    return matching.find_same(batch, **keywords)


def disguise(structure, seed):
    """Return the same crystal with other order, origin, orientation and setting."""
    random = np.random.default_rng(seed)
    made = structure.copy()
    if seed % 3 == 0:
        made = made.get_primitive_structure()
    if seed % 3 == 1:
        made.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    if seed % 4 == 3:
        made.make_supercell([2, 1, 1])
    made.translate_sites(range(len(made)), random.random(3))
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    order = random.permutation(len(made))
    frac = made.frac_coords[order] + random.integers(-2, 3, (len(made), 3))
    species = [made[i].specie for i in order]
    return Structure(Lattice(made.lattice.matrix @ turn), species, frac)


@given(st.integers(0, 200), st.sampled_from([rocksalt, caesium_chloride, rutile]))
@settings(max_examples=12)
def test_a_crystal_in_disguise_is_a_repeat(seed, make):
    found = search([make(), disguise(make(), seed)])
    assert found.match.tolist() == [-1, 0]
    assert not found.reason


def test_polymorphs_are_not_repeats_and_repeats_point_to_the_first():
    found = search(
        [rocksalt(), caesium_chloride(), rutile(), disguise(rocksalt(), 5), rocksalt()]
    )
    assert found.match.tolist() == [-1, -1, -1, 0, 0]


def test_other_elements_on_the_same_sites_are_another_crystal():
    other = rocksalt()
    other.replace_species({"Na": "K"})
    found = search([rocksalt(), other])
    assert found.match.tolist() == [-1, -1]
    assert found.comparisons == 0  # formulas differ, nothing to compare


def test_agrees_with_pymatgen_on_every_pair():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    random = np.random.default_rng(0)
    structures = []
    for k in range(12):
        one = rutile()
        for i in range(6):
            one.translate_sites([i], 0.25 * k**0.5 * random.normal(size=3) / 4.6)
        structures.append(one)
    batch = Crystals.from_structures(structures)
    matcher = StructureMatcher()
    expected: list[int] = []
    same = [[matcher.fit(a, b) for b in batch] for a in batch]
    for i in range(len(batch)):
        firsts = [j for j in range(i) if expected[j] < 0 and same[j][i]]
        expected.append(firsts[0] if firsts else -1)
    found = search(batch)
    assert ((found.match < 0) == (np.array(expected) < 0)).all()
    assert 2 < sum(e < 0 for e in expected) < 11  # both answers occur


def test_the_wider_settings_call_more_crystals_equal():
    random = np.random.default_rng(1)
    structures = [rutile()]
    for _ in range(12):
        one = rutile()
        step = random.normal(size=(6, 3))
        for i in range(6):
            one.translate_sites([i], 0.5 * step[i], frac_coords=False)
        structures.append(one)
    narrow = (search(structures).match < 0).sum()
    wide = (search(structures, tolerances="cdvae").match < 0).sum()
    assert wide < narrow


def test_the_limit_bounds_the_comparisons_and_says_where():
    random = np.random.default_rng(2)
    structures = []
    for _ in range(12):  # different carbons of one cell size
        frac = random.random((8, 3))
        structures.append(Structure(Lattice.cubic(5.0), ["C"] * 8, frac))
    full = search(structures, limit=1000)
    few = search(structures, limit=2)
    assert full.limited == 0
    assert few.comparisons <= 12 * 2 < full.comparisons
    assert few.limited > 0


def test_with_the_limit_a_repeat_among_many_is_still_found():
    random = np.random.default_rng(3)
    structures = [
        Structure(Lattice.cubic(5.0), ["C"] * 8, random.random((8, 3)))
        for _ in range(20)
    ]
    structures.append(disguise(structures[17], 4))
    found = search(structures, limit=1)
    assert found.match[-1] in (17, found.match[17])


def test_only_the_given_crystals_take_part():
    found = search([rocksalt(), rocksalt(), rocksalt()], of=[1, 2])
    assert found.match.tolist() == [-1, -1, 1]


def test_reference_copies_are_known_and_others_are_not():
    batch = Crystals.from_structures(
        [disguise(rutile(), 1), caesium_chloride(), disguise(rocksalt(), 2)]
    )
    known = Crystals.from_structures([rocksalt(), rutile()])
    found = matching.find_same(batch, known)
    assert found.match.tolist() == [1, -1, 0]


def test_elements_may_be_exchanged_where_asked():
    other = rocksalt()
    other.replace_species({"Na": "S", "Cl": "Mg"})  # anion and cation trade sites
    tin = rutile()
    tin.replace_species({"Ti": "Sn"})
    batch = Crystals.from_structures(
        [disguise(other, 1), disguise(tin, 2), caesium_chloride()]
    )
    known = Crystals.from_structures([rutile(), rocksalt()])
    exchanged = matching.find_same(batch, known, anonymous=True)
    assert exchanged.match.tolist() == [1, 0, -1]
    assert (matching.find_same(batch, known).match == -1).all()


def test_a_crystal_that_the_library_cannot_handle_gets_a_reason(monkeypatch):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    def fails(*_, **__):
        raise ValueError("no such thing")

    monkeypatch.setattr(StructureMatcher, "fit", fails)
    found = search([rocksalt(), rocksalt(), rutile()])
    assert found.match.tolist() == [-1, -1, -1]
    assert found.reason == {1: "could not be compared (ValueError)"}


@pytest.mark.filterwarnings("ignore:invalid value")  # pymatgen, of the zero cell
def test_a_crystal_that_cannot_be_reduced_gets_a_reason():
    batch = Crystals.from_structures([rocksalt(), rocksalt()])
    lattice = batch.lattice.clone()
    lattice[1] = 0
    found = matching.find_same(batch.replace(lattice=lattice))
    assert list(found.reason) == [1]
    assert "could not be reduced" in found.reason[1]


@given(st.integers(0, 200), st.sampled_from([rocksalt, caesium_chloride, rutile]))
@settings(max_examples=20)
def test_the_sketch_ignores_elements_cell_order_origin_and_orientation(seed, make):
    other = disguise(make(), seed)
    swap = {"Na": "K", "Cl": "F", "Ti": "Sn", "O": "S"}
    other.replace_species({e.symbol: swap[e.symbol] for e in other.elements})
    other.scale_lattice(3 * other.volume)
    before, after = matching.sketches(Crystals.from_structures([make(), other]))
    np.testing.assert_allclose(after, before, atol=1e-5)  # float32 coordinates


def test_the_sketch_of_simple_cubic_is_its_shells():
    cubic = Structure(Lattice.cubic(3.0), ["Po"], [[0, 0, 0]])
    found = matching.sketches(Crystals.from_structures([cubic]))[0]
    shells = [1] * 6 + [2**0.5] * 6
    np.testing.assert_allclose(found, shells + shells + [0] * 12, atol=1e-6)


def test_unknown_settings_name_the_choices():
    with pytest.raises(DataError, match=r"'strict'.*mattergen, cdvae"):
        search([rocksalt(), rocksalt()], tolerances="strict")


def test_an_empty_selection_costs_nothing():
    found = search([rocksalt(), rocksalt()], of=[])
    assert found.comparisons == 0
    assert torch.tensor(found.match).eq(-1).all()
