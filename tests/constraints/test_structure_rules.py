"""Symmetry, size, coordination, motifs, predictions, novelty: independent oracles."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pymatgen.core import Element, Lattice, Structure
from torch import Tensor

from matdesign.constraints.base import Constraint
from matdesign.constraints.between import Density, NumberOfAtoms, VolumePerAtom
from matdesign.constraints.charge import ElectronegativityOrder
from matdesign.constraints.coordination import Coordination
from matdesign.constraints.motif import Motif
from matdesign.constraints.novelty import Novelty
from matdesign.constraints.plane_nets import Net
from matdesign.constraints.predicted import Property
from matdesign.constraints.spacegroups import CrystalSystem, SpaceGroup
from matdesign.constraints.unfinished import Orbits
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.symmetry.layout import symmetric_layouts
from matdesign.errors import DataError, InfeasibleTarget, UnitError
from matdesign.paths import data_dir

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
PEROVSKITE = Structure(
    Lattice.cubic(3.9),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm",
    Lattice.tetragonal(4.594, 2.959),
    ["Ti", "O"],
    [[0, 0, 0], [0.3053, 0.3053, 0]],
)
WURTZITE = Structure.from_spacegroup(
    "P6_3mc",
    Lattice.hexagonal(3.25, 5.2),
    ["Zn", "O"],
    [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]],
)
QUARTZ = Structure.from_spacegroup(
    "P3_221",
    Lattice.hexagonal(4.913, 5.405),
    ["Si", "O"],
    [[0.4697, 0, 0], [0.4135, 0.2669, 0.1191]],
)
PYROCHLORE = Structure.from_spacegroup(
    "Fd-3m", Lattice.cubic(8.4), ["Fe"], [[0.125, 0.125, 0.125]]
)
KNOWN = [SALT, PEROVSKITE, RUTILE, WURTZITE, QUARTZ, PYROCHLORE]


def batch(*structures: Structure) -> Crystals:
    return Crystals.from_structures(structures)


def turned(structure: Structure, seed: int) -> Structure:
    """The same crystal rotated, with its origin moved, in another and larger cell."""
    random = np.random.default_rng(seed)
    changes = [[[1, 1, 0], [0, 1, 0], [0, 0, 2]], [[2, 0, 0], [0, 1, 1], [0, 0, 1]]]
    made = structure.copy()
    made.make_supercell(changes[seed % 2])
    axes = np.linalg.qr(random.normal(size=(3, 3)))[0]
    lattice = Lattice(np.array(made.lattice.matrix) @ axes)
    shift = random.random(3)
    order = random.permutation(len(made))
    return Structure(
        lattice,
        [made[i].specie for i in order],
        [(made.frac_coords[i] + shift) % 1 for i in order],
    )


# ---- number of atoms -----------------------------------------------------------------


def test_number_of_atoms() -> None:
    crystals = batch(*KNOWN)
    sizes = [len(s) for s in KNOWN]
    for low, high in ((5, 5), (2, 8), (9, 99)):
        one = NumberOfAtoms(low, high)
        assert one.satisfied(crystals).tolist() == [low <= n <= high for n in sizes]
        off = [max(low - n, 0, n - high) for n in sizes]
        assert one.violation(crystals.soft()).tolist() == off
    assert NumberOfAtoms(5).conditions() == {"n_atoms": 5}
    assert NumberOfAtoms(5, 6).conditions() == {}
    with pytest.raises(DataError, match="whole number"):
        NumberOfAtoms(0)
    with pytest.raises(InfeasibleTarget, match="swap"):
        NumberOfAtoms(6, 5)


# ---- symmetry ------------------------------------------------------------------------


def test_groups_and_systems_agree_with_spglib() -> None:
    import spglib
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    many = KNOWN + [turned(s, k) for k, s in enumerate(KNOWN)]
    crystals = batch(*many)
    numbers, systems = [], []
    for s in many:
        found = spglib.get_symmetry_dataset(
            (s.lattice.matrix, s.frac_coords, s.atomic_numbers), symprec=0.01
        )
        numbers.append(int(found.number))
        systems.append(SpacegroupAnalyzer(s, symprec=0.01).get_crystal_system())
    for number in sorted(set(numbers)):
        one = SpaceGroup(number)
        assert one.satisfied(crystals).tolist() == [k == number for k in numbers]
        assert torch.equal(one.violation(crystals) == 0, one.satisfied(crystals))
    for name in sorted({*systems, "triclinic"}):
        one = CrystalSystem(name)
        assert one.satisfied(crystals).tolist() == [k == name for k in systems]
        assert torch.equal(one.violation(crystals) == 0, one.satisfied(crystals))
    assert str(SpaceGroup("Pm-3m", 225)) == "space group 221 (Pm-3m) or 225 (Fm-3m)"
    assert SpaceGroup("Fm-3m").conditions() == {"spacegroup": [225]}
    assert CrystalSystem("cubic").conditions() == {"crystal_system": ["cubic"]}


@pytest.mark.parametrize(
    ("number", "letters"), [(225, [0, 1]), (166, [0, 2]), (136, [0, 5]), (14, [4, 4])]
)
def test_soft_symmetry_is_zero_on_layouts_and_grows_off_them(
    number: int, letters: list[int]
) -> None:
    random = torch.Generator().manual_seed(number)
    layout = symmetric_layouts([number], [letters])
    u = torch.rand(*layout.free.shape, generator=random)
    code = torch.randn(1, 6, generator=random) * 0.1
    code[:, 5] = 1.0
    species = layout.expand_species(torch.tensor([[11, 17]]))
    made = Crystals(species, layout.expand(u), layout.lattice(code)).soft()
    exact = SoftCrystals(
        made.species.double(), made.frac.double(), made.lattice.double(), made.mask
    )
    one = SpaceGroup(number)
    assert float(one.violation(exact)) < 1e-4
    noise = torch.randn(exact.frac.shape, generator=random).double()
    last = 0.0
    for size in (0.01, 0.03):
        moved = SoftCrystals(
            exact.species, exact.frac + size * noise, exact.lattice, exact.mask
        )
        now = float(one.violation(moved))
        assert now > last + 1e-3
        last = now


# ---- coordination --------------------------------------------------------------------


def test_coordination_agrees_with_pymatgen() -> None:
    many = KNOWN[:5] + [turned(s, k) for k, s in enumerate(KNOWN[:5])]
    thin = Structure(Lattice.orthorhombic(1.3, 9, 9), ["Ti"], [[0, 0, 0]])
    many.append(thin)
    crystals = batch(*many)
    for center, other, cutoff in (
        ("Ti", "O", 2.2),
        ("Ti", None, 4.1),
        ("O", "Si", 1.8),
    ):
        counted = []
        for s in many:
            near = s.get_all_neighbors(cutoff)
            counted.append(
                [
                    sum(other in (None, n.specie.symbol) for n in near[i])
                    for i in range(len(s))
                ]
            )
        one = Coordination(center, other, 6, cutoff=cutoff)
        for b, s in enumerate(many):
            found = one.count(crystals)[b, : len(s)]
            assert found.tolist() == counted[b]
        for number in (2, 6, (1, 6)):
            one = Coordination(center, other, number, cutoff=cutoff)
            low, high = number if isinstance(number, tuple) else (number, number)
            expected = []
            for s, count in zip(many, counted, strict=True):
                own = [
                    k
                    for site, k in zip(s, count, strict=True)
                    if site.specie.symbol == center
                ]
                expected.append(bool(own) and all(low <= k <= high for k in own))
            assert one.satisfied(crystals).tolist() == expected
    sharp = Coordination("Ti", "O", 6, cutoff=2.2, width=1e-3)
    both = sharp.violation(crystals), sharp.violation(crystals.soft())
    assert torch.allclose(*both, atol=1e-4), "a sharp step counts"


# ---- electronegativity ---------------------------------------------------------------


def test_order_agrees_with_smact() -> None:
    import smact
    from pymatgen.core import Composition
    from smact.screening import smact_validity

    formulas = ["NaCl", "OF2", "MgO", "CaC2", "Fe2O3", "SO2", "NaK", "HeO", "Cl2O7"]
    random = np.random.default_rng(0)
    for _ in range(100):
        kinds = random.choice(np.arange(1, 93), size=3, replace=False)
        symbols = [Element.from_Z(int(z)).symbol for z in kinds]
        formulas.append("".join(f"{s}{random.integers(1, 5)}" for s in symbols))
    # where smact has no electronegativity (Pm), pymatgen's table may have one
    formulas = [
        f
        for f in formulas
        if all(smact.Element(str(e)).pauling_eneg for e in Composition(f)) or "He" in f
    ]
    rows = [
        [e.Z for e, k in Composition(f).items() for _ in range(int(k))]
        for f in formulas
    ]
    width = max(map(len, rows))
    species = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    n = len(rows)
    crystals = Crystals(species, torch.zeros(n, width, 3), torch.zeros(n, 3, 3))
    one = ElectronegativityOrder("smact14")
    expected = [
        smact_validity(
            Composition(f), include_alloys=False, oxidation_states_set="smact14"
        )
        for f in formulas
    ]
    assert one.satisfied(crystals).tolist() == expected
    assert 10 < sum(expected) < len(expected) - 10
    hard, soft = one.violation(crystals), one.violation(crystals.soft())
    known = hard.isfinite()
    assert (soft[known] <= hard[known] + 1e-5).all(), "a lower bound"
    row, few = torch.tensor([[11, 104]]), _only(11, 17, 19, 9)
    orbits = Orbits(row, torch.ones_like(row), within=few)
    mask = ElectronegativityOrder().allowed(orbits)
    assert mask is not None and mask[0, 1].nonzero().squeeze(1).tolist() == [9, 11, 17]


def _only(*numbers: int) -> Tensor:
    table = torch.zeros(104, dtype=torch.bool)
    table[list(numbers)] = True
    return table


# ---- motifs --------------------------------------------------------------------------

PLANES = {
    "kagome": (Lattice.hexagonal(5.2, 4.0), [[0.5, 0, 0], [0, 0.5, 0], [0.5, 0.5, 0]]),
    "honeycomb": (
        Lattice.hexagonal(2.6 * 3**0.5, 5.1),
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0]],
    ),
    "triangular": (Lattice.hexagonal(2.6, 4.1), [[0, 0, 0]]),
    "square": (Lattice.tetragonal(2.6, 4.3), [[0, 0, 0]]),
    "lieb": (Lattice.tetragonal(5.2, 4.3), [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]),
}


def plane(name: str) -> Structure:
    """One layer of iron on a net, and a carbon atom between the layers."""
    lattice, sites = PLANES[name]
    made = Structure(lattice, ["Fe"] * len(sites), sites)
    made.append("C", [0.2, 0.1, 0.5])
    return made


@pytest.mark.parametrize("name", sorted(PLANES))
def test_motifs_are_found_in_any_cell_and_nowhere_else(name: str) -> None:
    one = Motif(name, bond=2.6)
    own = plane(name)
    crystals = batch(own, turned(own, 0), turned(own, 1))
    assert one.satisfied(crystals).all()
    assert Motif(name, element="Fe").satisfied(crystals).all()
    carbon = len(own) == 2  # one of each in a cell: carbon makes the same net
    found = Motif(name, element="C", bond=2.6).satisfied(crystals)
    assert found.tolist() == [carbon] * 3
    assert not Motif(name, bond=2.9).satisfied(crystals[:1]).any()
    others = batch(*(plane(other) for other in PLANES if other != name))
    assert not one.satisfied(others).any()
    missing = turned(own, 1)
    missing.remove_sites([next(i for i, s in enumerate(missing) if s.specie.Z == 26)])
    one = Motif(name, element="Fe", bond=2.6)
    assert not one.satisfied(batch(missing)).any(), "one atom of the net is gone"
    assert float(one.violation(crystals[:1].soft())) < 1e-3
    assert torch.equal(one.violation(crystals) == 0, one.satisfied(crystals))


def test_nets_in_known_crystals() -> None:
    """Pyrochlore's (111) planes are kagome, graphite honeycomb, fcc square and more."""
    graphite = Structure.from_spacegroup(
        "P6_3/mmc",
        Lattice.hexagonal(2.464, 6.711),
        ["C", "C"],
        [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]],
    )
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0] * 3])
    crystals = batch(PYROCHLORE, graphite, copper.get_primitive_structure())
    expected = {
        "kagome": [True, False, False],
        "honeycomb": [False, True, False],
        "square": [False, False, True],
        "lieb": [False, False, False],
    }
    for name, found in expected.items():
        assert Motif(name).satisfied(crystals).tolist() == found, name
    assert Motif("triangular").satisfied(crystals).tolist()[2]


