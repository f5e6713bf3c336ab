"""Distances to the hull against pymatgen's PhaseDiagram and by hand."""

import numpy as np
import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, ShapeError
from matdesign.loop.calibration import Calibration
from matdesign.loop.hull import Hull, _compounds


def random_phases(rng, symbols, count):
    from pymatgen.core import Composition

    phases = []
    for _ in range(count):
        size = rng.integers(1, len(symbols) + 1)
        some = rng.choice(symbols, size=size, replace=False)
        amounts = {str(s): int(rng.integers(1, 5)) for s in some}
        phases.append((Composition(amounts), float(rng.normal(-4.0, 1.0))))
    return phases


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_agrees_with_phase_diagram(size):
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    rng = np.random.default_rng(size)
    symbols = ["Li", "O", "Fe", "P", "S"][:size]
    elements = {s: float(rng.normal(-3.0, 0.5)) for s in symbols}
    phases = [p for p in random_phases(rng, symbols, 40) if len(p[0]) > 1]
    hull = Hull(elements, phases)
    entries = [
        PDEntry(Composition(c), e * Composition(c).num_atoms)
        for c, e in [*elements.items(), *phases]
    ]
    diagram = PhaseDiagram(entries)
    asked = random_phases(rng, symbols, 25) + phases
    energies = [e for _, e in asked]
    above = hull.energy_above_hull([c for c, _ in asked], energies)
    formed = hull.formation_energy([c for c, _ in asked], energies)
    for k, (composition, energy) in enumerate(asked):
        entry = PDEntry(composition, energy * composition.num_atoms)
        want = energy - diagram.get_hull_energy_per_atom(composition)
        assert above[k] == pytest.approx(want, abs=1e-8)
        want = diagram.get_form_energy_per_atom(entry)
        assert formed[k] == pytest.approx(want, abs=1e-8)
    assert (above[25:] > -1e-9).all()  # a reference lies on or above its own hull
    assert (above[:25] < -1e-3).any()  # others may lie below it


def test_decomposition_agrees_with_phase_diagram():
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    elements = {"Sr": -1.7, "Ti": -7.8, "O": -4.9}
    phases = [("SrO", -6.0), ("TiO2", -9.0), ("SrTiO3", -8.0), ("Ti2O3", -8.0)]
    hull = Hull(elements, phases)
    diagram = PhaseDiagram(
        [
            PDEntry(Composition(f), e * Composition(f).num_atoms)
            for f, e in [*elements.items(), *phases]
        ]
    )
    for formula in ("Sr2TiO4", "SrTiO3", "SrTi5O12", "TiO", "SrTi", "O2"):
        want = {
            entry.composition.reduced_formula: fraction
            for entry, fraction in diagram.get_decomposition(
                Composition(formula)
            ).items()
        }
        want = {"O" if k == "O2" else k: x for k, x in want.items()}
        assert hull.decomposition(formula) == pytest.approx(want, abs=1e-6)
    assert set(hull.decomposition("Sr2TiO4")) == {"SrO", "SrTiO3"}
    assert hull.competing(["SrTiO3", "SrO", "Ti"]).tolist() == [4, 1, 0]


def test_by_hand_and_formula_units():
    hull = Hull({"Na": -1.0, "Cl": -2.0}, [("NaCl", -3.5), ("Na2Cl2", -3.0)])
    asked = ["NaCl", "Na4Cl4", "Na3Cl", "Na"]
    energies = [-3.6, -3.5, -2.0, -1.0]
    assert hull.formation_energy(asked, energies) == pytest.approx(
        [-2.1, -2.0, -0.75, 0.0]
    )
    # Na3Cl: half the atoms are NaCl at -2.0, so the hull lies at -1.0
    assert hull.energy_above_hull(asked, energies) == pytest.approx(
        [-0.1, 0.0, 0.25, 0.0]
    )


