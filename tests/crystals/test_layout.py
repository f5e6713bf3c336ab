"""Layouts and encoded crystals: symmetry by construction, there and back."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.geometry import torus_difference
from matdesign.crystals.lattice_code import HEXAGONAL_K1, family
from matdesign.crystals.symmetry.encoded import Encoded, encode
from matdesign.crystals.symmetry.find import spacegroup
from matdesign.crystals.symmetry.layout import (
    Layout,
    symmetric_layouts,
)
from matdesign.crystals.symmetry.wyckoff import operations, positions, primitive_cell
from matdesign.errors import DataError, ShapeError

MATCHER = StructureMatcher(ltol=0.02, stol=0.02, angle_tol=0.5, scale=False)
"""Far tighter than the usual 0.2, 0.3, 5: atoms within about 0.05 angstrom."""

CENTRINGS = [5, 12, 15, 38, 43, 63, 69, 82, 139, 146, 155, 160, 164, 166, 194, 225]
GROUPS = [1, 2, 14, 33, 62, 99, 123, 143, 152, 186, 191, 198, 216, 221, 227, *CENTRINGS]
"""Every family, every centring, polar, chiral and centrosymmetric ones."""


def some_template(number: int, seed: int, sites: int = 48) -> list[int]:
    """Letters of a few orbits of a group, a general position among them if it fits."""
    rng = random.Random(1000 * number + seed)
    table = positions(number)
    points = round(1 / np.linalg.det(primitive_cell(number)))
    fitting = [p for p in table if p.multiplicity // points <= sites // 2]
    letters, left = [], sites
    for place in [*rng.sample(fitting, min(3, len(fitting))), fitting[-1]]:
        fixed = place.free == 0 and place.index in letters
        if not fixed and place.multiplicity // points <= left:
            letters.append(place.index)
            left -= place.multiplicity // points
    return sorted(letters)


def random_crystal(number: int, letters: list[int], seed: int) -> Encoded:
    """A crystal of a template with random coordinates, cell and distinct species."""
    draw = generator(seed)
    layout = symmetric_layouts([number], [letters])
    u = torch.rand(layout.free.shape, generator=draw) * layout.free
    code = 0.15 * torch.randn(1, 6, generator=draw)
    code[:, 5] += 1.2  # 37 cubic angstrom per atom
    species = 20 + torch.arange(len(letters))[None]
    return Encoded(layout, species, u, layout.project(code), {}, "symmetric")


@pytest.mark.parametrize("number", GROUPS)
def test_expand_and_pull_back_are_inverse(number: int) -> None:
    for seed in range(4):
        made = random_crystal(number, some_template(number, seed), seed)
        layout, u = made.layout, made.u
        step = 0.05 * torch.randn(u.shape, generator=generator(seed)) * layout.free
        moved = torus_difference(layout.expand(u), layout.expand(u + step))
        assert torch.allclose(layout.pull_back(moved), step, atol=1e-5)


@pytest.mark.parametrize("number", GROUPS)
def test_pull_back_is_the_least_squares_fit_in_angstrom(number: int) -> None:
    # what is left of any displacement is at right angles to every free direction
    made = random_crystal(number, some_template(number, 1), 1)
    layout, cell = made.layout, made.layout.lattice(made.code)
    wild = torch.randn(*layout.mask.shape, 3, generator=generator(3))
    fit = layout.pull_back(wild)
    follow = torch.einsum("bsi,bsij->bsj", fit[0, layout.orbit], layout.move)
    rest = (wild - follow) @ cell
    along = torch.einsum("bsij,bjk,bsk->bsi", layout.move, cell, rest)
    assert layout.mean_over_orbit(along).abs().max() < 2e-4 * cell.abs().max() ** 2


@pytest.mark.parametrize("number", GROUPS)
def test_coordinates_have_period_one(number: int) -> None:
    made = random_crystal(number, some_template(number, 2), 2)
    round_the_torus = made.layout.expand(made.u + made.layout.free)
    apart = torus_difference(made.layout.expand(made.u), round_the_torus)
    assert apart.abs().max() < 1e-5


def is_symmetric(made: Encoded, number: int) -> bool:
    """Whether every operation of the group takes the crystal to itself, in angstrom."""
    crystal = made.crystals()
    cell = crystal.lattice[0].double().numpy()
    into = np.linalg.inv(primitive_cell(number))
    frac = crystal.frac[0].double().numpy()
    kinds = crystal.species[0].numpy()
    rotations, translations = operations(number)
    gram = cell @ cell.T
    for rotation, translation in zip(rotations, translations):
        turn = np.linalg.inv(into) @ rotation.T @ into  # rows, primitive cell
        moved = frac @ turn + translation @ into
        apart = moved[:, None] - frac[None]
        apart = np.linalg.norm((apart - np.round(apart)) @ cell, axis=-1)
        apart += 1e3 * (kinds[:, None] != kinds)
        if apart.min(1).max() > 1e-3 or not np.allclose(
            turn @ gram @ turn.T, gram, rtol=0, atol=3e-5 * gram.max()
        ):
            return False
    return True


@pytest.mark.parametrize("number", GROUPS)
def test_symmetry_holds_by_construction(number: int) -> None:
    for seed in range(2):
        letters = some_template(number, seed)
        made = random_crystal(number, letters, seed)
        assert is_symmetric(made, number)
        counts = [positions(number)[x].multiplicity for x in letters]
        assert made.layout.conventional_atoms.item() == sum(counts)
        assert len(made.layout.mask[0]) == made.layout.mask.sum()


def test_symmetry_is_lost_with_one_atom_moved() -> None:
    made = random_crystal(166, [2, 2, 7], 0)
    shift = made.layout.shift.clone()
    shift[0, 0, 0] += 0.02
    broken = dataclasses.replace(
        made, layout=dataclasses.replace(made.layout, shift=shift)
    )
    assert is_symmetric(made, 166) and not is_symmetric(broken, 166)


@pytest.mark.parametrize(
    "number, letters",
    [
        (12, [8, 8, 9]),
        (15, [4, 5, 5]),
        (14, [4, 4]),
        (38, [0, 3, 5]),
        (99, [0, 3, 5]),
        (139, [0, 4, 12]),
        (166, [0, 2, 7]),
        (160, [0, 1, 1]),
        (164, [0, 3, 8]),
        (194, [1, 5, 10]),
        (198, [0, 0, 1]),
        (225, [0, 1, 5, 6]),
        (227, [0, 4]),
    ],
)
def test_a_random_crystal_has_its_space_group(number: int, letters: list[int]) -> None:
    made = random_crystal(number, letters, 5)
    found = spacegroup(made.crystals(), 0.01).item()
    assert found == number
    again = encode(made.crystals(), "symmetric")
    assert again.layout.spacegroup.item() == number
    assert again.n_atoms.equal(made.n_atoms)
    assert MATCHER.fit(again.crystals()[0], made.crystals()[0])


def test_no_group_of_the_table_loses_its_symmetry() -> None:
    for number in range(1, 231, 3):
        made = random_crystal(number, some_template(number, 3), 3)
        assert is_symmetric(made, number)


@pytest.mark.parametrize("number", [1, 14, 62, 139, 166, 194, 225])
def test_cells_are_those_of_the_family(number: int) -> None:
    made = random_crystal(number, [0], 4)
    inverse = torch.linalg.inv(made.layout.cell)
    conventional = inverse @ made.layout.lattice(made.code)
    a, b, c, alpha, beta, gamma = Lattice(conventional[0].numpy()).parameters
    name = family(number)
    if name in ("tetragonal", "hexagonal", "cubic"):
        assert a == pytest.approx(b, rel=1e-5)
    if name == "cubic":
        assert a == pytest.approx(c, rel=1e-5)
    if name != "triclinic":
        assert alpha == pytest.approx(90, abs=1e-3)
        wanted = 120 if name == "hexagonal" else 90
        assert gamma == pytest.approx(wanted, abs=1e-3)
        assert (abs(beta - 90) < 1e-3) == (name != "monoclinic")


def test_volume_per_atom_is_the_last_entry_of_the_code() -> None:
    for number in (12, 166, 225, 38, 139):
        made = random_crystal(number, some_template(number, 1), 1)
        volume = torch.linalg.det(made.crystals().lattice) / made.n_atoms
        assert torch.allclose(volume, (3 * made.code[:, 5]).exp(), rtol=1e-4)


def test_projection_sets_fixed_entries_and_keeps_free_ones() -> None:
    layout = symmetric_layouts([1, 166, 225], [[0], [0], [0]])
    code = layout.project(torch.full((3, 6), 0.7))
    fixed = torch.tensor([HEXAGONAL_K1, 0, 0, 0, 0.7, 0.7])
    assert torch.allclose(code[0], torch.full((6,), 0.7))
    assert torch.allclose(code[1], fixed)
    assert torch.allclose(code[2], torch.tensor([0, 0, 0, 0, 0, 0.7]))
    assert torch.equal(layout.project(code), code)


def test_gradients_reach_free_coordinates_and_the_cell_alone() -> None:
    made = random_crystal(166, [0, 2, 7], 6)
    u, code = made.u.clone().requires_grad_(), made.code.clone().requires_grad_()
    cart = made.layout.expand(u) @ made.layout.lattice(code)
    (cart * torch.randn(cart.shape, generator=generator(1))).sum().backward()
    assert u.grad is not None and code.grad is not None
    assert torch.equal(u.grad != 0, made.layout.free)
    assert torch.equal(code.grad != 0, made.layout.code_free)
    assert torch.isfinite(u.grad).all() and torch.isfinite(code.grad).all()


def test_p1_layout_is_that_of_the_cell() -> None:
    given, made = (
        Layout.whole_cell(torch.tensor([4])),
        symmetric_layouts([1], [[0] * 4]),
    )
    for name in vars(given):
        assert torch.allclose(getattr(given, name).float(), getattr(made, name).float())


def test_species_and_means_follow_the_orbits() -> None:
    layout = symmetric_layouts([221], [[0, 1, 2]])  # perovskite: 1 + 1 + 3 atoms
    species = layout.expand_species(torch.tensor([[38, 22, 8]]))
    assert species.tolist() == [[38, 22, 8, 8, 8]]
    value = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [8.0]]])
    assert layout.mean_over_orbit(value).tolist() == [[[1.0], [2.0], [5.0]]]
    apart = layout.expand(torch.zeros(1, 3, 3))[0, 2:] * 2
    assert apart.sum(1).tolist() == [2.0, 2.0, 2.0]  # face centres


def test_index_trims_and_cat_pads() -> None:
    layout = symmetric_layouts([225, 166, 225], [[0], [0, 2, 7], [0, 1]])
    assert layout.mask.shape == (3, 9) and layout.letter.shape == (3, 3)
    part = layout[torch.tensor([2, 0])]
    assert part.mask.shape == (2, 2) and part.letter.tolist() == [[0, 1], [0, 0]]
    assert part.count.tolist() == [[1, 1], [1, 0]]
    both = Layout.cat([part, symmetric_layouts([166], [[0, 2, 7]])])
    assert both.mask.shape == (3, 9) and both.n_atoms.tolist() == [2, 1, 9]
    assert both.spacegroup.tolist() == [225, 225, 166]
    u = torch.rand(3, 3, 3, generator=generator(0))
    assert torch.equal(both.expand(u)[2:], layout.expand(u[[0, 2, 1]])[1:2])


def test_wrong_templates_are_refused() -> None:
    with pytest.raises(DataError, match="positions 0 \\(a\\) to 11 \\(l\\)"):
        symmetric_layouts([225], [[12]])
    with pytest.raises(DataError, match="one letter per orbit"):
        symmetric_layouts([225], [[]])
    with pytest.raises(DataError, match="between 1 and 230"):
        symmetric_layouts([231], [[0]])
    with pytest.raises(ShapeError, match="one of each"):
        symmetric_layouts([225], [])


# --- crystals -------------------------------------------------------------------------


def check_round_trip(crystals: Crystals, every: int = 1) -> Encoded:
    encoded = encode(crystals, "symmetric")
    back = encoded.crystals()
    assert (
        len(back) == len(crystals)
        and encoded.labels.keys() == crystals.properties.keys()
    )
    for at in range(0, len(crystals), every):
        assert MATCHER.fit(crystals[at], back[at])
    some = torch.arange(0, len(crystals), every)
    # exact crystals need no more than float32; at 0.01 some count as a supergroup
    before = encoded.layout.spacegroup[some]
    assert torch.equal(spacegroup(back[some], 0.001), before)
    return encoded


def test_shipped_crystals_come_back_with_their_symmetry() -> None:
    crystals = design.load("prototypes", split="val")[torch.arange(0, 700, 14)]
    encoded = check_round_trip(crystals)
    assert (
        encoded.layout.spacegroup == spacegroup(crystals, 0.01)
    ).float().mean() > 0.95
    check_canonical(encoded)


def check_canonical(encoded: Encoded) -> None:
    free, u = encoded.layout.free, encoded.u
    assert bool(((u >= 0) & (u < 1)).all()) and bool((u[~free] == 0).all())
    letters, species = encoded.layout.letter, encoded.species
    key = 200 * letters + species
    real = encoded.layout.orbits
    inside = real[:, 1:] & real[:, :-1]
    assert bool((key[:, 1:] >= key[:, :-1])[inside].all())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prototypes", "perovskites"])
def test_all_of_val_comes_back(name: str) -> None:
    check_canonical(check_round_trip(design.load(name, split="val")))


def test_encoding_does_not_depend_on_the_cell_it_is_given_in() -> None:
    made = random_crystal(166, [0, 2, 7], 7).crystals()
    structure = made[0]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator(2)))[0]
    if torch.linalg.det(turn) < 0:
        turn = -turn
    other = Structure(
        np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
        @ structure.lattice.matrix
        @ turn.numpy(),
        structure.species,
        structure.frac_coords
        @ np.linalg.inv(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])),
    )
    first, second = (
        encode(Crystals.from_structures([s]), "symmetric") for s in (structure, other)
    )
    assert torch.allclose(first.code, second.code, atol=1e-4)
    assert MATCHER.fit(second.crystals()[0], structure)


SHIFTED = {
    "caesium chloride": ([55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "perovskite": (
        [38, 22, 8, 8, 8],
        [[0.5] * 3, [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
    ),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_equivalent_settings_give_one_encoding(name: str) -> None:
    species, frac = SHIFTED[name]
    first = Crystals(
        torch.tensor([species]), torch.tensor([frac]), 4 * torch.eye(3)[None]
    )
    second = first.replace(frac=(first.frac + 0.5) % 1)
    one, other = (encode(crystal, "symmetric") for crystal in (first, second))
    assert torch.equal(one.layout.letter, other.layout.letter)
    assert torch.equal(one.species, other.species) and torch.allclose(one.u, other.u)


def handedness(crystal: Structure) -> float:
    """Triple product of the ways from a general atom to the nearest of other kinds."""
    kinds = [site.specie.Z for site in crystal]
    ways = []
    for z in sorted(set(kinds))[:3]:
        start = crystal[kinds.index(max(kinds))]
        near = [
            n for n in crystal.get_sites_in_sphere(start.coords, 15) if n.specie.Z == z
        ]
        ways.append(min(near, key=lambda n: n.nn_distance).coords - start.coords)
    return float(np.linalg.det(np.array(ways)))


@pytest.mark.parametrize(
    "number", [1, 4, 16, 19, 21, 76, 89, 143, 149, 168, 177, 195, 207]
)
def test_left_stays_left(number: int) -> None:
    general = len(positions(number)) - 1
    given = random_crystal(number, [0, *[general] * 3], 8).crystals()
    mirrored = given.replace(lattice=given.lattice * torch.tensor([-1.0, 1, 1]))
    for one in (given, mirrored):
        back = encode(one, "symmetric").crystals()[0]
        assert handedness(back) == pytest.approx(handedness(one[0]), rel=1e-2)
    assert handedness(mirrored[0]) == pytest.approx(-handedness(given[0]))


def test_a_crystal_without_symmetry_keeps_its_atoms() -> None:
    draw = generator(3)
    frac = torch.tensor([[[0.0, 0, 0], [0.31, 0.47, 0.52], [0.66, 0.12, 0.81]]])
    cell = 5 * torch.eye(3)[None] + 0.6 * torch.randn(1, 3, 3, generator=draw)
    given = Crystals(torch.tensor([[11, 17, 17]]), frac, cell)
    made = encode(given, "symmetric")
    assert made.layout.spacegroup.item() == 1 and made.layout.free.all()
    assert MATCHER.fit(made.crystals()[0], given[0])


def test_atoms_on_top_of_each_other_become_p1() -> None:
    given = Crystals(
        torch.tensor([[11, 17]]),
        torch.tensor([[[0.1, 0, 0]] * 2]),
        4 * torch.eye(3)[None],
    )
    made = encode(given, "symmetric")
    assert made.layout.spacegroup.item() == 1
    assert torch.allclose(made.crystals().frac, given.frac)


def test_labels_and_precision_are_kept() -> None:
    crystals = design.load("perovskites", split="val")[torch.arange(4)]
    made = encode(crystals, "symmetric")
    for name, value in crystals.properties.items():
        assert torch.equal(made.labels[name].nan_to_num(), value.nan_to_num())
    assert (
        made.u.dtype == crystals.frac.dtype
        and made.code.dtype == crystals.lattice.dtype
    )
    part = made[torch.tensor([1, 3])]
    assert len(part) == 2 and MATCHER.fit(part.crystals()[0], crystals[1])
