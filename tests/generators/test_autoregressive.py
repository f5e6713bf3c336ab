"""`Autoregressive`: exact probabilities, exact masks, symmetries, learning, instruments."""

import dataclasses
import math
import time
from typing import Any

import pytest
import torch

import matdesign as design
from matdesign.crystals import elements
from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import distances
from matdesign.crystals.symmetry import find as symmetry
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout, symmetric_layouts
from matdesign.crystals.symmetry.wyckoff import LETTERS, NONE, wyckoff_table
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators import mixtures, sequence, site_mask
from matdesign.generators.autoregressive import Autoregressive
from matdesign.generators.completion import (
    Partial,
    complete,
    next_site,
)
from matdesign.generators.contract import Generator
from matdesign.generators.filling import fill_table, fillable
from matdesign.generators.mixtures import CircleMixture, LatticeMixture
from matdesign.generators.planning import Plan
from matdesign.generators.sequence import sequences
from matdesign.generators.trainer import fit
from matdesign.guidance.masks import Masks

SMALL = {"width": 32, "layers": 2, "heads": 4}


def stir(model: Autoregressive, std: float = 0.3) -> Autoregressive:
    """Draw every weight, so that nothing is equal by accident, and switch dropout off."""
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=std, generator=rng)
    return model.eval()


@pytest.fixture(scope="module")
def real() -> Crystals:
    """Crystals of many space groups and sizes, polar groups and P1 among them."""
    train = design.load("prototypes", split="train")
    return train[torch.arange(0, len(train), 103)]


@pytest.fixture(scope="module")
def model(real: Crystals) -> Autoregressive:
    return stir(Autoregressive.for_data(real, **SMALL), 0.15)


@pytest.fixture(scope="module")
def cell_model(real: Crystals) -> Autoregressive:
    return stir(Autoregressive.for_data(real, representation="cell", **SMALL), 0.15)


@pytest.fixture(scope="module")
def tiny() -> Autoregressive:
    """Two elements, at most three atoms, space groups 1, 99 and 221 only."""
    made = Autoregressive(
        elements=[8, 22],
        size_histogram=[0, 5, 4, 3],
        code_mean=[0.0] * 6,
        code_std=[1.0] * 6,
        code_low=[-9.0] * 6,
        code_high=[9.0] * 6,
        **SMALL,
    )
    made.seen[[1, 99, 221, 221], [3, 2, 1, 3]] = torch.tensor([1.0, 2.0, 2.0, 4.0])
    made.rare = 0.5
    made.register_buffer("only", torch.tensor([1, 99, 221]))
    return stir(made)


def every_sequence(model: Autoregressive) -> list[tuple[int, list[int], list[int]]]:
    """List all crystals of the tiny model but for lattice and coordinates, by recursion."""
    table, found = wyckoff_table(), []

    def grow(group: int, letters: list[int], kinds: list[int], atoms: int) -> None:
        if letters:
            found.append((group, list(letters), list(kinds)))
        for letter in range(27):
            size = int(table.count[group, letter])
            if not size or atoms + size > 3:
                continue
            free = int(table.freedom[group, letter])
            for z in (8, 22):
                if letters:
                    old = (letters[-1], kinds[-1])
                    if (letter, z) < old or (letter == old[0] and not free):
                        continue
                grow(group, [*letters, letter], [*kinds, z], atoms + size)

    for group in (1, 99, 221):
        grow(group, [], [], 0)
    return found


def as_batch(rows: list[tuple[int, list[int], list[int]]]) -> Encoded:
    """Return crystals with given letters and elements and coordinates of no importance."""
    layout = symmetric_layouts([r[0] for r in rows], [r[1] for r in rows])
    species = torch.zeros(layout.letter.shape, dtype=torch.long)
    for i, (_, _, kinds) in enumerate(rows):
        species[i, : len(kinds)] = torch.tensor(kinds)
    u = torch.rand(layout.free.shape, generator=torch.Generator().manual_seed(1))
    return Encoded(layout, species, u * layout.free, torch.zeros(len(rows), 6))


DISCRETE = ("size", "spacegroup", "letter", "species")


