"""What constraints ask of a generator, what they rule out together, and formula masks."""

import pytest
import torch
from pymatgen.core import Lattice, Structure

from matdesign.constraints.base import Constraint
from matdesign.constraints.between import Between, Density, NumberOfAtoms, VolumePerAtom
from matdesign.constraints.charge import ChargeNeutral, ElectronegativityOrder
from matdesign.constraints.composition import Composition
from matdesign.constraints.coordination import Coordination
from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements, RequiredElements
from matdesign.constraints.motif import Motif
from matdesign.constraints.predicted import Property
from matdesign.constraints.spacegroups import CrystalSystem, SpaceGroup
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import InfeasibleTarget
from matdesign.generators.request import resolve
from matdesign.guidance.guide import contradictions

MASK = 104


def first_edge(crystals: Crystals | SoftCrystals) -> torch.Tensor:
    return crystals.lattice[:, 0].norm(dim=-1)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Density(2, 3) & Density(4, 5), "exclude each other"),
        (Density(2, 3) & Between("density", 4, 5, unit="g/cm^3"), "exclude each other"),
        (
            Property(first_edge, 2, 3, name="edge")
            & Property(first_edge, 4, 5, name="edge"),
            "exclude each other",
        ),
        (SpaceGroup(225) & CrystalSystem("hexagonal"), "exclude each other"),
        (SpaceGroup(225) & SpaceGroup("Pm-3m"), "exclude each other"),
        (NumberOfAtoms(7) & Composition("SrTiO3"), "exclude each other"),
        (NumberOfAtoms(6, 9) & Composition(pattern="ABX3"), "exclude each other"),
        (NumberOfAtoms(2, 4) & NumberOfAtoms(5), "exclude each other"),
        (NumberOfAtoms(2) & Motif("kagome"), "exclude each other"),
        (NumberOfAtoms(1) & RequiredElements("Na", "Cl"), "exclude each other"),
        (OnlyElements.without("O") & RequiredElements("O"), "O is required"),
        (
            OnlyElements.without("O") & Composition("TiO2"),
            "O is required by: formula TiO2",
        ),
        (OnlyElements("Na", "Cl") & Motif("kagome", element="Fe"), "Fe is required"),
        (
            OnlyElements("Na", "Cl") & Coordination("Ti", "O", 6, cutoff=2.4),
            "Ti is required",
        ),
        (MinDistance(2.5) & Motif("kagome", bond=2.0), "exclude each other"),
        (MinDistance(2.5) & Coordination("Ti", "O", 6, cutoff=2.4), "exclude"),
        (
            Coordination("Ti", "O", 6, cutoff=2.2)
            & Coordination("Ti", None, 4, cutoff=2.4),
            "exclude each other",
        ),
        (Composition("NaO") & ElectronegativityOrder(), "exclude each other"),
        (Density(2, 3) & VolumePerAtom(0.1, 0.2), "per atom"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_the_reason(
    wanted: Constraint, says: str
) -> None:
    found = contradictions(wanted)
    assert found and says in "; ".join(found)


@pytest.mark.parametrize(
    "wanted",
    [
        Density(2, 3) & Density(3, 5),
        Property(first_edge, 2, 3, name="edge") & Property(len, 4, 5, name="edge"),
        SpaceGroup(225, 194) & CrystalSystem("hexagonal"),
        NumberOfAtoms(6, 10) & Composition(pattern="ABX3"),
        NumberOfAtoms(3) & Motif("kagome") & CrystalSystem("cubic"),
        MinDistance(1.5) & Coordination("Ti", "O", 6, cutoff=2.4),
        Coordination("Ti", "O", 4, cutoff=2.2)
        & Coordination("Ti", None, 6, cutoff=2.4),
        Composition("NaCl") & ElectronegativityOrder() & ChargeNeutral(),
    ],
    ids=str,
)
def test_what_may_be_is_let_through(wanted: Constraint) -> None:
    assert contradictions(wanted) == []


def test_joint_conditions_are_what_a_generator_reads() -> None:
    wanted = (
        Composition(pattern="ABX3")
        & Composition("SrTiO3")
        & SpaceGroup(221, 225, 194)
        & SpaceGroup("Pm-3m", "P6_3/mmc")
        & CrystalSystem("cubic")
        & NumberOfAtoms(5)
        & Density(2, 9)
    )
    asked = wanted.conditions()
    assert asked == {
        "composition": "SrTiO3",
        "spacegroup": [194, 221],
        "crystal_system": ["cubic"],
        "n_atoms": 5,
    }
    request = resolve(
        asked,
        None,
        3,
        allowed=torch.ones(MASK, dtype=torch.bool),
        histogram=[0] * 5 + [9],
        properties={},
    )
    assert request.n_atoms.tolist() == [5, 5, 5]
    assert request.groups is not None
    assert request.groups.nonzero().squeeze(1).tolist() == [221]
    with pytest.raises(InfeasibleTarget, match="spacegroup"):
        (SpaceGroup(1) & SpaceGroup(2)).conditions()
    with pytest.raises(InfeasibleTarget, match="composition"):
        (Composition("NaCl") & Composition(pattern="ABX3")).conditions()
    assert not wanted.hard and (SpaceGroup(1) & NumberOfAtoms(2)).hard


def test_projections_follow_one_another_and_parts_that_have_none_are_passed() -> None:
    cell = Structure(Lattice.cubic(4.2), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    soft = Crystals.from_structures([cell]).soft()
    wanted = OnlyElements("Na", "Cl") & Density(3, 4)
    moved = wanted.project(soft)
    assert moved is not None and float(Density(3, 4).violation(moved)) < 1e-5
    assert (OnlyElements("Na") & RequiredElements("Na")).project(soft) is None
    assert (OnlyElements("Na") & Motif("kagome")).known() is not None
    assert wanted.known() is None
