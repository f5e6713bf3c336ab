"""Geometry against brute force, pymatgen, and symmetry, in cells skewed on purpose."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.geometry import (
    displacement,
    distances,
    min_distance,
    reduce_lattice,
    shortest_vector,
    torus_difference,
    wrap,
)
from matdesign.errors import ShapeError

coordinates = st.floats(-1e3, 1e3, allow_nan=False, width=32)
unit = st.floats(0, 1, exclude_max=True)
integers = st.integers(-6, 6)


def skew(
    rows: torch.Tensor, seed: int, times: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same lattices in bases far from reduced, and the base change."""
    rng = generator(seed)
    change = torch.eye(3, dtype=rows.dtype).repeat(len(rows), 1, 1)
    for _ in range(times):
        i, j = torch.randperm(3, generator=rng)[:2].tolist()
        factor = torch.randint(-4, 5, (len(rows), 1), generator=rng)
        change[:, i] += factor * change[:, j]
    return change @ rows, change


def random_cells(n: int, seed: int) -> torch.Tensor:
    rng = generator(seed)
    stretch = 0.2 + 3 * torch.rand(n, 3, 1, generator=rng, dtype=torch.float64)
    return torch.randn(n, 3, 3, generator=rng, dtype=torch.float64) * stretch


SPECIAL = torch.tensor(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 1, 0], [0, 1, 1], [1, 0, 1]],
        [[-1, 1, 1], [1, -1, 1], [1, 1, -1]],
        [[1, 0, 0], [-0.5, math.sqrt(0.75), 0], [0, 0, 1.63]],
        [[1, 0, 0], [0.5, math.sqrt(0.75), 0], [0, 0, 0.2]],
    ],
    dtype=torch.float64,
)


# ---- wrap and the torus --------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrap_keeps_the_half_open_interval(dtype: torch.dtype) -> None:
    edges = torch.tensor(
        [-1e-9, -0.0, 0.0, 1.0, 1 - 1e-9, -1e-30, 7.25, -2.75], dtype=dtype
    )
    out = wrap(edges)
    assert ((out >= 0) & (out < 1)).all()
    assert out[6:].tolist() == [0.25, 0.25]


def test_plain_remainder_is_not_a_wrap() -> None:
    """The trap that `wrap` exists for is real on this machine."""
    assert (torch.tensor(-1e-9) % 1.0).item() == 1.0


@given(st.lists(coordinates, min_size=1, max_size=8))
def test_wrap_is_idempotent_and_in_range(values: list[float]) -> None:
    x = torch.tensor(values)
    out = wrap(x)
    assert ((out >= 0) & (out < 1)).all()
    assert torch.equal(wrap(out), out)


@given(st.integers(-1000, 1000), st.integers(0, 1023))
def test_wrap_ignores_whole_numbers(whole: int, part: int) -> None:
    x = torch.tensor(part / 1024, dtype=torch.float64)  # exact in binary
    assert wrap(x + whole).item() == x.item()


@given(unit, unit)
def test_torus_difference_leads_from_start_to_end(a: float, b: float) -> None:
    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    way = torus_difference(x, y)
    assert abs(way.item()) <= 0.5
    assert abs(torus_difference(wrap(x + way), y).item()) < 1e-12


# ---- reduction -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_reduction_finds_the_successive_minima(seed: int) -> None:
    cells = torch.cat([random_cells(60, seed), SPECIAL])
    skewed, _ = skew(cells, seed)
    change = reduce_lattice(skewed)
    assert torch.linalg.det(change).abs().round().eq(1).all()
    assert torch.equal(change, change.round())
    rows = change @ skewed
    # no combination with coefficients to 3 is shorter than the row it would replace
    n = torch.tensor(
        list(itertools.product(range(-3, 4), repeat=3)), dtype=torch.float64
    )
    lengths = (n @ rows).norm(dim=-1)
    for k in range(3):
        outside = n[:, k:].abs().sum(1) > 0  # independent of the shorter rows
        assert (lengths[:, outside].amin(1) >= rows[:, k].norm(dim=-1) - 1e-9).all()


def test_reduction_of_an_absurd_cell() -> None:
    cell = torch.tensor(
        [[[1.0, 0, 0], [123456.0, 1, 0], [777777.0, 99999.0, 1]]], dtype=torch.float64
    )
    assert torch.allclose(
        (reduce_lattice(cell) @ cell).abs().sum(), torch.tensor(3.0).double()
    )


