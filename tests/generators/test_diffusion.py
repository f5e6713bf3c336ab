"""`Diffusion` as a whole: exact predictors, symmetries, learning, seeds, saving."""

import math

import pytest
import torch

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import distances, torus_difference
from matdesign.errors import DataError, ShapeError
from matdesign.generators import sampling
from matdesign.generators.backbone import Prediction
from matdesign.generators.contract import Generator
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.stepwise import Stepwise
from matdesign.generators.trainer import fit

SMALL = {"width": 32, "layers": 2, "heads": 4}


@pytest.fixture
def model(eight: Crystals) -> Diffusion:
    """A small model whose every weight is drawn, in float64."""
    model = Diffusion.for_data(eight, **SMALL).double()
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2, generator=rng)
    return model.eval()


def standard(model: Diffusion, crystals: Crystals) -> torch.Tensor:
    """Return the standardised lattice code of some crystals."""
    data = model.prepare(crystals)
    return model.scales.standardize(data.code, data.layout)


class Knowing(torch.nn.Module):
    """A network that knows the one crystal there is, up to where it lies.

    Given the true crystal, each noisy coordinate should move by the mean-free part of
    the wrapped normal's score; the lattice and species are known outright.
    """

    def __init__(self, model: Diffusion, truth: Crystals) -> None:
        super().__init__()
        self.model, self.truth = [model], truth

    asked = None

    def about(self, layout, scales, species, frac, code, t, condition):
        from matdesign.crystals import wrapped_normal

        model, b = self.model[0], len(species)
        noise = model.frac_noise
        sigma, scale = (f(t)[:, None, None] for f in (noise.sigma, noise.scale))
        away = frac - self.truth.frac[0]
        # the origin that fits best, averaged on the circle
        angle = 2 * math.pi * away
        origin = torch.atan2(angle.sin().mean(1), angle.cos().mean(1)) / (2 * math.pi)
        score = wrapped_normal.score(away - origin[:, None], sigma) / scale
        a, s = (rate[:, None] for rate in model.lattice_noise.rates(t))
        clean = standard(model, self.truth).expand(b, 6)
        v = (a * code - clean) / s.clamp(min=1e-9)
        logits = torch.full((*species.shape, MASK), -50.0)
        logits.scatter_(-1, self.truth.species.expand(b, -1)[..., None], 50.0)
        return Prediction(score - score.mean(1, keepdim=True), v, logits)


def test_a_network_that_knows_the_crystal_makes_it(eight):
    truth = eight[4:5]
    model = Diffusion.for_data(eight, **SMALL)
    model.network = Knowing(model, truth)
    made = model.sample(20, seed=0, n_atoms=5, steps=100)
    assert (made.species == truth.species).all()
    # P is the lattice without its rotation; this cell is a cube
    assert torch.allclose(made.lattice, truth.lattice.expand(20, 3, 3), atol=1e-3)
    gap = (distances(made) - distances(truth)).masked_select(made.mask.any())
    assert gap.abs().max() < 0.1  # angstrom


def test_loss_of_the_exact_predictor_is_at_its_floor(eight):
    """For one known crystal lattice and species carry no doubt; coordinates do.

    What is left in `frac` is the spread of the score around its mean-free projection,
    for which the origin has to be guessed: at small widths close to zero.
    """
    truth = eight[4:5]
    batch = Crystals.cat([truth] * 256)
    model = Diffusion.for_data(eight, **SMALL)
    untrained = model.loss(batch, seed=0)
    model.network = Knowing(model, truth)
    exact = model.loss(batch, seed=0)
    assert float(untrained.terms["frac"]) == pytest.approx(1.0, abs=0.05)
    assert float(exact.terms["lattice"]) < 1e-4
    assert float(exact.terms["species"]) < 1e-4
    assert float(exact.terms["frac"]) < 0.5 * float(untrained.terms["frac"])
    assert float(exact.total) == pytest.approx(
        sum(float(x) for x in exact.terms.values()), rel=1e-5
    )


