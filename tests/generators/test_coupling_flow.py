"""`CouplingFlow`: exact inverse and density, symmetries, learning, seeds, saving."""

import math
from typing import Any

import pytest
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import torus_difference
from matdesign.crystals.symmetry.encoded import Encoded, encode
from matdesign.generators.contract import Generator
from matdesign.generators.coupling_flow import CouplingFlow
from matdesign.generators.species_sequence import canonical_order, log_arrangements
from matdesign.generators.torus_flow import Latents, Setting
from matdesign.generators.trainer import fit

SMALL: dict[str, Any] = {
    "width": 16,
    "heads": 2,
    "couplings": 5,
    "bins": 4,
    "frequencies": 2,
}


def scrambled(model: CouplingFlow, size: float = 0.5) -> CouplingFlow:
    """A model whose every weight is drawn, in float64."""
    rng = torch.Generator().manual_seed(7)
    model = model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=size, generator=rng)
    return model.eval()


@pytest.fixture
def loose(eight: Crystals) -> Crystals:
    """Two perovskites off their ideal sites, in a sheared cell, float64."""
    rng = torch.Generator().manual_seed(5)
    two = eight[4:6]
    frac = two.frac.double()
    frac = frac + 0.05 * torch.randn(frac.shape, generator=rng, dtype=torch.float64)
    shear = 0.3 * torch.randn(2, 3, 3, generator=rng, dtype=torch.float64)
    return two.replace(frac=frac % 1, lattice=two.lattice.double() + shear)


@pytest.fixture(scope="module")
def rutile() -> Crystals:
    """Rutile TiO2, fluorite CaF2 and quartz-like SiO2: 1, 0 and 4 free coordinates."""
    from pymatgen.core import Lattice, Structure

    made = [
        Structure.from_spacegroup(
            136,
            Lattice.tetragonal(4.6, 2.96),
            ["Ti", "O"],
            [[0, 0, 0], [0.305, 0.305, 0]],
        ),
        Structure.from_spacegroup(
            225, Lattice.cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25] * 3]
        ).get_primitive_structure(),
        Structure.from_spacegroup(
            152,
            Lattice.hexagonal(4.91, 5.4),
            ["Si", "O"],
            [[0.47, 0, 1 / 3], [0.414, 0.267, 0.119 + 1 / 3]],
        ),
    ]
    return Crystals.from_structures(made)


def made_from(model: CouplingFlow, latents: Latents) -> Encoded:
    """The crystals of latents, layer by layer back from the noise."""
    lay, species = latents.layout, latents.species
    with torch.no_grad():
        vector = model.embedding(len(species), None)
        each, whole = model.encoder(lay, species, vector)
        x = model.lattice_flow.generate(latents.z, whole, lay.code_free)
        free, _ = model.hold_first(lay, species, latents.u)
        about, u = Setting(lay, species, free, each, x), latents.u * free
        for layer, moved in reversed(model.torus_flow.couplings(about)):
            u, _ = layer(u, moved, about, inverse=True)
    return Encoded(lay, species, u, lay.project(model.scales.restore(x)))


def double(data: Encoded) -> Encoded:
    return Encoded(data.layout, data.species, data.u.double(), data.code.double())


# ---- inverse and density ------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["cell", "symmetric"])
def test_forward_takes_back_what_inverse_did(loose, rutile, representation):
    crystals = loose if representation == "cell" else rutile
    data = double(encode(crystals, representation))
    model = CouplingFlow.for_data(data, representation=representation, **SMALL)
    model = scrambled(model)
    latents = model.inverse(data)
    back = made_from(model, latents)
    free, held = model.hold_first(data.layout, data.species, data.u)
    assert (
        torus_difference(latents.u, held) * free
    ).abs().max() > 0.02  # not the identity
    assert torus_difference(back.u, held).abs().max() < 1e-8
    assert (back.code - data.code).abs().max() < 1e-8
    again = model.inverse(back)
    assert torus_difference(again.u, latents.u).abs().max() < 1e-8
    assert (again.z - latents.z).abs().max() < 1e-8


