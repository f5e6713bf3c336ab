"""The novelty ledger: one entry per crystal, held against crystals whose entry is known."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.metrics.evaluator import compare, evaluate
from matdesign.metrics.ledger import KINDS


def rocksalt(cation, anion, edge):
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(edge), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def caesium_chloride(cation, anion, edge):
    return Structure(Lattice.cubic(edge), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def fluorite():
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]]
    )


@pytest.fixture(scope="module")
def known():
    return Crystals.from_structures(
        [rocksalt("Na", "Cl", 5.64), rocksalt("K", "Br", 6.6)]
    )


@pytest.fixture(scope="module")
def batch():
    collapsed = rocksalt("Na", "Cl", 5.64)
    collapsed.translate_sites([4], np.array([0.5, 0.5, 0.5]) - 0.01)
    return Crystals.from_structures(
        [
            rocksalt("Na", "Cl", 5.7).get_primitive_structure(),
            rocksalt("Mg", "O", 4.21),
            caesium_chloride("Na", "Cl", 3.5),
            fluorite(),
            collapsed,
        ]
    )


ENTRIES = ["duplicate", "substitution", "new structure", "new", ""]


def test_every_crystal_has_the_entry_that_a_chemist_would_give_it(batch, known):
    found = evaluate(batch, known, ledger=True)
    assert found.table["ledger"].tolist() == ENTRIES
    assert found.table["known_as"].tolist() == [0, -1, -1, -1, -1]
    assert found.table["substitution_of"][1] in (0, 1)
    assert found.table["known_formula"].tolist() == [True, False, True, False, True]
    assert [found[f"ledger: {kind}"].count for kind in KINDS] == [1, 1, 1, 1]


def test_a_table_of_formulas_adds_to_those_of_the_reference(batch, known):
    found = evaluate(
        batch,
        known,
        ledger=True,
        known_formula=lambda c: [f == "CaF2" for f in c.formulas],
    )
    assert found.table["ledger"].tolist() == [*ENTRIES[:3], "new structure", ""]
    assert any("of the given table" in note for note in found.notes)
    with pytest.raises(DataError, match=r"shape \(5,\); got \(2,\)"):
        evaluate(batch, known, ledger=True, known_formula=lambda c: [True, False])


def test_sun_of_a_new_formula_and_repeats_among_the_stable(batch, known):
    found = evaluate(
        batch, known, ledger=True, hull_distance=[0.0, 0.0, 0.05, 0.3, 0.0]
    )
    assert found["S.U.N."].figure() == "2/5"  # MgO and the other NaCl
    assert found["S.U.N., new formula"].figure() == "1/5"  # MgO
    old = found["duplicates and substitutions, of the stable"]
    assert old.figure() == "2/3"  # NaCl and MgO of these two and the other NaCl
    none = evaluate(batch, known, ledger=True, hull_distance=[9.0] * 5)
    assert np.isnan(none["duplicates and substitutions, of the stable"].value)
    assert "no crystal qualified" in repr(none)


def test_known_crystals_are_duplicates_of_themselves_and_baselines_are_not_new():
    rng = np.random.default_rng(0)
    pairs = [("Na", "Cl"), ("K", "Br"), ("Rb", "I"), ("Mg", "O"), ("Ca", "S")]
    train = Crystals.from_structures(
        [make(a, b, 5 + rng.random()) for a, b in pairs for make in (rocksalt,)]
        + [caesium_chloride("Cs", "Br", 4.3), caesium_chloride("Tl", "F", 3.9)]
    )
    found = compare({"known": train}, train, seed=1, ledger=True)
    assert found["known"]["ledger: duplicate"].value == 1
    assert found.baselines == ("shuffled training data", "random substitution")
    swapped = found["random substitution"].table["ledger"]
    assert set(swapped) <= {"substitution", "duplicate"}
    assert "new" not in set(found["shuffled training data"].table["ledger"])


def test_a_batch_that_beats_the_baselines_and_one_that_does_not():
    pairs = [("Na", "Cl"), ("K", "Br"), ("Rb", "I"), ("Mg", "O"), ("Ca", "S")] * 4
    train = Crystals.from_structures([rocksalt(a, b, 5.5) for a, b in pairs])
    bad = train.replace(frac=torch.zeros_like(train.frac))
    made = compare({"copies": train, "collapsed": bad}, train)
    copies, collapsed = made.against_baselines("structural validity", "novelty")
    assert copies == (
        "copies: not better than every baseline in structural validity, novelty."
    )
    assert collapsed.startswith("collapsed: not better than every baseline")
    with pytest.raises(DataError, match="no baselines"):
        compare({"copies": train}, train, baselines=False).against_baselines()
    better = compare(
        {"good": train, "random substitution": bad, "shuffled training data": bad},
        train,
    ).against_baselines("structural validity")
    assert better == ["good: better than every baseline in structural validity."]