def test_an_untrained_model_calls_all_seen_elements_equally_likely(eight):
    model = Diffusion.for_data(eight, **SMALL)
    seen = len(eight.species.unique()) - 1
    species = float(model.loss(Crystals.cat([eight] * 20), seed=1).terms["species"])
    assert species == pytest.approx(math.log(seen), abs=1e-4)


# ---- symmetries ---------------------------------------------------------------------------


def outputs(model: Diffusion, crystals: Crystals) -> Prediction:
    t = torch.linspace(0.05, 0.95, len(crystals), dtype=torch.float64)
    return ask(model, crystals, t)


def ask(model: Diffusion, crystals: Crystals, t: torch.Tensor) -> Prediction:
    data = model.prepare(crystals)
    x = model.scales.standardize(data.code.double(), data.layout)
    u = data.u.double()
    return model.prediction(data.layout, data.species, u, x, t, None, 0.0)


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
    first = torch.cat(
        [frac / torch.tensor([2.0, 1, 1]), frac / torch.tensor([2.0, 1, 1])], 1
    )
    first[:, frac.shape[1] :, 0] += 0.5
    twice = lattice.clone()
    twice[:, 0] *= 2
    return crystals.replace(
        species=torch.cat([crystals.species] * 2, 1), frac=first, lattice=twice
    )


@pytest.fixture
def five(eight: Crystals) -> Crystals:
    """Two perovskites off their ideal sites, in a sheared cell, float64."""
    rng = torch.Generator().manual_seed(5)
    two = eight[4:6]
    frac = two.frac.double()
    frac = frac + 0.05 * torch.randn(frac.shape, generator=rng, dtype=torch.float64)
    shear = 0.3 * torch.randn(2, 3, 3, generator=rng, dtype=torch.float64)
    return two.replace(frac=frac % 1, lattice=two.lattice.double() + shear)


@pytest.mark.parametrize(
    "how", ["permutation", "translation", "integer_shift", "rotation"]
)
def test_declared_symmetries_hold(model, five, how):
    assert how in Diffusion.symmetries
    other = changed(five, how)
    a, b = outputs(model, five), outputs(model, other)
    if how == "permutation":
        order = torch.tensor([4, 2, 0, 1, 3])
        a = a._replace(frac=a.frac[:, order], species=a.species[:, order])
    # float64; the lattice code passes an eigendecomposition
    assert torch.allclose(a.frac, b.frac, atol=1e-8)
    assert torch.allclose(a.lattice, b.lattice, atol=1e-8)
    assert torch.allclose(a.species.exp(), b.species.exp(), atol=1e-8)


def test_supercell_is_not_declared_and_does_not_hold(model, five):
    assert "supercell" not in Diffusion.symmetries
    double = changed(five, "supercell")
    a, b = outputs(model, five), outputs(model, double)
    assert not torch.allclose(a.species[:, 0].exp(), b.species[:, 0].exp(), rtol=1e-3)


def test_padding_does_not_change_the_outputs(model, eight):
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    together = ask(model, eight, t)
    for i, n in enumerate(eight.n_atoms.tolist()):
        alone = ask(model, eight[i : i + 1], t[i : i + 1])
        assert torch.allclose(alone.frac[0], together.frac[i, :n], atol=1e-9)
        assert torch.allclose(alone.lattice[0], together.lattice[i], atol=1e-9)


# ---- learning and sampling ----------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(eight: Crystals) -> tuple[Diffusion, float]:
    model = Diffusion.for_data(eight, width=64, layers=2, heads=4)
    fit(model, eight, steps=250, batch_size=64, lr=2e-3, warmup=20, ema=0.97)
    return model, model.loss(Crystals.cat([eight] * 32), seed=0).total.item()


def test_it_learns_eight_crystals(learned, eight):
    model, loss = learned
    assert loss < 3.2  # untrained: 1 + 1 + ln 11 = 4.4
    made = model.sample(64, seed=0, steps=50)
    known = {tuple(sorted(z for z in row if z)) for row in eight.species.tolist()}
    found = [
        tuple(sorted(z for z in row if z)) in known for row in made.species.tolist()
    ]
    assert sum(found) > 25  # noise: below one in a hundred
    volume = (eight.volume / eight.n_atoms).log()
    got = (made.volume / made.n_atoms).log()
    assert float(got.mean()) == pytest.approx(float(volume.mean()), abs=0.3)


