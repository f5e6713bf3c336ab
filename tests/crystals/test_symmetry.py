"""Finding symmetry: known crystals, all 230 groups, whatever a generator makes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.groups import SpaceGroup

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.data.primitive import primitive_cells
from matdesign.crystals.lattice_code import family
from matdesign.crystals.symmetry.encoded import Encoded, encode
from matdesign.crystals.symmetry.find import spacegroup
from matdesign.crystals.symmetry.wyckoff import images, operations, positions
from matdesign.errors import DataError

MATCHER = StructureMatcher(ltol=0.02, stol=0.02, angle_tol=0.5, scale=False)
"""Far tighter than the usual 0.2, 0.3, 5: atoms within about 0.05 angstrom."""

PRIMITIVE = StructureMatcher(
    ltol=0.02, stol=0.02, angle_tol=0.5, scale=False, primitive_cell=False
)
"""For cells that are primitive: the matcher's own reduction forgives 0.25 angstrom."""


def cubic(a: float) -> Lattice:
    return Lattice.cubic(a)


# name: structure, space group, Wyckoff letters in the canonical setting, free parameters
KNOWN = {
    "rocksalt": (
        Structure.from_spacegroup(
            225, cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ),
        225,
        {"4a", "4b"},
        1,
    ),
    "diamond": (
        Structure.from_spacegroup("Fd-3m:2", cubic(3.57), ["C"], [[1 / 8] * 3]),
        227,
        {"8a"},
        1,
    ),
    "perovskite": (
        Structure.from_spacegroup(
            221, cubic(3.9), ["Sr", "Ti", "O"], [[0] * 3, [0.5] * 3, [0.5, 0.5, 0]]
        ),
        221,
        {"1a", "1b", "3d"},
        1,
    ),
    "rutile": (
        Structure.from_spacegroup(
            136,
            Lattice.tetragonal(4.594, 2.959),
            ["Ti", "O"],
            [[0, 0, 0], [0.3053, 0.3053, 0]],
        ),
        136,
        {"2a", "4f"},
        3,
    ),
    "wurtzite": (
        Structure.from_spacegroup(
            186,
            Lattice.hexagonal(3.25, 5.2),
            ["Zn", "O"],
            [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]],
        ),
        186,
        {"2b"},
        4,
    ),
    "corundum": (
        Structure.from_spacegroup(
            "R-3c:H",
            Lattice.hexagonal(4.76, 12.99),
            ["Al", "O"],
            [[0, 0, 0.352], [0.306, 0, 0.25]],
        ),
        167,
        {"12c", "18e"},
        4,
    ),
    "quartz": (
        Structure.from_spacegroup(
            154,
            Lattice.hexagonal(4.913, 5.405),
            ["Si", "O"],
            [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]],
        ),
        154,
        {"3a", "6c"},
        6,
    ),
    "baddeleyite": (
        Structure.from_spacegroup(
            14,
            Lattice.monoclinic(5.15, 5.21, 5.32, 99.2),
            ["Zr", "O", "O"],
            [[0.275, 0.04, 0.208], [0.07, 0.332, 0.345], [0.45, 0.757, 0.479]],
        ),
        14,
        {"4e"},
        13,
    ),
}


def encoded(structure: Structure) -> Encoded:
    small = primitive_cells(Crystals.from_structures([structure]))
    return encode(small, "symmetric")


def wyckoff(made: Encoded) -> list[str]:
    """Return multiplicity and letter of every orbit, such as 4a."""
    table = positions(int(made.layout.spacegroup))
    places = [table[letter] for letter in made.layout.letter[0].tolist()]
    return [f"{place.multiplicity}{place.letter}" for place in places]


@pytest.mark.parametrize("name", KNOWN)
def test_known_crystals(name: str) -> None:
    structure, number, places, freedom = KNOWN[name]
    made = encoded(structure)
    assert made.layout.spacegroup.item() == number
    assert set(wyckoff(made)) == places
    assert made.layout.degrees_of_freedom.item() == freedom
    assert MATCHER.fit(made.crystals()[0], structure)
    assert len(made.crystals()[0]) == len(structure.get_primitive_structure())
    assert spacegroup(Crystals.from_structures([structure])).item() == number


