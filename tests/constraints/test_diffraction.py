"""Powder patterns against pymatgen's; what their likeness does and does not depend on."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from pymatgen.analysis.diffraction.xrd import XRDCalculator
from pymatgen.core import Lattice, Structure

import matdesign as design
from matdesign.constraints.powder import CU_K_ALPHA, powder_pattern
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
PEROVSKITE = Structure(
    Lattice.cubic(3.905),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)
SILICON = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.431), ["Si"], [[0, 0, 0]])
TRICLINIC = Structure(
    Lattice.from_parameters(4.1, 5.3, 6.2, 82, 97, 108),
    ["Ca", "V", "O", "O", "F"],
    [
        [0, 0, 0],
        [0.42, 0.51, 0.37],
        [0.2, 0.7, 0.6],
        [0.63, 0.2, 0.1],
        [0.8, 0.45, 0.77],
    ],
)
KNOWN = [SALT, PEROVSKITE, SILICON, TRICLINIC]
EACH = pytest.mark.parametrize("one", KNOWN, ids=["NaCl", "SrTiO3", "Si", "triclinic"])


def batch(*structures: Structure) -> Crystals:
    return Crystals.from_structures(structures)


def undecided(seed: int = 0) -> SoftCrystals:
    """The triclinic crystal and a distorted perovskite, elements half believed."""
    rng = torch.Generator().manual_seed(seed)
    soft = batch(TRICLINIC, PEROVSKITE).soft()
    other = torch.zeros_like(soft.species, dtype=torch.float64)
    other[..., [9, 16, 26, 56]] = torch.rand(
        *soft.mask.shape, 4, generator=rng
    ).double()
    belief = 0.6 * soft.species.double() + 0.4 * other / other.sum(-1, keepdim=True)
    frac = (
        soft.frac.double() + 0.03 * torch.randn(soft.frac.shape, generator=rng).double()
    )
    lattice = soft.lattice.double()
    lattice = lattice + 0.1 * torch.randn(lattice.shape, generator=rng).double()
    return SoftCrystals(belief, frac, lattice, soft.mask)


# ---- against pymatgen ----------------------------------------------------------------


@EACH
def test_the_pattern_is_that_of_pymatgens_peaks(one: Structure) -> None:
    """Its sticks, broadened: every point within 0.002 % of the highest.

    pymatgen leaves out peaks below 0.001 % of the highest.
    """
    grid = torch.linspace(10, 80, 1401, dtype=torch.float64)
    sticks = XRDCalculator(CU_K_ALPHA).get_pattern(one, two_theta_range=(5, 85))
    apart = grid.numpy()[:, None] - sticks.x
    wanted = (sticks.y * np.exp(-4 * math.log(2) * (apart / 0.3) ** 2)).sum(1)
    made = powder_pattern(batch(one), grid, width=0.3)[0].numpy()
    assert np.abs(made / made.max() - wanted / wanted.max()).max() < 2e-5


@EACH
def test_peaks_lie_where_pymatgen_puts_them_and_are_as_high(one: Structure) -> None:
    """Single sharp peaks: within one step of 0.005 degrees, and 1 % of their height."""
    grid = torch.linspace(10, 80, 14001, dtype=torch.float64)
    sticks = XRDCalculator(CU_K_ALPHA).get_pattern(one, two_theta_range=(10, 80))
    made = powder_pattern(batch(one), grid, width=0.05)[0].numpy()
    gaps = np.abs(sticks.x[:, None] - sticks.x) + 1e9 * np.eye(len(sticks.x))
    alone = (gaps.min(1) > 0.3) & (sticks.y > 1)
    assert alone.sum() >= 5
    ratios = []
    for angle, height in zip(sticks.x[alone], sticks.y[alone], strict=True):
        near = np.abs(grid.numpy() - angle) < 0.1
        top = np.flatnonzero(near)[made[near].argmax()]
        assert abs(float(grid[top]) - angle) <= 0.005
        ratios.append(made[top] / height)
    assert np.ptp(ratios) < 0.01 * np.mean(ratios)


def test_absent_reflections_are_absent() -> None:
    """Silicon: 111 and 220 are there, 100, 200 and 222 are not."""
    assert len(SILICON) == 8
    a = 5.431
    grid = torch.linspace(10, 80, 7001, dtype=torch.float64)
    made = powder_pattern(batch(SILICON), grid, width=0.1)[0]

    def height(square: int) -> float:
        angle = 2 * math.degrees(math.asin(CU_K_ALPHA * math.sqrt(square) / (2 * a)))
        return float(made[int((grid - angle).abs().argmin())] / made.max())

    assert height(3) > 0.99 and height(8) > 0.5
    assert max(height(1), height(4), height(12)) < 1e-9


# ---- what it does not depend on ------------------------------------------------------


@EACH
def test_another_writing_of_a_crystal_has_the_same_pattern(one: Structure) -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix, places = one.lattice.matrix, one.frac_coords
    order = rng.permutation(len(one))
    skewed, double = one.copy(), one.copy()
    skewed.make_supercell([[1, 3, 0], [0, 1, -2], [0, 0, 1]])
    double.make_supercell([[2, 0, 0], [1, 1, 0], [0, 0, 1]])
    others = [
        Structure.from_sites([one[i] for i in order]),
        Structure(matrix, one.species, places + rng.random(3)),
        Structure(matrix @ turn, one.species, places),
        one.get_primitive_structure(),
        one.get_reduced_structure(),
        skewed,
        double,
    ]
    wanted = design.Diffraction(one)
    value = wanted.value(batch(one, *others))
    assert torch.allclose(value, torch.ones_like(value), atol=1e-9)
    assert bool(wanted.satisfied(batch(one, *others)).all())
    soft = batch(one).soft()
    moved = dataclasses.replace(soft, frac=soft.frac + torch.tensor([3.0, -2, 1]))
    assert float(wanted.value(moved)) == pytest.approx(1, abs=1e-9)


def test_crystals_together_and_alone_read_the_same() -> None:
    crystals = batch(*KNOWN)
    wanted = design.Diffraction(PEROVSKITE)
    alone = torch.cat([wanted.value(crystals[[i]]) for i in range(4)])
    assert torch.allclose(wanted.value(crystals), alone, atol=1e-12)


# ---- likeness ------------------------------------------------------------------------


def test_a_crystal_is_like_itself_and_unlike_others() -> None:
    crystals = batch(*KNOWN)
    values = torch.stack([design.Diffraction(one).value(crystals) for one in KNOWN])
    assert torch.allclose(values.diag(), torch.ones(4).to(values), atol=1e-12)
    assert torch.allclose(values, values.mT, atol=1e-12)
    assert float((values - torch.eye(4).to(values)).max()) < 0.6
    wanted = design.Diffraction(PEROVSKITE)
    assert wanted.satisfied(crystals).tolist() == [False, True, False, False]
    off = (0.9 - values[1]).clamp(min=0)
    assert torch.allclose(wanted.violation(crystals), off)
    assert str(wanted) == "diffraction pattern at least 0.9 like that of SrTiO3"


def test_likeness_falls_as_the_cell_grows_and_slower_for_wide_peaks() -> None:
    grown = [PEROVSKITE.copy() for _ in range(4)]
    for k, one in enumerate(grown):
        one.scale_lattice(PEROVSKITE.volume * (1 + 0.005 * k) ** 3)
    sharp = design.Diffraction(PEROVSKITE, width=0.5).value(batch(*grown))
    wide = design.Diffraction(PEROVSKITE, width=3.0).value(batch(*grown))
    assert bool((sharp.diff() < 0).all()) and bool((wide[1:] > sharp[1:]).all())


def test_one_hot_beliefs_read_as_finished_crystals_and_half_beliefs_between() -> None:
    crystals = batch(*KNOWN)
    wanted = design.Diffraction(TRICLINIC)
    assert torch.allclose(wanted.value(crystals.soft()), wanted.value(crystals))
    soft = batch(PEROVSKITE).soft()
    mixed = soft.species.clone()
    mixed[0, 1, 22], mixed[0, 1, 40] = 0.5, 0.5
    zirconate = PEROVSKITE.copy()
    zirconate[1] = "Zr"
    both = design.Diffraction(PEROVSKITE).value(batch(zirconate))
    half = design.Diffraction(PEROVSKITE).value(
        dataclasses.replace(soft, species=mixed)
    )
    assert float(both) < float(half) < 1


def test_a_given_pattern_is_as_good_as_the_crystal() -> None:
    wanted = design.Diffraction(PEROVSKITE)
    angles = np.linspace(5, 90, 8501)
    heights = powder_pattern(batch(PEROVSKITE), torch.tensor(angles))[0].numpy()
    measured = design.Diffraction((angles, 7 * heights))
    assert str(measured) == "diffraction pattern at least 0.9 like the given one"
    found = measured.value(batch(*KNOWN))
    assert torch.allclose(found, wanted.value(batch(*KNOWN)), atol=1e-4)


# ---- gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("field", ["species", "frac", "lattice"])
def test_gradients_are_those_of_finite_differences(field: str) -> None:
    soft, wanted = undecided(), design.Diffraction(SALT)
    x = getattr(soft, field).clone().requires_grad_()
    grad = torch.autograd.grad(
        wanted.violation(dataclasses.replace(soft, **{field: x})).sum(), x
    )[0]
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        way = torch.randn(x.shape, generator=rng).double()
        up, down = (
            wanted.violation(
                dataclasses.replace(soft, **{field: x.detach() + h * way})
            ).sum()
            for h in (1e-6, -1e-6)
        )
        slope = float((grad * way).sum())
        assert abs(slope) > 1e-4
        assert float(up - down) / 2e-6 == pytest.approx(slope, rel=1e-4)


def test_it_keeps_what_a_guide_relies_on() -> None:
    train = design.load("perovskites", split="train")[:24]
    found = design.check_constraint(design.Diffraction(train[[3]], 0.6), train)
    verdicts = {row.check: row.verdict for row in found.rows}
    assert found, found
    assert verdicts["satisfied where violation is 0"] == "passed"
    assert verdicts["gradient"] == "passed"
    assert "species, coordinates and cell" in str(found)


def test_a_gradient_guide_brings_patterns_nearer_at_the_same_seed() -> None:
    model = design.load_model("flow-matching-perovskites")
    wanted = design.Diffraction(PEROVSKITE, width=2.0)
    formula = design.Composition("SrTiO3")
    violations = []
    for scale in (0.0, 1.0):
        guide = design.Guide(formula & wanted, "gradient", scale=scale, strict="hard")
        made = model.sample(8, seed=0, steps=10, guide=guide)
        violations.append(float(wanted.violation(made).mean()))
    assert violations[1] < 0.5 * violations[0]


@pytest.mark.parametrize("wavelength", [0.7, "MoKa", "CuKa", CU_K_ALPHA])
def test_the_cell_in_which_a_crystal_is_written_does_not_matter(
    wavelength: float | str,
) -> None:
    """Primitive, conventional, supercells: one pattern."""
    wanted = design.Diffraction(SALT, wavelength=wavelength)
    primitive = SALT.get_primitive_structure()
    ways = [primitive, SALT, SALT * (2, 1, 1)]
    found = [float(wanted.violation(batch(one))[0]) for one in ways]
    assert found == [0, 0, 0]
    alike = [float(wanted.value(batch(one))[0]) for one in ways]
    assert min(alike) > 0.9999
    back = design.Diffraction(SALT * (2, 1, 1), wavelength=wavelength)
    assert float(back.value(batch(primitive))[0]) > 0.9999
    calculator = XRDCalculator(wavelength)
    assert wanted.wavelength == calculator.wavelength


# ---- what has no pattern, and errors -------------------------------------------------


def test_what_has_no_pattern_misses_without_harm_to_its_neighbours() -> None:
    good = batch(PEROVSKITE)
    lattice = torch.stack(
        [
            good.lattice[0],
            torch.eye(3).double() * 200,
            torch.ones(3, 3).double(),
            torch.full((3, 3), torch.nan).double(),
            torch.eye(3).double() * 0.5,
            good.lattice[0],
        ]
    )
    species = good.species.repeat(6, 1)
    species[5, 0] = 99
    crystals = Crystals(species, good.frac.repeat(6, 1, 1), lattice)
    wanted = design.Diffraction(PEROVSKITE)
    found = wanted.violation(crystals).tolist()
    assert found == [0, math.inf, math.inf, math.inf, pytest.approx(0.9), math.inf]
    assert wanted.satisfied(crystals).tolist() == [True] + [False] * 5
    soft = crystals.soft()
    x = soft.frac.clone().requires_grad_()
    v = design.Diffraction(SALT).violation(dataclasses.replace(soft, frac=x))
    grad = torch.autograd.grad(v[[0, 4]].sum(), x)[0]
    assert bool(grad.isfinite().all()) and bool(grad[0].any())
    assert wanted.value(crystals[:0]).shape == (0,)


def test_wrong_input_is_named() -> None:
    two = batch(SALT, SILICON)
    angles = np.linspace(10, 80, 701)
    flat = np.ones(701)
    for target, words in (
        (two, "one crystal; got 2"),
        ("NaCl.cif", "pair of arrays"),
        (None, "pair of arrays"),
        ((angles, flat[:5]), "same length"),
        ((angles, -flat), "0 or more"),
        ((angles * math.nan, flat), "finite"),
        ((angles[::-1].copy(), flat), "rise"),
        ((angles[::20], flat[::20]), "Broaden"),
        ((angles[100:], flat[100:]), "covers 20 to 80"),
        ((angles, 0 * flat), "is zero from 10 to 80"),
        (Structure(Lattice.cubic(90), ["Si"], [[0, 0, 0]]), "over 20,000 reflections"),
        (Structure(Lattice.cubic(3), ["Es"], [[0, 0, 0]]), "element beyond Cf"),
    ):
        with pytest.raises(DataError, match=words):
            design.Diffraction(target)
    for options, words in (
        ({"at_least": 1.0}, "below 1"),
        ({"at_least": math.nan}, "below 1"),
        ({"width": 0.0}, "width"),
        ({"wavelength": -1.5}, "wavelength"),
        ({"wavelength": "CuKz"}, "no radiation is called 'CuKz'.*CuKa"),
        ({"wavelength": [1.5]}, "wavelength"),
        ({"width": "1"}, "width"),
        ({"two_theta": (80, 10)}, "rising"),
        ({"two_theta": (1, 80)}, "stay clear of 0"),
    ):
        with pytest.raises(DataError, match=words):
            design.Diffraction(SALT, **options)
