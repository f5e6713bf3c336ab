"""Duplicates: found as pymatgen's StructureMatcher finds them, and by exact key."""

import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matdesign.crystals.batch import Crystals
from matdesign.loop.known import Known


def salt(edge=5.64, swap=False):
    names = ["Cl", "Na"] if swap else ["Na", "Cl"]
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(edge), names, [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def one(structure):
    return Crystals.from_structures([structure])


def test_other_settings_of_a_crystal_are_found():
    known = Known()
    known.add("salt", one(salt()))
    for other in (
        salt(5.8),
        salt(swap=True),
        salt().get_primitive_structure(),
        salt().make_supercell([2, 1, 1], in_place=False),
        salt().copy().perturb(0.02),
    ):
        assert known.find(one(other)) == "salt"


def test_different_crystals_are_not():
    known = Known()
    known.add("salt", one(salt()))
    caesium = Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    other = salt()
    other.replace_species({"Na": "K"})
    assert known.find(one(caesium)) is None and known.find(one(other)) is None


def test_agrees_with_the_matcher_on_random_crystals():
    rng = torch.Generator().manual_seed(0)
    base = [salt(), salt().get_primitive_structure()]
    batch = []
    for k in range(12):
        shaken = base[k % 2].copy()
        shake = 0.15 * k * torch.randn(len(shaken), 3, generator=rng).numpy()
        for i, move in enumerate(shake):
            shaken.translate_sites([i], move, frac_coords=False)
        batch.append(shaken)
    matcher = StructureMatcher()
    agree = 0
    for i, first in enumerate(batch):
        known = Known()
        known.add("first", one(first))
        for second in batch[i + 1 :]:
            # float32 rounding of the batch may decide a case on the edge
            found = known.find(one(second)) is not None
            agree += found == matcher.fit(one(first)[0], one(second)[0])
    assert agree >= 64  # of 66


def test_broken_crystals_are_known_by_their_key_alone():
    broken = one(salt()).replace(lattice=torch.zeros(1, 3, 3))
    nan = one(salt())
    nan = nan.replace(frac=nan.frac * float("nan"))
    known = Known()
    for name, crystal in (("flat", broken), ("nan", nan)):
        known.add(name, crystal)
        assert known.find(crystal) == name
    assert known.find(one(salt())) is None
