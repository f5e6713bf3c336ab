"""`VAE`: bounds against exact values, symmetries, masks, learning, seeds, saving."""

import dataclasses
import itertools
import math
import warnings

import pytest
import torch

import matdesign as design
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.geometry import min_distance, torus_difference
from matdesign.crystals.symmetry.encoded import Encoded, encode
from matdesign.crystals.symmetry.layout import symmetric_layouts
from matdesign.crystals.symmetry.wyckoff import wyckoff_table
from matdesign.errors import DataError, InfeasibleTarget, ShapeError
from matdesign.generators import elbo
from matdesign.generators.contract import Generator
from matdesign.generators.elbo import Latent, MixturePrior, Normal
from matdesign.generators.latent_space import arc, decode, walk, with_mixture
from matdesign.generators.planning import plan_cells
from matdesign.generators.trainer import fit
from matdesign.generators.vae import VAE
from matdesign.guidance.masks import Masks

SMALL = {"width": 32, "layers": 2, "heads": 4, "latent": 8, "min_distance": 0.0}
BOTH = ("cell", "symmetric")


def awake(eight: Crystals, representation: str, **options) -> VAE:
    """A small model in float64 whose zero layers are drawn too."""
    model = VAE.for_data(eight, representation=representation, **SMALL, **options)
    model = model.double().eval()
    rng = generator(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng, dtype=p.dtype))
    return model


def fine(crystals: Crystals) -> Crystals:
    return crystals.replace(
        frac=crystals.frac.double(), lattice=crystals.lattice.double()
    )


# ---- the bound against an exact value -----------------------------------------------------


def test_bounds_of_a_linear_gaussian_are_in_order_and_below_the_exact_value():
    """x = 2 z + noise: log p(x) is known; q is on purpose too wide and off centre."""
    x = torch.linspace(-3, 3, 5, dtype=torch.float64).repeat(400)
    noise, zero = 0.5, torch.zeros(2000, 1).double()
    exact = elbo.Normal(zero, zero)
    total = math.sqrt(4 + noise**2)
    truth = -0.5 * (x / total).square() - math.log(total * math.sqrt(2 * math.pi))

    def log_joint(z):
        miss = (x - 2 * z[:, 0]) / noise
        given = -0.5 * miss.square() - math.log(noise * math.sqrt(2 * math.pi))
        return given + exact.log_prob(z)

    best, spread = 2 * x / (4 + noise**2), noise / total
    off = elbo.Normal((best + 0.1)[:, None], zero + math.log(0.3))
    weights = elbo.log_weights(log_joint, off, samples=50, rng=generator(0))

    def mean(bound):
        return bound.view(400, 5).mean(0)

    low, high = weights.mean(0), elbo.importance_bound(weights)
    ratio = math.log(spread / 0.3) + (0.3**2 + 0.1**2) / (2 * spread**2) - 0.5
    gap = mean(truth - low)  # the divergence of q from the exact posterior
    assert torch.allclose(gap, torch.full_like(gap, ratio), atol=0.02)  # 20,000 draws
    assert (low <= high).all()
    assert (mean(low) + 0.1 < mean(high)).all()
    assert (mean(high) < mean(truth) + 0.01).all()
    true = elbo.Normal(best[:, None], zero + math.log(spread))
    tight = elbo.log_weights(log_joint, true, samples=3, rng=generator(0))
    assert torch.allclose(tight, truth.expand(3, 2000), atol=1e-10)


def test_divergence_is_the_mean_of_its_draws():
    many = torch.ones(50_000, 1)
    q = elbo.Normal(many * torch.tensor([0.5, -1]), many * torch.tensor([-0.7, 0.2]))
    p = elbo.Normal(many * torch.zeros(2), many * torch.zeros(2))
    z = q.draw(generator(0))
    mean = (q.log_prob(z) - p.log_prob(z)).mean()
    assert float(mean) == pytest.approx(float(q.kl()[0]), abs=0.02)


def test_bounds_of_a_crystal_are_in_order(eight):
    for representation in BOTH:
        model = VAE.for_data(eight, representation=representation, **SMALL).eval()
        few = model.log_weights(eight, samples=8, seed=0)
        low, high = few.mean(0), elbo.importance_bound(few)
        assert (low <= high + 1e-4).all()
        assert torch.equal(low, model.elbo(eight, samples=8, seed=0))
        assert torch.equal(high, model.log_prob(eight, samples=8, seed=0))


