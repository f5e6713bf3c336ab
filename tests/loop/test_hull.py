"""Distances to the hull against pymatgen's PhaseDiagram and by hand."""

import json

import numpy as np
import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, ShapeError
from matdesign.loop.hull import Hull


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
    assert hull.size == 3


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


def test_read_files(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DataError, match=r"elements.json.*build_data.py references"):
        Hull.read(tmp_path)
    table = {
        s: {"energy_per_atom": e, "volume_per_atom": 20.0}
        for s, e in {"Na": -1.0, "Cl": -2.0}.items()
    }
    (tmp_path / "elements.json").write_text(json.dumps(table))
    assert Hull.read(tmp_path).size == 2
    rows = {"numbers": [[11, 17], [11, 11, 17]], "energy_per_atom": [-3.5, -2.0]}
    pq.write_table(pa.table(rows), tmp_path / "phases.parquet")
    hull = Hull.read(tmp_path)
    assert hull.size == 4 and hull.volumes["Na"] == 20.0
    assert "2 elements and 2 compounds in 1 chemical systems" in repr(hull)
    assert hull.energy_above_hull(["NaCl"], [-3.4]) == pytest.approx([0.1])
    (tmp_path / "phases.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"phases.parquet cannot be read"):
        Hull.read(tmp_path)
    (tmp_path / "elements.json").write_text('{"Na": 3}')
    with pytest.raises(DataError, match=r"elements.json is not a table"):
        Hull.read(tmp_path)


def test_shipped_labels_are_those_of_the_shipped_hull():
    import matdesign as design
    from matdesign.paths import data_dir

    if not (data_dir() / "references" / "phases.parquet").is_file():
        pytest.skip("the shipped reference phases are not built yet")
    hull = Hull.shipped()
    crystals = design.load("perovskites")
    some = crystals[torch.arange(0, len(crystals), 1 + len(crystals) // 150)]
    energies = some.properties["energy_per_atom"]
    above = hull.energy_above_hull(some, energies)
    assert above == pytest.approx(some.properties["energy_above_hull"], abs=1e-4)
    formed = hull.formation_energy(some, energies)
    want = some.properties["formation_energy_per_atom"]
    assert formed == pytest.approx(want, abs=1e-4)