def test_same_seed_same_crystals(learned):
    model, _ = learned
    a, b, c = (model.sample(6, seed=s, steps=8) for s in (1, 1, 2))
    assert torch.equal(a.species, b.species)
    assert torch.equal(a.frac, b.frac) and torch.equal(a.lattice, b.lattice)
    assert not torch.equal(a.frac, c.frac)


def test_save_and_load_give_the_same_crystals(learned, tmp_path):
    model, _ = learned
    again = Diffusion.load(model.save(tmp_path / "m"))
    a, b = model.sample(5, seed=3, steps=6), again.sample(5, seed=3, steps=6)
    assert torch.equal(a.species, b.species)
    assert torch.equal(a.frac, b.frac) and torch.equal(a.lattice, b.lattice)
    assert again.config == model.config
    assert type(Generator.load(tmp_path / "m")) is Diffusion


def test_a_fresh_seed_is_reported_and_repeats(learned):
    model, _ = learned
    made = model.sample(3, steps=4)
    again = model.sample(3, steps=4, seed=made.info["seed"])
    assert torch.equal(made.frac, again.frac)
    assert made.info["steps"] == 4
    redrawn = made.info["network_evaluations"] - 3 * (4 + 3 + 1)
    assert redrawn % (4 + 3 + 1) == 0 and (redrawn > 0) == (made.info["redrawn"] > 0)
    assert made.info["generator"] == "Diffusion" and made.info["seconds"] > 0


def test_asked_sizes_are_made(learned):
    model, _ = learned
    assert model.sample(4, seed=0, steps=3, n_atoms=7).n_atoms.tolist() == [7] * 4
    sizes = [3, 1, 5, 2]
    made = model.sample(4, seed=0, steps=3, n_atoms=sizes, batch_size=2)
    assert made.n_atoms.tolist() == sizes
    drawn = model.sample(60, seed=0, steps=1).n_atoms.unique().tolist()
    assert set(drawn) <= {1, 2, 5}
    assert len(model.sample(0, seed=0)) == 0


@pytest.mark.parametrize("wrong", [0, -2, 1000, [1, 2, 3]])
def test_sizes_that_cannot_be_are_refused(learned, wrong):
    with pytest.raises(ShapeError, match="n_atoms"):
        learned[0].sample(2, n_atoms=wrong)


def test_trajectory_goes_from_noise_to_data(learned):
    model, _ = learned
    states = list(model.trajectory(3, steps=10, seed=0))
    assert [s.step for s in states] == list(range(11))
    assert states[0].t == 1.0 and states[-1].t == 0.0
    for state in states:
        soft = state.soft
        assert torch.allclose(soft.species.sum(-1), soft.mask.float(), atol=1e-5)
        assert (soft.frac >= 0).all() and (soft.frac < 1).all()
        assert (state.crystals.volume > 0).all()
        assert (soft.species[..., 0] == 0).all()
    assert states[-1].soft.species.max(-1).values[states[-1].soft.mask].min() == 1.0
    # elements never seen in training are never proposed
    unseen = ~model.scales.allowed
    assert states[0].soft.species[..., unseen].max() == 0


def test_trajectory_leaves_gradients_to_its_reader(learned):
    model, _ = learned
    for _ in model.trajectory(1, steps=2, seed=0):
        assert torch.is_grad_enabled()


def test_lattices_stay_within_the_training_range(learned, eight):
    model, _ = learned
    made = model.sample(64, seed=1, steps=5)
    x, scales = standard(model, made), model.scales
    assert (x >= scales.low - 1e-3).all() and (x <= scales.high + 1e-3).all()


def test_sampling_leaves_the_number_of_threads_alone(learned):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = learned[0].sample(2, seed=0, steps=2)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one = learned[0].sample(2, seed=0, steps=2)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.frac, two.frac)


