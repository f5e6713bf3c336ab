"""Learning from rewards: known optima, exact gradients, nothing moved that should not."""

import math

import pytest
import torch

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.contract import Generator, Loss
from matdesign.loop import rebuild
from matdesign.loop.learning import PolicyGradient, RewardWeighted, diversity

LIST = (3, 11, 19, 37, 55, 9, 17, 35)
"""Elements that the urn holds, one to a crystal."""

KINDS = torch.tensor(LIST)


def atoms(species):
    n = len(species)
    return Crystals(
        species[:, None], torch.zeros(n, 1, 3), 4 * torch.eye(3).repeat(n, 1, 1)
    )


class Urn(Generator):
    """Draws one of a few elements: the whole distribution is a table."""

    likelihood = "exact"

    def __init__(self, kinds=LIST, spread=0.5):
        super().__init__({"elements": list(kinds), "spread": spread}, [0, 1])
        self.kinds = torch.tensor(kinds)
        start = spread * torch.arange(len(kinds), dtype=torch.float)
        self.logits = torch.nn.Parameter(start)

    @classmethod
    def for_data(cls, train, *, seed=0, **options):
        return cls()

    def loss(self, crystals, *, seed=None):
        species = self.prepare(crystals).species[:, :1]
        index = (species == self.kinds).int().argmax(1)
        each = -self.logits.log_softmax(0)[index]
        return Loss(each.mean(), {"nats": each.mean().detach()}, each)

    def sample(self, n, *, seed=None):
        rng = torch.Generator().manual_seed(seed)
        return atoms(self.kinds[torch.multinomial(self.p, n, True, generator=rng)])

    @property
    def p(self):
        return self.logits.detach().softmax(0)

    def start(self, plan, rng):
        raise NotImplementedError

    predict = step = start


class Mean(Urn):
    """Predicts one number for all crystals, their atomic number over 10."""

    likelihood = "none"

    def loss(self, crystals, *, seed=None):
        x = self.prepare(crystals).species[:, 0] / 10
        each = (x - self.logits[0]).square()
        prediction = self.logits[:1].expand(len(x), 1)
        return Loss(each.mean(), {}, each, prediction)


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[k], other[k]) for k in one | other)


def small(family, **options):
    train = design.load("prototypes", split="test")[torch.arange(12)]
    return family.for_data(train, width=16, layers=1, heads=2, seed=0, **options), train


FREE = {"diverse": False, "watch": 0}


# ---- exact ---------------------------------------------------------------------------


def test_a_policy_gradient_ends_at_the_prior_times_the_exponential_of_the_reward():
    prior, table = Urn(), torch.tensor([0.9, 0.1, 0.3, 0.0, 0.5, 0.7, 0.2, 0.4])
    beta = 0.3
    learner = PolicyGradient(penalty=beta, lr=0.05, steps=8, batch_size=512, **FREE)
    model = prior
    for k in range(25):
        made = model.sample(512, seed=k)
        r = table[(made.species == KINDS).int().argmax(1)]
        model = learner.learn(model, made, r, seed=k, prior=prior)
    wanted = (prior.p.log() + table / beta).softmax(0)
    assert (prior.p - wanted).abs().max() > 0.1
    torch.testing.assert_close(model.p, wanted, atol=0.01, rtol=0)


def test_at_the_optimum_the_policy_gradient_is_zero():
    prior, beta = Urn(), 0.3
    table = torch.linspace(0, 1, 8)
    best = Urn()
    best.logits.data = prior.logits.data + table / beta
    data = best.prepare(atoms(KINDS.repeat(3)))
    learner = PolicyGradient(penalty=beta)
    found = learner.labels(best, prior, data, table.repeat(3))
    data.labels.update(found)
    learner.objective(best, prior, data, torch.Generator()).total.backward()
    assert best.logits.grad.abs().max() < 1e-6  # float32


def test_reward_weighting_ends_at_the_weighted_mean():
    prior, w = Mean(), 0.2
    made = atoms(KINDS)
    r = torch.tensor([1.0, 0.0, 0.5, 0.0, 0.25, 0.0, 0.0, 1.0])
    learner = RewardWeighted(penalty=w, lr=0.05, steps=400, batch_size=8, **FREE)
    model = learner.learn(prior, made, r, seed=0)
    x, pull = KINDS / 10, w * (1.1 - r).sum()
    wanted = ((r * x).sum() + pull * prior.logits[0].detach()) / (r.sum() + pull)
    assert model.logits[0].item() == pytest.approx(float(wanted), abs=0.01)  # Adam's lr


def test_the_autoregressive_loss_tells_its_own_likelihood_and_its_slope():
    model, train = small(design.Autoregressive)
    model.eval()
    data = model.prepare(train)
    each = model.loss(data).each
    torch.testing.assert_close(-each.detach(), model.log_prob(data))
    g = torch.linspace(-1, 1, len(train))
    parameters = [p for p in model.parameters() if p.requires_grad]
    slope = torch.autograd.grad(-(g * each).sum(), parameters, allow_unused=True)
    rng = torch.Generator().manual_seed(0)
    way = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]
    along = sum(float((s * d).sum()) for s, d in zip(slope, way) if s is not None)
    ends = []
    for h in (2e-3, -4e-3):  # float32: smaller ones drown in rounding
        for p, d in zip(parameters, way):
            p.data += h * d
        ends.append(float((g * model.log_prob(data)).double().sum()))
    assert along == pytest.approx((ends[0] - ends[1]) / 4e-3, rel=0.01)


