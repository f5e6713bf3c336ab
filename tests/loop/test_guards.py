"""Each guard catches its own kind of nonsense and lets sense through."""

import numpy as np
import pytest

from matdesign.loop.guards import Guards, bond_ratio

structure_module = pytest.importorskip("pymatgen.core.structure")
Structure = structure_module.Structure
Lattice = structure_module.Lattice


def salt(edge=5.64):
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def test_a_good_crystal_passes():
    assert Guards().check(salt(), volume_ratio=1.1, formation_energy=-2.1) == ""


def test_bond_ratio_is_bond_over_radii():
    # atomic radii of pymatgen: Na 1.80, Cl 1.00 angstrom
    assert bond_ratio(salt()) == pytest.approx(2.82 / 2.80, rel=1e-6)


def test_bond_ratio_sees_periodic_images():
    lone = Structure(Lattice.orthorhombic(2.0, 8.0, 8.0), ["Na"], [[0, 0, 0]])
    assert bond_ratio(lone) == pytest.approx(2.0 / 3.6, rel=1e-6)
    assert bond_ratio(Structure(Lattice.cubic(20), ["Na"], [[0, 0, 0]])) == np.inf


@pytest.mark.parametrize(
    ("edge", "arguments", "name"),
    [
        (3.0, {}, "short bond"),
        (5.64, {"volume_ratio": 2.1}, "volume change"),
        (5.64, {"volume_ratio": 0.4}, "volume change"),
        (5.64, {"volume_ratio": float("nan")}, "volume change"),
        (5.64, {"formation_energy": -5.6}, "formation energy"),
        (5.64, {"formation_energy": 1.6}, "formation energy"),
        (5.64, {"formation_energy": float("nan")}, "formation energy"),
    ],
)
def test_each_guard_names_itself(edge, arguments, name):
    assert Guards().check(salt(edge), **arguments).startswith(name)


def test_alloys_are_compared_with_their_elements():
    volumes = {"Ti": 17.4, "Na": 37.0, "Cl": 20.0}
    dense = Structure(Lattice.cubic(10.0 ** (1 / 3)), ["Ti"], [[0, 0, 0]])
    right = Structure(Lattice.cubic(17.0 ** (1 / 3)), ["Ti"], [[0, 0, 0]])
    loose = Guards(shortest_bond=0.1)
    assert loose.check(dense, element_volumes=volumes).startswith("alloy volume")
    assert loose.check(right, element_volumes=volumes) == ""
    assert loose.check(salt(), element_volumes=volumes) == ""  # no alloy, no guard


def test_bounds_can_be_set():
    assert Guards(formation_energy=(-3.0, 0.0)).check(salt(), formation_energy=0.1)
    assert not Guards(volume_factor=3.0).check(salt(), volume_ratio=2.5)
