"""The checks of the chapter on variational autoencoders: right answers pass, wrong ones
are told why; its plots say what they show."""

import math

import torch

from matdesign.crystals.batch import Crystals
from matdesign.display import plots_families
from matdesign.generators import elbo
from matdesign.generators.latent_space import flat_map
from matdesign.teach import exercises_generators


def divergence(mean, log_std):
    return ((mean**2 + (2 * log_std).exp() - 1) / 2 - log_std).sum(-1)


def test_divergence():
    assert exercises_generators.check_divergence(divergence)
    forgot = exercises_generators.check_divergence(lambda m, s: divergence(m, s) / 2)
    assert not forgot and "entry" in forgot.text
    whole = exercises_generators.check_divergence(lambda m, s: divergence(m, s).sum())
    assert not whole and "give numbers of shape" in whole.text
    assert "raised" in exercises_generators.check_divergence(lambda m: m).text


def test_torus_loss():
    def right(made, wanted):
        return (1 - torch.cos(2 * math.pi * (made - wanted))).mean()

    assert exercises_generators.check_torus_loss(right)
    flat = exercises_generators.check_torus_loss(lambda a, b: (a - b).square().mean())
    assert not flat
    whole = exercises_generators.check_torus_loss(lambda a, b: right(a, b).detach())
    assert not whole and "gradient" in whole.text


def test_any_origin():
    def right(x, kappa):
        shift = torch.arange(1000) / 1000
        each = elbo.log_von_mises(x[:, None] - shift, kappa[:, None])
        return each.sum(0).logsumexp(0) - math.log(1000)

    assert exercises_generators.check_any_origin(right)
    here = exercises_generators.check_any_origin(
        lambda x, kappa: elbo.log_von_mises(x, kappa).sum()
    )
    assert not here and "not right" in here.text


def test_the_map_keeps_the_widest_directions():
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(200, 6, generator=rng) * torch.tensor(
        [5, 3, 0.1, 0.1, 0.1, 0.1]
    )
    points, rows, share = flat_map(latents)
    assert points.shape == (200, 2)
    assert torch.allclose(rows @ rows.T, torch.eye(2), atol=1e-5)
    assert float(share.sum()) > 0.99
    assert float(rows[0, 0]) > 0.99
    groups = ["cubic"] * 120 + ["hexagonal"] * 80
    made = plots_families.plot_latent_map(points, groups, share=share.tolist())
    assert "200 latents" in made.alt
    assert "cubic around" in made.alt


def test_the_map_of_groups_holds_them_apart():
    """Groups differ along a narrow direction, which the widest ones do not show."""
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(300, 4, generator=rng) * torch.tensor([5.0, 5.0, 5.0, 0.1])
    groups = ["a"] * 150 + ["b"] * 150
    latents[150:, 3] += 1.0
    points, rows, _ = flat_map(latents, groups)
    assert abs(float(rows[0, 3])) > 0.99
    assert float(points[150:, 0].min() - points[:150, 0].max()) > 0
    plain, _, _ = flat_map(latents)
    assert float(plain[150:, 0].min() - plain[:150, 0].max()) < 0


def test_a_gallery_shows_every_crystal():
    salt = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]).repeat(3, 1, 1)
    three = Crystals(
        torch.tensor([[55, 17], [55, 35], [37, 17]]),
        salt,
        4 * torch.eye(3).repeat(3, 1, 1),
    )
    page = plots_families.gallery(three, caption="all")._repr_html_()
    assert page.count("<svg") == 3
    assert all(name in page for name in three.formulas)
    assert "all" in page