def test_a_net_of_ones_own_is_found_too() -> None:
    crystal = Structure(
        Lattice.orthorhombic(3.0, 5.0, 9.0),
        ["Fe", "Fe"],
        [[0, 0, 0.5], [0.5, 0.3, 0.5]],
    )
    own = Net("zigzag", ((3.0, 0.0), (0.0, 5.0)), ((0.0, 0.0), (0.5, 0.3)))
    one = Motif(own, element="Fe")
    assert one.satisfied(batch(crystal, turned(crystal, 1))).all()
    assert float(one.violation(batch(crystal).soft())) < 1e-3
    assert not one.satisfied(batch(plane("square"))).any()


@pytest.mark.parametrize("bond", [None, 2.5])
@pytest.mark.parametrize("name", ["kagome", "lieb"])
def test_motif_projection_is_exact(name: str, bond: float | None) -> None:
    random = torch.Generator().manual_seed(2)
    one = Motif(name, element="Fe", bond=bond)
    species = torch.rand(3, 6, 104, generator=random, dtype=torch.float64)
    species[..., 0] = 0
    lattice = 5 * torch.eye(3) + torch.randn(3, 3, 3, generator=random)
    soft = SoftCrystals(
        species / species.sum(-1, keepdim=True),
        torch.rand(3, 6, 3, generator=random, dtype=torch.float64),
        lattice.double(),
        torch.ones(3, 6, dtype=torch.bool),
    )
    assert (one.violation(soft) > 0.1).all()
    moved = one.project(soft)
    assert moved is not None and (one.violation(moved) < 1e-4).all()
    again = one.project(moved)
    assert again is not None
    assert torch.allclose(again.lattice, moved.lattice, atol=1e-6)
    if bond is None:
        assert torch.allclose(moved.volume, soft.volume, rtol=1e-6)
    plan = one.known()
    code = torch.randn(4, 6, generator=random)
    assert torch.allclose(
        plan.project(plan.project(code)), plan.project(code), atol=1e-5
    )


