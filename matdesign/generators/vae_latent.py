"""The latent variables of a VAE: the encoder that finds them and the prior they obey."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators.control import Scales
from matdesign.generators.elbo import Normal
from matdesign.generators.layers import (
    PairAttention,
    PairFeatures,
    SpeciesEmbedding,
    sinusoid,
)


class Latent(NamedTuple):
    """One draw of the latent variables.

    Args:
        whole: of the crystal, shape (crystals, size).
        orbits: of each orbit, 0 on padding, shape (crystals, orbits, size).
    """

    whole: Tensor
    orbits: Tensor


class LatentPosterior(NamedTuple):
    """q(z | x): independent normal distributions of all latent variables."""

    whole: Normal
    orbits: Normal

    def draw(self, rng: torch.Generator) -> Latent:
        """Return one draw for every crystal."""
        return Latent(self.whole.draw(rng), self.orbits.draw(rng))

    def log_prob(self, latent: Latent) -> Tensor:
        """Return the log density in nats, shape (crystals,)."""
        return self.whole.log_prob(latent.whole) + self.orbits.log_prob(latent.orbits)


class Transformer(nn.Module):
    """Attention over the tokens of a crystal, with or without the geometry of its sites.

    The first token stands for the whole crystal. Without geometry the pair vectors are
    learned zeros, so that tokens differ by their own features alone.

    Args:
        width: size of the tokens.
        layers: attention layers.
        heads: attention heads.
        geometry: look at displacements and distances of the sites.
    """

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        heads: int,
        geometry: bool,
    ) -> None:
        super().__init__()
        self.heads, self.depth = heads, layers
        self.features = PairFeatures(8) if geometry else None
        pair_width = 32 if geometry else 1
        if self.features is not None:
            self.pair = nn.Sequential(
                nn.Linear(self.features.size, 2 * pair_width),
                nn.SiLU(),
                nn.Linear(2 * pair_width, pair_width),
            )
            self.bias = nn.Linear(pair_width, layers * heads)
        self.modulation = nn.Linear(width, 6 * width)
        self.layers = nn.ModuleList(
            PairAttention(width, heads, pair_width) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        whole: Tensor,
        each: Tensor,
        mask: Tensor,
        frac: Tensor | None = None,
        lattice: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the updated token of the whole and those of the sites or orbits.

        Args:
            whole: shape (crystals, width).
            each: shape (crystals, tokens, width).
            mask: tokens that exist, shape (crystals, tokens).
            frac: fractional coordinates where geometry is looked at.
            lattice: rows in angstrom, likewise.
        """
        b, n = mask.shape
        present = nn.functional.pad(mask, (1, 0), value=True)
        bias = ((~present).to(whole.dtype) * -1e9)[:, None, None]
        pair = whole.new_zeros(b, n + 1, n + 1, 1)
        steered = [bias] * self.depth
        if self.features is not None and frac is not None and lattice is not None:
            made = self.pair(self.features(frac, lattice)[0])
            pair = nn.functional.pad(made, (0, 0, 1, 0, 1, 0))
            by_layer = self.bias(pair).unflatten(-1, (self.depth, self.heads))
            steered = list(by_layer.permute(3, 0, 4, 1, 2) + bias)
        shared = self.modulation(nn.functional.silu(whole)).unflatten(1, (6, -1))
        x = torch.cat([whole[:, None], each], dim=1)
        for layer, one in zip(self.layers, steered, strict=True):
            x = layer(x, pair, one, shared)
        x = self.norm(x)
        return x[:, 0], x[:, 1:]


