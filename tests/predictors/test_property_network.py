"""Property networks: what leaves a prediction alone, gradients, learning, files."""

import json
import math

import pytest
import torch

from matdesign.crystals.batch import Crystals, SoftCrystals, generator
from matdesign.errors import DataError
from matdesign.generators import storage
from matdesign.generators.run import Run
from matdesign.generators.trainer import fit, training
from matdesign.predictors.features import Moments, neighbours
from matdesign.predictors.network import PropertyNetwork

SMALL = {"width": 32, "layers": 2, "channels": 8, "mixed": 8, "members": 2}


@pytest.fixture(scope="module")
def data(eight):
    """Sixteen crystals without symmetry, sheared and shaken, with two properties."""
    rng = generator(3)
    twice = Crystals.cat([eight, eight])
    shake = 0.03 * torch.randn(twice.frac.shape, generator=rng)
    shear = torch.eye(3) + 0.05 * torch.randn(16, 3, 3, generator=rng)
    values = torch.randn(16, generator=rng)
    return Crystals(
        twice.species,
        (twice.frac + shake * twice.mask[..., None]) % 1.0,
        twice.lattice @ shear,
        properties={"energy": values - 2, "gap": (3 * values).clamp(min=0.0)},
        units={"energy": "eV/atom", "gap": "eV"},
    )


@pytest.fixture(scope="module")
def net(data):
    """An untrained network in double precision, so that tolerances can be tight."""
    made = PropertyNetwork.for_data(
        data, properties=["energy", "gap"], floors={"gap": 0.0}, **SMALL
    )
    return made.double().eval()


def double(crystals: Crystals) -> Crystals:
    return crystals.replace(
        frac=crystals.frac.double(), lattice=crystals.lattice.double()
    )


def raw(net: PropertyNetwork, crystals: Crystals) -> torch.Tensor:
    """Values before floors, so that no floor hides a difference."""
    with torch.no_grad():
        return net._values(double(crystals))


# ---- geometry ---------------------------------------------------------------------------


def test_shells_of_rock_salt(eight):
    salt = eight[[0]]
    a = 5.64
    found = neighbours(salt, 6.0)
    d = found.vector.norm(dim=1)[found.i == 0]
    shells = {1: 6, 2: 12, 3: 8, 4: 6}  # neighbours at sqrt(k) a / 2
    for k, count in shells.items():
        at = math.sqrt(k) * a / 2
        assert int((d - at).abs().lt(1e-3).sum()) == count
    assert len(d) == sum(shells.values())


def test_neighbours_of_a_skewed_cell_are_all_found(data):
    one = data[[4]]
    change = torch.tensor([[1.0, 3, 0], [0, 1, -4], [0, 0, 1]])
    skewed = one.replace(
        lattice=change @ one.lattice, frac=one.frac @ torch.linalg.inv(change)
    )
    from pymatgen.core import Lattice, Structure

    keep = skewed.mask[0]
    structure = Structure(
        Lattice(skewed.lattice[0].double().numpy()),
        skewed.species[0][keep].tolist(),
        skewed.frac[0][keep].double().numpy(),
    )
    expected = sorted(structure.get_neighbor_list(5.0)[3].tolist())
    ours = sorted(neighbours(skewed, 5.0).vector.norm(dim=1).tolist())
    assert ours == pytest.approx(expected, abs=1e-4)


def test_moments_multiply_to_powers_of_cosines():
    moments = Moments(degree=3)
    rng = generator(0)
    a, b = (torch.randn(4, 3, generator=rng).double() for _ in range(2))
    cosine = torch.nn.functional.cosine_similarity(a, b)
    radial = moments._radial(a.norm(dim=1), moments.coarse_centres, moments.near)
    other = moments._radial(b.norm(dim=1), moments.coarse_centres, moments.near)
    shape = (4, moments.directed, moments.coarse)
    first = moments.of_pairs(a)[:, moments.radial :].view(shape)
    second = moments.of_pairs(b)[:, moments.radial :].view(shape)
    for degree in (1, 2, 3):
        rows = moments.degree_of == degree
        product = (first[:, rows] * second[:, rows]).sum(1)
        expected = cosine[:, None] ** degree * radial * other
        assert torch.allclose(product, expected, atol=1e-6)