# ---- ranges, predictions, novelty ----------------------------------------------------


@pytest.mark.parametrize("one", [Density(3, 4), VolumePerAtom(11, 13)], ids=str)
def test_cells_are_scaled_into_the_range(one: Constraint) -> None:
    soft = batch(*KNOWN).soft()
    moved = one.project(soft)
    assert moved is not None
    assert (one.violation(moved) < 1e-4).all()
    inside = one.violation(soft) == 0
    assert torch.equal(moved.lattice[inside], soft.lattice[inside])
    assert inside.any() and not inside.all()
    shape = moved.lattice / moved.volume[:, None, None] ** (1 / 3)
    before = soft.lattice / soft.volume[:, None, None] ** (1 / 3)
    assert torch.allclose(shape, before, atol=1e-5)


def _edge(crystals: Crystals | SoftCrystals) -> Tensor:
    return crystals.lattice[:, 0].norm(dim=-1)


def test_a_function_can_be_a_property() -> None:
    crystals = batch(*KNOWN)
    one = Property(_edge, 3, 5, name="first_edge", unit="angstrom")
    edges = [s.lattice.a for s in KNOWN]
    assert one.satisfied(crystals).tolist() == [3 <= a <= 5 for a in edges]
    off = torch.tensor([max(3 - a, 0, a - 5) for a in edges])
    assert torch.allclose(one.violation(crystals), off, atol=1e-5)
    assert str(one) == "predicted first edge from 3 to 5 angstrom"
    broken = Property(lambda c: _edge(c) * math.nan, 3, 5, name="nothing")
    assert not broken.satisfied(crystals).any()
    assert broken.violation(crystals).isinf().all()
    with pytest.raises(DataError, match="name"):
        Property(_edge, 3, 5)
    with pytest.raises(DataError, match="one value per crystal"):
        Property(lambda c: c.frac, 3, 5, name="frac").violation(crystals)


