"""What is drawn: bonds against independent searches, images, words, drawings."""

import numpy as np
import pytest
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from pymatgen.core import Lattice, Structure

from matdesign.display import picture, scene
from matdesign.errors import DataError


def rock_salt() -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def perovskite(a: float = 3.905) -> Structure:
    return Structure.from_spacegroup(
        "Pm-3m",
        Lattice.cubic(a),
        ["Sr", "Ti", "O"],
        [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]],
    )


def diamond() -> Structure:
    return Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]])


def coordination(structure: Structure) -> dict[str, set[int]]:
    found = scene.bonds(structure)
    counts = np.bincount(found.first, minlength=len(structure))
    numbers: dict[str, set[int]] = {}
    for site, count in zip(structure, counts, strict=True):
        numbers.setdefault(site.specie.symbol, set()).add(int(count))
    return numbers


def skewed() -> Structure:
    lattice = Lattice.from_parameters(3.1, 3.3, 3.2, 35, 48, 50)
    return Structure(lattice, ["Zn", "S"], [[0.02, 0.1, 0.98], [0.4, 0.55, 0.3]])


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (rock_salt(), {"Na": {6}, "Cl": {6}}),
        (perovskite(), {"Sr": {12}, "Ti": {6}, "O": {6}}),
        (diamond(), {"C": {4}}),
        (
            Structure(Lattice.cubic(4.123), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3]),
            {"Cs": {8}, "Cl": {8}},
        ),
        (
            Structure.from_spacegroup(
                "Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]]
            ),
            {"Cu": {12}},
        ),
    ],
    ids=["rock salt", "perovskite", "diamond", "caesium chloride", "copper"],
)
def test_known_coordination_numbers(structure, expected):
    assert coordination(structure) == expected
    assert coordination(structure.get_primitive_structure()) == expected


@pytest.mark.parametrize(
    "structure",
    [rock_salt(), perovskite(), diamond(), skewed()],
    ids=["rock salt", "perovskite", "diamond", "skewed"],
)
def test_bonds_agree_with_ases_neighbour_list(structure):
    found = scene.bonds(structure)
    radius = {z: scene.REACH * covalent_radii[z] for z in structure.atomic_numbers}
    cutoffs = [radius[z] for z in structure.atomic_numbers]
    first, second, image, distance = neighbor_list(
        "ijSd", structure.to_ase_atoms(), cutoffs
    )
    metals = {11, 22, 29, 30, 38, 55}
    both = [
        structure.atomic_numbers[i] in metals and structure.atomic_numbers[j] in metals
        for i, j in zip(first, second, strict=True)
    ]
    keep = ~np.array(both) & (distance > scene.TOO_CLOSE)
    expected = {
        (int(i), int(j), *map(int, cell))
        for i, j, cell in zip(first[keep], second[keep], image[keep], strict=True)
    }
    assert expected
    got = {
        (int(i), int(j), *map(int, cell))
        for i, j, cell in zip(found.first, found.second, found.image, strict=True)
    }
    assert got == expected
    assert np.allclose(np.sort(found.distance), np.sort(distance[keep]), atol=1e-6)


def test_two_metals_are_not_bonded_beside_a_nonmetal_but_are_without():
    titanate = perovskite()
    symbols = [site.specie.symbol for site in titanate]
    pairs = scene.bonds(titanate)
    kinds = {
        frozenset((symbols[i], symbols[j])) for i, j in zip(*pairs[:2], strict=True)
    }
    assert kinds == {frozenset(("Sr", "O")), frozenset(("Ti", "O"))}
    alloy = Structure(Lattice.cubic(2.98), ["Ti", "Ni"], [[0, 0, 0], [0.5] * 3])
    assert len(scene.bonds(alloy).first)


def test_overlapping_atoms_are_drawn_without_a_bond():
    both = Structure(Lattice.cubic(5.0), ["O", "O"], [[0, 0, 0], [0.01, 0, 0]])
    assert not len(scene.bonds(both).first)


KINDS = {"Sr": 0, "Ti": 1, "O": 2}