def test_a_guide_takes_over(learned):
    model, _ = learned

    class Fixed:
        def sample(self, model, n, **options):
            return options

    options = model.sample(3, guide=Fixed(), seed=4, steps=5, n_atoms=2, batch_size=9)
    assert options.pop("conditions") is None and options.pop("scale") == 1.0
    assert options == {"seed": 4, "steps": 5, "n_atoms": 2, "batch_size": 9}


def test_repr_says_what_it_is(learned):
    text = repr(learned[0])
    for part in (
        "Diffusion",
        "parameters",
        "8 crystals of 1-5 atoms",
        "width 64",
        "Na",
    ):
        assert part in text


def test_for_data_needs_crystals(eight):
    with pytest.raises(DataError, match="empty"):
        Diffusion.for_data(eight[:0])
    with pytest.raises(ShapeError, match="steps"):
        next(Diffusion.for_data(eight, **SMALL).trajectory(1, steps=0))


def test_config_rebuilds_the_model(eight):
    model = Diffusion.for_data(eight, **SMALL)
    again = Diffusion(**model.config)
    assert again.config == model.config
    assert set(model.loss(eight, seed=0).terms) == {"frac", "lattice", "species"}


def test_noise_ends_where_the_data_began(learned, eight):
    """At t = 0 the coordinates have moved by 0.005 of an edge, species not at all."""
    model, _ = learned
    rng = torch.Generator().manual_seed(0)
    zero = torch.zeros(8)
    layout = model.prepare(eight).layout
    frac, _ = model.frac_noise.add(eight.frac, layout, zero, rng)
    assert torus_difference(eight.frac, frac).abs().max() < 0.03
    assert torch.equal(model.species_noise.add(eight.species, zero, rng), eight.species)


@pytest.mark.parametrize("name", ["vae-prototypes", "flow-matching-prototypes"])
def test_a_batch_holds_what_the_caches_of_a_processor_do(name, monkeypatch):
    made = design.load_model(name)
    most, every = made.default_batch_size[0], {"seed": 0, "steps": 1}
    sizes = []
    plain = sampling.draw

    def spy(model, some, **options):
        sizes.append(len(some))
        return plain(model, some, **options)

    monkeypatch.setattr(sampling, "draw", spy)
    one = made.sample(130, **every)
    assert sizes == {64: [64, 64, 2], 32: [32] * 4 + [2]}[most]
    other = made.sample(130, batch_size=most, **every)
    assert torch.equal(one.frac, other.frac)
    sizes.clear()
    made.sample(130, batch_size=made.default_batch_size[1], **every)
    assert sizes == [130]


@pytest.mark.parametrize(
    "name", ["autoregressive-prototypes", "coupling-flow-prototypes"]
)
def test_models_that_go_from_orbit_to_orbit_take_like_numbers_of_orbits(
    name, monkeypatch
):
    """Batches follow each other in orbits; particles of one crystal stay together."""
    made = design.load_model(name)
    spans, plain = [], sampling.draw

    def spy(model, some, **options):
        orbits = some.layout.orbits.sum(1)
        copies = options["controller"].particles if options["controller"] else 1
        most = orbits.view(-1, copies).amax(1)
        spans.append((len(some), int(most.min()), int(most.max())))
        return plain(model, some, **options)

    monkeypatch.setattr(sampling, "draw", spy)
    assert made.bucketing == "orbits"
    made.sample(150, seed=0)
    made.sample(
        40,
        seed=0,
        guide=design.Guide(design.Density(4, 6), "steer", particles=4, strict="hard"),
    )
    once = made.default_batch_size[0]
    free, steered = spans[:2], spans[2:]
    assert [n for n, *_ in free] == [once, 150 - once]
    assert [n for n, *_ in steered] == [once, 160 - once]
    for some in (free, steered):
        assert some[0][2] <= some[1][1]
        assert some[0][1] < some[1][2]


def test_a_family_with_steps_must_say_how_uncertain_its_previews_are(model):
    class Silent(Stepwise):
        loss = Diffusion.loss
        predict = Diffusion.predict
        step = Diffusion.step

    with pytest.raises(TypeError, match="preview_std"):
        Silent(model.config)