@pytest.mark.parametrize("representation", ["cell", "symmetric"])
def test_log_density_is_that_of_autograds_jacobian(loose, rutile, representation):
    """Change of variables with the full Jacobian of lattice and coordinates at once."""
    crystals = loose[:1] if representation == "cell" else rutile[torch.tensor([2])]
    data = double(encode(crystals, representation))
    model = scrambled(
        CouplingFlow.for_data(data, representation=representation, **SMALL)
    )
    lay, species = data.layout, data.species
    free, held = model.hold_first(lay, species, data.u)
    x = model.scales.standardize(data.code, lay)
    code_free = lay.code_free[0]
    wish = model.embedding(1, None)

    def to_noise(point: torch.Tensor) -> torch.Tensor:
        u, k = held.clone(), x.clone()
        u[free] = point[: int(free.sum())]
        k[0, code_free] = point[int(free.sum()) :]
        each, whole = model.encoder(lay, species, wish)
        z, _ = model.lattice_flow(k, whole, lay.code_free)
        u, _ = model.torus_flow(u, Setting(lay, species, free, each, k))
        return torch.cat([u[free], z[0, code_free]])

    point = torch.cat([held[free], x[0, code_free]])
    jacobian = torch.autograd.functional.jacobian(to_noise, point)
    z = to_noise(point)[int(free.sum()) :]
    exact = (
        torch.linalg.slogdet(jacobian)[1]
        + (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum()
    )
    parts = model.log_prob_parts(data)
    assert abs(float(torch.linalg.slogdet(jacobian)[1])) > 0.1
    # SrTiO3 has one Sr, quartz no choice of origin: the mean over choices has one term
    assert float(parts["lattice"] + parts["coordinates"]) == pytest.approx(
        float(exact.detach()), abs=1e-8
    )
    changes = model.inverse(data).changes
    assert changes.shape == (5, 1)
    assert float(changes.sum()) == pytest.approx(float(parts["coordinates"]), abs=1e-8)


def test_density_of_one_and_two_free_coordinates_integrates_to_one(rutile):
    """Two atoms on two of three axes: the integral over a grid on the torus."""
    data = double(encode(rutile[torch.tensor([0])], "symmetric"))  # rutile: x of oxygen
    model = scrambled(
        CouplingFlow.for_data(data, representation="symmetric", **SMALL), 0.3
    )
    points = 4_000
    grid = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    many = data[torch.zeros(points, dtype=torch.long)]
    where = data.layout.free.nonzero()
    assert len(where) == 1
    u = many.u.clone()
    u[:, where[0, 1], where[0, 2]] = grid
    density = model.log_prob_parts(Encoded(many.layout, many.species, u, many.code))
    assert float(density["coordinates"].exp().mean()) == pytest.approx(1, abs=1e-3)
    assert float(density["coordinates"].std()) > 0.05  # and it is not flat

    # two atoms in P1 with the second one free in x and y, z fixed: 2 of 3 dimensions
    two = Crystals(
        torch.tensor([[11, 17]]), torch.zeros(1, 2, 3), 4.0 * torch.eye(3)[None]
    )
    flow = scrambled(CouplingFlow.for_data(two, **SMALL), 0.3)
    side = 16
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    cube = torch.cartesian_prod(axis, axis, axis)
    frac = torch.zeros(len(cube), 2, 3, dtype=torch.float64)
    frac[:, 1] = cube
    here = Crystals(
        two.species.expand(len(cube), -1),
        frac,
        two.lattice.double().expand(len(cube), 3, 3),
    )
    density = flow.log_prob_parts(here)
    assert float(density["coordinates"].exp().mean()) == pytest.approx(1, abs=1e-2)


def test_density_of_the_lattice_code_integrates_to_one(rutile):
    data = double(encode(rutile[torch.tensor([1])], "symmetric"))  # cubic: volume only
    model = scrambled(CouplingFlow.for_data(data, representation="symmetric", **SMALL))
    points = 20_001
    x = torch.linspace(-60, 60, points, dtype=torch.float64)
    code = data.code.expand(points, 6).clone()
    code[:, 5] = x * float(model.scales.std[5]) + float(model.scales.mean[5])
    many = data[torch.zeros(points, dtype=torch.long)]
    parts = model.log_prob_parts(Encoded(many.layout, many.species, many.u, code))
    total = torch.trapezoid(parts["lattice"].exp(), x)
    assert float(total) == pytest.approx(1, abs=1e-3)


def test_probabilities_of_all_compositions_sum_to_one(eight):
    """Four equal sites and three elements: 81 arrangements, 15 sets."""
    four = Crystals(
        torch.tensor([[3, 3, 8, 9]]), torch.zeros(1, 4, 3), 4.0 * torch.eye(3)[None]
    )
    model = scrambled(CouplingFlow.for_data(four, **SMALL))
    one = torch.tensor([3, 8, 9])
    every = torch.cartesian_prod(one, one, one, one)
    many = Crystals(
        every, torch.zeros(81, 4, 3).double(), four.lattice.expand(81, 3, 3)
    )
    log_p = model.log_prob_parts(many)["species"]
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)
    same = (every.sort(1).values == torch.tensor([3, 3, 8, 9])).all(1)
    assert int(same.sum()) == 12
    assert float(log_p[same].std()) < 1e-12  # all arrangements alike
    layout = encode(many).layout
    count = log_arrangements(layout, every)[same].exp()
    assert torch.allclose(count, torch.full((12,), 12.0).double())
    order = canonical_order(layout, every)
    assert bool((every.gather(1, order).diff(dim=1) >= 0).all())