def test_neighbours_enter_and_leave_smoothly():
    moments = Moments()
    d = torch.tensor([moments.near, moments.radius], dtype=torch.float64)
    at = torch.stack([d, d * 0, d * 0], dim=1)
    before, after = moments.of_pairs(at * (1 - 1e-6)), moments.of_pairs(at)
    assert float((before - after).abs().max()) < 1e-5
    assert float(after[1].abs().max()) == 0.0


# ---- what must not change a prediction --------------------------------------------------


def test_order_of_the_sites(net, data):
    place = torch.arange(data.species.shape[1])
    order = (-place * data.mask + 99 * ~data.mask).argsort(1)  # padding last
    turned = data.replace(
        species=data.species.gather(1, order),
        frac=data.frac.gather(1, order[..., None].expand(-1, -1, 3)),
    )
    assert torch.allclose(raw(net, turned), raw(net, data), atol=1e-9)


def test_translation_and_whole_cells(net, data):
    move = torch.tensor([0.31, -0.72, 0.55]) + torch.tensor([2.0, -1, 3])
    moved = data.replace(frac=double(data).frac + move.double())
    assert torch.allclose(raw(net, moved), raw(net, data), atol=1e-9)


def test_rotation_and_mirror(net, data):
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator(1)).double())
    for turn in (q, -q):
        turned = data.replace(lattice=double(data).lattice @ turn)
        assert torch.allclose(raw(net, turned), raw(net, data), atol=1e-9)


def test_choice_of_the_cell(net, data):
    change = torch.tensor([[1.0, 2, 0], [0, 1, -1], [0, 0, 1]]).double()
    exact = double(data)
    other = exact.replace(
        lattice=change @ exact.lattice, frac=exact.frac @ torch.linalg.inv(change)
    )
    assert torch.allclose(raw(net, other), raw(net, data), atol=1e-9)


def test_doubled_cell(net, data):
    exact = double(data)
    keep = torch.cat([exact.mask, exact.mask], 1)
    half = torch.tensor([0.5, 1.0, 1.0]).double()
    frac = exact.frac * half
    shift = torch.tensor([0.5, 0.0, 0.0]).double()
    order = (~keep).int().argsort(dim=1, stable=True)  # padding comes last
    twice = Crystals(
        (torch.cat([exact.species, exact.species], 1) * keep).gather(1, order),
        torch.cat([frac, frac + shift], 1).gather(
            1, order[..., None].expand(-1, -1, 3)
        ),
        exact.lattice / half[:, None],
    )
    assert torch.allclose(raw(net, twice), raw(net, data), atol=1e-9)


def test_company_in_a_batch(net, data):
    alone = torch.cat([raw(net, data[[i]]) for i in range(len(data))], dim=1)
    assert torch.allclose(alone, raw(net, data), atol=1e-9)


def test_what_must_change_it_does(net, data):
    before = raw(net, data)
    swapped = data.species.clone()
    swapped[0, :2] = swapped[0, :2].flip(0)  # Na and Cl trade places: still rock salt?
    swapped[0, 0] = 19
    for other in (
        data.replace(lattice=data.lattice * 1.02),
        data.replace(species=swapped),
    ):
        assert not torch.allclose(raw(net, other)[:, 0], before[:, 0], atol=1e-5)


# ---- the soft path ----------------------------------------------------------------------


def test_soft_is_hard_on_one_hot(net, data):
    hard = net.predict(double(data))
    for name in net.properties:
        soft = net.predict_soft(double(data).soft(), name)
        assert torch.allclose(soft.float(), hard[name], atol=1e-6)