def test_loss_is_the_bound_when_nothing_is_free(eight):
    """In evaluation mode, with no condition and no free nats, up to the extra passes."""
    model = awake(eight, "symmetric", free_nats=0.0, passes=0)
    data = encode(fine(eight), "symmetric")
    loss = model.loss(data, seed=0)
    parts = sum(float(x) for x in loss.terms.values())
    assert float(loss.total.detach()) == pytest.approx(parts, rel=1e-9)


# ---- von Mises ----------------------------------------------------------------------------


def test_von_mises_is_normalised():
    x = torch.arange(4096, dtype=torch.float64) / 4096
    for kappa in (0.0, 0.5, 8.0, 900.0):
        k = torch.full_like(x, kappa)
        density = elbo.log_von_mises(x, k).exp()
        assert float(density.mean()) == pytest.approx(1.0, abs=1e-9)


def test_averaging_over_the_origin_is_exact():
    rng = generator(0)
    x = torch.rand(2, 4, 3, generator=rng, dtype=torch.float64)
    kappa = 6 * torch.rand(2, 4, 3, generator=rng, dtype=torch.float64)
    mask = torch.ones(2, 4, 3, dtype=torch.bool)
    mask[1, 3] = False
    shifts = torch.arange(2048, dtype=torch.float64) / 2048
    moved = x[..., None] - shifts
    each = elbo.log_von_mises(moved, kappa[..., None]) * mask[..., None]
    brute = each.sum(1).exp().mean(-1).log()
    closed = elbo.log_von_mises_any_origin(x, kappa, mask)
    assert torch.allclose(brute, closed, atol=1e-6)


# ---- skeletons ----------------------------------------------------------------------------


def every_skeleton(group: int, largest: int, kinds: tuple[int, ...]):
    """Yield all sorted orbit lists (letter, element) of at most `largest` atoms."""
    table = wyckoff_table()
    count, fixed = table.count[group], table.freedom[group] == 0
    tokens = [(letter, z) for letter in range(27) if count[letter] for z in kinds]
    for n in range(1, largest + 1):
        for row in itertools.combinations_with_replacement(tokens, n):
            letters = [letter for letter, _ in row]
            size = sum(int(count[letter]) for letter in letters)
            twice = [x for x in set(letters) if letters.count(x) > 1]
            if size <= largest and not any(fixed[x] for x in twice):
                yield row


@pytest.mark.parametrize("group", [1, 2, 123, 221])
def test_probabilities_of_all_skeletons_sum_to_one(group):
    model = VAE(
        elements=[3, 9],
        size_histogram=[0, 1, 1, 1],
        **{
            f"code_{k}": [v] * 6
            for k, v in zip(("mean", "std", "low", "high"), (0, 1, -3, 3))
        },
        representation="symmetric",
        **SMALL,
    ).double()
    rows = list(every_skeleton(group, 3, (3, 9)))
    layout = symmetric_layouts([group] * len(rows), [[w for w, _ in r] for r in rows])
    species = torch.zeros_like(layout.letter)
    for i, row in enumerate(rows):
        species[i, : len(row)] = torch.tensor([z for _, z in row])
    n, blank = len(rows), torch.zeros
    data = Encoded(
        layout, species, blank(*species.shape, 3).double(), blank(n, 6).double()
    )
    z = torch.randn(1, 8, generator=generator(1)).double().expand(n, -1)
    with torch.no_grad():
        terms = model.sequence.log_prob(
            z, blank(n, 32).double(), data, model.scales.allowed
        )
    total = (terms["letters"] + terms["species"]).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-9)


def test_the_decoder_draws_with_the_probabilities_it_states():
    """P-1 with two atoms at most and one element: frequencies against log_prob."""
    model = VAE(
        elements=[3],
        size_histogram=[0, 1, 1],
        **{
            f"code_{k}": [v] * 6
            for k, v in zip(("mean", "std", "low", "high"), (0, 1, -3, 3))
        },
        representation="symmetric",
        **SMALL,
    ).eval()
    n = 4000
    z = torch.randn(1, 8, generator=generator(1)).expand(n, -1)
    request, blank = model.request(n, None, {"spacegroup": 2}), torch.zeros(n, 32)
    about = request, request.n_atoms, model.scales.allowed
    layout, _, met = model.sequence.draw(z, blank, *about, generator(2))
    assert met.all()
    data = Encoded(layout, 3 * layout.orbits.long(), layout.free * 0.0, blank[:, :6])
    with torch.no_grad():
        said = model.sequence.log_prob(z, blank, data, model.scales.allowed)[
            "letters"
        ].exp()
    rows = zip(layout.letter.tolist(), layout.orbits.sum(1).tolist())
    names = [tuple(row[:many]) for row, many in rows]
    for name in set(names):
        share = names.count(name) / n
        p = float(said[names.index(name)])
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-6