def test_crystals_are_accepted():
    frac = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]], [[0.0, 0, 0], [0, 0, 0]]])
    pair = Crystals(
        torch.tensor([[11, 17], [11, 0]]), frac, 4 * torch.eye(3).repeat(2, 1, 1)
    )
    hull = Hull({"Na": -1.0, "Cl": -2.0}, [("NaCl", -3.5)])
    assert hull.energy_above_hull(pair, [-3.5, -0.9]) == pytest.approx([0.0, 0.1])
    assert hull.competing(pair).tolist() == [1, 0]


def test_element_without_reference_is_nan_with_a_reason():
    hull = Hull({"Na": -1.0, "Cl": -2.0}, [("NaCl", -3.5), ("NaHe", -9.0)])
    assert np.isnan(hull.energy_above_hull(["NaHe"], [-2.0])).all()
    assert np.isnan(hull.formation_energy(["NaHe"], [-2.0])).all()
    assert hull.missing(["NaCl", "ArHe"]) == ["", "no reference energy for Ar and He"]
    with pytest.raises(DataError, match="no reference energy for He"):
        hull.decomposition("NaHe")
    assert "2 elements, 1 compounds" in repr(hull)


def test_unknown_system_only_elements_compete():
    hull = Hull({"Na": -1.0, "Cl": -2.0, "K": -1.0}, [("NaCl", -3.5)])
    assert hull.competing(["KCl"]).tolist() == [0]
    assert hull.energy_above_hull(["KCl"], [-2.0]) == pytest.approx([-0.5])
    assert hull.decomposition("KCl") == pytest.approx({"K": 0.5, "Cl": 0.5})


def test_elemental_phase_below_the_reference_counts():
    hull = Hull({"Ti": -7.8}, [("Ti", -7.9)])
    assert hull.energy_above_hull(["Ti"], [-7.8]) == pytest.approx([0.1])
    assert hull.formation_energy(["Ti"], [-7.8]) == pytest.approx([0.0])


def test_elemental_phases_are_not_counted_as_compounds():
    hull = Hull({"Ti": -7.8, "O": -4.9}, [("Ti", -7.9), ("TiO2", -9.0)])
    assert hull.competing(["Ti", "TiO2", "O"]).tolist() == [0, 1, 0]


def test_lengths_must_fit():
    with pytest.raises(ShapeError, match="2 energies for 1"):
        Hull({"Na": -1.0}).energy_above_hull(["Na"], [1.0, 2.0])


def test_phases_and_questions_may_be_formulas_or_amounts():
    elements = {"Na": -1.3, "Cl": -1.9}
    for phase in ("NaCl", {"Na": 1, "Cl": 1}, {"Na": 4, "Cl": 4}):
        hull = Hull(elements, [(phase, -3.4)])
        for asked in ("NaCl", {"Na": 1, "Cl": 1}, {"Na": 0.5, "Cl": 0.5}):
            assert hull.energy_above_hull([asked], [-3.3]) == pytest.approx([0.1])
        assert hull.decomposition({"Na": 1, "Cl": 3}) == {"Cl": 0.5, "NaCl": 0.5}


@pytest.mark.parametrize("wrong", ["Va", {"Va": 1}, "NaVa2"])
def test_unknown_elements_are_an_error_of_ours(wrong):
    hull = Hull({"Na": -1.3})
    for ask in (hull.competing, hull.missing, hull.known):
        with pytest.raises(DataError, match="Va"):
            ask([wrong])
    with pytest.raises(DataError, match="element"):
        hull.energy_above_hull([wrong], [-1.0])


def test_known_means_an_element_or_a_known_formula():
    hull = Hull({"Na": -1.0, "Cl": -2.0}, [("NaCl", -3.5)])
    asked = ["Na4Cl4", "Na2Cl", "Cl2"]
    assert hull.known(asked).tolist() == [True, False, True]


# ---- the shipped compounds --------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return Hull.shipped()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing.json is not a calibration"):
        Hull.shipped("nothing")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    for name in ("none.parquet", "bad.parquet"):
        with pytest.raises(DataError, match=rf"{name} is no table of known compounds"):
            _compounds(tmp_path / name)