# ---- symmetries ---------------------------------------------------------------------------


def changed(crystals: Crystals, how: str) -> Crystals:
    rng = torch.Generator().manual_seed(3)
    frac, lattice = crystals.frac, crystals.lattice
    if how == "permutation":
        order = torch.tensor([4, 2, 0, 1, 3])
        return crystals.replace(species=crystals.species[:, order], frac=frac[:, order])
    if how == "translation":
        shift = torch.rand(len(crystals), 1, 3, generator=rng, dtype=torch.float64)
        return crystals.replace(frac=(frac + shift) % 1)
    if how == "integer_shift":
        return crystals.replace(
            frac=frac + torch.randint(-2, 3, frac.shape, generator=rng)
        )
    if how == "rotation":
        turn = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))[0]
        return crystals.replace(lattice=lattice @ turn)
    half = torch.tensor([2.0, 1, 1])
    first = torch.cat([frac / half, frac / half], 1)
    first[:, frac.shape[1] :, 0] += 0.5
    twice = lattice.clone()
    twice[:, 0] *= 2
    return crystals.replace(
        species=torch.cat([crystals.species] * 2, 1), frac=first, lattice=twice
    )


@pytest.mark.parametrize(
    "how", ["permutation", "translation", "integer_shift", "rotation", "supercell"]
)
def test_declared_symmetries_hold_and_the_other_fails(eight, loose, how):
    """Also where the atom at the origin is one of several equal ones."""
    model = scrambled(CouplingFlow.for_data(eight, **SMALL))
    equal = loose.replace(species=torch.tensor([[8, 8, 22, 22, 22], [38, 22, 8, 8, 8]]))
    before, after = model.log_prob(equal), model.log_prob(changed(equal, how))
    assert (how in model.symmetries) == bool((before - after).abs().max() < 1e-7)


def test_orbits_of_one_letter_may_change_places(rutile):
    """Two oxygens on the general position of quartz's group, in either order."""
    data = double(encode(rutile[torch.tensor([2])], "symmetric"))
    layout = type(data.layout).cat([data.layout])
    letter = torch.full_like(layout.letter, 2)
    layout = type(layout)(**{**vars(layout), "letter": letter})
    model = scrambled(CouplingFlow.for_data(data, representation="symmetric", **SMALL))
    allowed = model.scales.allowed
    wish, any_order = model.embedding(1, None), torch.zeros(1, dtype=torch.bool)
    for species in (torch.tensor([[8, 14]]), torch.tensor([[14, 8]])):
        order = canonical_order(layout, species)
        assert species.gather(1, order).tolist() == [[8, 14]]
        log_p = model.sequence.log_prob(
            layout, species, wish, allowed, order, any_order
        )
        assert bool(log_p.isfinite().all())


def test_a_free_origin_leaves_the_density_of_symmetric_crystals_alone():
    """Wurtzite: the group leaves z of the origin free, and both orbits move along."""
    from pymatgen.core import Lattice, Structure

    wurtzite = Structure.from_spacegroup(
        186,
        Lattice.hexagonal(3.25, 5.2),
        ["Zn", "O"],
        [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]],
    )
    data = double(encode(Crystals.from_structures([wurtzite]), "symmetric"))
    model = scrambled(CouplingFlow.for_data(data, representation="symmetric", **SMALL))
    assert data.layout.free.sum() == 2
    before = model.log_prob(data)
    u = (data.u + torch.tensor([0.0, 0.0, 0.3])) % 1 * data.layout.free
    together = Encoded(data.layout, data.species, u, data.code)
    assert torch.allclose(model.log_prob(together), before, atol=1e-9)
    u = data.u.clone()
    u[0, 0, 2] += 0.3
    apart = Encoded(data.layout, data.species, u % 1, data.code)
    assert float((model.log_prob(apart) - before).abs()) > 1e-3


def test_padding_changes_nothing(eight):
    model = scrambled(CouplingFlow.for_data(eight, **SMALL))
    batch = eight.replace(frac=eight.frac.double(), lattice=eight.lattice.double())
    together = model.log_prob(batch)
    alone = torch.cat([model.log_prob(batch[i : i + 1]) for i in range(8)])
    assert torch.allclose(together, alone, atol=1e-9)


# ---- sampling -----------------------------------------------------------------------------


