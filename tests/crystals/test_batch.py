"""`Crystals` as tensors and as a sequence, and the checks at its door."""

import math
import warnings

import numpy as np
import pytest
import torch
from pymatgen.core import Composition, DummySpecies, Lattice, Structure

from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals, generator
from matdesign.errors import DataError, ShapeError

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
IRON = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
PEROVSKITE = Structure(
    Lattice.cubic(3.9),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)


def three() -> Crystals:
    return Crystals.from_structures(
        [SALT, IRON, PEROVSKITE],
        properties={"energy_per_atom": torch.tensor([-3.0, -8.0, math.nan])},
        units={"energy_per_atom": "eV/atom"},
        labels={"prototype": ("rocksalt", "bcc", "perovskite")},
        ids=["a", "b", "c"],
    )


def test_shapes_and_derived_quantities_agree_with_pymatgen() -> None:
    batch = three()
    assert batch.species.shape == (3, 8) and batch.n_atoms.tolist() == [8, 2, 5]
    for k, one in enumerate([SALT, IRON, PEROVSKITE]):
        assert batch.volume[k].item() == pytest.approx(one.volume, rel=1e-6)
        assert batch.density[k].item() == pytest.approx(one.density, rel=1e-5)
        assert batch.mass[k].item() == pytest.approx(one.composition.weight, rel=1e-6)
        cart = batch.cart[k, : len(one)].numpy()
        assert np.allclose(cart, one.cart_coords, atol=1e-5)
    assert batch.formulas == ("NaCl", "Fe", "SrTiO3")


def test_round_trip_through_structures() -> None:
    for given, back in zip([SALT, IRON, PEROVSKITE], list(three()), strict=True):
        assert [s.specie.symbol for s in given] == [s.specie.symbol for s in back]
        assert np.allclose(given.frac_coords % 1, back.frac_coords, atol=1e-6)
        assert np.allclose(given.lattice.matrix, back.lattice.matrix, atol=1e-5)
    assert three()[1].properties == {
        "energy_per_atom": -8.0,
        "prototype": "bcc",
        "id": "b",
    }


def test_from_structures_is_silent_and_wraps() -> None:
    tiny = IRON.copy()
    tiny.translate_sites([0], [-1e-9, 0, 0], to_unit_cell=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = Crystals.from_structures([tiny])
    assert ((batch.frac >= 0) & (batch.frac < 1)).all()


@pytest.mark.parametrize(
    "which",
    [slice(1, 3), [1, 2], torch.tensor([1, 2]), torch.tensor([False, True, True])],
)
def test_indexing_keeps_everything_together(
    which: slice | list[int] | torch.Tensor,
) -> None:
    part = three()[which]
    assert part.ids == ("b", "c") and part.labels == {
        "prototype": ("bcc", "perovskite")
    }
    assert part.properties["energy_per_atom"][0].item() == -8.0
    assert part.n_atoms.tolist() == [2, 5] and part.units == three().units


def test_one_index_gives_a_structure() -> None:
    batch = three()
    for index in (1, -2, np.int64(1), torch.tensor(1)):
        assert batch[index].composition == Composition("Fe2")
    with pytest.raises(IndexError, match="crystal 3 of 3"):
        batch[3]


def test_an_empty_selection_is_a_batch() -> None:
    none = three()[[]]
    assert len(none) == 0 and repr(none) == "Crystals(empty)" and list(none) == []


def test_cat_joins_widths_labels_and_shared_properties() -> None:
    batch = three()
    small = batch[[1]].replace(properties={})
    both = Crystals.cat([batch[[0]], small])
    assert both.species.shape == (2, 8) and both.properties == {}
    assert both.ids == ("a", "b") and both.labels == {"prototype": ("rocksalt", "bcc")}
    whole = Crystals.cat([batch[:1], batch[1:]])
    assert torch.equal(whole.frac, batch.frac) and whole.labels == batch.labels
    with pytest.raises(ShapeError, match="Give at least one"):
        Crystals.cat([])


def test_soft_and_back() -> None:
    batch = three()
    soft = batch.soft()
    assert soft.species.shape == (3, 8, elements.MAX_Z + 1)
    assert soft.species[..., 0].eq(0).all() and torch.equal(soft.mask, batch.mask)
    assert torch.allclose(soft.density, batch.density)
    assert torch.equal(soft.harden().species, batch.species)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"frac": torch.zeros(3, 2, 3)},
            r"frac does not fit.*\(3, 2, 3\).*\(3, 8, 3\)",
        ),
        ({"lattice": torch.zeros(3, 3)}, r"lattice does not fit"),
        ({"species": torch.zeros(8)}, "Add a leading axis"),
        ({"ids": ("a",)}, r"ids does not fit.*\(1,\), need \(3,\)"),
        ({"labels": {"x": ("a",)}}, r"labels\['x'\].*\(1,\), need \(3,\)"),
        ({"properties": {"e": torch.zeros(2)}}, r"properties\['e'\]"),
    ],
)
def test_misfits_name_both_shapes(change: dict[str, object], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        three().replace(**change)


def test_a_mask_of_another_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\) for 3"):
        three()[torch.tensor([True, False])]


