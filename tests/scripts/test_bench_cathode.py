"""The case of the battery cathode: what can give an electron, and its substitution."""

import torch
from bench import cathode

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.loop.proposers import on_grid


def test_a_host_is_neutral_where_a_metal_can_give_the_electron() -> None:
    for formula, fits in {"LiFePO4": True, "Li2Mn4O8": True, "LiFeO2": False}.items():
        assert (cathode.charge_left(on_grid(formula))[0] == 0) == fits, formula
    assert cathode.charge_left(on_grid("LiPO3")).isinf().all()
    assert abs(float(cathode.oxygen(on_grid("LiFePO4"))) - 4 / 7) < 1e-6


def test_known_oxides_become_oxides_of_lithium() -> None:
    known = Crystals.cat([on_grid(x) for x in ("NaCoO2", "KNbO3", "NaCl", "NaClO3")])
    made = cathode.LithiumSubstitution(known).sample(9, seed=0)
    assert len(made) == 2  # chlorine has no element of its group among ours
    allowed = design.OnlyElements("Li", "O", *cathode.METALS)
    assert allowed.satisfied(made).all()
    assert ((made.species == 3).sum(1) == torch.ones(2)).all()