@pytest.mark.parametrize("name", KNOWN)
def test_primitive_rotated_shifted_input_gives_the_same_orbits(name: str) -> None:
    structure, number, places, _ = KNOWN[name]
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    small = structure.get_primitive_structure()
    other = Structure(small.lattice.matrix @ turn, small.species, small.frac_coords)
    other.translate_sites(list(range(len(other))), [0.123, 0.456, 0.789])
    made = encode(Crystals.from_structures([other]), "symmetric")
    mirror = {154: 152} if np.linalg.det(turn) < 0 else {}
    assert made.layout.spacegroup.item() == mirror.get(number, number)
    assert set(wyckoff(made)) == places
    assert len(wyckoff(made)) == len(wyckoff(encoded(structure)))


def test_noise_below_the_tolerance_is_removed() -> None:
    structure, number, _, _ = KNOWN["corundum"]
    noisy = structure.get_primitive_structure()
    noisy.perturb(0.002)
    made = encode(Crystals.from_structures([noisy]), "symmetric")
    assert made.layout.spacegroup.item() == number
    assert MATCHER.fit(made.crystals()[0], structure)


# ---- all space groups ----------------------------------------------------------------


def cell_of(number: int) -> Lattice:
    """Return a cell of the group's family that is in no higher one."""
    choices = {
        "triclinic": [4.0, 5.0, 6.0, 80.0, 95.0, 105.0],
        "monoclinic": [4.0, 5.0, 6.0, 90.0, 107.0, 90.0],
        "orthorhombic": [4.0, 5.0, 6.0, 90.0, 90.0, 90.0],
        "tetragonal": [5.0, 5.0, 7.0, 90.0, 90.0, 90.0],
        "hexagonal": [5.0, 5.0, 7.0, 90.0, 90.0, 120.0],
        "cubic": [8.0, 8.0, 8.0, 90.0, 90.0, 90.0],
    }
    return Lattice.from_parameters(*choices[family(number)])


def keys(rotations: np.ndarray, translations: np.ndarray) -> set[tuple[int, ...]]:
    """Return operations as whole numbers, translations in 24ths of the cell."""
    parts = np.round(24 * translations).astype(int) % 24
    rows = np.concatenate([rotations.reshape(-1, 9).astype(int), parts], axis=1)
    return {tuple(row) for row in rows.tolist()}


@pytest.mark.parametrize("first", range(1, 231, 10))
def test_operations_form_groups(first: int) -> None:
    for number in range(first, min(first + 10, 231)):
        rotations, translations = operations(number)
        assert np.array_equal(rotations[0], np.eye(3)) and not translations[0].any()
        group = keys(rotations, translations)
        assert len(group) == len(rotations)
        for i in np.random.default_rng(number).integers(0, len(rotations), 5):
            moved = translations @ rotations[i].T + translations[i]
            assert keys(rotations[i] @ rotations, moved) == group  # closed


@pytest.mark.parametrize("number", [1, 2, 15, 62, 88, 142, 167, 194, 206, 227, 230])
def test_order_agrees_with_pymatgen(number: int) -> None:
    order = SpaceGroup.from_int_number(number).order
    assert len(operations(number)[0]) == order


@pytest.mark.parametrize("number", [*range(1, 222, 13), 199, 227])
def test_any_group_round_trip(number: int) -> None:
    """One general orbit and one on a special position, in every thirteenth group."""
    rng = np.random.default_rng(number)
    general = rng.uniform(0.03, 0.47, 3)
    points, species = [], []
    for z, start in ((14, general), (8, np.zeros(3))):
        orbit = images(np.asarray(start), number)
        _, keep = np.unique(np.round(orbit, 5) % 1, axis=0, return_index=True)
        points.append(orbit[keep])
        species += [z] * len(keep)
    structure = Structure(cell_of(number), species, np.concatenate(points))
    made = encoded(structure)
    assert made.layout.spacegroup.item() == number
    small = primitive_cells(Crystals.from_structures([structure]))[0]
    assert PRIMITIVE.fit(made.crystals()[0], small)


# ---- edges ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 1e-3, 0.0, float("nan")]))
def test_no_crystal_stops_the_search(seed: int, scale: float) -> None:
    """Whatever a generator makes gets a number: flat cells, stacked atoms, NaN."""
    rng = generator(seed)
    frac = torch.randint(0, 3, (4, 5, 3), generator=rng) / 2.0
    species = torch.randint(0, 3, (4, 5), generator=rng)
    species[:, 0] = 6
    species = species.sort(1, descending=True).values  # padding last
    lattice = scale * 4 * torch.randn(4, 3, 3, generator=rng)
    numbers = spacegroup(Crystals(species, frac, lattice))
    assert ((numbers >= 0) & (numbers <= 230)).all()


def test_unknown_group_is_refused() -> None:
    with pytest.raises(DataError, match="between 1 and 230; got 231"):
        operations(231)