class OrbitEmbedding(nn.Module):
    """Features of each orbit that its Wyckoff position gives: letter, size, freedom.

    Args:
        width: size of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(NONE, width)
        self.position = nn.Linear(5, width)

    def forward(self, layout: Layout) -> Tensor:
        """Return vectors, shape (crystals, orbits, width)."""
        count = layout.count[..., None].to(self.position.weight)
        facts = [layout.free.to(count), count.clamp(min=1).log(), count / 20]
        made: Tensor = self.letter(layout.letter) + self.position(torch.cat(facts, -1))
        return made


def anchored(layout: Layout) -> Tensor:
    """Return which coordinates of the anchors are free and mean something by themselves.

    Those along axes on which the origin is a free choice mean nothing by themselves.
    """
    table = wyckoff_table(str(layout.spacegroup.device))
    return layout.free & ~table.polar[layout.spacegroup][:, None]


class Encoder(nn.Module):
    """q(z | x): reads a crystal, whatever the order of its atoms.

    Args:
        width: size of the tokens.
        layers: attention layers.
        heads: attention heads.
        latent: size of the crystal's latent.
        orbit_latent: size of each orbit's.
    """

    def __init__(
        self, *, width: int, layers: int, heads: int, latent: int, orbit_latent: int
    ) -> None:
        super().__init__()
        self.species = SpeciesEmbedding(width)
        self.orbit = OrbitEmbedding(width)
        self.anchor = nn.Linear(12, width)
        self.spacegroup = nn.Embedding(231, width)
        self.about = nn.Linear(6 + 32, width)
        self.body = Transformer(width=width, layers=layers, heads=heads, geometry=True)
        self.whole = nn.Linear(2 * width, 2 * latent)
        self.each = nn.Linear(2 * width, 2 * orbit_latent)

    def forward(
        self, batch: Encoded, scales: Scales, condition: Tensor
    ) -> LatentPosterior:
        """Return the posterior of a batch.

        Args:
            batch: crystals.
            scales: of the training set.
            condition: condition embedding, shape (crystals, width).
        """
        lay = batch.layout
        x = scales.standardize(batch.code, lay)
        size = sinusoid(batch.n_atoms.to(x) / 20, 32, 100.0)
        whole = self.about(torch.cat([x, size], 1)) + self.spacegroup(lay.spacegroup)
        turn = 2 * math.pi * batch.u[..., None] * torch.tensor([1.0, 2.0]).to(batch.u)
        waves = torch.cat([turn.sin(), turn.cos()], -1)  # (b, orbits, 3, 4)
        waves = waves * anchored(lay)[..., None]
        orbit = self.species(batch.species) + self.orbit(lay)
        orbit = orbit + self.anchor(waves.flatten(2))
        site = orbit.gather(1, lay.orbit[..., None].expand(-1, -1, orbit.shape[-1]))
        lattice = scales.lattice(x, lay)
        top, sites = self.body(
            whole + condition, site, lay.mask, lay.expand(batch.u), lattice
        )
        mean = (sites * lay.mask[..., None]).sum(1) / batch.n_atoms[:, None]
        own = torch.cat([lay.mean_over_orbit(sites), orbit], -1)
        return LatentPosterior(
            Normal(*_halves(self.whole(torch.cat([top, mean], 1)))),
            Normal(*_halves(self.each(own)), lay.orbits[..., None]),
        )


def _halves(both: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log standard deviation, the latter within [-5, 1]."""
    mean, log_std = both.chunk(2, -1)
    return mean, 1 - nn.functional.softplus(1 - log_std.clamp(-5, 50))


class Prior(nn.Module):
    """p(z) = N(0, I).

    Args:
        size: of the latent.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density in nats, shape (crystals,)."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """Return KL(q, p) in nats, (crystals,); z is a draw from q, not needed here."""
        return q.kl()

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Return n draws, shape (n, size)."""
        return torch.randn((n, self.size), generator=rng, device=rng.device)


class MixturePrior(Prior):
    """A mixture of normals, all of equal weight.

    Equation:
        p(z) = 1/K sum_k N(z; m_k, diag s_k^2)

    Args:
        parts: the normals, for example the posteriors of K crystals.
    """

    mean: Tensor
    log_std: Tensor

    def __init__(self, parts: Normal) -> None:
        super().__init__(parts.mean.shape[1])
        self.register_buffer("mean", parts.mean)
        self.register_buffer("log_std", parts.log_std.clamp(-3.0, 1.0))

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        """Take files of before, too, whose equal weights are zeros of a layer."""
        for name in (f"{prefix}weight.weight", f"{prefix}weight.bias"):
            if name in state and not state[name].any():
                del state[name]
        super()._load_from_state_dict(state, prefix, *rest)
        self.log_std.clamp_(-3.0, 1.0)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density in nats, shape (crystals,)."""
        x = (z[:, None] - self.mean) * (-self.log_std).exp()
        each = -0.5 * (x.square() + math.log(2 * math.pi)) - self.log_std
        return each.sum(2).logsumexp(1) - math.log(len(self.mean))

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """Return KL(q, p) in nats by one draw z from q, shape (crystals,)."""
        return q.log_prob(z) - self.log_prob(z)

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Return n draws, shape (n, size)."""
        noise = super().draw(n, rng)
        k = torch.multinomial(noise.new_ones(n, len(self.mean)), 1, generator=rng)
        k = k.squeeze(1).to(self.mean.device)
        return self.mean[k] + self.log_std[k].exp() * noise.to(self.mean)


@torch.no_grad()
def redraw(module: nn.Module, rng: torch.Generator) -> None:
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