def test_gradients_agree_with_finite_differences(net, data):
    one = double(data[[0, 4]]).soft()
    rng = generator(5)
    mixed = 0.9 * one.species + 0.1 * torch.rand(one.species.shape, generator=rng)
    mixed = mixed * one.mask[..., None]

    def value(species, frac, lattice):
        soft = SoftCrystals(species, frac, lattice, one.mask)
        return net.predict_soft(soft, "energy").sum()

    inputs = [mixed, one.frac, one.lattice]
    free = [x.clone().requires_grad_() for x in inputs]
    slopes = torch.autograd.grad(value(*free), free)
    for k, slope in enumerate(slopes):
        way = torch.randn(inputs[k].shape, generator=rng).double()
        if k < 2:
            way = way * one.mask[..., None]
        ends = []
        for sign in (-1e-5, 1e-5):
            moved = list(inputs)
            moved[k] = inputs[k] + sign * way
            ends.append(float(value(*moved).detach()))
        expected = (ends[1] - ends[0]) / 2e-5
        assert float((slope * way).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert abs(expected) > 1e-6


def test_below_the_floor_the_value_stays_and_the_slope_leads_up(data):
    net = PropertyNetwork.for_data(
        data, properties=["energy", "gap"], floors={"gap": 0.0}, **SMALL
    ).double()
    middle = raw(net, data)[..., 1].mean()
    net.baseline[:, 1] -= middle  # half of the crystals below the floor
    soft = double(data).soft()
    lattice = soft.lattice.clone().requires_grad_()
    free = SoftCrystals(soft.species, soft.frac, lattice, soft.mask)
    gap = net.predict_soft(free, "gap")
    metals = (raw(net, data)[..., 1] < 0).all(0)
    assert bool(metals.any()) and not bool(metals.all())
    assert bool((gap[metals] == 0).all())
    (slope,) = torch.autograd.grad(gap.sum(), lattice)
    assert bool((slope[metals].abs().amax((1, 2)) > 0).all())


def test_coincident_sites_have_finite_gradients(net, data):
    soft = double(data[[4]]).soft()
    frac = (soft.frac * 0).requires_grad_()
    value = net.predict_soft(
        SoftCrystals(soft.species, frac, soft.lattice, soft.mask), "energy"
    )
    (slope,) = torch.autograd.grad(value.sum(), frac)
    assert bool(value.isfinite().all()) and bool(slope.isfinite().all())


# ---- learning ---------------------------------------------------------------------------


def test_learns_sixteen_crystals(data):
    net = PropertyNetwork.for_data(
        data, properties=["energy", "gap"], floors={"gap": 0.0}, seed=0, **SMALL
    )
    before = (net.predict(data)["energy"] - data.properties["energy"]).abs().mean()
    fit(net, data, steps=60, batch_size=16, lr=5e-3, warmup=10, seed=0)
    found = net.predict(data)
    for name, values in found.items():
        error = (values - data.properties[name]).abs().mean()
        assert error < 0.05, name
    assert before > 0.3
    assert float(found["gap"].min()) == 0.0


def test_unknown_values_are_left_out(data):
    values = data.properties["energy"].clone()
    values[::2] = torch.nan
    partly = data.replace(properties={**data.properties, "energy": values})
    net = PropertyNetwork.for_data(partly, properties="energy", **SMALL)
    run = fit(net, partly, steps=3, batch_size=16)
    assert math.isfinite(run.history[-1].loss)
    assert all(bool(p.isfinite().all()) for p in net.parameters())


def test_baseline_is_the_line_through_the_composition(data):
    values = torch.where((data.species == 8).any(1), -3.0, 1.0)
    made = data.replace(properties={"energy": values})
    net = PropertyNetwork.for_data(made, properties="energy", **SMALL)
    assert float(net.baseline[8, 0]) < float(net.baseline[29, 0])
    assert float(net.baseline[92, 0]) == pytest.approx(float(values.mean()), abs=1e-4)


def test_a_resumed_training_ends_with_the_same_weights(data, tmp_path):
    def made():
        return PropertyNetwork.for_data(data, properties="energy", seed=1, **SMALL)

    options = {"steps": 6, "batch_size": 8, "seed": 2, "warmup": 2}
    whole, halves = made(), made()
    for _ in training(whole, data, **options):
        pass
    file = tmp_path / "half.safetensors"
    again = {**options, "checkpoint": file, "checkpoint_every": 3}
    for step in training(halves, data, **again):
        if step.step == 4:  # killed after step 3 was saved
            break
    halves, run = made(), Run()
    for _ in training(halves, data, **again, run=run):
        pass
    assert run.resumed == 1 and run.steps == 6
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)
    other = {**again, "seed": 3}
    with pytest.raises(DataError, match="another training"):
        next(training(made(), data, **other))


