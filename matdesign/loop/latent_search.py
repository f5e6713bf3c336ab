"""Search the latent space of an autoencoder: a Gaussian process over latents, a new prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from matdesign.crystals.batch import Crystals, generator
from matdesign.generators.contract import Generator
from matdesign.generators.elbo import MixturePrior, Normal
from matdesign.loop.learning import Learning
from matdesign.loop.surrogate import GaussianProcess


@dataclass(frozen=True, kw_only=True)
class LatentSearch(Learning):
    """Bayesian optimisation in the latent space of a `VAE`.

    A Gaussian process learns the reward as a function of the latent. The new model is the
    old one with another prior: a mixture of narrow normals around latents that promise
    most. No weight of encoder or decoder moves, so that every crystal keeps its latent.
    Crystals may come from anywhere, those of earlier versions too.

    Equation:
        candidates z: half from the first model's prior, half from N(z_i, s^2), z_i the
        latents of the best rewarded crystals; z_k the highest candidate in the k-th joint
        draw of the process (Thompson sampling); new prior p(z) = 1/K sum_k N(z; z_k, s^2)

    Args:
        points: K.
        spread: s, where the first prior has 1.
        candidates: latents that a draw chooses from.
        elite: share of the crystals around which half of the candidates lie.

    Source:
        Gomez-Bombarelli et al., ACS Cent. Sci. 4, 268 (2018). Changed: Thompson sampling
        over a list of candidates in place of a gradient search, which leaves the region
        that the decoder knows; crystals are drawn around each point.
    """

    points: int = 24
    spread: float = 0.3
    candidates: int = 1000
    elite: float = 0.2

    def takes(self, model: Generator) -> bool:
        """Return whether a model has a latent space with a prior."""
        return hasattr(model, "latent") and hasattr(model, "prior")

    def teach(
        self,
        model: Any,
        prior: Any,
        crystals: Crystals,
        rewards: torch.Tensor,
        seed: int,
    ) -> dict[str, Any]:
        """Give the model another prior, and return how many of its points came from the first."""
        from botorch.utils.sampling import manual_seed

        rng = generator(seed, model.device)
        latents = model.latent(crystals)
        few = max(1, int(self.elite * len(latents)))
        best = rewards.argsort(descending=True)[:few]
        half = self.candidates // 2
        which = torch.randint(len(best), (half,), generator=rng, device=rng.device)
        near = latents[best.to(rng.device)][which]
        noise = torch.randn(near.shape, generator=rng, device=rng.device)
        found = torch.cat([prior.prior.draw(half, rng), near + self.spread * noise])
        process = GaussianProcess(model.latent).fit(crystals, rewards)
        with manual_seed(seed):
            about = process.model.posterior(found.cpu().double())
            draws = about.rsample(torch.Size([self.points]))[..., 0]
        chosen = draws.argmax(1).to(found.device)
        mean = found[chosen]
        log_std = torch.full_like(mean, self.spread).log()
        model.prior = MixturePrior(Normal(mean, log_std))
        model.config["components"] = len(mean)
        return {"points_from_prior": int((chosen < half).sum())}