def test_all_sequences_together_have_probability_one(tiny):
    rows = every_sequence(tiny)
    batch = as_batch(rows)
    terms = tiny.log_terms(batch, tiny.nothing(len(rows)))
    p = torch.stack([terms[k] for k in DISCRETE]).sum(0).exp()
    of_group = tiny.log_prior.exp().sum(1)
    inside = of_group[tiny.only].sum()  # `rare` leaves a little to all other groups
    assert len(rows) > 40
    assert p.sum().item() == pytest.approx(inside.item(), abs=1e-5)
    for group in (1, 99, 221):
        of = p[batch.layout.spacegroup == group].sum()
        assert of.item() == pytest.approx(of_group[group].item(), abs=1e-5)


def test_what_comes_next_is_what_all_sequences_say(tiny):
    rows = every_sequence(tiny)
    terms = tiny.log_terms(as_batch(rows), tiny.nothing(len(rows)))
    p = torch.stack([terms[k] for k in DISCRETE]).sum(0).exp()
    for partial, prefix in (
        (Partial(99), []),
        (Partial(99, "a", ["O"]), [(0, 8)]),
        (Partial(221, "c", ["Ti"]), [(2, 22)]),
    ):
        joint, stop = torch.zeros(27, 104), 0.0
        for (group, letters, kinds), share in zip(rows, p.tolist(), strict=True):
            sites = list(zip(letters, kinds, strict=True))
            if group != partial.spacegroup or sites[: len(prefix)] != prefix:
                continue
            if len(sites) == len(prefix):
                stop += share
            else:
                joint[sites[len(prefix)]] += share
        total = float(joint.sum()) + stop
        said = next_site(tiny, partial)
        assert said.stop == pytest.approx(stop / total, abs=1e-5)
        assert torch.allclose(said.joint, joint / total, atol=1e-5)


def test_densities_integrate_to_one():
    rng = torch.Generator().manual_seed(0)
    circle, lattice = CircleMixture(12), LatticeMixture(3)
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    raw = 3 * torch.randn(5, 1, circle.size, generator=rng, dtype=torch.float64)
    mean = circle.log_prob(raw, grid.expand(5, -1)).exp().mean(1)
    assert torch.allclose(mean, torch.ones_like(mean), atol=1e-6)
    raw = torch.randn(1, lattice.size, generator=rng, dtype=torch.float64)
    line = torch.linspace(-14, 14, 561, dtype=torch.float64)
    x = torch.zeros(561, 561, 6, dtype=torch.float64)
    x[..., 4], x[..., 5] = line[:, None], line  # tetragonal: two free entries
    free = torch.tensor([False, False, False, False, True, True])
    total = lattice.log_prob(raw, x, free).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1.0, abs=1e-4)


def test_draws_follow_their_density():
    rng = torch.Generator().manual_seed(0)
    circle = CircleMixture(8)
    raw = 2 * torch.randn(1, circle.size, generator=rng)
    drawn = circle.sample(raw.expand(40_000, -1), rng)
    assert ((drawn >= 0) & (drawn < 1)).all()
    counts = torch.histc(drawn, 20, 0, 1) / 40_000
    fine = (torch.arange(20_000) + 0.5) / 20_000
    share = circle.log_prob(raw, fine).exp().view(20, -1).mean(1) / 20
    assert (counts - share).abs().max() < 4 * math.sqrt(0.25 / 40_000)


@pytest.mark.parametrize("name", ["model", "cell_model"])
def test_log_prob_is_the_sum_along_the_sampled_path(name, request, monkeypatch):
    model = request.getfixturevalue(name)
    said: list[float] = []
    choose = sequence.choose

    def heard(logits: torch.Tensor, *how: Any) -> torch.Tensor:
        k = choose(logits, *how)
        said.append(float(logits.log_softmax(-1).gather(-1, k[..., None])[0]))
        return k

    monkeypatch.setattr(sequence, "choose", heard)
    monkeypatch.setattr(site_mask, "choose", heard)
    draws: list[tuple[torch.Tensor, torch.Tensor]] = []
    sample = mixtures.CircleMixture.sample

    def watched(self, raw, rng, temperature=1.0):
        u = sample(self, raw, rng, temperature)
        draws.append((self.log_prob(raw, u), u))
        return u

    monkeypatch.setattr(mixtures.CircleMixture, "sample", watched)
    monkeypatch.setattr(model, "tries", 1)
    compared = 0
    for seed in range(8):
        said.clear(), draws.clear()
        rng = torch.Generator().manual_seed(seed)
        plan = model.plan(model.request(1), rng)
        u = torch.zeros(0)
        for state in model.states(plan, 1, rng):
            u = state.soft.frac
        assert u.shape[1] == int(plan.n_atoms)
        # read the coordinates back from what was drawn, three for each site with freedom
        free = plan.layout.free[0].clone()
        free[0] &= ~wyckoff_table().polar[plan.layout.spacegroup[0]]
        path, where = sum(said), torch.zeros(1, *free.shape)
        each = iter(draws)
        for site in free.any(-1).nonzero().squeeze(1).tolist():
            for axis in range(3):
                dense, point = next(each)
                path += float(dense.detach()) * bool(free[site, axis])
                where[0, site, axis] = float(point) * bool(free[site, axis])
        batch = Encoded(plan.layout, plan.species, where, torch.zeros(1, 6))
        seq = sequences(batch, model.scales)
        if not torch.equal(seq.u, where):  # equal sites drawn out of order
            continue
        terms = model.log_terms(batch, model.nothing(1))
        del terms["lattice"]
        # the network that placed the atoms knew the lattice that was drawn
        del terms["coordinates"]
        total = float(sum(terms.values()).detach())
        assert total == pytest.approx(sum(said), abs=1e-3)
        compared += 1
    assert compared >= 3


