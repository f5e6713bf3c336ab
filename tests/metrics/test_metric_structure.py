"""Structural validity: each fault has its reason, and no fault stops the rest."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matdesign.crystals.batch import Crystals
from matdesign.metrics.structure import geometry


def caesium_chloride(n=1, edge=4.12):
    frac = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    return Crystals(
        torch.tensor([[55, 17]]).repeat(n, 1),
        frac.repeat(n, 1, 1),
        (edge * torch.eye(3)).repeat(n, 1, 1),
    )


def test_a_sound_crystal_has_its_textbook_figures():
    found = geometry(caesium_chloride())
    assert tuple(found["reason"]) == ("",)
    assert found["volume"][0] == pytest.approx(4.12**3, rel=1e-6)
    assert found["min_distance"][0] == pytest.approx(4.12 * math.sqrt(3) / 2, rel=1e-6)
    assert found["density"][0] == pytest.approx(3.99, abs=0.01)  # handbook: 3.99 g/cm^3


@pytest.mark.parametrize(("apart", "valid"), [(0.499, False), (0.501, True)])
def test_the_threshold_is_where_it_says(apart, valid):
    one = caesium_chloride(edge=10.0)
    frac = one.frac.clone()
    frac[0, 1] = torch.tensor([apart / 10, 0, 0])
    found = geometry(one.replace(frac=frac))
    assert (found["reason"][0] == "") == valid
    assert found["min_distance"][0] == pytest.approx(apart, abs=1e-5)


def test_overlap_across_the_cell_wall_is_caught():
    one = caesium_chloride(edge=6.0)
    frac = torch.tensor([[[0.01, 0, 0], [0.99, 0, 0]]])
    assert "closer than 0.5" in geometry(one.replace(frac=frac))["reason"][0]


def test_overlap_in_a_skewed_cell_is_caught():
    # the nearest image of site 2 lies seven cells away
    lattice = torch.tensor([[[5.0, 0, 0], [35.0, 5.0, 0], [0, 0, 5.0]]])
    spot = torch.tensor([0.1, 0.1, 0.0]) @ torch.linalg.inv(lattice[0])
    frac = torch.stack([torch.zeros(3), spot - spot.floor()])[None]
    found = geometry(Crystals(torch.tensor([[55, 17]]), frac, lattice))
    assert found["min_distance"][0] == pytest.approx(0.1 * math.sqrt(2), abs=1e-4)
    assert "closer than" in found["reason"][0]


def test_every_fault_has_its_reason_and_the_sound_one_stays_sound():
    batch = caesium_chloride(6)
    frac, lattice = batch.frac.clone(), batch.lattice.clone()
    species = batch.species.clone()
    frac[1, 1] = 0.001  # two atoms on one spot
    lattice[2] *= 0.05  # a collapsed cell
    frac[3, 0, 0] = math.nan
    lattice[4, 2] = math.inf
    species[5] = 0
    found = geometry(batch.replace(species=species, frac=frac, lattice=lattice))
    assert tuple(found["reason"]) == (
        "",
        "atoms closer than 0.5 Å",
        "volume below 0.1 Å^3",
        "a coordinate or cell entry is not a number",
        "a coordinate or cell entry is not a number",
        "no atoms",
    )
    assert (
        np.isfinite(found["density"][:3]).all() and np.isnan(found["density"][3:]).all()
    )


def test_flat_cell_has_no_volume_and_no_density():
    one = caesium_chloride()
    lattice = one.lattice.clone()
    lattice[0, 2] = lattice[0, 1]
    found = geometry(one.replace(lattice=lattice))
    assert tuple(found["reason"]) == ("volume below 0.1 Å^3",)
    assert np.isnan(found["density"][0])


def test_one_atom_is_valid_since_its_own_images_do_not_count():
    one = Crystals(torch.tensor([[29]]), torch.zeros(1, 1, 3), 2.5 * torch.eye(3)[None])
    found = geometry(one)
    assert tuple(found["reason"]) == ("",) and math.isinf(found["min_distance"][0])


def test_nan_in_padding_does_no_harm():
    batch = Crystals(
        torch.tensor([[55, 17, 0]]),
        torch.tensor([[[0.0] * 3, [0.5] * 3, [math.nan] * 3]]),
        4.12 * torch.eye(3)[None],
    )
    assert tuple(geometry(batch)["reason"]) == ("",)


@given(st.integers(0, 10_000))
def test_agrees_with_pymatgen_and_ignores_translation_order_and_padding(seed):
    random = torch.Generator().manual_seed(seed)
    n = int(torch.randint(2, 7, (1,), generator=random))
    frac = torch.rand(1, n, 3, generator=random)
    lattice = 3 * torch.eye(3)[None] + torch.rand(1, 3, 3, generator=random)
    one = Crystals(torch.full((1, n), 14), frac, lattice)
    matrix = one[0].distance_matrix
    expected = matrix[~np.eye(n, dtype=bool)].min()
    order = torch.randperm(n, generator=random)
    shift = torch.rand(3, generator=random)
    moved = one.replace(frac=(frac[:, order] + shift) % 1)
    padded = Crystals.cat([moved, caesium_chloride()[:0], big()])[:1]
    for batch in (one, moved, padded):
        assert geometry(batch)["min_distance"][0] == pytest.approx(expected, abs=2e-5)


def big():
    return Crystals(
        torch.full((1, 12), 14),
        torch.arange(36.0).reshape(1, 12, 3) / 36,
        9 * torch.eye(3)[None],
    )


def test_mixed_sizes_keep_their_order():
    batch = Crystals.cat([caesium_chloride(), big(), caesium_chloride(edge=5.0)])
    found = geometry(batch)["min_distance"]
    alone = [geometry(batch[[i]])["min_distance"][0] for i in range(3)]
    assert found.tolist() == pytest.approx(alone)


def test_the_thresholds_can_be_moved():
    one = caesium_chloride()
    assert tuple(geometry(one, shortest=4.0)["reason"]) == ("atoms closer than 4 Å",)
    assert tuple(geometry(one, smallest=100.0)["reason"]) == ("volume below 100 Å^3",)