def test_a_trained_network_is_a_property() -> None:
    from matdesign.predictors.shipped import load_predictor

    network = load_predictor("band-gap-mp20")
    crystals = batch(SALT, PEROVSKITE)
    gaps = network.predict(crystals)["band_gap"]
    one = Property(network, 3, 9)
    assert one.unit == "eV" and one.name == "band_gap"
    assert one.satisfied(crystals).tolist() == [3 <= g <= 9 for g in gaps.tolist()]
    soft = crystals.soft()
    assert torch.allclose(one.value(soft), gaps, atol=1e-4)
    with pytest.raises(UnitError, match="eV"):
        Property(network, 3, 9, unit="meV")
    with pytest.raises(DataError, match="band_gap"):
        Property(network, 3, 9, name="hardness")


def test_novelty_knows_a_crystal_in_any_cell() -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    one = Novelty(batch(SALT, RUTILE))
    asked = [turned(SALT, 0), turned(RUTILE, 1), WURTZITE, PEROVSKITE]
    squeezed = SALT.copy()
    squeezed.translate_sites([0], [0.25, 0.1, 0])
    asked.append(squeezed)
    matcher = StructureMatcher()
    expected = [not any(matcher.fit(s, k) for k in (SALT, RUTILE)) for s in asked]
    crystals = batch(*asked)
    assert one.satisfied(crystals).tolist() == expected
    assert expected[:3] == [False, False, True]
    assert torch.equal(one.violation(crystals.soft()) == 0, one.satisfied(crystals))
    with pytest.raises(DataError, match="known crystals"):
        Novelty(batch(SALT)[:0])


