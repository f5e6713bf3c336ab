"""Calibration: what was put in comes out, and the error is that of the noise."""

import numpy as np
import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.loop.calibration import Calibration, fit_elements, fractions
from matdesign.loop.hull import Hull

TRUE = {11: -1.3, 12: -1.6, 17: -1.9, 8: -4.9}


@pytest.fixture(scope="module")
def crystals():
    """400 crystals of four elements in three amounts each, and five of neon."""
    rng = torch.Generator().manual_seed(3)
    pick = torch.randint(4, (400, 6), generator=rng)
    species = torch.tensor(list(TRUE))[pick]
    species[torch.rand(400, 6, generator=rng) < 0.3] = 0
    species[:, 0] = torch.tensor(list(TRUE))[pick[:, 0]]
    species[:5, 0] = 10
    species = species.sort(1, descending=True)[0]
    edge = (20.0 * (species > 0).sum(1)) ** (1 / 3)
    lattice = edge[:, None, None] * torch.eye(3)
    return Crystals(species, torch.rand(400, 6, 3, generator=rng), lattice)


def exact(crystals):
    terms = np.zeros(104)
    terms[list(TRUE)] = list(TRUE.values())
    return fractions(crystals) @ terms


def test_fractions_count_atoms(crystals):
    got = fractions(crystals)
    assert got.sum(1) == pytest.approx(np.ones(400)) and (got[:, 0] == 0).all()
    first = crystals.species[7][crystals.mask[7]].tolist()
    assert got[7, first[0]] == pytest.approx(first.count(first[0]) / len(first))


def test_exact_references_come_back_and_rare_elements_do_not(crystals):
    formed = np.linspace(-2, 0, len(crystals))
    made = Calibration.fit("toy", crystals, exact(crystals) + formed, formed)
    assert made.elements == pytest.approx(
        {"Na": -1.3, "Mg": -1.6, "Cl": -1.9, "O": -4.9}
    )
    assert made.error == pytest.approx(0.0, abs=1e-5) and made.crystals == 400
    assert "Ne" not in made.elements  # five crystals are too few
    assert made.volumes == pytest.approx({"Na": 20.0, "Mg": 20.0}, abs=1e-3)


def test_held_out_error_is_that_of_the_noise_and_outliers_do_not_pull(crystals):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, len(crystals))
    noise[::40] += 3.0  # ten wrong entries
    found, left = fit_elements(fractions(crystals), exact(crystals) + noise)
    assert found == pytest.approx(
        {"Na": -1.3, "Mg": -1.6, "Cl": -1.9, "O": -4.9}, abs=0.01
    )
    assert np.nanmedian(np.abs(left)) == pytest.approx(0.0067, abs=0.001)
    assert np.isnan(left[:5]).all() and np.isfinite(left[5:]).all()


def test_a_raw_potential_has_another_reference_for_metals_with_u():
    iron = [[26, 8, 8], [26, 26, 8], [26, 9, 0], [26, 26, 0], [26, 29, 0], [29, 0, 0]]
    species = torch.tensor(iron).repeat(20, 1)
    batch = Crystals(
        species,
        torch.zeros(len(species), 3, 3),
        3 * torch.eye(3).repeat(len(species), 1, 1),
    )
    terms = np.zeros(104)
    terms[[26, 8, 9, 29]] = [-8.4, -4.9, -1.9, -4.1]
    energy = fractions(batch) @ terms
    oxide = (batch.species == 8).any(1) | (batch.species == 9).any(1)
    energy += 2.0 * fractions(batch)[:, 26] * oxide.numpy()
    made = Calibration.fit("raw", batch, energy, np.zeros(len(batch)), raw=True)
    assert made.elements["Fe"] == pytest.approx(-8.4, abs=1e-3)
    assert made.elements["Fe+U"] == pytest.approx(-6.4, abs=1e-3)
    assert made.error < 1e-3
    plain = Calibration.fit("raw", batch, energy, np.zeros(len(batch)))
    assert plain.error > 0.05
    hull = Hull(made.elements)
    hull.calibration = made
    formed = hull.formation_energy(batch, energy)
    assert formed == pytest.approx(np.zeros(len(batch)), abs=1e-3)


def test_round_trip_and_a_file_that_is_none(tmp_path):
    made = Calibration("toy", {"Na": -1.3}, 0.02, {"median": 0.01}, {"Na": 37.0}, 12)
    made.write(tmp_path / "toy.json")
    assert Calibration.read(tmp_path / "toy.json") == made
    (tmp_path / "bad.json").write_text('{"energy": 3}')
    with pytest.raises(DataError, match=r"bad.json is not a calibration"):
        Calibration.read(tmp_path / "bad.json")