def test_reading_at_once_and_with_a_memory_agree(model):
    net, rng = model.network, torch.Generator().manual_seed(0)
    tokens = torch.randn(6, 9, 32, generator=rng)
    valid = torch.arange(9) < torch.tensor([9, 5, 1, 3, 7, 8])[:, None]
    whole, _ = net.transformer(tokens, valid)
    cache, rows = None, []
    for i in range(9):
        one, cache = net.transformer(tokens[:, i : i + 1], valid[:, i : i + 1], cache)
        rows.append(one)
    steps = torch.cat(rows, dim=1)
    assert torch.allclose(whole[valid], steps[valid], atol=1e-5)
    # a token never sees a later one
    changed = tokens.clone()
    changed[:, 5:] += 1.0
    again, _ = net.transformer(changed, valid)
    assert torch.equal(again[:, :5], whole[:, :5])


def test_masks_hold_in_500_samples_of_an_untrained_model(model):
    rng = torch.Generator().manual_seed(3)
    plan = model.plan(model.request(500), rng)
    layout = plan.layout
    table = wyckoff_table()
    assert int(plan.n_atoms.max()) <= len(model.size_histogram) - 1
    letter = torch.where(layout.orbits, layout.letter, NONE)
    assert (table.count[layout.spacegroup[:, None], letter] == layout.count).all()
    assert model.known_elements[plan.species[layout.orbits]].all()
    step = letter[:, 1:] - letter[:, :-1]
    more = layout.orbits[:, 1:]
    assert (step[more] >= 0).all()
    same = more & (step == 0)
    free = table.freedom[layout.spacegroup[:, None], letter][:, 1:]
    assert (free[same] > 0).all()
    assert (plan.species[:, 1:] >= plan.species[:, :-1])[same].all()
    *_, last = model.states(plan[torch.arange(60)], 1, rng)
    made = last.crystals
    assert torch.equal(made.n_atoms, plan.n_atoms[:60])
    found = symmetry.spacegroup(made, symprec=0.01)
    asked = layout.spacegroup[:60]
    order = torch.tensor([len(symmetry_operations(g)) for g in range(1, 231)])
    clear = found > 0  # overlapping atoms of an untrained model have no space group
    assert clear.sum() >= 40
    assert (order[found[clear] - 1] >= order[asked[clear] - 1]).all()
    assert (found[clear] == asked[clear]).float().mean() > 0.6  # the rest: higher


def symmetry_operations(group: int) -> list[bytes]:
    """Return the rotations of a space group, each once."""
    from matdesign.crystals.symmetry.wyckoff import operations

    return list({r.tobytes() for r in operations(group)[0]})