def test_an_untrained_flow_is_uniform_on_the_torus(eight):
    model = CouplingFlow.for_data(eight, **SMALL)
    loss = model.loss(Crystals.cat([eight] * 8), seed=0)
    assert float(loss.terms["coordinates"]) == pytest.approx(0, abs=1e-5)
    assert float(loss.total.detach()) == pytest.approx(
        sum(float(x) for x in loss.terms.values()), rel=1e-5
    )
    states = list(model.trajectory(40, seed=0, n_atoms=5))
    assert [s.step for s in states] == list(range(6))
    assert states[0].t == 1 and states[-1].t == 0
    frac = states[-1].crystals.frac[:, 1:]
    assert abs(float(frac.mean()) - 0.5) < 0.05


def test_samples_have_the_latents_they_were_made_from(rutile):
    """The inverse of samples is uniform: what a calibrated flow looks like."""
    data = encode(rutile[torch.tensor([2])], "symmetric")
    model = CouplingFlow.for_data(data, representation="symmetric", **SMALL)
    model = scrambled(model).float()
    lay, species = (
        data[torch.zeros(2_000, dtype=torch.long)].layout,
        data.species.expand(2_000, -1),
    )
    rng = torch.Generator().manual_seed(1)
    u = torch.rand(lay.free.shape, generator=rng) * lay.free
    z = torch.randn(2_000, 6, generator=rng) * lay.code_free
    made = made_from(model, Latents(lay, species, u, z))
    found = model.inverse(made)
    assert (torus_difference(found.u, u)).abs().quantile(0.99) < 1e-3
    bent = made.u[lay.free]
    counts = torch.histc(bent, 10, 0, 1) / len(bent)
    assert float((counts - 0.1).abs().max()) > 0.02  # the samples are not uniform


def test_asked_compositions_and_patterns_hold(eight):
    model = CouplingFlow.for_data(eight, **SMALL)
    made = model.sample(6, seed=0, conditions={"composition": "SrTiO3"})
    assert {c.composition.reduced_formula for c in made} == {"SrTiO3"}
    made = model.sample(12, seed=0, n_atoms=5, conditions={"composition": "ABX3"})
    assert {c.composition.anonymized_formula for c in made} == {"ABC3"}
    guided = model.sample(
        6, seed=0, n_atoms=5, conditions={"composition": "ABX3"}, scale=2
    )
    assert len(guided) == 6


def test_symmetric_samples_keep_their_space_group(rutile):
    from matdesign.crystals.symmetry.find import spacegroup

    model = CouplingFlow.for_data(rutile, representation="symmetric", **SMALL)
    made = model.sample(12, seed=2)
    assert set(spacegroup(made, 0.01).tolist()) <= {136, 225, 152, 154}
    asked = model.sample(3, seed=0, conditions={"spacegroup": 136})
    assert set(spacegroup(asked, 0.01).tolist()) == {136}


@pytest.mark.parametrize("representation", ["cell", "symmetric"])
def test_it_learns_eight_crystals(eight, representation):
    """60 steps lower all three terms; samples are far denser than those of noise."""
    model = CouplingFlow.for_data(
        eight, representation=representation, width=24, heads=2, couplings=5
    )
    before = model.loss(Crystals.cat([eight] * 8), seed=0).terms
    run = fit(
        model,
        eight,
        steps=60,
        batch_size=16,
        lr=5e-3,
        warmup=10,
        ema=0.9,
        progress=False,
        seed=0,
    )
    after = model.loss(Crystals.cat([eight] * 8), seed=0).terms
    assert run.steps == 60
    assert float(after["species"]) < 0.6 * float(before["species"])
    assert float(after["lattice"]) < float(before["lattice"]) - 1
    if representation == "cell":
        assert float(after["coordinates"]) < -0.5
    noise = CouplingFlow.for_data(eight, representation=representation, **SMALL)
    assert float(model.log_prob(eight).mean()) > float(noise.log_prob(eight).mean()) + 5


def test_seed_and_saved_copy_give_the_same_crystals(eight, tmp_path):
    model = CouplingFlow.for_data(eight, representation="symmetric", **SMALL)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng))
    first, second = model.sample(6, seed=5), model.sample(6, seed=5)
    other = model.sample(6, seed=6)
    copy = Generator.load(model.save(tmp_path))
    assert isinstance(copy, CouplingFlow)
    third = copy.sample(6, seed=5)
    for made in (second, third):
        assert torch.equal(first.frac, made.frac)
        assert torch.equal(first.lattice, made.lattice)
        assert torch.equal(first.species, made.species)
    assert first.lattice.shape == other.lattice.shape
    assert not torch.equal(first.lattice, other.lattice)
    assert torch.equal(model.log_prob(eight), copy.log_prob(eight))