def test_wishes_hold_always(eight):
    model = VAE.for_data(eight, representation="symmetric", **SMALL).eval()
    made = model.sample(16, seed=0, conditions={"composition": "SrTiO3"})
    assert set(made.formulas) == {"SrTiO3"}
    made = model.sample(16, seed=0, conditions={"composition": "ABX3", "n_atoms": 5})
    for one in made:
        assert sorted(one.composition.get_el_amt_dict().values()) == [1, 1, 3]
    made = model.sample(16, seed=0, conditions={"n_atoms": 4}, scale=2.0)
    assert (made.n_atoms == 4).all()
    cells = VAE.for_data(eight, **SMALL).eval()
    made = cells.sample(16, seed=0, conditions={"composition": "SrTiO3"})
    assert set(made.formulas) == {"SrTiO3"}
    with pytest.raises(InfeasibleTarget, match="no arrangement"):
        model.sample(
            1,
            seed=0,
            conditions={"spacegroup": 225, "n_atoms": 6, "composition": "NaCl"},
        )


def test_space_groups_hold_on_every_sample(eight):
    """spglib finds all operations of the asked group, and as a rule no more."""
    import spglib

    from matdesign.crystals.symmetry.find import spacegroup
    from matdesign.crystals.symmetry.wyckoff import operations

    model = VAE.for_data(eight, representation="symmetric", **SMALL).eval()
    exact = 0
    for group in (2, 12, 62, 139, 166, 194, 221):
        made = model.sample(4, seed=group, conditions={"spacegroup": group})
        order = len({turn.tobytes() for turn in operations(group)[0]})
        for one in made:
            cell = (one.lattice.matrix, one.frac_coords, one.atomic_numbers)
            with warnings.catch_warnings():  # spglib announces a change of its errors
                warnings.simplefilter("ignore", DeprecationWarning)
                found = len(spglib.get_symmetry(cell, symprec=0.01)["rotations"])
            assert found % order == 0
        exact += int((spacegroup(made, 0.01) == group).sum())
    assert exact >= 20


def test_new_templates_are_reachable(eight):
    model = VAE.for_data(eight, representation="symmetric", **SMALL).eval()
    known = encode(eight, "symmetric").layout
    seen = {
        (int(g), tuple(w[: int((c > 0).sum())]))
        for g, w, c in zip(known.spacegroup, known.letter.tolist(), known.count)
    }
    made = encode(model.sample(20, seed=0), "symmetric").layout
    new = {
        (int(g), tuple(w[: int((c > 0).sum())]))
        for g, w, c in zip(made.spacegroup, made.letter.tolist(), made.count)
    }
    assert len(new - seen) > 10


# ---- symmetries ---------------------------------------------------------------------------


def changed(crystals: Crystals, how: str) -> Crystals:
    rng = generator(3)
    frac, lattice = crystals.frac, crystals.lattice
    if how == "permutation":
        order = torch.tensor([4, 2, 0, 1, 3])
        return crystals.replace(species=crystals.species[:, order], frac=frac[:, order])
    if how == "translation":
        shift = torch.rand(len(crystals), 1, 3, generator=rng, dtype=torch.float64)
        return crystals.replace(frac=(frac + shift) % 1)
    if how == "integer_shift":
        return crystals.replace(frac=frac + torch.tensor([1.0, -2.0, 3.0]).double())
    if how == "rotation":
        turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))
        return crystals.replace(lattice=lattice @ turn)
    wide = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 1]]).double()
    half = torch.tensor([0.5, 1, 1]).double()
    copy = frac * half + torch.tensor([0.5, 0, 0]).double()
    return Crystals(
        torch.cat([crystals.species] * 2, 1),
        torch.cat([frac * half, copy], 1),
        wide @ lattice,
    )