@pytest.mark.parametrize("name", ["model", "cell_model"])
def test_likelihood_has_the_declared_symmetries(name, request, real):
    model = request.getfixturevalue(name)
    some = real[:40]
    before = model.log_prob(some)
    assert before.isfinite().all()
    rng = torch.Generator().manual_seed(0)
    width = some.species.shape[1]
    order = torch.rand(len(some), width, generator=rng)
    order = torch.argsort(torch.where(some.mask, order, 2.0), dim=1)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))
    shift = torch.rand(len(some), 1, 3, generator=rng)
    changed = {
        "permutation": Crystals(
            some.species.gather(1, order),
            some.frac.gather(1, order[..., None].expand(-1, -1, 3)),
            some.lattice,
        ),
        "rotation": some.replace(lattice=(some.lattice.double() @ turn).float()),
        "integer_shift": some.replace(frac=some.frac + 2.0),
        "translation": some.replace(frac=(some.frac + shift).remainder(1.0)),
    }
    for what, crystals in changed.items():
        gap = (model.log_prob(crystals) - before).abs()
        share = (gap < 0.05).float().mean()
        if what in model.symmetries or name == "cell_model":
            assert share > 0.97, f"{what}: {gap.max()}, {share}"
        else:  # a space group does not say which of several origins to take
            assert share < 0.9, what
    assert model.symmetries == set(changed) - {"translation"}


def test_a_supercell_is_another_crystal(cell_model, real):
    one = real[[int((real.n_atoms <= 4).int().argmax())]]
    frac = torch.cat([one.frac[:, : one.n_atoms], one.frac[:, : one.n_atoms]], dim=1)
    frac = frac.clone()
    frac[..., 0] /= 2
    frac[:, int(one.n_atoms) :, 0] += 0.5
    species = one.species[:, : one.n_atoms].repeat(1, 2)
    scale = torch.tensor([2.0, 1.0, 1.0])[:, None]
    two = Crystals(species, frac, one.lattice * scale)
    gap = cell_model.log_prob(two) - cell_model.log_prob(one)
    assert gap.abs().item() > 0.1


def test_a_sequence_is_the_same_crystal(model, cell_model, real):
    for one in (model, cell_model):
        batch = one.prepare(real[:60])
        seq = sequences(batch, one.scales)
        rows = [[x for x in row if x != NONE] for row in seq.letter.tolist()]
        if one is model:
            layout = symmetric_layouts(seq.spacegroup.tolist(), rows)
        else:
            layout = Layout.whole_cell(seq.n_atoms)
        again = Encoded(layout, seq.species, seq.u, batch.code).crystals()
        old = batch.crystals()
        for i in range(len(old)):
            a, b = (
                distances(x[[i]])[0][: int(x.n_atoms[i]), : int(x.n_atoms[i])]
                for x in (old, again)
            )
            assert torch.allclose(
                a.flatten().sort().values, b.flatten().sort().values, atol=2e-3
            )


@pytest.mark.parametrize("name", ["model", "cell_model"])
def test_wishes_hold_exactly(name, request):
    model = request.getfixturevalue(name)
    made = model.sample(8, seed=0, n_atoms=7)
    assert (made.n_atoms == 7).all()
    made = model.sample(8, seed=0, conditions={"composition": "SrTiO3"}, scale=2.0)
    assert set(made.formulas) == {"SrTiO3"}
    made = model.sample(8, seed=0, conditions={"composition": "ABX3"})
    for row in made.species:
        counts = row[row > 0].unique(return_counts=True)[1].sort().values
        assert (counts / counts[0]).tolist() == [1, 1, 3]


def test_asked_space_groups_hold(model):
    plan = model.plan(
        model.request(30, None, {"crystal_system": "cubic"}),
        torch.Generator().manual_seed(0),
    )
    assert (plan.layout.spacegroup >= 195).all()
    unseen = int((model.seen.sum(1)[195:] == 0).int().argmax()) + 195
    plan = model.plan(
        model.request(4, None, {"spacegroup": unseen}),
        torch.Generator().manual_seed(0),
    )
    assert (plan.layout.spacegroup == unseen).all()


def test_impossible_wishes_speak(model):
    wish = {"spacegroup": 221, "composition": "SrTiO3"}
    with pytest.raises(InfeasibleTarget, match="no crystal"):
        model.sample(2, seed=0, n_atoms=1, conditions={"spacegroup": 227})
    assert set(model.sample(4, seed=0, n_atoms=5, conditions=wish).formulas) == {
        "SrTiO3"
    }
    with pytest.raises(DataError, match="Sort them"):
        Partial(225, "ba", ["Na", "Cl"])
    with pytest.raises(DataError, match="letter of space group"):
        Partial(1, "b", ["Na"])


