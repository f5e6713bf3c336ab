"""Voltages of cathodes: exact ones by a made-up potential, and two of the textbook's."""

import pytest
import torch
from pymatgen.core import Lattice, Structure

import matdesign as design
from matdesign.errors import DataError
from matdesign.loop.rebuild import describe
from matdesign.loop.voltage import UNITS


def rock_salt(first, second, a=4.2):
    lattice = Lattice.cubic(a).matrix @ [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return Structure(Lattice(lattice), [first, second], [[0, 0, 0], [0.5, 0.5, 0.5]])


def layered(ion, metal, a, c, z):
    """AMO2 of the R-3m type, one formula in the cell."""
    return Structure.from_spacegroup(
        "R-3m",
        Lattice.hexagonal(a, c),
        [ion, metal, "O"],
        [[0, 0, 0.5], [0, 0, 0], [0, 0, z]],
    ).get_primitive_structure()


def olivine(ion, metal, a, b, c):
    """AMPO4 of the Pnma type, four formulas in the cell."""
    sites = [[0, 0, 0], [0.2822, 0.25, 0.9747], [0.0948, 0.25, 0.4182]]
    sites += [[0.0968, 0.25, 0.7428], [0.4571, 0.25, 0.2060], [0.1656, 0.0465, 0.2848]]
    return Structure.from_spacegroup(
        "Pnma", Lattice.orthorhombic(a, b, c), [ion, metal, "P", "O", "O", "O"], sites
    )


def counted(structure):
    """-5 eV for a bond of Li or Mg and O, -1.5 for each other atom; argon fails."""
    content = structure.composition
    if "Ar" in content:
        raise ValueError("a noble gas")
    if len(structure) == 1 and "F" in content:
        raise ValueError("a lone fluorine")
    bonds = min(content["Li"] + content["Mg"], content["O"])
    return (-5 * bonds - 1.5 * (len(structure) - bonds)) / len(structure)


def made_up():
    return design.FunctionOracle(counted, {"energy_per_atom": "eV/atom"})


def test_the_equation_by_hand():
    """E = -6.5 for LiO or MgO, -1.5 for O and for a metal's atom: 3.5 eV an ion."""
    salts = [rock_salt(ion, "O") for ion in ("Li", "Mg")]
    for ion, salt, charge in zip(("Li", "Mg"), salts, (1, 2), strict=True):
        oracle = design.VoltageOracle(ion, made_up())
        found = oracle.evaluate(design.Crystals.from_structures([salt]))
        assert found.ok.all() and float(oracle.metal) == -1.5
        assert float(found.average_voltage) == pytest.approx(3.5 / charge)
        mass = salt.composition.weight
        assert float(found.capacity) == pytest.approx(charge * 96485.3 / 3.6 / mass)
        assert float(found.volume_change) == pytest.approx(0, abs=1e-6)
        assert found.columns["average_voltage"].unit == "V"
        assert set(oracle.columns) == {"energy_per_atom", *UNITS}
        large = design.Crystals.from_structures([salt.make_supercell((2, 1, 1))])
        again = oracle.evaluate(large)
        assert torch.allclose(again.average_voltage, found.average_voltage)


def test_failures_are_rows_with_a_reason():
    pairs = [("Na", "O"), ("Li", "Li"), ("Li", "F"), ("Li", "O"), ("Li", "Ar")]
    crystals = design.Crystals.from_structures([rock_salt(*pair) for pair in pairs])
    oracle = design.VoltageOracle("Li", made_up())
    found = oracle.evaluate(crystals)
    assert found.reason == (
        "no Li in it",
        "nothing left without Li",
        "without Li: ValueError: a lone fluorine",
        "",
        "ValueError: a noble gas",
    )
    assert found.average_voltage.isnan().tolist() == [True, True, True, False, True]
    assert found.energy_per_atom[2] == -1.5 and found.oracle == oracle.name
    assert oracle.refusals(crystals)[:3] == [
        "no Li in it",
        "nothing left without Li",
        "",
    ]
    assert (
        len(oracle.evaluate(crystals[:2])) == 2
        and len(oracle.evaluate(crystals[[]])) == 0
    )
    with pytest.raises(DataError, match="no such ion: got 'H'"):
        design.VoltageOracle("H")

    def nothing(structure):
        return (
            float("nan") if len(structure) == 1 and "Li" in structure.composition else 0
        )

    broken = design.VoltageOracle(
        "Li", design.FunctionOracle(nothing, {"energy_per_atom": "eV/atom"})
    )
    with pytest.raises(DataError, match="fails for metallic Li: energy_per_atom"):
        broken.evaluate(crystals[[3]])


def test_a_store_remembers_the_default_one_only():
    oracle = design.VoltageOracle("Na", design.PotentialOracle("r2scan", fmax=0.1))
    words = describe(oracle)
    again = design.VoltageOracle.from_dict(words["settings"])
    assert words["class"] == "VoltageOracle" and again.name == oracle.name
    assert "Na" in oracle.name and "r2scan" in oracle.name and "fmax 0.1" in oracle.name
    assert describe(design.VoltageOracle("Li", made_up())) is None


@pytest.mark.slow
def test_two_cathodes_of_the_textbook():
    """Experiment: LiCoO2 4.0 V (all of the lithium out), LiFePO4 3.45 V."""
    cobalt = layered("Li", "Co", 2.815, 14.05, 0.2605)
    iron = olivine("Li", "Fe", 10.33, 6.01, 4.69)
    oracle = design.VoltageOracle(
        "Li", design.PotentialOracle(workers=1, time_limit=300)
    )
    found = oracle.evaluate(design.Crystals.from_structures([cobalt, iron]))
    oracle.close()
    assert found.ok.all(), found.reason
    assert found.average_voltage.tolist() == pytest.approx([4.0, 3.45], abs=0.6)
    assert found.average_voltage.tolist() == pytest.approx([3.48, 3.42], abs=0.05)
    assert found.capacity.tolist() == pytest.approx([274, 170], abs=1)
    # iron phosphate is 7 % smaller than the lithium compound
    assert -0.09 < found.volume_change[1] < -0.03
    assert (found.energy_above_hull < 0.15).all()
    assert (found.energy_above_hull_charged < 0.1).all()