def density(model: VAE, crystals: Crystals) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p(x, z) at the posterior's mean, and the mean of the crystal's latent."""
    data = model.prepare(crystals)
    asked = model.embedding(model.nothing(len(data)))
    with torch.no_grad():
        q = model.posterior(data)
        z = Latent(q.whole.mean, q.orbits.mean * q.orbits.mask)
        return model._log_joint(z, asked, data), q.whole.mean


@pytest.mark.parametrize("representation", BOTH)
@pytest.mark.parametrize("how", sorted(VAE.symmetries))
def test_declared_symmetries_hold(eight, how, representation):
    if how == "permutation":
        eight = eight[4:6]  # no padding among the atoms
    model = awake(eight, representation)
    if how not in model.symmetries:
        pytest.skip("the origin of a space group may be chosen in many ways")
    before, after = (
        density(model, fine(eight)),
        density(model, changed(fine(eight), how)),
    )
    tolerance = 1e-6 if representation == "cell" else 1e-3  # layouts are float32
    for a, b in zip(before, after):
        assert torch.allclose(a, b, atol=tolerance, rtol=1e-5)


def test_undeclared_symmetries_fail(eight):
    assert "supercell" not in VAE.symmetries
    one = fine(eight[4:5])
    model = awake(eight, "cell")
    gap = density(model, one)[0] - density(model, changed(one, "supercell"))[0]
    assert float(gap.abs()) > 0.1


# ---- prior, latents, walks ----------------------------------------------------------------


def test_a_mixture_prior_is_a_density_and_draws_from_it():
    mean = torch.tensor([[0.0, 0.0], [2.0, 1.0], [-1.0, 2.0]])
    prior = MixturePrior(Normal(mean, torch.full_like(mean, -0.7)))
    line = torch.linspace(-6, 6, 241)
    grid = torch.cartesian_prod(line, line)
    p = prior.log_prob(grid).exp()
    assert float(p.sum()) * 0.05**2 == pytest.approx(1.0, abs=1e-3)
    drawn = prior.draw(20_000, generator(0))
    mean = (p[:, None] * grid).sum(0) / p.sum()
    assert torch.allclose(drawn.mean(0), mean, atol=0.05)


def test_arc_begins_and_ends_at_its_ends():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    points = arc(a, b, torch.tensor([[0.0], [0.5], [1.0]]))
    assert torch.allclose(points[[0, 2]], torch.cat([a, b]), atol=1e-6)
    assert float(points[1].norm()) == pytest.approx(2.0)


def test_a_walk_has_its_steps_and_depends_on_z_alone(eight):
    model = VAE.for_data(eight, representation="symmetric", **SMALL).eval()
    assert len(walk(model, eight[4:5], eight[5:6], steps=4)) == 4
    z = model.latent(eight)
    assert z.shape == (8, 8)
    twice = decode(model, torch.cat([z[:1], z[:1]]))
    assert torch.equal(twice.frac[0], twice.frac[1])
    before = model.evaluations
    decode(model, z[:2])
    assert model.evaluations - before == 2 * (model.default_steps + 1)  # as `sample`
    cells = VAE.for_data(eight, **SMALL).eval()
    assert (walk(cells, eight[4:5], eight[5:6], steps=3).n_atoms == 5).all()


# ---- learning, seeds, files, errors -------------------------------------------------------


@pytest.mark.parametrize("representation", BOTH)
def test_it_learns_eight_crystals(eight, representation):
    model = VAE.for_data(eight, representation=representation, **SMALL, free_nats=4.0)
    data = encode(eight, representation)
    steps = 70 if representation == "cell" else 110
    fit(model, eight, steps=steps, batch_size=8, lr=5e-3, warmup=10, ema=0.9, seed=0)
    before = VAE.for_data(eight, representation=representation, **SMALL).eval()
    gain = (model.elbo(data, seed=0) - before.elbo(data, seed=0)).mean()
    assert float(gain) > 20  # nats
    made = model.sample(40, seed=0)
    exact = sum(formula in eight.formulas for formula in made.formulas)
    first = before.sample(40, seed=0)
    chance = sum(formula in eight.formulas for formula in first.formulas)
    assert exact > chance + 8


@pytest.mark.parametrize("representation", BOTH)
def test_same_seed_same_crystals_also_after_saving(eight, representation, tmp_path):
    model = VAE.for_data(eight, representation=representation, **SMALL).eval()
    a, b = model.sample(6, seed=3), model.sample(6, seed=3)
    loaded = Generator.load(model.save(tmp_path))
    c = loaded.sample(6, seed=3)
    for other in (b, c):
        assert torch.equal(a.species, other.species)
        assert torch.equal(a.frac, other.frac)
        assert torch.equal(a.lattice, other.lattice)
    assert isinstance(loaded, VAE)


def test_a_mixture_prior_is_saved_also_in_files_of_before(eight, tmp_path):
    model = VAE.for_data(eight, **SMALL)
    model.train()
    mixed = with_mixture(model, eight)
    assert model.training and not mixed.training
    made = mixed.sample(3, seed=3)
    mixed.save(tmp_path / "now")
    # before, a layer gave the weights of the normals; zero where they were equal
    mixed.prior.weight = torch.nn.Linear(32, 8)
    mixed.save(tmp_path / "uneven")
    for part in mixed.prior.weight.parameters():
        torch.nn.init.zeros_(part)
    mixed.save(tmp_path / "before")
    for name in ("now", "before"):
        again = Generator.load(tmp_path / name).sample(3, seed=3)
        assert torch.equal(made.species, again.species)
        assert torch.equal(made.frac, again.frac)
    with pytest.raises(DataError, match=r"prior\.weight"):
        Generator.load(tmp_path / "uneven")


def test_a_smallest_distance_is_kept_by_drawing_again(eight):
    model = VAE.for_data(eight, representation="symmetric", **SMALL).eval()
    before = model.sample(30, seed=0)
    model.min_distance = 1.0
    after = model.sample(30, seed=0)
    kept = (min_distance(before) >= 1.0).float().mean()
    assert float(kept) < 0.95  # there is something to do
    assert (min_distance(after) >= 1.0).float().mean() > kept + 0.02
    assert after.info["network_evaluations"] > before.info["network_evaluations"]


@pytest.mark.parametrize("asked", [None, 4])
def test_what_fails_is_drawn_again_with_another_size_unless_one_was_asked(
    eight, asked, monkeypatch
):
    """Under a mask, which fixes sizes beforehand, as well as without one."""
    model = VAE.for_data(eight, representation="symmetric", **SMALL).eval()
    model.min_distance = 1.0
    allowed = Masks((design.OnlyElements("Na", "Cl", "Mg", "O"),))
    request = dataclasses.replace(model.request(30, asked), choices=allowed)
    model.min_distance = 0.0
    large = model.plan(request, generator(0)).n_atoms > 2
    assert large.any() and model.redrawn == 0
    model.min_distance = 1.0
    near = "matdesign.generators.vae.min_distance"
    monkeypatch.setattr(near, lambda made: torch.where(made.mask.sum(1) > 2, 0.0, 9.0))
    plan = model.plan(request, generator(0))
    sizes = plan.n_atoms
    assert (sizes <= 2).all() if asked is None else (sizes == asked).all()
    assert [len(plan), *map(len, plan.latent)] == [30] * 3
    assert model.redrawn == int(large.sum())


def test_what_stands_apart_stays_as_it_was_drawn_at_first(eight):
    """Only what fails is drawn again, and the plan holds all of each crystal."""
    model = awake(eight, "symmetric").float()
    first = model.plan(model.request(40), generator(0))
    with torch.no_grad():
        whole = model.smallest_distance(first, 3, generator(0))
    model.min_distance = float(whole.median())
    model.redrawn = 0
    plan = model.plan(model.request(40), generator(0), steps=3)
    kept = whole >= model.min_distance
    assert 0 < model.redrawn == int((~kept).sum()) < 40
    with torch.no_grad():
        assert (
            model.smallest_distance(plan, 3, generator(0)) >= model.min_distance
        ).sum() > kept.sum()
    for part in (0, 1):  # of the crystals, of their orbits
        wide = min(one.latent[part].shape[1] for one in (plan, first))
        now, then = (one.latent[part][kept, :wide] for one in (plan, first))
        assert torch.equal(now, then)
    assert torch.equal(plan.layout.spacegroup[kept], first.layout.spacegroup[kept])


def test_crystals_do_not_depend_on_what_is_made_beside_them(eight):
    """What fails in any batch is drawn again beforehand: batches change nothing."""
    model = awake(eight, "symmetric").float()
    model.min_distance = 1.0
    whole = model.sample(24, seed=0)
    parts = model.sample(24, seed=0, batch_size=5)
    assert whole.info["redrawn"] == parts.info["redrawn"] > 0
    assert torch.equal(whole.species, parts.species)
    assert torch.allclose(whole.lattice, parts.lattice, atol=1e-4)
    assert (torus_difference(whole.frac, parts.frac).abs() < 1e-4).all()


def test_a_trajectory_ends_with_the_sample(eight):
    model = VAE.for_data(eight, representation="symmetric", **SMALL).eval()
    states = list(model.trajectory(3, seed=0, steps=2))
    assert [state.step for state in states] == [0, 1, 2]
    assert (states[0].t, states[-1].t) == (1.0, 0.0)
    for state in states:
        assert torch.allclose(
            state.soft.species.sum(-1), state.soft.mask.float(), atol=1e-5
        )


def test_errors_say_what_to_do(eight):
    model = VAE.for_data(eight, **SMALL).eval()
    with pytest.raises(ShapeError, match=r"\(crystals, 8\); got \(2, 3\)"):
        decode(model, torch.zeros(2, 3))
    with pytest.raises(DataError, match="empty"):
        VAE.for_data(eight[:0])
    with pytest.raises(DataError, match=r"model\.plan"):
        bare = plan_cells(model.request(2), torch.tensor([2, 2]))
        next(model.states(bare, 1, generator(0)))