def test_generator_is_seeded_and_never_global() -> None:
    before = torch.get_rng_state()
    assert torch.equal(
        torch.rand(3, generator=generator(4)), torch.rand(3, generator=generator(4))
    )
    rng = generator(None)
    assert (
        generator(rng) is rng and rng.initial_seed() != generator(None).initial_seed()
    )
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (Structure(Lattice.cubic(4), [], []), "no sites"),
        (
            Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0] * 3]),
            "partial occupancy",
        ),
        (Structure(Lattice.cubic(4), [{"Fe": 0.5}], [[0] * 3]), "OrderDisordered"),
        (
            Structure(Lattice.cubic(4), [DummySpecies("X")], [[0] * 3]),
            "unknown element.*X",
        ),
        (Structure(Lattice.cubic(4), ["Og"], [[0] * 3]), "unknown element.*Og"),
        (
            Structure(Lattice.cubic(4), ["H"], [[math.nan, 0, 0]]),
            "site 0 .*not a number",
        ),
        (
            Structure(Lattice([[1, 0, 0], [2, 0, 0], [0, 0, 1]]), ["H"], [[0] * 3]),
            "span a volume",
        ),
        (Structure(Lattice.cubic(math.nan), ["H"], [[0] * 3]), "cell length or angle"),
        (Structure(Lattice.cubic(2e4), ["H"], [[0] * 3]), "unit"),
        (
            Structure(Lattice.cubic(90), ["H"] * 1001, np.zeros((1001, 3))),
            r"max_atoms=1001",
        ),
    ],
)
def test_bad_structures_are_refused_by_name(structure: Structure, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        Crystals.from_structures([IRON, structure], ids=["good", "bad one"])
    assert str(error.value).startswith("bad one")


def test_the_atom_limit_can_be_raised() -> None:
    large = Structure(Lattice.cubic(90), ["H"] * 1001, np.zeros((1001, 3)))
    assert Crystals.from_structures([large], max_atoms=2000).n_atoms.item() == 1001


def test_element_tables() -> None:
    mass = elements.table("mass")
    assert mass.shape == (104,) and mass[0] == 0
    assert mass[26].item() == pytest.approx(55.845)
    assert elements.table("electronegativity")[2].isnan()
    assert elements.table("block")[[1, 8, 26, 92]].tolist() == [0, 1, 2, 3]
    assert elements.atomic_number("Lr") == elements.MAX_Z
    with pytest.raises(DataError, match="'Xx'"):
        elements.atomic_number("Xx")
    with pytest.raises(DataError, match="choose one of"):
        elements.table("colour")
