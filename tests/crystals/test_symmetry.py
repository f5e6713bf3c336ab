"""Symmetric form: known crystals, all 230 groups, projections, the shipped sets."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.groups import SpaceGroup

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.geometry import torus_difference
from matdesign.crystals.lattice_code import (
    family,
    from_parameters,
    to_parameters,
)
from matdesign.crystals.sites import images, operations
from matdesign.crystals.symmetry import (
    SymmetricForm,
    from_symmetric,
    project_frac,
    project_lattice,
    spacegroup,
    to_symmetric,
)
from matdesign.errors import DataError, ShapeError

MATCHER = StructureMatcher(ltol=0.02, stol=0.02, angle_tol=0.5, scale=False)
"""Far tighter than the usual 0.2, 0.3, 5: atoms within about 0.05 angstrom."""


def cubic(a: float) -> Lattice:
    return Lattice.cubic(a)


# name: structure, space group, Wyckoff letters with multiplicity, free parameters
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
        {"1a", "1b", "3c"},
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


@pytest.mark.parametrize("name", KNOWN)
def test_known_crystals(name: str) -> None:
    structure, number, positions, freedom = KNOWN[name]
    form = to_symmetric(structure)
    assert form.spacegroup == number and form.symprec == 0.01
    assert {f"{s.multiplicity}{s.letter}" for s in form.sites} == positions
    assert form.degrees_of_freedom == freedom
    assert MATCHER.fit(from_symmetric(form), structure)
    small = from_symmetric(form, primitive=True)
    assert len(small) == len(structure.get_primitive_structure())
    assert spacegroup(Crystals.from_structures([structure])).item() == number


@pytest.mark.parametrize("name", KNOWN)
def test_primitive_rotated_shifted_input_gives_the_same_form(name: str) -> None:
    structure, number, positions, _ = KNOWN[name]
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    small = structure.get_primitive_structure()
    other = Structure(small.lattice.matrix @ turn, small.species, small.frac_coords)
    other.translate_sites(list(range(len(other))), [0.123, 0.456, 0.789])
    form = to_symmetric(other)
    assert form.spacegroup in (number, {154: 152, 152: 154}.get(number, number))
    assert len(form.sites) == len(to_symmetric(structure).sites)
    assert sum(s.multiplicity for s in form.sites) == len(from_symmetric(form))
    if name in ("rocksalt", "diamond", "rutile", "corundum", "baddeleyite"):
        found = {f"{s.multiplicity}{s.letter}" for s in form.sites}
        assert found == positions or name == "diamond"


def test_noise_below_the_tolerance_is_removed() -> None:
    structure, number, _, _ = KNOWN["corundum"]
    noisy = structure.copy()
    noisy.perturb(0.002)
    form = to_symmetric(noisy, symprec=0.02)
    assert form.spacegroup == number
    assert MATCHER.fit(from_symmetric(form), structure)


def test_positions_read_as_crystallographers_write_them() -> None:
    read = {
        name: [site.coordinates for site in to_symmetric(one[0]).sites]
        for name, one in KNOWN.items()
    }
    assert read["rutile"] == ["0, 0, 0", "x, x, 0"]
    assert read["wurtzite"] == ["1/3, 2/3, z", "1/3, 2/3, z"]
    assert read["corundum"][0] == "0, 0, z"
    assert read["baddeleyite"] == ["x, y, z"] * 3


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
    form = to_symmetric(structure)
    assert form.spacegroup == number
    assert MATCHER.fit(from_symmetric(form), structure)
    again = SymmetricForm.from_dict(json.loads(json.dumps(form.to_dict())))
    assert again.letters == form.letters
    assert MATCHER.fit(from_symmetric(again), structure)


# ---- free coordinates ----------------------------------------------------------------


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(sorted(KNOWN)), st.integers(0, 10**6))
def test_moving_free_coordinates_keeps_every_operation(name: str, seed: int) -> None:
    form = to_symmetric(KNOWN[name][0])
    values = torch.rand(len(form.free), generator=generator(seed), dtype=torch.float64)
    moved = form.with_free(values)
    assert torch.allclose(
        torus_difference(moved.free, values), torch.zeros(()).double()
    )
    rotations, translations = operations(form.spacegroup)
    frac = moved.frac.numpy()
    for r, t in zip(rotations, translations, strict=True):
        image = frac @ r.T + t
        apart = frac[None] - image[:, None]
        nearest = np.abs(apart - np.round(apart)).max(-1).min(1)
        assert nearest.max() < 1e-9  # every image of an atom is an atom


def test_wrong_number_of_free_coordinates() -> None:
    form = to_symmetric(KNOWN["rutile"][0])
    with pytest.raises(ShapeError, match="1 free coordinates; got"):
        form.with_free(torch.zeros(2))
    with pytest.raises(DataError, match=r"4f has 1 free coordinates \(x, x, 0\)"):
        form.sites[1].moved((0.1, 0.2))


# ---- projections ---------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(KNOWN)), st.integers(0, 10**6), st.floats(0, 0.05))
def test_projection_onto_positions(name: str, seed: int, size: float) -> None:
    form = to_symmetric(KNOWN[name][0])
    rng = generator(seed)
    noise = size * torch.randn(form.frac.shape, generator=rng, dtype=torch.float64)
    whole = torch.randint(-2, 3, form.frac.shape, generator=rng)
    clean = project_frac(form.frac + whole, form)
    assert torus_difference(clean, form.frac).abs().max() < 1e-9  # fixed points
    once = project_frac(form.frac + noise, form)
    twice = project_frac(once, form)
    assert torus_difference(once, twice).abs().max() < 1e-9
    assert torus_difference(once, form.frac).abs().max() <= 6 * size + 1e-9
    starts = torch.tensor([s.multiplicity for s in form.sites]).cumsum(0)
    anchors = once[[0, *starts[:-1].tolist()]]
    values = [anchors[k, axis] for k, s in enumerate(form.sites) for axis in s.axes]
    same = form.with_free(torch.stack(values)) if values else form
    assert torus_difference(same.frac, once).abs().max() < 1e-9


def test_projection_of_a_batch_and_wrong_shapes() -> None:
    form = to_symmetric(KNOWN["rutile"][0])
    many = form.frac.float() + torch.zeros(5, 1, 1)
    assert project_frac(many, form).shape == (5, 6, 3)
    with pytest.raises(ShapeError, match="6 atoms in its conventional cell"):
        project_frac(torch.zeros(5, 3), form)


def test_lattice_projection_gives_the_family_and_keeps_the_volume() -> None:
    noise = 0.2 * torch.randn(6, 3, 3, generator=generator(0), dtype=torch.float64)
    cells = 5 * torch.eye(3).double() + noise
    groups = torch.tensor([2, 14, 62, 139, 194, 225])
    made = project_lattice(cells, groups)
    assert torch.allclose(torch.linalg.det(made), torch.linalg.det(cells).abs())
    angles = to_parameters(made)
    assert torch.allclose(angles[4, 5], torch.tensor(120.0).double(), atol=1e-6)
    assert torch.allclose(angles[5, :3], angles[5, 0].expand(3))
    hexagonal = from_parameters(torch.tensor([[4.0, 4, 7, 90, 90, 120]]).double())
    kept = to_parameters(project_lattice(hexagonal, 194))
    assert torch.allclose(kept, to_parameters(hexagonal), atol=1e-6)


# ---- edges ---------------------------------------------------------------------------


def test_form_is_plain_json() -> None:
    form = to_symmetric(KNOWN["rutile"][0])
    text = json.dumps(form.to_dict())
    stored = json.loads(text)["sites"][1]
    assert (stored["wyckoff"], stored["position"]) == ("4f", "x, x, 0")
    again = SymmetricForm.from_dict(json.loads(text))
    assert again.spacegroup == form.spacegroup and again.letters == form.letters
    assert torch.allclose(again.frac, form.frac, atol=1e-12)
    with pytest.raises(DataError, match="not a symmetric form"):
        SymmetricForm.from_dict({"spacegroup": 225})


def test_a_crystal_without_symmetry_is_p1() -> None:
    rng = np.random.default_rng(0)
    lattice = Lattice.from_parameters(4, 5, 6, 80, 95, 105)
    odd = Structure(lattice, ["Li", "Na", "K", "Rb"], rng.random((4, 3)))
    form = to_symmetric(odd)
    assert form.spacegroup == 1 and form.degrees_of_freedom == 6 + 12
    assert MATCHER.fit(from_symmetric(form), odd)


def test_stacked_atoms_have_a_form_and_no_group() -> None:
    stacked = Structure(cubic(4), ["H", "H"], [[0, 0, 0], [0, 0, 0]])
    form = to_symmetric(stacked)
    assert form.spacegroup == 1 and len(from_symmetric(form)) == 2
    assert spacegroup(Crystals.from_structures([stacked])).tolist() == [0]


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
