"""Lattice codes: exact inverses, families by numbers, gradients of cubic cells."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice

from matdesign.crystals.batch import generator
from matdesign.crystals.lattice_code import (
    FAMILIES,
    HEXAGONAL_K1,
    family,
    free_entries,
    from_code,
    to_code,
)
from matdesign.crystals.symmetry.layout import symmetric_layouts
from matdesign.errors import DataError, ShapeError

codes = st.lists(st.floats(-1.2, 1.2), min_size=6, max_size=6)


def cells(n: int, seed: int) -> torch.Tensor:
    rng = generator(seed)
    return 5 * torch.eye(3).double() + torch.randn(
        n, 3, 3, generator=rng, dtype=torch.float64
    )


# ---- codes ---------------------------------------------------------------------------


@given(codes)
def test_code_to_lattice_and_back(values: list[float]) -> None:
    code = torch.tensor([values], dtype=torch.float64)
    lattice = from_code(code)
    assert torch.equal(lattice, lattice.transpose(-1, -2))
    assert torch.allclose(to_code(lattice), code, atol=1e-10)
    volume = torch.linalg.det(lattice)
    assert torch.allclose(volume.log() / 3, code[:, 5], atol=1e-10)


def test_lattice_to_code_and_back_is_the_polar_factor() -> None:
    lattice = cells(200, seed=0)
    back = from_code(to_code(lattice))
    want = lattice @ lattice.transpose(-1, -2)
    assert torch.allclose(back @ back, want, rtol=1e-10, atol=1e-9)
    u, s, _ = torch.linalg.svd(lattice)
    assert torch.allclose(
        back, u @ torch.diag_embed(s) @ u.transpose(-1, -2), atol=1e-9
    )


def test_rotation_leaves_the_code_alone() -> None:
    lattice = cells(50, seed=1)
    turn, _ = torch.linalg.qr(torch.randn(50, 3, 3, generator=generator(2)).double())
    assert torch.allclose(to_code(lattice @ turn), to_code(lattice), atol=1e-10)


def test_lengths_and_angles_survive() -> None:
    lattice = cells(50, seed=3)
    same = from_code(to_code(lattice))
    for one, two in zip(same, lattice):
        edges = Lattice(one.numpy()).parameters
        assert np.allclose(edges, Lattice(two.numpy()).parameters, atol=1e-6)


def test_code_per_atom_counts_volume_per_atom() -> None:
    lattice, n = cells(5, seed=4), torch.tensor([1, 2, 5, 10, 20])
    code = to_code(lattice, n)
    per_atom = torch.linalg.det(lattice).abs() / n
    assert torch.allclose((3 * code[:, 5]).exp(), per_atom)
    assert torch.allclose(from_code(code, n), from_code(to_code(lattice)))


def test_float32_round_trip_is_good_to_a_millionth() -> None:
    lattice = cells(200, seed=5).float()
    code = to_code(lattice)
    assert code.dtype == torch.float32
    again = to_code(from_code(code))
    assert (again - code).abs().max() < 1e-5


# ---- gradients -----------------------------------------------------------------------


def test_gradient_of_degenerate_cells_is_exact() -> None:
    """Equal eigenvalues, where the gradient of an eigendecomposition is NaN."""
    for code in (torch.zeros(1, 6), torch.tensor([[0, 0, 0, 0, 0.3, 1.0]])):
        at = code.double().requires_grad_()
        assert torch.autograd.gradcheck(from_code, (at,), atol=1e-6)
    matrix = torch.eye(3, requires_grad=True)
    values, vectors = torch.linalg.eigh(matrix)
    (vectors @ values.exp().diag() @ vectors.T).square()[0, 1].backward()
    assert (
        matrix.grad is not None and not matrix.grad.isfinite().all()
    )  # the trap is real


@settings(deadline=None, max_examples=20)
@given(codes)
def test_gradient_matches_finite_differences(values: list[float]) -> None:
    code = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(from_code, (code,), atol=1e-4)


# ---- crystal families ----------------------------------------------------------------

PARAMETERS = {
    "triclinic": [4.0, 5.0, 6.0, 80.0, 95.0, 105.0],
    "monoclinic": [4.0, 5.0, 6.0, 90.0, 107.0, 90.0],
    "orthorhombic": [4.0, 5.0, 6.0, 90.0, 90.0, 90.0],
    "tetragonal": [4.0, 4.0, 6.0, 90.0, 90.0, 90.0],
    "hexagonal": [4.0, 4.0, 6.0, 90.0, 90.0, 120.0],
    "cubic": [4.0, 4.0, 4.0, 90.0, 90.0, 90.0],
}
GROUP = {
    "triclinic": 2,
    "monoclinic": 14,
    "orthorhombic": 62,
    "tetragonal": 139,
    "hexagonal": 194,
    "cubic": 225,
}


def projected(code: torch.Tensor, name: str) -> torch.Tensor:
    """Return codes with the fixed entries of a family, as layouts set them."""
    return symmetric_layouts([GROUP[name]], [[0]]).project(code)


@pytest.mark.parametrize("name", FAMILIES)
def test_cells_of_a_family_are_fixed_points(name: str) -> None:
    rows = Lattice.from_parameters(*PARAMETERS[name]).matrix
    code = to_code(torch.tensor(rows)[None])
    assert torch.allclose(projected(code, name), code, atol=1e-6)
    free = free_entries(name)
    wrong = torch.zeros(6).double()
    wrong[0] = HEXAGONAL_K1 if name == "hexagonal" else 0.0
    assert torch.allclose(code[0, ~free], wrong[~free], atol=1e-12)
    assert (code[0, free].abs() > 1e-3).all()  # what is free is used by this cell


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=25)
@given(values=codes)
def test_projection_gives_a_cell_of_the_family(name: str, values: list[float]) -> None:
    code = torch.tensor([values], dtype=torch.float64)
    once = projected(code, name)
    assert torch.equal(projected(once, name), once)
    a, b, c, alpha, beta, gamma = Lattice(from_code(once)[0].numpy()).parameters
    if name in ("tetragonal", "hexagonal", "cubic"):
        assert a == pytest.approx(b, rel=1e-6)
    if name == "cubic":
        assert b == pytest.approx(c, rel=1e-6)
    if name != "triclinic":
        assert alpha == pytest.approx(90, abs=1e-4)
        assert gamma == pytest.approx(120 if name == "hexagonal" else 90, abs=1e-4)
    if name not in ("triclinic", "monoclinic"):
        assert beta == pytest.approx(90, abs=1e-4)


def test_hexagonal_constant_is_minus_log_3_over_4() -> None:
    assert pytest.approx(-0.27465307) == HEXAGONAL_K1
    k = to_code(torch.tensor(Lattice.hexagonal(3.2, 5.2).matrix))
    assert k[0].item() == pytest.approx(HEXAGONAL_K1, abs=1e-13)
    assert k[1:4].abs().max().item() < 1e-13


def test_family_boundaries() -> None:
    edges = {
        1: 0,
        2: 0,
        3: 1,
        15: 1,
        16: 2,
        74: 2,
        75: 3,
        142: 3,
        143: 4,
        194: 4,
        195: 5,
    }
    assert {number: FAMILIES.index(family(number)) for number in edges} == edges
    assert family(230) == "cubic"


def test_bad_codes_and_groups_are_named() -> None:
    with pytest.raises(DataError, match=r"1 and 230; got 231"):
        family(231)
    with pytest.raises(DataError, match=r"'rhombic'.*orthorhombic"):
        free_entries("rhombic")
    with pytest.raises(ShapeError, match=r"six entries.*\(2, 5\)"):
        from_code(torch.zeros(2, 5))
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        to_code(torch.zeros(2, 3))
    flat = torch.eye(3).repeat(2, 1, 1)
    flat[1, 2] = 0
    with pytest.raises(DataError, match="crystal 1"):
        to_code(flat)
    with pytest.raises(DataError, match="crystal 1"):
        to_code(torch.stack([torch.eye(3), torch.full((3, 3), math.nan)]))


# ---- parameters and standard cells ---------------------------------------------------