def test_reduction_ends_on_cells_without_volume() -> None:
    broken = torch.tensor([[[1.0, 0, 0], [2.0, 0, 0], [0.0, 0, 0]]]).repeat(3, 1, 1)
    broken[1] = math.nan
    broken[2, 0, 0] = math.inf
    assert torch.linalg.det(reduce_lattice(broken)).abs().round().eq(1).all()
    assert reduce_lattice(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


# ---- minimum image -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_displacement_agrees_with_brute_force_in_skewed_cells(seed: int) -> None:
    """Search 7^3 cells of the unskewed basis: any image that could win is there."""
    cells = random_cells(200, seed)
    if seed % 2:
        noise = 1e-3 * random_cells(200, seed + 50)
        cells = SPECIAL.repeat(40, 1, 1) + noise * (seed != 1)
    cells = reduce_lattice(cells) @ cells
    skewed, change = skew(cells, seed)
    rng = generator(seed)
    start = torch.rand(200, 3, generator=rng, dtype=torch.float64)
    end = torch.rand(200, 3, generator=rng, dtype=torch.float64)
    got = displacement(start, end, skewed)

    there = torch.einsum("bi,bij->bj", end - start, change)
    there = there - there.round()
    n = torch.tensor(
        list(itertools.product(range(-3, 4), repeat=3)), dtype=torch.float64
    )
    images = torch.einsum("bni,bij->bnj", there[:, None] + n, cells)
    assert torch.allclose(got.norm(dim=-1), images.norm(dim=-1).amin(1), atol=1e-9)
    # and it is an image: it differs from the plain difference by whole lattice vectors
    whole = torch.linalg.solve(
        skewed.transpose(1, 2), got - torch.einsum("bi,bij->bj", end - start, skewed)
    )
    assert (whole - whole.round()).abs().max() < 1e-6


def test_nearest_image_outside_the_first_27_cells() -> None:
    """A cell where the usual 27-image search, or rounding, gives the wrong distance."""
    cell = torch.tensor(
        [[[3.0, 0, 0], [29.9, 1.0, 0], [0, 0, 5.0]]], dtype=torch.float64
    )
    start = torch.zeros(1, 3, dtype=torch.float64)
    end = torch.tensor([[0.0, 0.5, 0.0]], dtype=torch.float64)
    n = torch.tensor(list(itertools.product((-1, 0, 1), repeat=3)), dtype=torch.float64)
    first_27 = ((end + n) @ cell[0]).norm(dim=-1).min()
    right = displacement(start, end, cell).norm()
    assert first_27 > 9
    assert right.item() == pytest.approx(math.hypot(14.95 - 15, 0.5), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(unit, min_size=6, max_size=6),
    st.lists(integers, min_size=6, max_size=6),
    st.integers(0, 10**6),
)
def test_displacement_is_periodic_and_antisymmetric(
    values: list[float], shifts: list[int], seed: int
) -> None:
    cell, _ = skew(random_cells(1, seed), seed)
    start, end = torch.tensor(values, dtype=torch.float64).reshape(2, 1, 3)
    one, two = torch.tensor(shifts, dtype=torch.float64).reshape(2, 1, 3)
    there = displacement(start, end, cell).norm()
    scale = 1 + cell.abs().max()
    assert torch.isclose(
        there, displacement(end, start, cell).norm(), atol=1e-9 * scale
    )
    moved = displacement(start + one, end + two, cell).norm()
    assert torch.isclose(there, moved, atol=1e-9 * scale)


def test_displacement_refuses_a_bare_lattice() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 3\).*leading axis"):
        displacement(torch.zeros(1, 3), torch.zeros(1, 3), torch.eye(3))
    with pytest.raises(ShapeError, match="2 lattices for 3 crystals"):
        displacement(torch.zeros(3, 3), torch.zeros(3, 3), torch.eye(3).repeat(2, 1, 1))


def test_displacement_broadcasts_over_pairs() -> None:
    frac = torch.rand(2, 4, 3, generator=generator(0))
    cell = 5 * torch.eye(3).repeat(2, 1, 1)
    out = displacement(frac[:, :, None], frac[:, None], cell)
    assert out.shape == (2, 4, 4, 3)
    want = torus_difference(frac[:, :, None], frac[:, None]) * 5
    assert torch.allclose(out, want, atol=1e-5)


# ---- distances -----------------------------------------------------------------------


def batch(n: int, sites: int, seed: int) -> Crystals:
    rng = generator(seed)
    species = torch.randint(1, 90, (n, sites), generator=rng)
    for k in range(n):
        species[k, 1 + k % sites :] = 0  # from one site to all
    frac = torch.rand(n, sites, 3, generator=rng, dtype=torch.float64)
    cells = 4 * torch.eye(3, dtype=torch.float64) + random_cells(n, seed)
    return Crystals(species, frac, skew(cells, seed, times=2)[0])


