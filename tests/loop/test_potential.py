"""The lean evaluator against stock CHGNet, finite differences and symmetries."""

import numpy as np
import pytest
import torch

from matdesign.errors import DataError
from matdesign.loop.potential import Potential, arrays, chunks
from matdesign.loop.topology import topology

structure_module = pytest.importorskip("pymatgen.core.structure")
Structure = structure_module.Structure
Lattice = structure_module.Lattice


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def potential():
    return Potential()


def shaken(structure, seed, size=0.08):
    rng = np.random.default_rng(seed)
    cart = structure.cart_coords + size * rng.standard_normal((len(structure), 3))
    strain = np.eye(3) + 0.02 * rng.standard_normal((3, 3))
    frac = cart @ np.linalg.inv(structure.lattice.matrix)
    return Structure(
        Lattice(structure.lattice.matrix @ strain), structure.species, frac
    )


@pytest.fixture(scope="module")
def exact():
    return Potential(dtype=torch.float64)


@pytest.fixture(scope="module")
def crystals():
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()
    titanate = Structure.from_spacegroup(
        "Pm-3m",
        Lattice.cubic(3.905),
        ["Sr", "Ti", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]],
    )
    rutile = Structure.from_spacegroup(
        "P4_2/mnm",
        Lattice.tetragonal(4.594, 2.959),
        ["Ti", "O"],
        [[0, 0, 0], [0.305, 0.305, 0]],
    )
    iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return [shaken(s, k) for k, s in enumerate((salt, titanate, rutile, iron))]


@pytest.mark.parametrize("weights", ["0.3.0", "r2scan"])
def test_agrees_with_stock_chgnet(crystals, weights):
    from chgnet.model.model import CHGNet

    ours = Potential(weights).evaluate(crystals)
    stock = CHGNet.load(model_name=weights, use_device="cpu", verbose=False)
    for k, theirs in enumerate(stock.predict_structure(crystals)):
        assert ours.energy_per_atom[k] == pytest.approx(float(theirs["e"]), abs=1e-5)
        np.testing.assert_allclose(ours.forces[k], theirs["f"], atol=1e-4)
        np.testing.assert_allclose(
            ours.stress[k] * 160.21766208, theirs["s"], atol=2e-3
        )
        np.testing.assert_allclose(ours.magmoms[k], theirs["m"], atol=1e-5)


def test_batching_changes_nothing(crystals, potential):
    alone = [potential.evaluate([crystal]) for crystal in crystals]
    narrow = Potential(batch_atoms=1).evaluate(crystals)
    together = potential.evaluate(crystals)
    for k, one in enumerate(alone):
        for other in (narrow, together):
            assert other.energy_per_atom[k] == pytest.approx(
                one.energy_per_atom[0], abs=3e-6
            )
            np.testing.assert_allclose(other.forces[k], one.forces[0], atol=3e-5)


def test_forces_are_the_slope_of_the_energy(crystals, exact):
    crystal = crystals[2]
    forces = exact.evaluate([crystal]).forces[0]
    step = 1e-5  # short: angles near 180 degrees bend the energy sharply
    direction = np.random.default_rng(5).standard_normal((len(crystal), 3))
    moved = [
        Structure(
            crystal.lattice,
            crystal.species,
            crystal.cart_coords + k * step * direction,
            coords_are_cartesian=True,
        )
        for k in (-2, -1, 1, 2)
    ]
    energy = exact.evaluate(moved).energy_per_atom * len(crystal)
    slope = (energy @ np.array([1.0, -8.0, 8.0, -1.0])) / (12 * step)
    assert -slope == pytest.approx(float((forces * direction).sum()), rel=1e-4)