def test_any_calibration_meets_the_same_compounds(shipped):
    zero = Calibration("DFT", dict.fromkeys(("Na", "Cl", "O", "Ti"), 0.0), 0.0)
    hull = Hull.shipped(zero)
    assert hull.error == 0.0 and shipped.error == pytest.approx(0.0195, abs=1e-3)
    for formula in ("NaCl", "TiO2", "Na2O"):  # stable in the Materials Project
        formed = -hull.energy_above_hull([formula], [0.0])[0]
        assert hull.decomposition(formula) == pytest.approx({formula: 1.0})
        reference = shipped.formation_energy([formula], [0.0])[0]
        assert shipped.energy_above_hull([formula], [formed - reference]) == (
            pytest.approx([0.0], abs=1e-6)
        )
    assert (hull.competing(["Na", "NaCl", "Na2TiO3"]) > [-1, 0, 50]).all()
    assert "compounds; DFT, ± 0.000 eV/atom" in repr(hull)
    assert np.isnan(shipped.energy_above_hull(["XeF2"], [-1.0])[0])  # too rare to fit


def test_what_chemists_know_is_known(shipped):
    famous = "C SiO2 Fe3O4 LiCoO2 GaAs CsPbI3 Sr2TiO4 La2CuO4 MgAl2O4 Mg3Al2Si3O12"
    assert shipped.known(famous.split()).all()
    assert not shipped.known(["CeMnS3", "Na7Cl", "TiNa3O"]).any()
    assert (shipped.competing(["CeMnS3", "SrTiO3"]) > [5, 10]).all()


def test_famous_crystals_lie_where_chemists_put_them(shipped):
    from pymatgen.core import Lattice, Structure

    from matdesign.loop.potential import Potential

    def make(group, lattice, symbols, sites):
        made = Structure.from_spacegroup(group, lattice, symbols, sites)
        return made.get_primitive_structure()

    two = [[0, 0, 0], [0.5, 0.5, 0.5]]
    crystals = {
        "salt": make("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], two),
        "magnesia": make("Fm-3m", Lattice.cubic(4.25), ["Mg", "O"], two),
        "rutile": make(
            "P4_2/mnm",
            Lattice.tetragonal(4.65, 2.97),
            ["Ti", "O"],
            [[0, 0, 0], [0.305, 0.305, 0]],
        ),
        "anatase": make(
            "I4_1/amd",
            Lattice.tetragonal(3.81, 9.72),
            ["Ti", "O"],
            [[0, 0, 0], [0, 0, 0.207]],
        ),
        "cubic CeMnS3": Structure(
            Lattice.cubic(4.9),
            ["Ce", "Mn", "S", "S", "S"],
            [*two, *(0.5 - 0.5 * np.eye(3))],
        ),
        "silicon": make("Fd-3m", Lattice.cubic(5.47), ["Si"], [[0, 0, 0]]),
    }
    batch = Crystals.from_structures(list(crystals.values()))
    energy = Potential().evaluate(batch, forces=False).energy_per_atom
    found = shipped.energy_above_hull(batch, energy)
    above = dict(zip(crystals, found, strict=True))
    assert above["silicon"] == pytest.approx(0.0, abs=0.15)  # elements fit less well
    for name in ("salt", "magnesia", "rutile", "anatase"):
        assert above[name] == pytest.approx(0.0, abs=0.1), name
    assert abs(above["rutile"] - above["anatase"]) < 0.05
    assert above["cubic CeMnS3"] > -0.1  # the first hull said -0.929


def test_shipped_labels_are_those_of_the_shipped_hull(shipped):
    import matdesign as design

    crystals = design.load("perovskites")
    some = crystals[torch.arange(0, len(crystals), 1 + len(crystals) // 150)]
    energies = some.properties["energy_per_atom"]
    above = shipped.energy_above_hull(some, energies)
    assert above == pytest.approx(some.properties["energy_above_hull"], abs=1e-4)
    formed = shipped.formation_energy(some, energies)
    want = some.properties["formation_energy_per_atom"]
    assert formed == pytest.approx(want, abs=1e-4)