def test_crystals_beyond_the_model_are_told_apart(eight):
    model = Autoregressive.for_data(eight, **SMALL)
    strange = eight[:2].replace(species=eight.species[:2] * 3)
    assert model.log_prob(strange).isneginf().all()
    assert model.eval().loss(strange).total.detach() < 3_000
    with pytest.raises(DataError, match="at most 2"):
        Autoregressive.for_data(eight[:2], **SMALL).log_prob(eight[4:5])


def test_what_can_be_filled_is_what_recursion_finds():
    table = wyckoff_table()
    groups = [2, 99, 164, 221, 225]
    count, freedom = table.count[groups, :NONE], table.freedom[groups, :NONE]
    fill = fill_table(count, freedom, 6)

    def by_hand(g: int, letter: int, left: tuple[int, ...]) -> bool:
        if not any(left):
            return True
        if letter == NONE:
            return False
        size, free = int(count[g, letter]), int(freedom[g, letter])
        if by_hand(g, letter + 1, left):
            return True
        for k in range(len(left)):
            rest = (*left[:k], left[k] - size, *left[k + 1 :])
            if size and rest[k] >= 0 and by_hand(g, letter + (not free), rest):
                return True
        return False

    for g in range(len(groups)):
        for letter in range(0, NONE, 3):
            for n in range(7):
                assert bool(fill[g, letter, n]) == by_hand(g, letter, (n,))
        for a in range(4):
            for b in range(3):
                assert fillable(groups[g], 0, (a, b)) == by_hand(g, 0, (a, b))


def test_it_learns_eight_crystals(eight):
    model = Autoregressive.for_data(eight, width=64, layers=2, heads=4, dropout=0.0)
    before = float(model.eval().loss(eight).total.detach())
    start = time.process_time()  # the machine may be busy with other things
    fit(model, eight, steps=60, batch_size=8, lr=6e-3, seed=0, progress=False)
    assert time.process_time() - start < 10
    after = float(model.loss(eight).total.detach())
    assert after < before - 6  # nats per crystal
    made = model.sample(40, seed=0)
    assert sum(f in eight.formulas for f in made.formulas) >= 20


@pytest.mark.parametrize("representation", ["symmetric", "cell"])
def test_same_seed_and_same_weights_give_the_same_crystals(
    eight, tmp_path, representation
):
    model = Autoregressive.for_data(eight, representation=representation, **SMALL)
    first, second = model.sample(12, seed=5), model.sample(12, seed=5)
    loaded = Generator.load(model.save(tmp_path)).sample(12, seed=5)
    for other in (second, loaded):
        assert torch.equal(first.species, other.species)
        assert torch.equal(first.frac, other.frac)
        assert torch.equal(first.lattice, other.lattice)
    other = model.sample(12, seed=6)
    assert other.formulas != first.formulas
    assert model.training  # sampling leaves dropout as it was


def test_a_completed_crystal_keeps_its_sites(model, real):
    row = int((model.prepare(real).layout.orbits.sum(1) >= 3).int().argmax())
    seq = sequences(model.prepare(real[[row]]), model.scales)
    letters = "".join(LETTERS[x] for x in seq.letter[0, :2])
    names = [elements.symbols()[z] for z in seq.species[0, :2]]
    partial = Partial(int(seq.spacegroup), letters, names, seq.u[0, :2])
    made = complete(model, partial, 6, seed=0)
    wanted = list(partial.species)
    for one in made:
        assert set(wanted) <= {site.specie.symbol for site in one}
    again = complete(model, partial, 6, seed=0)
    assert torch.equal(made.frac, again.frac)
    said = next_site(model, partial)
    assert said.stop + float(said.joint.sum()) == pytest.approx(1.0, abs=1e-4)
    assert sum(said.letters().values()) == pytest.approx(1 - said.stop, abs=1e-4)


def test_a_trajectory_grows_site_by_site(model):
    states = list(model.trajectory(3, seed=0))
    assert [s.step for s in states] == list(range(len(states)))
    assert (states[0].t, states[-1].t) == (1.0, 0.0)
    sizes = torch.stack([s.soft.mask.sum(1) for s in states])
    assert (sizes[1:] >= sizes[:-1]).all()
    assert (sizes[0] == 0).all() and (sizes[1] >= 1).all()


def test_guidance_of_scale_one_is_the_conditional_model(model):
    wish = {"formation_energy_per_atom": (None, -1.0)}
    plain = model.sample(6, seed=0, conditions=wish)
    none = model.sample(6, seed=0, conditions=wish, scale=0.0)
    free = model.sample(6, seed=0)
    assert none.formulas == free.formulas
    assert plain.formulas != free.formulas


