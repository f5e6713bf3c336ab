"""Templates: drawn as often as they occur, filled exactly, filtered by what is asked."""

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.encoded import Encoded, encode
from matdesign.errors import InfeasibleTarget
from matdesign.generators import templates as module
from matdesign.generators.request import resolve
from matdesign.generators.templates import MOST_ORDERS, Templates, distances, orders

NA, CL, SR, CS, MG, CA, K, OXYGEN = 11, 17, 38, 55, 12, 20, 19, 8
SCALES = {"gap": [0.0, 1.0]}


@pytest.fixture(scope="module")
def data(eight: Crystals) -> Encoded:
    """Two rock salts, two caesium chlorides, two perovskites, two fcc metals."""
    gap = torch.tensor([5.0, 5.0, -5.0, -5.0, 1.0, 1.0, 0.0, 0.0])
    return encode(eight.replace(properties={"gap": gap}), "symmetric")


@pytest.fixture(scope="module")
def templates(data: Encoded) -> Templates:
    return Templates.of(data, SCALES)


def ask(conditions=None, n=4, n_atoms=None, histogram=(0, 2, 4, 0, 0, 2)):
    known = torch.ones(104, dtype=torch.bool)
    known[0] = False
    return resolve(
        conditions,
        n_atoms,
        n,
        allowed=known,
        histogram=histogram,
        properties=SCALES,
    )


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_templates_are_drawn_as_often_as_they_occur(templates):
    made = templates.choose(ask(n=4000), rng())
    groups, counts = made.layout.spacegroup.unique(return_counts=True)
    assert groups.tolist() == [221, 225]
    assert counts[1].item() / 4000 == pytest.approx(0.5, abs=0.04)
    sizes = made.n_atoms.bincount(minlength=6) / 4000
    want = torch.tensor([0, 0.25, 0.5, 0, 0, 0.25])
    assert (sizes - want).abs().max() < 0.04
    assert made.open.sum(1).tolist() == made.layout.orbits.sum(1).tolist()
    assert (made.role == -1).all()


def test_orbits_may_share_elements_as_in_the_drawn_row(templates, data):
    made = templates.choose(ask(n=400), rng(), shared=True)
    assert torch.equal(made.role >= 0, made.layout.orbits)
    assert made.open.sum(1).tolist() == made.layout.orbits.sum(1).tolist()
    # metals: one element; salts: two; perovskites: three, the oxygen on one orbit
    for size, roles in ((1, {0}), (2, {0, 1}), (5, {0, 1, 2})):
        for row in made.role[made.n_atoms == size]:
            assert set(row[row >= 0].tolist()) == roles
    most = made.layout.count.masked_fill(made.role != 0, 0).sum(1)
    assert (most[made.n_atoms == 5] == 3).all()


def test_a_composition_needs_no_shared_elements(templates):
    wish = ask({"composition": "SrTiO3"}, n=3)
    made = templates.choose(wish, rng(), shared=True)
    assert (made.role == -1).all() and not made.open.any()


def test_a_drawn_layout_is_that_of_the_data(templates, data):
    made = templates.choose(ask(n_atoms=5, n=1), rng())
    own = data.layout[torch.tensor([4])]
    for name in ("letter", "count", "move", "shift", "free", "code_free", "cell"):
        assert torch.equal(getattr(made.layout, name), getattr(own, name)), name


def test_sizes_and_space_groups_are_kept(templates):
    made = templates.choose(ask(n_atoms=[1, 2, 2, 5]), rng())
    assert made.n_atoms.tolist() == [1, 2, 2, 5]
    made = templates.choose(ask({"spacegroup": 221, "n_atoms": 2}, n=50), rng())
    assert set(made.layout.spacegroup.tolist()) == {221}
    assert set(made.n_atoms.tolist()) == {2}
    made = templates.choose(ask({"crystal_system": "cubic"}, n=50), rng())
    assert set(made.layout.spacegroup.tolist()) == {221, 225}


def test_rows_in_an_asked_range_are_preferred(templates):
    made = templates.choose(ask({"gap": (4, None)}, n=50), rng())
    assert set(made.layout.spacegroup.tolist()) == {225}
    assert set(made.n_atoms.tolist()) == {2}
    made = templates.choose(ask({"gap": (-9, -4)}, n=50), rng())
    assert set(made.layout.spacegroup.tolist()) == {221}


def test_a_known_composition_gets_its_own_template(templates, data):
    made = templates.choose(ask({"composition": "SrTiO3"}, n=20), rng())
    assert made.layout.spacegroup.tolist() == [221] * 20
    assert (made.species == data.species[4]).all()
    assert not made.open.any()


