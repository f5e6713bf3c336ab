"""Oracles: right numbers for good crystals, a reason for every bad one."""

import contextlib
import os
import time

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError, MatdesignError
from matdesign.loop.guards import Guards
from matdesign.loop.hull import Hull
from matdesign.loop.oracle import ASEOracle, Oracle
from matdesign.loop.results import Results
from matdesign.loop.worker_oracle import unfit

CUBIC = torch.tensor([[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def cell(numbers, frac, edge):
    """One crystal in a cubic cell."""
    frac = torch.as_tensor(frac, dtype=torch.float32)
    return Crystals(torch.tensor([numbers]), frac[None], edge * torch.eye(3)[None])


def alloy(numbers, edge=3.9):
    return cell(numbers, CUBIC, edge)


BAD = {
    "on top": (cell([29, 29], [[0, 0, 0], [0.001, 0, 0]], 4.0), "atoms too close"),
    "zero volume": (
        Crystals(torch.tensor([[29]]), torch.zeros(1, 1, 3), torch.ones(1, 3, 3)),
        "collapsed cell",
    ),
    "huge cell": (cell([29, 29], [[0, 0, 0], [0.01, 0, 0]], 200.0), "empty cell"),
    "lone atom": (cell([29], [[0, 0, 0]], 12.0), "empty cell"),
    "noble gas": (alloy([2, 2, 29, 29]), "no reference energy for He"),
    "nan frac": (
        cell([29], [[float("nan"), 0, 0]], 3.6),
        "coordinates are not numbers",
    ),
    "inf cell": (cell([29], [[0, 0, 0]], float("inf")), "coordinates are not numbers"),
    "needle": (
        Crystals(
            torch.tensor([[29]]),
            torch.zeros(1, 1, 3),
            torch.diag(torch.tensor([200.0, 0.3, 0.3]))[None],
        ),
        "atoms too close",
    ),
    "no atoms": (cell([0], [[0, 0, 0]], 4.0), "no atoms"),
    "unknown to EMT": (alloy([26, 26, 26, 26]), "Error"),
}


class Evil(EMT):
    """EMT that hangs at gold, dies at silver and is confused by platinum."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        numbers = set(atoms.numbers.tolist())
        if 79 in numbers:
            time.sleep(600)
        if 47 in numbers:
            os._exit(1)
        if 78 in numbers:
            raise RuntimeError("what is platinum?")
        super().calculate(atoms, list(properties), system_changes)
        if 46 in numbers:
            self.results["energy"] = float("nan")


ELEMENTS = {"Cu": -0.0070, "Al": -0.0049, "Ni": -0.0136, "Fe": 0.0}


@pytest.fixture(scope="module")
def oracle():
    with ASEOracle(EMT, workers=2, hull=Hull(ELEMENTS), time_limit=30) as made:
        yield made


def test_energies_agree_with_ase(oracle):
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    batch = Crystals.cat(
        [
            alloy([29, 29, 29, 29], 3.5),
            alloy([29, 29, 29, 13]),
            cell([28], [[0, 0, 0]], 2.4),
        ]
    )
    results = oracle.evaluate(batch)
    assert isinstance(oracle, Oracle) and results.ok.all()
    copper = bulk("Cu", a=3.5)
    copper.calc = EMT()
    BFGS(FrechetCellFilter(copper), logfile=None).run(fmax=0.001)
    assert results.energy_per_atom[0] == pytest.approx(
        copper.get_potential_energy(), abs=1e-3
    )
    volume = results.structures.volume[0] / 4
    assert volume == pytest.approx(copper.get_volume(), rel=0.01)
    mixed = 0.75 * ELEMENTS["Cu"] + 0.25 * ELEMENTS["Al"]
    formed = results.energy_per_atom[1] - mixed
    assert results.formation_energy_per_atom[1] == pytest.approx(float(formed))
    assert results.energy_above_hull[1] == pytest.approx(float(formed))
    assert results.steps[0] > 0 and (results.seconds > 0).all()
    assert results.structures.units["energy_per_atom"] == "eV/atom"
    assert torch.equal(results.structures.species, batch.species)


def test_same_numbers_again(oracle):
    batch = Crystals.cat([alloy([29, 29, 28, 13]), alloy([28, 28, 29, 29])])
    first, second = (oracle.evaluate(batch).energy_per_atom for _ in range(2))
    assert torch.equal(first, second)


def test_bad_crystals_are_rows_with_reasons(oracle):
    good = alloy([29, 29, 29, 13])
    batch = Crystals.cat([good, *(crystal for crystal, _ in BAD.values()), good])
    results = oracle.evaluate(batch)
    assert len(results) == len(BAD) + 2
    assert results.ok.tolist() == [True] + [False] * len(BAD) + [True]
    for k, (name, (_, words)) in enumerate(BAD.items(), start=1):
        assert words in results.reason[k], name
        assert not torch.isfinite(results.energy_per_atom[k])
    assert sum(results.failed.values()) == len(BAD)
    assert results.failed["coordinates are not numbers"] == 2
    assert f"2 of {len(BAD) + 2} crystals" in repr(results)
    # the failed are there as they were given
    assert results.structures.lattice[3].equal(batch.lattice[3])


def test_empty_batch(oracle):
    empty = alloy([29, 29, 29, 29])[[]]
    assert len(oracle.evaluate(empty)) == 0
    assert "0 of 0" in repr(oracle.evaluate(empty))


@contextlib.contextmanager
def changed(oracle, **settings):
    """Use the same worker processes with other settings for a while."""
    before = {name: getattr(oracle, name) for name in settings}
    for name, value in settings.items():
        setattr(oracle, name, value)
    try:
        yield oracle
    finally:
        for name, value in before.items():
            setattr(oracle, name, value)


def test_evil_calculator(oracle):
    numbers = [29, 79, 28, 47, 78, 46, 13]
    crystals = Crystals.cat([cell([z], [[0, 0, 0]], 2.6) for z in numbers])
    with ASEOracle(Evil, workers=1, batch=4, time_limit=3) as evil:
        results = evil.evaluate(crystals)
    assert results.ok.tolist() == [True, False, True, False, False, False, True]
    assert results.reason[1] == "time limit 3 s" and results.seconds[1] == 3
    assert results.reason[3] == "worker died: exit code 1"
    assert results.reason[4] == "RuntimeError: what is platinum?"
    assert results.reason[5]
    want = oracle.evaluate(crystals[[0, 2, 6]])
    assert torch.equal(want.energy_per_atom, results.energy_per_atom[[0, 2, 6]])


def test_guards_refuse_but_keep_the_number(oracle):
    with changed(oracle, guards=Guards(volume_factor=1.01)):
        results = oracle.evaluate(alloy([29, 29, 29, 29], 3.5))
    assert results.failed == {"volume change": 1}
    assert torch.isfinite(results.energy_per_atom).all()
    other = Hull({"Cu": -9.0})
    with changed(oracle, _hull=other, hull=other):
        results = oracle.evaluate(alloy([29, 29, 29, 29]))
    assert results.failed == {"formation energy": 1}


def test_not_converged_is_said(oracle):
    with changed(oracle, steps=1, fmax=1e-6):
        results = oracle.evaluate(alloy([29, 29, 29, 13]))
    assert results.reason == ("not converged: 1 steps",)


def test_single_point_and_fixed_cell(oracle):
    crystal = alloy([29, 29, 29, 29], 3.5)
    with changed(oracle, fmax=1e9, relax_cell=False):
        results = oracle.evaluate(crystal)
    atoms = bulk("Cu", a=3.5)
    atoms.calc = EMT()
    assert results.energy_per_atom[0] == pytest.approx(
        atoms.get_potential_energy(), abs=1e-6
    )
    assert torch.allclose(results.structures.lattice, crystal.lattice)


def test_a_broken_oracle_raises():
    def factory():
        raise FileNotFoundError("weights.pt is missing")

    with ASEOracle(factory, workers=1) as oracle:
        with pytest.raises(MatdesignError, match=r"weights.pt is missing"):
            oracle.evaluate(alloy([29, 29, 29, 29]))
    with pytest.raises(DataError, match=r"function that gives a calculator"):
        ASEOracle(EMT())
    with pytest.raises(DataError, match=r"time_limit positive"):
        ASEOracle(EMT, time_limit=0)


def test_unfit_lets_good_cells_pass():
    primitive = Crystals.cat([alloy([29] * 4), cell([29], [[0, 0, 0]], 2.4)])
    assert unfit(primitive) == ["", ""]


def test_results_table(oracle):
    batch = Crystals.cat([alloy([29] * 4), BAD["on top"][0]]).replace(ids=("a", "b"))
    results = oracle.evaluate(batch)
    table = results.to_pandas()
    assert table["id"].tolist() == ["a", "b"] and table["ok"].tolist() == [True, False]
    assert np.isnan(table["energy_above_hull"][1])
    assert table["energy_per_atom"][0] == float(results.energy_per_atom[0])
    part = results[results.ok]
    assert isinstance(part, Results) and len(part) == 1
    assert part.structures.ids == ("a",) and part.reason == ("",)
    text = repr(results)
    assert "failed: 1 atoms too close" in text and "only elements compete" in text


def test_a_factory_is_called_once_per_process(tmp_path):
    side = str(tmp_path / "made")

    def factory():  # as a cell of a notebook would have it
        from ase.calculators.emt import EMT

        with open(side, "a") as file:
            file.write("made\n")
        return EMT()

    with ASEOracle(factory, workers=1) as oracle:
        for _ in range(2):
            crystals = Crystals.cat([alloy([29] * 4), alloy([28] * 4)])
            assert oracle.evaluate(crystals).ok.all()
    assert (tmp_path / "made").read_text() == "made\n"
