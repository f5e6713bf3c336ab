"""Searching a latent space: the peak is found, nothing but the prior moves."""

import pytest
import torch

import matdesign as design
from matdesign.crystals.batch import Crystals
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.generators.elbo import MixturePrior, Prior
from matdesign.loop.latent_search import LatentSearch


class Plane(Generator):
    """Two latents that are the lengths of two edges of a cubic cell of one atom."""

    def __init__(self):
        super().__init__({"elements": [3]}, [0, 1])
        self.prior = Prior(2)

    @classmethod
    def for_data(cls, train, *, seed=0, **options):
        return cls()

    def latent(self, crystals):
        return crystals.lattice.diagonal(dim1=1, dim2=2)[:, :2] - 10

    def sample(self, n, *, seed=None):
        z = self.prior.draw(n, torch.Generator().manual_seed(seed))
        edges = torch.cat([z + 10, torch.full((n, 1), 4.0)], 1)
        species = torch.full((n, 1), 3)
        return Crystals(species, torch.zeros(n, 1, 3), torch.diag_embed(edges))

    def loss(self, crystals, *, seed=None):
        raise NotImplementedError

    start = predict = step = loss


PEAK = torch.tensor([1.5, -1.0])


def reward(model, crystals):
    return (-(model.latent(crystals) - PEAK).square().sum(1)).exp()


def test_the_peak_of_a_plane_is_found_and_shuffled_rewards_find_nothing():
    ends = []
    for shuffled in (False, True):
        model = first = Plane()
        made, r = [], []
        learner = LatentSearch(diverse=False, watch=0)
        for k in range(3):
            made.append(model.sample(40, seed=k))
            new = reward(model, made[-1])
            order = torch.Generator().manual_seed(k)
            r.append(new[torch.randperm(40, generator=order)] if shuffled else new)
            model = learner.learn(
                model, Crystals.cat(made), torch.cat(r), seed=k, prior=first
            )
        ends.append(float(reward(model, model.sample(200, seed=9)).mean()))
    before = float(reward(first, first.sample(200, seed=9)).mean())
    assert ends[0] > 0.6  # the new prior's own width costs 1 - 1 / (1 + 2 * 0.3^2)
    assert ends[1] < 0.4
    assert before < 0.2


def test_only_the_prior_of_an_autoencoder_moves_and_the_model_comes_back(tmp_path):
    train = design.load("prototypes", split="test")[torch.arange(12)]
    model = design.VAE.for_data(train, width=16, layers=1, heads=2, latent=4, seed=0)
    rewards = torch.linspace(0, 1, len(train))
    learner = LatentSearch(points=5, candidates=50, watch=0)
    new = learner.learn(model, train, rewards, seed=1)
    assert type(model.prior) is Prior and isinstance(new.prior, MixturePrior)
    assert len(new.prior.mean) == new.config["components"] == 5
    old, now = model.state_dict(), new.state_dict()
    assert all(torch.equal(old[name], now[name]) for name in old)
    assert torch.equal(model.latent(train), new.latent(train))
    again = learner.learn(model, train, rewards, seed=1)
    assert torch.equal(new.prior.mean, again.prior.mean)
    loaded = design.VAE.load(new.save(tmp_path / "new"))
    assert torch.equal(loaded.prior.mean, new.prior.mean)
    third = learner.learn(loaded, train, rewards, seed=2, prior=model)
    assert third.record["name"].endswith("-learned-2")
    assert 0 <= third.record["points_from_prior"] <= 5


def test_a_model_without_latents_is_refused_and_settings_are_words():
    train = design.load("prototypes", split="test")[torch.arange(8)]
    model = design.Autoregressive.for_data(train, width=16, layers=1, heads=2, seed=0)
    with pytest.raises(DataError, match="LatentSearch a VAE"):
        LatentSearch().learn(model, train, torch.linspace(0, 1, 8))
    learner = LatentSearch(points=3)
    assert LatentSearch.from_dict(learner.to_dict()) == learner