def test_like_elements_take_the_places_of_like_ones(templates, data, monkeypatch):
    # calcium sits where strontium does, and barium titanate is the same template
    made = templates.choose(ask({"composition": "CaTiO3"}, n=50), rng())
    want = torch.where(data.species[4] == SR, CA, data.species[4])
    assert float((made.species == want).all(1).float().mean()) > 0.9
    # potassium chloride is nearer to sodium chloride than to caesium chloride
    monkeypatch.setattr(module, "TAU", 0.02)
    made = templates.choose(ask({"composition": "KF"}, n=50), rng())
    group = made.layout.spacegroup
    table = distances()
    near = table[NA, K] + table[CL, 9] < table[CS, K] + table[CL, 9]
    assert bool(near) == bool((group == 225).float().mean() > 0.9)


def test_votes_are_those_of_the_equation(templates, monkeypatch):
    request = ask({"composition": "KF"}, n=20_000)
    tau, temperature = 0.3, 0.5
    monkeypatch.setattr(module, "TAU", tau)
    monkeypatch.setattr(module, "TEMPERATURE", temperature)
    made = templates.choose(request, rng())
    table, share = distances().double(), {}
    for group, (first, second) in (
        (225, (NA, CL)),
        (225, (OXYGEN, MG)),
        (221, (CL, CS)),
        (221, (35, CS)),
    ):
        for a, b in ((K, 9), (9, K)):
            cost = (table[first, a] + table[second, b]) / 2
            kind = (group, a)  # canonical settings put the lighter element on letter a
            share[kind] = share.get(kind, 0.0) + float(torch.exp(-cost / tau))
    total = sum(v ** (1 / temperature) for v in share.values())
    for (group, z), votes in share.items():
        here = (made.layout.spacegroup == group) & (made.species[:, 0] == z)
        want = votes ** (1 / temperature) / total
        assert float(here.float().mean()) == pytest.approx(want, abs=0.015)


def test_every_composition_comes_out_exactly(templates):
    formulas = ["SrTiO3", "KMgF3", "LiF", "Fe", "Na3ClO"]
    made = templates.choose(ask({"composition": formulas}, n=5), rng())
    request = ask({"composition": formulas}, n=5)
    for i in range(5):
        atoms = made.layout.expand_species(made.species)[i].bincount(minlength=104)
        atoms[0] = 0
        times = atoms.sum() // request.unit[i]
        assert torch.equal(atoms, request.formula[i] * times)


def test_a_pattern_gives_roles_that_add_up(templates):
    made = templates.choose(ask({"composition": "ABX3"}, n=10), rng())
    assert made.open.any() and not made.species.any()
    for i in range(10):
        role, count = made.role[i], made.layout.count[i]
        atoms = [int(count[role == r].sum()) for r in range(3)]
        assert atoms == [3, 1, 1]


def test_a_cell_where_no_template_fits(data):
    held = Templates.of(data)
    request = ask({"composition": ["Na3Cl", "SrTiO3"]}, n=2, n_atoms=[4, 5])
    made = held.choose(request, rng())
    assert made.layout.spacegroup.tolist() == [1, 221]
    assert made.species[0].tolist() == [NA, NA, NA, CL]
    made = held.choose(ask({"composition": "A3X"}, n_atoms=4), rng())
    assert made.layout.spacegroup.tolist() == [1] * 4 and made.open.all()
    strict = ask({"composition": "Na3Cl", "spacegroup": 225}, n_atoms=4)
    with pytest.raises(InfeasibleTarget, match=r"Na3Cl and 4 atoms.*autoregressive"):
        held.choose(strict, rng())


def test_errors_say_what_is_nearest(templates):
    with pytest.raises(InfeasibleTarget, match=r"3 atoms.*nearest sizes are 1, 2, 5"):
        templates.choose(ask(n_atoms=3), rng())
    with pytest.raises(InfeasibleTarget, match=r"space ?group 62.*2(21|25), 2(21|25)"):
        templates.choose(ask({"spacegroup": 62}), rng())


def test_buffers_make_the_round_trip(templates):
    copy = Templates(*templates.shape)
    assert len(copy.index.kinds) == len(templates)  # look-up tables of empty buffers
    copy.load_state_dict(templates.state_dict())
    request = ask({"composition": ["SrTiO3", "ABX3", "KF", "NaCl"]})
    one, two = (held.choose(request, rng(5)) for held in (templates, copy))
    assert torch.equal(one.species, two.species) and torch.equal(one.role, two.role)
    assert torch.equal(one.layout.letter, two.layout.letter)
    assert copy.letters.dtype == copy.species.dtype == torch.uint8


def test_same_seed_same_plan(templates, monkeypatch):
    monkeypatch.setattr(module, "TAU", 1.0)
    monkeypatch.setattr(module, "TEMPERATURE", 1.0)
    request = ask({"composition": "KF"}, n=100)
    one, two, other = (templates.choose(request, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.species, two.species)
    assert not torch.equal(one.species, other.species)


def test_no_crystals(templates):
    assert len(templates.choose(ask(n=0), rng())) == 0


def test_ways_to_place_elements():
    assert len(orders((4, 2, 2, 1, 1, 1))) == 12
    assert len(orders(tuple([1] * 7))) == MOST_ORDERS < 5040