@pytest.mark.parametrize("entry", [(0, 0), (2, 2), (0, 1)])
def test_stress_is_the_slope_of_the_energy(crystals, exact, entry):
    crystal = crystals[1]
    stress = exact.evaluate([crystal]).stress[0]
    assert np.allclose(stress, stress.T, atol=1e-8)
    step = 1e-5
    ends = []
    for sign in (1, -1):
        strain = np.eye(3)
        strain[entry] += sign * step
        strain = (strain + strain.T) / 2
        ends.append(
            Structure(
                Lattice(crystal.lattice.matrix @ strain),
                crystal.species,
                crystal.frac_coords,
            )
        )
    high, low = exact.evaluate(ends).energy_per_atom * len(crystal)
    slope = (high - low) / (2 * step) / crystal.volume
    assert slope == pytest.approx(stress[entry], rel=1e-3, abs=1e-5)


def test_rotation_translation_and_permutation(crystals, potential):
    crystal = crystals[1]
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    order = np.random.default_rng(4).permutation(len(crystal))
    frac = crystal.frac_coords[order] + np.array([0.31, -1.2, 0.77])
    changed = Structure(
        Lattice(crystal.lattice.matrix @ rotation),
        [crystal.species[k] for k in order],
        frac,
    )
    before, after = potential.evaluate([crystal]), potential.evaluate([changed])
    assert after.energy_per_atom[0] == pytest.approx(
        before.energy_per_atom[0], abs=5e-6
    )
    np.testing.assert_allclose(
        after.forces[0], before.forces[0][order] @ rotation, atol=1e-4
    )
    np.testing.assert_allclose(
        after.stress[0], rotation.T @ before.stress[0] @ rotation, atol=1e-5
    )


def test_supercell_has_the_same_energy_per_atom(crystals, potential):
    crystal = crystals[0]
    energy = potential.evaluate([crystal, crystal * (2, 1, 2)]).energy_per_atom
    assert energy[0] == pytest.approx(energy[1], abs=5e-6)


def test_a_skewed_cell_of_the_same_crystal(crystals, potential):
    crystal = crystals[0]
    shear = np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]])
    skewed = Structure(
        Lattice(shear @ crystal.lattice.matrix),
        crystal.species,
        crystal.cart_coords,
        coords_are_cartesian=True,
    )
    energy = potential.evaluate([crystal, skewed]).energy_per_atom
    assert energy[0] == pytest.approx(energy[1], abs=5e-6)


def test_energies_alone_are_the_same(crystals, potential):
    full = potential.evaluate(crystals)
    bare = potential.evaluate(crystals, forces=False)
    np.testing.assert_allclose(bare.energy_per_atom, full.energy_per_atom, atol=1e-6)
    assert not bare.stress.any()


def test_topology_pairs_every_bond(crystals):
    graph = topology(*arrays(crystals))
    counts = np.bincount(graph.to_undirected.numpy())
    assert (counts == 2).all()
    assert len(graph.to_directed) == len(counts)
    first, second = graph.angle_edges.T
    assert (first != second).all()
    assert (graph.edges[first, 0] == graph.edges[second, 0]).all()


def test_lone_atoms_are_seen(potential):
    lone = Structure(Lattice.cubic(15.0), ["He"], [[0, 0, 0]])
    graph = topology(*arrays([lone]))
    assert graph.isolated.tolist() == [True]
    assert np.isfinite(potential.evaluate([lone]).energy_per_atom).all()


def test_takes_a_batch_and_an_empty_list(crystals, potential):
    from matdesign.crystals.batch import Crystals

    batch = Crystals.from_structures(crystals)
    np.testing.assert_allclose(
        potential.evaluate(batch).energy_per_atom,
        potential.evaluate(crystals).energy_per_atom,
        atol=1e-4,
    )
    assert len(potential.evaluate([]).energy_per_atom) == 0


def test_chunks_keep_order_and_limit():
    assert chunks([3, 3, 3, 9, 1], 6) == [
        slice(0, 2),
        slice(2, 3),
        slice(3, 4),
        slice(4, 5),
    ]
    assert chunks([], 6) == []


def test_bad_input_says_what_to_do(potential):
    with pytest.raises(DataError, match="choose one of"):
        Potential("0.9")
    broken = Structure(Lattice.cubic(4.0), ["Na"], [[float("nan"), 0, 0]])
    with pytest.raises(DataError, match="crystal 0"):
        potential.evaluate([broken])
