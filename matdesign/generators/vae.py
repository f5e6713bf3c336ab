"""`VAE`: crystals as points of a smooth space, and back."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.elements import MASK
from matdesign.crystals.geometry import min_distance, torus_difference, wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.errors import DataError, InfeasibleTarget
from matdesign.generators import elbo
from matdesign.generators.conditions import Condition, ConditionEncoder, combine
from matdesign.generators.contract import Loss
from matdesign.generators.control import Preview
from matdesign.generators.elbo import Latent, LatentPosterior, MixturePrior, Prior
from matdesign.generators.family import Family
from matdesign.generators.layers import PairAttention
from matdesign.generators.planning import Plan, draw_sizes, plan_cells, resample
from matdesign.generators.request import Request
from matdesign.generators.vae_geometry import (
    Decoding,
    Encoder,
    GeometryDecoder,
    LatentSample,
)
from matdesign.generators.vae_sequence import SequenceDecoder

ATTEMPTS = 100
"""How often a crystal that breaks the request, or whose atoms come too near, is drawn."""


class VAE(Family):
    """A variational autoencoder of crystals, blind to the order of atoms.

    The encoder turns a crystal into a latent vector, and a small one for each orbit,
    which tells atoms of one kind from each other. The decoder turns latents into space group,
    Wyckoff letters and species (one orbit after the other), then into free coordinates
    and cell (one guess, mended by a few passes that see its distances).

    Equation:
        loss = -E_q[log p(x | z)] + KL(q(z | x), p(z)) >= -log p(x)

    Args:
        width: size of the tokens of all networks.
        layers: attention layers of each network.
        heads: attention heads.
        latent: size of the crystal's latent.
        passes: passes that mend the decoder's first guess.
        beta: weight of the divergence; 1 in the evidence lower bound.
        free_nats: divergence of the crystal's latent that is free, so that it gets used.
        min_distance: smallest distance of two atoms in sampling, angstrom; what comes nearer is
            drawn again, latent and all, up to `ATTEMPTS` times; 0 keeps every draw.
        steps: passes in sampling; more than `passes` repeat the last one, which moves
            atoms of a poor guess farther apart.
        components: normals of a mixture as prior, given by `latent_space.with_mixture`;
            0 takes N(0, I).
        **data: what a training set gives; see `Family`.

    Source:
        Kingma and Welling 2013, arXiv:1312.6114; for crystals ADiT, Joshi et al.,
        arXiv:2503.03965. Changed: no index codes, likelihoods on the torus so that the
        bound is in nats, a latent of the whole crystal, Wyckoff positions.
    """

    likelihood = "a lower bound, by importance sampling"
    symmetries = frozenset({"permutation", "translation", "integer_shift", "rotation"})
    default_batch_size = (32, 512)
    renamed: ClassVar[dict[str, Any]] = {
        "skeleton": "sequence",
        "apart": "min_distance",
        "orbit_latent": 4,
        "spread": "",
        "temperature": "",
        "templates": "",
    }
    """Keywords and parts of older files: their names now, "" for what had no effect, or
    the value that is left."""

    def __init__(
        self,
        *,
        width: int = 96,
        layers: int = 3,
        heads: int = 8,
        latent: int = 32,
        passes: int = 2,
        beta: float = 1.0,
        free_nats: float = 8.0,
        min_distance: float = 1.0,
        steps: int = 3,
        components: int = 0,
        **data: Any,
    ) -> None:
        super().__init__(locals(), **data)
        if (
            self.representation == "symmetric"
        ):  # a group's origin may be chosen in many ways
            self.__dict__["symmetries"] = self.symmetries - {"translation"}
        self.default_steps, self.free_nats, self.beta = steps, free_nats, beta
        self.min_distance = min_distance
        sizes = {"width": width, "layers": layers, "heads": heads, "latent": latent}
        self.asked = ConditionEncoder(width, self.properties)
        self.encoder = Encoder(**sizes)
        self.prior = Prior(latent)
        if components:
            blank = torch.zeros(components, latent)
            self.prior = MixturePrior(elbo.Normal(blank, blank))
        self.sequence = SequenceDecoder(
            width=width,
            latent=latent,
            largest=len(self.size_histogram) - 1,
            cells=self.representation == "cell",
        )
        self.geometry = GeometryDecoder(**sizes, passes=passes)
        self.reset(0)

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed."""
        rng = generator(seed)
        _redraw(self, rng)
        for part in (self.encoder.whole, self.encoder.each):
            part.weight.mul_(0.5)
        self.geometry.mend.reset(rng)
        self.asked.reset(rng)

    def loss(
        self, crystals: Crystals | Encoded, *, seed: int | torch.Generator | None = None
    ) -> Loss:
        """Return the negative evidence lower bound of a batch, nats per crystal.

        Terms, all in nats: `spacegroup`, `letters`, `species`, `coordinates`, `lattice`
        (minus log likelihoods) and `kl`. The total differs from their sum in that the
        first `free_nats` of divergence are free and `beta` weighs it, and that every pass
        of the decoder is trained, on guesses with some noise.
        """
        rng = generator(seed, self.device)
        data = self.prepare(crystals)
        embedded = self.embedding(self.asked.training_condition(data, rng))
        posterior = self.encoder(data, self.scales, embedded)
        z = posterior.draw(rng)
        noise = rng if self.training else None
        terms = self.sequence.log_prob(
            z.whole, embedded, data, self.scales.allowed, hide=noise
        )
        guesses = self.geometry(
            data.layout, data.species, z, embedded, self.scales, blur=noise
        )
        parts = [guess.log_prob(data, self.scales) for guess in guesses]
        kl_whole = self.prior.kl(posterior.whole, z.whole).mean()
        kl_orbits = posterior.orbits.kl().mean()
        paid = (kl_whole - self.free_nats).clamp(min=0) + kl_orbits
        likely = [torch.stack([*part.values()]).sum(0).mean() for part in parts]
        total = self.beta * paid - torch.stack(likely).mean()
        total = total - torch.stack([*terms.values()]).sum(0).mean()
        nats = {name: -x.mean().detach() for name, x in (terms | parts[-1]).items()}
        return Loss(total, {**nats, "kl": (kl_whole + kl_orbits).detach()})

    def posterior(self, crystals: Crystals | Encoded) -> LatentPosterior:
        """Return q(z | x) of crystals of which nothing else is known."""
        data = self.prepare(crystals)
        embedded = self.embedding(self.nothing(len(data)))
        made: LatentPosterior = self.encoder(data, self.scales, embedded)
        return made

    def _log_joint(self, z: Latent, embedded: Tensor, data: Encoded) -> Tensor:
        """Return log p(x | z) + log p(z) in nats, shape (crystals,)."""
        allowed = self.scales.allowed
        terms = self.sequence.log_prob(z.whole, embedded, data, allowed)
        guesses = self.geometry(data.layout, data.species, z, embedded, self.scales)
        terms |= guesses[-1].log_prob(data, self.scales)
        zero, there = torch.zeros_like(z.orbits), data.layout.orbits[..., None]
        own = elbo.Normal(zero, zero, there).log_prob(z.orbits)
        total = sum(terms.values(), own + self.prior.log_prob(z.whole))
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
        data = self.prepare(crystals)
        embedded = self.embedding(self.nothing(len(data)))
        return elbo.log_weights(
            lambda z: self._log_joint(z, embedded, data),
            self.posterior(data),
            samples=samples,
            rng=generator(seed, self.device),
        )

    def elbo(self, crystals: Crystals | Encoded, **draws: Any) -> Tensor:
        """Return the evidence lower bound of each crystal, nats; as `log_prob`."""
        return self.log_weights(crystals, **draws).mean(0)

    def log_prob(
        self,
        crystals: Crystals | Encoded,
        *,
        samples: int = 16,
        seed: int | torch.Generator | None = None,
    ) -> Tensor:
        """Return a lower bound of the log density in nats, shape (crystals,).

        The importance-weighted bound, sharper with more samples. It is the probability
        of the sequence (space group and the set of letters with their species; in "cell"
        the number of atoms and the set of species) times a density: free coordinates of
        orbits that differ, each on the unit circle, without a common shift where
        the origin is a free choice; and the free entries of the lattice code k.

        Args:
            crystals: primitive, reduced cells.
            samples: draws from the posterior for each crystal.
            seed: of the draws.
        """
        weights = self.log_weights(crystals, samples=samples, seed=seed)
        return elbo.importance_bound(weights)

    def embedding(self, condition: Condition, scale: float = 1.0) -> Tensor:
        """Return the condition embedding in the precision of the weights, 0 at scale 0."""
        made: Tensor = self.asked(condition.to(self.device))
        return made * (scale != 0.0)

    @torch.no_grad()
    def plan(
        self,
        request: Request,
        rng: torch.Generator,
        scale: float = 1.0,
        steps: int | None = None,
    ) -> Plan:
        """Return latents, layouts and elements that meet the request, on the CPU.

        What breaks it is drawn again, latent and all, and so is what has two atoms nearer
        than `min_distance`: seen here, before batches are made.

        Equation:
            p(x | c, d > d_min) = p(x | c) 1[d > d_min] / P(d > d_min | c), by rejection

        Raises:
            InfeasibleTarget: a crystal broke the request in all of `ATTEMPTS`.
        """
        n, steps = len(request), self._steps(steps)
        if not n:
            return plan_cells(request, request.n_atoms)
        made: list[Plan] = []
        at, good = torch.full((n,), -1), torch.zeros(n, dtype=torch.bool)

        def draw(rows: Tensor, attempt: int) -> None:
            some = request[rows]
            n_atoms = draw_sizes(some, self.size_histogram, rng)
            embedded = self.embedding(some.condition, scale)
            z = self.prior.draw(len(some), rng)
            about = z, embedded, some, n_atoms, self.scales.allowed, rng
            layout, species, met = self.sequence.draw(*about, scale=scale)
            shape = (*species.shape, self.geometry.own.in_features)
            own = torch.randn(shape, generator=rng, device=z.device)
            latent, met = (z[met], own * layout.orbits[..., None]), met.cpu()
            role, condition = torch.full_like(species, -1), some.condition[met]
            what = layout, species, role, condition, request.choices, scale
            plan = Plan(*what, latent=latent).to("cpu")
            if len(plan):
                at[rows[met]] = sum(map(len, made)) + torch.arange(len(plan))
                made.append(plan)
                good[rows[met]] = True
            if len(plan) and self.min_distance:
                near = self.smallest_distance(plan, steps, rng)
                good[rows[met]] = near >= self.min_distance
            self.redrawn += int((~good).sum()) * (attempt == 0)

        resample(draw, lambda rows: good[rows], n, ATTEMPTS)
        lost = int((at < 0).sum())
        if lost:
            raise InfeasibleTarget(
                f"found no arrangement of atoms that meets the request for {lost} of {n} "
                f"crystals in {ATTEMPTS} attempts. Leave out the space group, or ask for "
                "another number of atoms."
            )
        return Plan.cat(made)[at]

    def smallest_distance(self, plan: Plan, steps: int, rng: torch.Generator) -> Tensor:
        """Return how near two atoms of each crystal come, angstrom, (crystals,)."""
        near = torch.zeros(len(plan), dtype=self.scales.mean.dtype)
        size = self.default_batch_size[0 if self.device.type == "cpu" else 1]
        for rows in torch.argsort(plan.n_atoms, stable=True).split(size):
            *_, last = self.states(plan[rows].to(self.device), steps, rng)
            near[rows] = min_distance(last.soft).cpu()
        return near

    def start(self, plan: Plan, rng: torch.Generator) -> LatentSample:
        """Return the decoder's first guess from the latents of a plan.

        With classifier-free guidance two guesses are decoded side by side, without and
        with the condition, and their lattice codes combined.
        """
        if not plan.latent:
            raise DataError(
                "a VAE needs a plan with latents; got one without. Make it with "
                "model.plan(request, rng)."
            )
        vectors = [self.embedding(plan.condition, plan.scale)]
        if plan.scale not in (0.0, 1.0) and bool(vectors[0].any()):
            vectors = [vectors[0] * 0.0, vectors[0]]
        whole, own = plan.latent
        latent = Latent(whole, own[:, : plan.species.shape[1]])
        about = plan.layout, plan.species, latent
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
        p = nn.functional.one_hot(x.species, MASK).to(x.u) * (x.species > 0)[..., None]
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
        return self._sample(x.plan, tuple(made))

    @torch.no_grad()
    def latent(self, crystals: Crystals | Encoded) -> Tensor:
        """Return the posterior mean of each crystal's latent, shape (crystals, size)."""
        return self.posterior(crystals).whole.mean


@torch.no_grad()
def _redraw(module: nn.Module, rng: torch.Generator) -> None:
    """Draw all weights of a module anew: matrices by their width, vectors zero."""
    for name, p in module.named_parameters():
        if p.ndim > 1:
            p.uniform_(-1, 1, generator=rng).mul_(p.shape[-1] ** -0.5)
        elif name.endswith("norm.weight"):
            p.fill_(1.0)
        else:
            p.zero_()
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            part.weight.normal_(generator=rng).mul_(0.3)
        elif isinstance(part, PairAttention):
            part.pair_value.mul_((3 * part.pair_value.shape[2]) ** 0.5)
            part.pair_value.div_(part.pair_value.shape[1] ** 0.5)