def test_boundary_images_fill_every_corner_edge_and_face():
    drawn = scene.frame(perovskite(), KINDS)
    assert [drawn["kind"].count(k) for k in range(3)] == [1, 8, 12]
    assert len(set(map(tuple, np.reshape(drawn["xyz"], (-1, 3)).tolist()))) == 21
    assert scene.frame(perovskite(), KINDS, images="none")["site"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("noise", [0.0, 3e-8, -3e-8, 1e-3, -1e-3])
def test_an_atom_near_either_face_is_drawn_on_both(noise):
    structure = Structure(Lattice.cubic(4.0), ["Po"], [[noise, 0.5, 0.5]])
    drawn = np.reshape(scene.frame(structure, {"Po": 0})["xyz"], (-1, 3))
    assert len(drawn) == 2
    assert np.allclose(np.sort(drawn[:, 0]), [4 * noise, 4 * noise + 4], atol=2e-3)


def test_drawn_bonds_join_drawn_atoms_at_bond_length():
    drawn = scene.frame(perovskite(), KINDS)
    at = np.reshape(drawn["xyz"], (-1, 3))
    ends = np.reshape(drawn["bonds"], (-1, 2))
    lengths = np.linalg.norm(at[ends[:, 0]] - at[ends[:, 1]], axis=1)
    assert set(np.round(lengths, 2)) == {1.95, 2.76}
    assert len(set(map(frozenset, ends.tolist()))) == len(ends) == 36


def test_words_are_computed_from_the_structure():
    assert scene.describe(perovskite()) == (
        "Crystal structure of SrTiO3: cubic, space group Pm-3m (number 221), 5 atoms in "
        "a cell of a = b = c = 3.90 Å, all angles 90.0°."
    )
    assert "P1 (number 1)" in scene.describe(
        Structure(
            Lattice.from_parameters(3, 4, 5, 80, 85, 95),
            ["O", "Ti", "Sr"],
            [[0.1, 0.2, 0.3], [0.55, 0.41, 0.87], [0.7, 0.9, 0.5]],
        )
    )


@pytest.mark.parametrize(
    ("number", "family"),
    [(2, "triclinic"), (3, "monoclinic"), (15, "monoclinic"), (16, "orthorhombic"),
     (74, "orthorhombic"), (75, "tetragonal"), (142, "tetragonal"), (143, "trigonal"),
     (167, "trigonal"), (168, "hexagonal"), (194, "hexagonal"), (195, "cubic")],
)  # fmt: skip
def test_family_changes_at_the_right_numbers(number, family, monkeypatch):
    monkeypatch.setattr(scene, "space_group", lambda structure: ("X", number))
    assert f": {family}, space group X" in scene.describe(diamond())


def test_the_drawing_holds_every_atom_and_its_words():
    structure = perovskite()
    species = scene.species_table(list(KINDS))
    svg = picture.draw(scene.frame(structure, KINDS), species, 'a "quoted" <title>')
    assert svg.count("<circle") == 21
    assert svg.count(">Sr<") == 1 and svg.count(">Ti<") == 8
    assert "a &#34;quoted&#34; &lt;title&gt;" in svg
    assert svg.count('stroke="#595966"') == 12


def test_rotation_is_proper_and_puts_c_upright():
    matrix = picture.rotation(0, 0)
    assert np.allclose(matrix @ [0, 0, 1], [0, 1, 0], atol=1e-12)
    turned = picture.rotation(31, -12)
    assert np.allclose(turned @ turned.T, np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1)


def test_numbers_that_cannot_be_drawn_are_refused():
    broken = perovskite()
    broken.translate_sites([0], [np.nan, 0, 0], to_unit_cell=False)
    with pytest.raises(DataError, match=r"SrTiO3.*not a number; drop it"):
        scene.frame(broken, KINDS)
    with pytest.raises(DataError, match=r"at most 20000\. Use a smaller supercell"):
        scene.frame(diamond() * 15, {"C": 0}, with_bonds=False)


def test_specks_mark_what_a_player_must_fit():
    wide = scene.frame(perovskite(6.0), KINDS)
    small = scene.frame(perovskite(3.9), KINDS)
    assert scene.reach(wide) == pytest.approx(6.0 * 3**0.5 / 2)
    species = scene.species_table(list(KINDS))
    specks = scene.shapes(small, species, extent=scene.reach(wide))[-2:]
    assert [one[1] for one in specks] == [pytest.approx([x] * 3) for x in (-3.0, 3.0)]
    assert len(scene.shapes(small, species)) == 21 + 2 * 36 + 12