NEW: list[Constraint] = [
    SpaceGroup(136),
    SpaceGroup(*range(120, 140)),
    CrystalSystem("tetragonal", "cubic"),
    Coordination("Ti", "O", 6, cutoff=2.2),
    ElectronegativityOrder(),
    Motif("square", bond=3.9),
    Novelty(batch(SALT)),
    Property(_edge, 3, 4, name="edge"),
]


@pytest.mark.parametrize("one", NEW, ids=str)
def test_every_new_constraint_keeps_the_promises_of_all(one: Constraint) -> None:
    crystals = batch(RUTILE, PEROVSKITE, SALT)
    met = one.satisfied(crystals)
    assert met.any() and met.shape == (3,)
    assert torch.equal(one.violation(crystals) <= 1e-6, met)
    assert (one.violation(crystals.soft()) >= 0).all()
    assert repr(one) == one.sentence() and "object at" not in repr(one)
    assert one.satisfied(crystals[:0]).shape == (0,)
    assert one.violation(crystals[:0]).shape == (0,)
    assert one.violation(crystals[:0].soft()).shape == (0,)
    place = torch.arange(crystals.species.shape[1])
    order = (-place * crystals.mask + 99 * ~crystals.mask).argsort(1)  # padding last
    mixed = crystals.replace(
        species=crystals.species.gather(1, order),
        frac=crystals.frac.gather(1, order[..., None].expand(-1, -1, 3)),
    )
    assert torch.equal(one.satisfied(mixed), met)
    broken = crystals.replace(
        frac=crystals.frac * math.nan, lattice=crystals.lattice * math.nan
    )
    if not isinstance(one, ElectronegativityOrder):  # which reads elements alone
        assert not one.satisfied(broken).any()


# ---- gradients -----------------------------------------------------------------------

PALETTE = [8, 11, 22, 26]


@pytest.mark.parametrize(
    "one",
    [
        SpaceGroup(136),
        Coordination("Ti", "O", 6, cutoff=2.5, width=0.5),
        Coordination("Fe", None, (9, 12), cutoff=2.5, width=0.5),
        Motif("kagome"),
        Motif("lieb", element="Fe", bond=2.5),
        ElectronegativityOrder(),
        Density(30, 40),
        Property(_edge, 9, 10, name="edge"),
    ],
    ids=str,
)
def test_gradients(one: Constraint) -> None:
    random = torch.Generator().manual_seed(4)
    logits = torch.randn(1, 4, len(PALETTE), generator=random, dtype=torch.float64)
    frac = torch.rand(1, 4, 3, generator=random, dtype=torch.float64)
    noise = torch.randn(1, 3, 3, generator=random, dtype=torch.float64)
    lattice = 4 * torch.eye(3, dtype=torch.float64) + 0.3 * noise
    mask = torch.ones(1, 4, dtype=torch.bool)

    def value(logits: Tensor, frac: Tensor, lattice: Tensor) -> Tensor:
        species = logits.new_zeros(1, 4, 104)
        species[..., PALETTE] = logits.softmax(-1)
        return one.violation(SoftCrystals(species, frac, lattice, mask))

    inputs = [t.requires_grad_() for t in (logits, frac, lattice)]
    assert float(value(*inputs).detach()) > 0
    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(value, inputs, eps=1e-6, atol=1e-5, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SpaceGroup(), "no group"),
        (lambda: SpaceGroup(231), "1 to 230"),
        (lambda: SpaceGroup("Xm3"), "1 to 230"),
        (lambda: CrystalSystem("cube"), "cubic"),
        (lambda: Coordination("Ti", "O", -1, cutoff=2.0), "0 or more"),
        (lambda: Coordination("Ti", "O", 6, cutoff=-2.0), "cutoff"),
        (lambda: Motif("cage"), "kagome"),
        (lambda: Motif("kagome", bond=-1.0), "positive"),
        (lambda: ElectronegativityOrder("all"), "smact14"),
    ],
)
def test_wrong_arguments_say_what_to_do(make: Callable[[], object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        make()


def test_missing_by_the_error_of_the_network_costs_one_nat() -> None:
    """The card's own figure, read here apart from the package's reader."""
    card = data_dir() / "models" / "energy-prototypes" / "card.json"
    error = json.loads(card.read_text())["test"]["formation_energy_per_atom"]["mae"]
    one = Property("energy-prototypes", high=-90.0, name="formation_energy_per_atom")
    assert one.scale == pytest.approx(error["value"]) and 0.05 < one.scale < 0.3
    assert Property(_edge, 3, 5, name="first_edge").scale == 1.0