@pytest.mark.parametrize("family", [design.FlowMatching, design.Diffusion])
def test_the_loss_of_each_crystal_averages_to_the_whole_and_repeats_with_its_seed(
    family,
):
    model, train = small(family, representation="cell")
    model.eval()
    found = model.loss(train, seed=3)
    again = model.loss(train, seed=3)
    assert found.each.shape == (len(train),)
    assert torch.equal(found.prediction, again.prediction)
    # crystals of which nothing is hidden count for the mean here, and not for the term
    few = found.terms["species"]
    assert found.total.item() >= found.each.mean().item() > (found.total - few).item()


# ---- what must not move ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "learner"),
    [
        (design.Autoregressive, PolicyGradient(steps=2, batch_size=4, watch=4)),
        (design.FlowMatching, RewardWeighted(steps=2, batch_size=4, watch=4)),
    ],
)
def test_a_new_model_comes_back_and_the_old_one_stays(family, learner, tmp_path):
    model, _ = small(family, **({"steps": 3} if family is design.FlowMatching else {}))
    made = model.sample(8, seed=0)
    before, said = weights(model), dict(model.record)
    rewards = torch.linspace(0, 1, 8)
    new = learner.learn(model, made, rewards, seed=1)
    assert same(before, weights(model))
    assert model.record == said
    assert not same(before, weights(new))
    assert type(new) is type(model)
    assert new.config == model.config
    assert same(weights(new), weights(learner.learn(model, made, rewards, seed=1)))
    loaded = type(model).load(new.save(tmp_path / "new"))
    assert same(weights(new), weights(loaded))
    facts = loaded.record["learned"]
    assert facts["by"][type(learner).__name__]["steps"] == 2
    assert facts["crystals"] == 8
    shaped = rewards * diversity(made) if learner.diverse else rewards
    assert facts["rewarded"] == int((shaped > 0).sum()) < 8  # the first one has 0
    assert torch.equal(loaded.sample(3, seed=0).frac, new.sample(3, seed=0).frac)
    third = learner.learn(new, made, rewards, seed=1, prior=model)
    assert third.record["name"].endswith("-learned-2")
    assert third.record["started_from"] == new.record


@pytest.mark.parametrize("learner", [PolicyGradient(**FREE), RewardWeighted(**FREE)])
def test_equal_rewards_move_nothing(learner):
    model = Urn() if isinstance(learner, PolicyGradient) else Mean()
    new = learner.learn(model, model.sample(64, seed=0), torch.full((64,), 0.7))
    assert same(weights(model), weights(new))
    assert "equal" in new.record["learned"]["stopped"]


def test_shuffled_rewards_gain_nothing():
    table, gains = torch.linspace(1, 0, 8), []
    for shuffle in (False, True):
        model = Urn()
        learner = PolicyGradient(lr=0.03, steps=8, batch_size=512, penalty=0.1, **FREE)
        for k in range(5):
            made = model.sample(512, seed=k)
            r = table[(made.species == KINDS).int().argmax(1)]
            if shuffle:
                r = r[torch.randperm(512, generator=torch.Generator().manual_seed(k))]
            model = learner.learn(model, made, r, seed=k)
        gains.append(float((model.p - Urn().p) @ table))
    assert gains[0] > 0.15
    assert abs(gains[1]) < 0.04  # 5 x 512 draws with a spread of 0.3


# ---- diversity -------------------------------------------------------------------------


def test_rewards_of_common_formulas_fade():
    made = atoms(torch.tensor([3] * 3 + [11] * 4 + [19] * 5 + [37] * 7))
    factor = diversity(made)
    wanted = [1.0] * 3 + [2 / 3] * 4 + [1 / 3] * 5 + [0.0] * 7
    torch.testing.assert_close(factor, torch.tensor(wanted))


def test_a_collapse_is_undone_and_said():
    model = Urn(list(range(3, 43)), 0.0)
    made = model.sample(200, seed=0)
    greedy = PolicyGradient(lr=1.0, steps=20, penalty=0.0, diverse=False)
    new = greedy.learn(model, made, (made.species[:, 0] == 26).float())
    assert same(weights(model), weights(new))
    facts = new.record["learned"]
    assert facts["stopped"].startswith("collapse")
    assert facts["unique_after"] < 0.5 * facts["unique_before"]
    few = Urn((3, 11), 0.0)  # has few formulas anyway: that is no collapse
    learner = PolicyGradient(steps=1, diverse=False)
    made = few.sample(8, seed=0)
    facts = learner.learn(few, made, torch.linspace(0, 1, 8)).record["learned"]
    assert facts["unique_before"] < 0.5 and not facts["stopped"]


# ---- errors ----------------------------------------------------------------------------


def test_a_family_that_cannot_learn_so_says_which_can():
    model, train = small(design.FlowMatching)
    rewards = torch.linspace(0, 1, len(train))
    with pytest.raises(DataError, match=r"exact likelihood.*Autoregressive"):
        PolicyGradient().learn(model, train, rewards)
    model, train = small(design.Autoregressive)
    with pytest.raises(DataError, match=r"Diffusion, FlowMatching"):
        RewardWeighted().learn(model, train, rewards)


def test_settings_are_words():
    learner = RewardWeighted(steps=3, **FREE)
    assert RewardWeighted.from_dict(learner.to_dict()) == learner
    words = {"class": "RewardWeighted", "settings": learner.to_dict()}
    assert rebuild.describe(learner) == words  # as a campaign keeps it


@pytest.mark.parametrize("wrong", [[0.5], [0.5, 1.5], [0.5, math.nan], [-0.1, 0.3]])
def test_rewards_outside_their_range_are_refused(wrong):
    with pytest.raises(DataError, match=r"one reward in \[0, 1\]"):
        PolicyGradient().learn(Urn(), atoms(KINDS[:2]), torch.tensor(wrong))