def test_distances_agree_with_pymatgen() -> None:
    crystals = batch(24, 6, seed=3)
    ours = distances(crystals, include_self=True)
    for k in range(len(crystals)):
        n = int(crystals.n_atoms[k])
        # pymatgen's own search assumes a reduced cell, so hand it one
        cell = reduce_lattice(crystals.lattice[k : k + 1])[0] @ crystals.lattice[k]
        cart = (crystals.frac[k, :n] @ crystals.lattice[k]).numpy()
        lattice = Lattice(cell.numpy())
        sites = lattice.get_fractional_coords(cart)
        theirs = lattice.get_all_distances(sites, sites)
        np.fill_diagonal(theirs, min(lattice.abc))
        assert np.allclose(ours[k, :n, :n].numpy(), theirs, atol=1e-8)
        assert torch.isinf(ours[k, n:]).all() and torch.isinf(ours[k, :, n:]).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = batch(24, 6, seed=4)
    whole = distances(crystals)
    monkeypatch.setattr("matdesign.crystals.geometry._CHUNK_NUMBERS", 1)
    assert torch.equal(distances(crystals), whole)


def test_min_distance_by_hand() -> None:
    cell = torch.tensor([[[3.0, 0, 0], [0, 4.0, 0], [0, 0, 9.0]]])
    frac = torch.tensor([[[0.0, 0, 0.95], [0.0, 0, 0.05], [0.3, 0.3, 0.5]]])
    crystals = Crystals(torch.tensor([[8, 8, 0]]), frac, cell)
    assert min_distance(crystals).item() == pytest.approx(0.9, abs=1e-6)


def test_self_images_count_only_when_asked() -> None:
    cell = torch.tensor([[[3.0, 0, 0], [0, 4.0, 0], [0, 0, 9.0]]])
    one = Crystals(torch.tensor([[26]]), torch.zeros(1, 1, 3), cell)
    assert math.isinf(min_distance(one).item())
    assert min_distance(one, include_self=True).item() == 3.0
    pair = Crystals(
        torch.tensor([[8, 8]]), torch.tensor([[[0.0] * 3, [0.5] * 3]]), cell
    )
    assert min_distance(pair).item() == pytest.approx(math.sqrt(106) / 2)
    assert min_distance(pair, include_self=True).item() == 3.0


def test_two_atoms_on_one_site() -> None:
    frac = torch.zeros(1, 2, 3, requires_grad=True)
    crystals = Crystals(torch.tensor([[8, 8]]), frac, 4 * torch.eye(3)[None])
    shortest = min_distance(crystals)
    shortest.sum().backward()
    assert shortest.item() == 0.0
    assert frac.grad is not None and frac.grad.isfinite().all()


def test_distance_gradient_matches_finite_differences() -> None:
    crystals = batch(3, 4, seed=8)

    def total(frac: torch.Tensor, lattice: torch.Tensor) -> torch.Tensor:
        out = distances(crystals.replace(frac=frac, lattice=lattice))
        return out[out.isfinite()]

    frac = crystals.frac.clone().requires_grad_()
    lattice = crystals.lattice.clone().requires_grad_()
    assert torch.autograd.gradcheck(total, (frac, lattice), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_min_distance_is_a_property_of_the_crystal(seed: int) -> None:
    """Atom order, a shift, whole numbers, rotation, another cell change nothing."""
    crystals = batch(3, 4, seed)
    rng = generator(seed)
    want = min_distance(crystals, include_self=True)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))
    order = (torch.rand(3, 4, generator=rng) + ~crystals.mask).argsort(
        1
    )  # padding last
    shift = torch.rand(3, generator=rng, dtype=torch.float64)
    other, change = skew(crystals.lattice, seed + 1, times=2)
    for same in (
        crystals.replace(
            frac=crystals.frac.gather(1, order[..., None].expand(-1, -1, 3)),
            species=crystals.species.gather(1, order),
        ),
        crystals.replace(frac=wrap(crystals.frac + shift)),
        crystals.replace(frac=crystals.frac + 3),
        crystals.replace(lattice=crystals.lattice @ turn),
        crystals.replace(lattice=other, frac=crystals.frac @ torch.linalg.inv(change)),
    ):
        assert torch.allclose(min_distance(same, include_self=True), want, atol=1e-7)


def test_supercell_keeps_the_distance_between_images() -> None:
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    small, large = (
        Crystals.from_structures([salt]),
        Crystals.from_structures([salt * 2]),
    )
    assert min_distance(small).item() == pytest.approx(2.82, abs=1e-5)
    assert min_distance(large).item() == pytest.approx(2.82, abs=1e-5)
    assert shortest_vector(small.lattice).item() == pytest.approx(5.64, abs=1e-5)


def test_nan_is_reported_not_hidden() -> None:
    crystals = batch(2, 6, seed=1).replace(
        lattice=torch.full((2, 3, 3), math.nan).double()
    )
    assert min_distance(crystals)[1:].isnan().all()


def test_soft_crystals_are_accepted() -> None:
    crystals = batch(4, 4, seed=9)
    assert torch.equal(min_distance(crystals.soft()), min_distance(crystals))


def test_an_empty_batch() -> None:
    none = Crystals(
        torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, 0, 3), torch.zeros(0, 3, 3)
    )
    assert min_distance(none).shape == (0,)
    assert distances(none).shape == (0, 0, 0)