# ---- files and errors -------------------------------------------------------------------


def test_save_and_load_give_the_same_output(data, tmp_path):
    net = PropertyNetwork.for_data(
        data, properties=["energy", "gap"], floors={"gap": 0.0}, **SMALL
    )
    net.record = {"name": "tiny", "steps": 0}
    again = PropertyNetwork.load(net.save(tmp_path / "tiny"))
    assert again.record == net.record and not again.training
    assert again.floors == (None, 0.0) and again.units == ("eV/atom", "eV")
    assert torch.equal(again.seen, net.seen)
    for name, values in net.predict(data).items():
        assert torch.equal(again.predict(data)[name], values)


def test_files_of_something_else_are_refused(data, tmp_path):
    net = PropertyNetwork.for_data(data, properties="energy", **SMALL)
    folder = net.save(tmp_path / "tiny")
    path = folder / storage.FACTS
    facts = json.loads(path.read_text())
    for change, says in (
        ({"class": "Diffusion"}, "holds a Diffusion"),
        ({"config": {**facts["config"], "width": 16}}, "does not fit"),
        ({"config": {"wide": 16}}, "does not fit"),
    ):
        path.write_text(json.dumps(facts | change))
        with pytest.raises(DataError, match=says):
            PropertyNetwork.load(folder)


def test_what_cannot_be_predicted_is_named(data):
    with pytest.raises(DataError, match=r"'colour'.*energy"):
        PropertyNetwork.for_data(data, properties=["colour"], **SMALL)
    with pytest.raises(DataError, match="gap"):
        PropertyNetwork.for_data(
            data, properties="energy", floors={"gap": 0.0}, **SMALL
        )
    net = PropertyNetwork.for_data(data, properties=["energy", "gap"], **SMALL)
    with pytest.raises(DataError, match="energy, gap"):
        net.predict_soft(data.soft())
    with pytest.raises(DataError, match="colour"):
        net.predict_soft(data.soft(), "colour")
    bare = data.replace(properties={"energy": data.properties["energy"]})
    with pytest.raises(DataError, match="no gap"):
        fit(net, bare, steps=1)
    with pytest.raises(DataError, match="nothing to train on"):
        fit(net, data[:0], steps=1)


def test_elements_without_data_are_judged_by_their_chemistry(data):
    net = PropertyNetwork.for_data(data, properties="energy", **SMALL)
    species = data.species.clone()
    species[3, 0] = 92
    strange = data.replace(species=species)
    assert bool(net.predict(strange)["energy"].isfinite().all())
    # where nothing was learned, the chemistry code alone speaks
    assert bool((net.members[0].species.learned.weight[92] == 0).all())


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_broken_crystal_is_judged_nan_and_its_neighbours_are_not(net, data, wrong):
    broken = double(data)
    broken.lattice[2, 0, 0] = wrong
    broken.frac[5, 0, 1] = wrong
    values = net.predict(broken)["energy"]
    assert values.isnan().nonzero().flatten().tolist() == [2, 5]
    kept = [i for i in range(16) if i not in (2, 5)]
    assert torch.allclose(values[kept], net.predict(double(data))["energy"][kept])


def test_flat_and_collapsed_cells_do_no_harm(net, data):
    flat = double(data)
    flat.lattice[1, 2] *= 1e-3
    flat.lattice[4] *= 0.1
    flat.lattice[7] = 0.0
    assert bool(net.predict(flat)["energy"].isfinite().all())


def test_an_empty_batch_gives_empty_predictions(data):
    net = PropertyNetwork.for_data(data, properties="energy", **SMALL)
    assert net.predict(data[:0])["energy"].shape == (0,)
    assert net.predict_soft(data[:0].soft()).shape == (0,)


def test_the_network_prints_what_it_predicts(data):
    net = PropertyNetwork.for_data(
        data, properties=["energy", "gap"], floors={"gap": 0.0}, **SMALL
    )
    text = repr(net)
    assert "gap (eV, at least 0)" in text and "not trained yet" in text