def test_a_plan_may_be_placed_again(model):
    rng = torch.Generator().manual_seed(0)
    plan = model.plan(model.request(4), rng)
    assert isinstance(plan, Plan)
    *_, one = model.states(plan, 1, rng)
    *_, two = model.states(plan, 1, rng)
    assert torch.equal(one.crystals.species, two.crystals.species)
    assert not torch.equal(one.crystals.lattice, two.crystals.lattice)


def test_overlapping_crystals_are_returned_and_counted(model, monkeypatch):
    made = model.sample(40, seed=2)
    assert len(made) == 40
    with_tries = made.info["overlapping"]
    monkeypatch.setattr(model, "tries", 1)
    without = model.sample(40, seed=2)
    assert len(without) == 40
    assert without.info["overlapping"] > with_tries


def test_finished_crystals_are_not_read_and_change_nothing(
    cell_model: Autoregressive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long crystal among short ones is the one that it is by itself."""

    monkeypatch.setattr(cell_model, "temperature", 1e-6)  # the likeliest always

    def grown(sizes: list[int]) -> tuple[torch.Tensor, int]:
        request = cell_model.request(len(sizes), sizes, None)
        rng = torch.Generator().manual_seed(1)
        n_atoms, before = torch.tensor(sizes), cell_model.evaluations
        with torch.no_grad():
            _, species, _ = cell_model.sites(
                request, n_atoms, torch.ones_like(n_atoms), rng, 1.0
            )
        return species, cell_model.evaluations - before

    alone, read = grown([9])
    among, all_read = grown([1, 1, 9, 2, 1, 1, 1, 1])
    assert torch.equal(among[2], alone[0]) and read == 9
    assert 9 + 8 <= all_read < 3 * 9


def test_required_elements_come_with_few_dead_ends(monkeypatch):
    turns = []
    attempt = sequence.WyckoffSampler.sites

    def spy(self, *rest):
        found = attempt(self, *rest)
        turns.append(int(found[2].sum()))
        return found

    monkeypatch.setattr(sequence.WyckoffSampler, "sites", spy)
    made = design.load_model("autoregressive-prototypes")
    made.redraws = 0
    wanted = design.RequiredElements("O")
    crystals = made.sample(128, seed=0, guide=design.Guide(wanted))
    assert bool(wanted.satisfied(crystals).all())
    assert sum(turns) < 64


def test_a_guide_draws_again_what_could_not_be_finished_and_says_so(monkeypatch):
    """Three elements in five atoms of P4mm: most attempts pass over one of them."""
    monkeypatch.setattr(sequence, "RESTARTS", 1)
    model = design.load_model("autoregressive-prototypes")
    model.redraws = 0
    wanted = design.RequiredElements("O", "Ti", "Sr")
    wish = {"spacegroup": 99, "n_atoms": 5}
    said = "could not be finished in 1 attempts with contains O, Sr and Ti: .*draw"
    with pytest.warns(UserWarning, match=said):
        made = model.sample(4, seed=0, guide=design.Guide(wanted), conditions=wish)
    assert bool(wanted.satisfied(made).all())
    assert made.n_atoms.tolist() == [5] * 4


def test_nothing_is_left_of_attempts_that_were_given_up(model, monkeypatch):
    """Three atoms of Pm-3m are one site; the attempt that is given up had two."""
    attempt = sequence.WyckoffSampler.sites

    def dead_end(self, request, n_atoms, *rest):
        if request.choices is None:
            return attempt(self, request, n_atoms, *rest)
        sites = torch.tensor([[0, 1]]).expand(len(n_atoms), -1)
        dead = torch.ones(len(n_atoms), dtype=torch.bool)
        return sites, torch.full_like(sites, 8), dead

    monkeypatch.setattr(sequence.WyckoffSampler, "sites", dead_end)
    request = model.request(4, 3, {"spacegroup": 221})
    request = dataclasses.replace(request, choices=Masks((design.ChargeNeutral(),)))
    rng = torch.Generator().manual_seed(0)
    said = "4 of 4 crystals could not be finished in 50 attempts with charge-neutral"
    with torch.no_grad(), pytest.warns(UserWarning, match=said):
        _, letter, species = model.draw_sequences(request, rng, 1.0)
    assert letter.shape == species.shape == (4, 1)
    assert bool((species > 0).all())
