"""`VAE`: crystals as points of a smooth space, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import torus_difference, wrap
from matdesign.crystals.symmetry.encoded import Encoded, Representation
from matdesign.crystals.symmetry.layout import Layout
from matdesign.errors import DataError
from matdesign.generators import elbo
from matdesign.generators.conditions import (
    Condition,
    ConditionEncoder,
    combine,
)
from matdesign.generators.contract import Loss
from matdesign.generators.control import Preview
from matdesign.generators.family import Family
from matdesign.generators.planning import Plan
from matdesign.generators.request import Request
from matdesign.generators.vae_decoding import decode, noisy, walk, with_mixture
from matdesign.generators.vae_draws import drawn
from matdesign.generators.vae_geometry import Decoding, GeometryDecoder, LatentSample
from matdesign.generators.vae_latent import (
    Encoder,
    Latent,
    LatentPosterior,
    Prior,
    redraw,
)
from matdesign.generators.vae_plan import LatentPlan, wishes_of
from matdesign.generators.vae_skeleton import SkeletonDecoder
from matdesign.generators.vae_tables import Wishes, wyckoff_tables


class VAE(Family):
    """A variational autoencoder of crystals, blind to the order of atoms.

    The encoder turns a crystal into a latent vector, and a small one for each orbit,
    which tells atoms of one kind apart. The decoder turns latents into space group,
    Wyckoff letters and species (one orbit after the other), then into free coordinates
    and cell (one guess, mended by a few passes that see its distances).

    Equation:
        loss = -E_q[log p(x | z)] + KL(q(z | x), p(z)) >= -log p(x)

    Args:
        elements: atomic numbers that may appear.
        size_histogram: number of training crystals with 0, 1, 2, ... atoms.
        code_mean: mean of the lattice code over the training set, 6 numbers.
        code_std: its standard deviation.
        code_low: lower bound of the code, in standard deviations from the mean.
        code_high: upper bound.
        representation: "cell" or "symmetric".
        properties: name -> [mean, standard deviation] of what can be asked for.
        width: size of the tokens of all networks.
        layers: attention layers of each network.
        heads: attention heads.
        latent: size of the crystal's latent.
        orbit_latent: size of each orbit's.
        passes: passes that mend the decoder's first guess.
        components: normals in the prior's mixture; 0 takes N(0, I).
        free_nats: divergence of the crystal's latent that is free, so that it gets used.
        beta: weight of the divergence; 1 makes the loss a bound.
        temperature: of letters and species in sampling; 1 draws from the model.
        spread: share of the decoder's noise on coordinates and cell in sampling; 1 draws
            from the model, 0 takes the centre.
        apart: smallest distance of two atoms in sampling, angstrom; what comes nearer is
            drawn again, latent and all, up to 20 times; 0 keeps every draw.
        steps: passes in sampling; more than `passes` repeat the last one, which moves
            atoms of a poor guess farther apart.

    Source:
        Kingma and Welling 2013, arXiv:1312.6114; for crystals ADiT, Joshi et al.,
        arXiv:2503.03965. Changed: no index codes, likelihoods on the torus so that the
        bound is in nats, a latent of the whole crystal, Wyckoff positions.
    """

    likelihood = "a lower bound, by importance sampling"
    symmetries = frozenset({"permutation", "translation", "integer_shift", "rotation"})
    default_batch_size = (32, 512)

    def __init__(
        self,
        *,
        elements: Sequence[int],
        size_histogram: Sequence[int],
        code_mean: Sequence[float],
        code_std: Sequence[float],
        code_low: Sequence[float],
        code_high: Sequence[float],
        representation: Representation = "cell",
        properties: dict[str, list[float]] | None = None,
        width: int = 96,
        layers: int = 3,
        heads: int = 8,
        latent: int = 32,
        orbit_latent: int = 4,
        passes: int = 2,
        components: int = 0,
        free_nats: float = 8.0,
        beta: float = 1.0,
        temperature: float = 1.0,
        spread: float = 0.0,
        apart: float = 1.0,
        steps: int = 3,
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(config)
        if representation == "symmetric":  # a group's origin may be chosen in many ways
            self.__dict__["symmetries"] = self.symmetries - {"translation"}
        self.default_steps, self.free_nats, self.beta = steps, free_nats, beta
        self.temperature, self.spread, self.apart = temperature, spread, apart
        sizes = {"width": width, "layers": layers, "heads": heads, "latent": latent}
        self.asked = ConditionEncoder(width, self.properties)
        self.encoder = Encoder(**sizes, orbit_latent=orbit_latent)
        self.prior = Prior(latent, components, width)
        self.skeleton = SkeletonDecoder(
            width=width, latent=latent, largest=len(size_histogram) - 1
        )
        self.geometry = GeometryDecoder(
            **sizes, orbit_latent=orbit_latent, passes=passes
        )
        self.reset(0)

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed."""
        rng = generator(seed)
        redraw(self, rng)
        for part in (self.encoder.whole, self.encoder.each):
            part.weight.mul_(0.5)
        if self.prior.components:
            self.prior.mean.normal_(generator=rng).mul_(0.7)
            self.prior.weight.weight.zero_()
        self.geometry.mend.reset(rng)
        self.asked.reset(rng)

    def loss(
        self,
        crystals: Crystals | Encoded,
        *,
        seed: int | torch.Generator | None = None,
    ) -> Loss:
        """Return the negative evidence lower bound of a batch, nats per crystal.

        Terms, all in nats: `spacegroup`, `letters`, `species`, `coordinates`, `lattice`
        (minus log likelihoods) and `kl`. The total differs from their sum in that the
        first `free_nats` of divergence are free, and that every pass of the decoder is
        trained, on guesses with some noise.
        """
        rng = generator(seed, self.device)
        data = self.prepare(crystals)
        condition = self.asked.training_condition(data, rng)
        asked = self.embedding(condition)
        posterior = self.encoder(data, self.scales, self._origin(data.layout), asked)
        z = posterior.draw(rng)
        terms = self._skeleton_terms(z, asked, data, rng if self.training else None)
        blur = rng if self.training else None
        guesses = self.geometry(
            data.layout, data.species, z, asked, self.scales, blur=blur
        )
        origin = self._origin(data.layout)
        parts = [one.log_prob(data, self.scales, origin) for one in guesses]
        kl_whole = self._divergence(z, posterior, asked).mean()
        kl_orbits = posterior.orbits.kl().mean()
        nats = {name: -value.mean() for name, value in terms.items()}
        nats |= {name: -value.mean() for name, value in parts[-1].items()}
        shaped = [-torch.stack(list(x.values())).sum(0).mean() for x in parts]
        paid = (kl_whole - self.free_nats).clamp(min=0) + kl_orbits
        total = sum(-value.mean() for value in terms.values())
        total = total + torch.stack(shaped).mean() + self.beta * paid
        nats["kl"] = kl_whole + kl_orbits
        return Loss(total, {k: x.detach() for k, x in nats.items()})

    def _divergence(
        self, z: Latent, posterior: LatentPosterior, asked: Tensor
    ) -> Tensor:
        """Return KL(q(z | x), p(z)) of the crystal's latent: exact, or by one draw."""
        if not self.prior.components:
            return posterior.whole.kl()
        return posterior.whole.log_prob(z.whole) - self.prior.log_prob(z.whole, asked)

    def _skeleton_terms(
        self, z: Latent, asked: Tensor, data: Encoded, rng: torch.Generator | None
    ) -> dict[str, Tensor]:
        exact = self.representation == "cell"
        return self.skeleton.log_prob(
            z.whole, asked, data, self.scales.allowed, exact=exact, rng=rng
        )

    def _log_joint(self, z: Latent, asked: Tensor, data: Encoded) -> Tensor:
        """Return log p(x | z) + log p(z) in nats, shape (crystals,)."""
        terms = self._skeleton_terms(z, asked, data, None)
        guesses = self.geometry(data.layout, data.species, z, asked, self.scales)
        terms |= guesses[-1].log_prob(data, self.scales, self._origin(data.layout))
        own = elbo.Normal(
            torch.zeros_like(z.orbits),
            torch.zeros_like(z.orbits),
            data.layout.orbits[..., None],
        ).log_prob(z.orbits)
        total = sum(terms.values(), own + self.prior.log_prob(z.whole, asked))
        if self.representation == "cell":
            counts = torch.tensor(self.size_histogram, device=total.device).to(total)
            chance = (counts / counts.sum()).log()
            known = data.n_atoms.clamp(max=len(chance) - 1)
            seen = data.n_atoms < len(chance)  # larger ones are never made
            total = total + torch.where(seen, chance[known], -torch.inf)
        return total

    @torch.no_grad()
    def log_weights(
        self,
        crystals: Crystals | Encoded,
        *,
        samples: int = 16,
        seed: int | torch.Generator | None = None,
    ) -> Tensor:
        """Return log p(x, z) - log q(z | x) of draws, nats, (samples, crystals)."""
        rng = generator(seed, self.device)
        data = self.prepare(crystals)
        asked = self.embedding(self.nothing(len(data)))
        posterior = self.encoder(data, self.scales, self._origin(data.layout), asked)
        return elbo.log_weights(
            lambda z: self._log_joint(z, asked, data),
            posterior,
            samples=samples,
            rng=rng,
        )

    def elbo(
        self,
        crystals: Crystals | Encoded,
        *,
        samples: int = 16,
        seed: int | torch.Generator | None = None,
    ) -> Tensor:
        """Return the evidence lower bound of each crystal, nats; see `log_prob`."""
        return elbo.lower_bound(self.log_weights(crystals, samples=samples, seed=seed))

    def log_prob(
        self,
        crystals: Crystals | Encoded,
        *,
        samples: int = 16,
        seed: int | torch.Generator | None = None,
    ) -> Tensor:
        """Return a lower bound of the log density of each crystal, in nats.

        The importance-weighted bound, sharper with more samples. It is the probability
        of the skeleton (space group and the set of letters with their species; in "cell"
        the number of atoms and the set of species) times a density: free coordinates of
        orbits that are told apart, each on the unit circle, without a common shift where
        the origin is a free choice; and the free entries of the lattice code k.

        Args:
            crystals: primitive, reduced cells.
            samples: draws from the posterior for each crystal.
            seed: of the draws.

        Returns:
            Shape (crystals,).
        """
        weights = self.log_weights(crystals, samples=samples, seed=seed)
        return elbo.importance_bound(weights)

    def _origin(self, layout: Layout) -> Tensor:
        table = wyckoff_tables().origin.to(layout.spacegroup.device)
        return table[layout.spacegroup]

    def embedding(self, condition: Condition, scale: float = 1.0) -> Tensor:
        """Return what is asked as a vector, in the precision of the weights, 0 at scale 0."""
        to = self.scales.mean.dtype
        asked = condition.to(self.device)
        precise = {x: getattr(asked, x).to(to) for x in ("low", "high")}
        asked = dataclasses.replace(asked, **precise)
        made: Tensor = self.asked(asked) * (scale != 0.0)
        return made

    @torch.no_grad()
    def plan(
        self,
        request: Request,
        rng: torch.Generator,
        scale: float = 1.0,
        steps: int | None = None,
    ) -> Plan:
        """Return latents, layouts and elements of crystals; see `vae_draws.drawn`."""
        return drawn(self, request, rng, scale, self._steps(steps))

    def wishes(self, request: Request, rng: torch.Generator) -> Wishes:
        """Return what the decoder must meet, on the model's device."""
        at_home = generator(
            int(torch.randint(2**62, (1,), generator=rng, device=rng.device))
        )
        made = wishes_of(
            request,
            self.size_histogram,
            at_home,
            allowed=self.known_elements,
            cells=self.representation == "cell",
        )
        return made.to(self.device)

    def start(self, plan: Plan, rng: torch.Generator) -> LatentSample:
        """Return the decoder's first guess from the latents of a plan.

        With classifier-free guidance two guesses are decoded side by side, without and
        with the condition, and their lattice codes combined.
        """
        if not isinstance(plan, LatentPlan):
            raise DataError(
                f"a VAE needs a plan of its own; got {type(plan).__name__}. "
                "Make it with model.plan(request, rng)."
            )
        vectors = [self.embedding(plan.condition, plan.scale)]
        if plan.scale not in (0.0, 1.0) and bool(vectors[0].any()):
            vectors = [vectors[0] * 0.0, vectors[0]]
        about = plan.layout, plan.species, plan.latent
        return self._sample(
            plan, tuple(self.geometry.first(*about, a) for a in vectors)
        )

    def _sample(self, plan: Plan, decodings: tuple[Decoding, ...]) -> LatentSample:
        self.evaluations += len(plan) * len(decodings)
        u, code = decodings[-1].u, decodings[-1].x
        if len(decodings) > 1:
            code = combine(decodings[0].x, code, plan.scale)
        return LatentSample(plan, plan.species, u, code, decodings)

    def predict(self, x: LatentSample, t: float) -> Preview:
        """Return the guess, with the cell within the bounds of the training set."""
        p = nn.functional.one_hot(x.species, MASK).to(x.u)
        code = self.scales.clamp(x.code)
        return Preview(x.layout, self.scales, x.species, p, x.u, code)

    def step(
        self,
        x: LatentSample,
        preview: Preview,
        t: float,
        s: float,
        rng: torch.Generator,
    ) -> LatentSample:
        """Return the guess after one more pass of the decoder, the last one with noise.

        What a control has moved is moved before the pass.
        """
        number = round((1 - s) / (t - s))
        du = torus_difference(x.u, preview.u)
        dx = preview.code - self.scales.clamp(x.code)
        moved = (a._replace(u=wrap(a.u + du), x=a.x + dx) for a in x.decodings)
        about = x.layout, x.species
        made = (self.geometry.mended(*about, a, self.scales, number) for a in moved)
        x = self._sample(x.plan, tuple(made))
        if s > 0 or not self.spread:
            return x
        guess = self.geometry.guess(x.decodings[-1]._replace(x=x.code), number)
        drawn = noisy(guess, x.layout, self.spread, rng)
        return dataclasses.replace(x, u=drawn.u, code=drawn.x)

    @torch.no_grad()
    def latent(self, crystals: Crystals | Encoded) -> Tensor:
        """Return the posterior mean of each crystal's latent, shape (crystals, size)."""
        data = self.prepare(crystals)
        asked = self.embedding(self.nothing(len(data)))
        origin = self._origin(data.layout)
        return self.encoder(data, self.scales, origin, asked).whole.mean

    def with_mixture(self, crystals: Crystals | Encoded) -> VAE:
        """Return a copy with a prior of posteriors; see `vae_decoding.with_mixture`."""
        return with_mixture(self, crystals)

    def decode(self, z: Tensor, **options: Any) -> Crystals:
        """Return the crystals of latent vectors; see `vae_decoding.decode`."""
        return decode(self, z, **options)

    def walk(self, start: Crystals, end: Crystals, **options: Any) -> Crystals:
        """Return crystals on the way between two; see `vae_decoding.walk`."""
        return walk(self, start, end, **options)

    def describe(self) -> dict[str, str]:
        """Return lines for `repr`."""
        many = self.prior.components
        prior = f"mixture of {many} normals" if many else "N(0, I)"
        own = self.geometry.own.in_features
        latent = f"{self.prior.size} per crystal, {own} per orbit, prior {prior}"
        sampling = f"{self.default_steps} passes"
        return {**super().describe(), "latent": latent, "sampling": sampling}
