"""From a crystal to its latent, and from there to coordinates and cell: the geometry."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.crystals.symmetry.wyckoff import NONE, wyckoff_table
from matdesign.generators import elbo
from matdesign.generators.backbone import PairTransformer, Transformer
from matdesign.generators.control import Sample, Scales
from matdesign.generators.elbo import Latent, LatentPosterior, Normal
from matdesign.generators.layers import SpeciesEmbedding, sinusoid

SHARPEST = 1000.0
"""Largest concentration of a coordinate: a spread of 0.005 of the cell."""

ORBIT_LATENT = 4
"""Size of each orbit's latent."""

BLUR = 0.1
"""Largest noise on the guess that a pass of the decoder must mend in training."""


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
    """

    def __init__(self, *, width: int, layers: int, heads: int, latent: int) -> None:
        super().__init__()
        self.species = SpeciesEmbedding(width)
        self.orbit = OrbitEmbedding(width)
        self.anchor = nn.Linear(12, width)
        self.spacegroup = nn.Embedding(231, width)
        self.about = nn.Linear(6 + 32, width)
        self.body = Transformer(width=width, layers=layers, heads=heads, geometry=True)
        self.whole = nn.Linear(2 * width, 2 * latent)
        self.each = nn.Linear(2 * width, 2 * ORBIT_LATENT)

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


class Decoding(NamedTuple):
    """A guess of the decoder, how sure it is, and the vectors that its passes read.

    Args:
        u: centre of each free coordinate, shape (crystals, orbits, 3).
        x: mean of the standardised lattice code, shape (crystals, 6).
        top: one vector for each crystal, shape (crystals, width).
        tokens: one for each orbit, shape (crystals, orbits, width).
        kappa: von Mises concentration of each coordinate, shape (crystals, orbits, 3).
        log_std: of the code, shape (crystals, 6).
    """

    u: Tensor
    x: Tensor
    top: Tensor
    tokens: Tensor
    kappa: Tensor
    log_std: Tensor

    def log_prob(self, batch: Encoded, scales: Scales) -> dict[str, Tensor]:
        """Return log densities of coordinates and lattice in nats, each (crystals,).

        The measure is that of free coordinates in [0, 1), without a common shift along
        axes on which the origin is a free choice, and of the free lattice code k.

        Args:
            batch: crystals.
            scales: of the training set.
        """
        lay = batch.layout
        away = batch.u - self.u
        fixed = anchored(lay)
        each = elbo.log_von_mises(away, self.kappa) * fixed
        loose = lay.free & ~fixed
        shared = elbo.log_von_mises_any_origin(away, self.kappa, loose)
        miss = (scales.standardize(batch.code, lay) - self.x) * (-self.log_std).exp()
        shape = -0.5 * (miss.square() + math.log(2 * math.pi)) - self.log_std
        shape = (shape - scales.std.log()) * lay.code_free
        return {
            "coordinates": each.sum((1, 2)) + shared.sum(1),
            "lattice": shape.sum(1),
        }


@dataclass(frozen=True, eq=False)
class LatentSample(Sample):
    """Crystals as the decoder guesses them.

    Args:
        decodings: without and with the condition, or one of them.
    """

    decodings: tuple[Decoding, ...]


class GeometryDecoder(nn.Module):
    """p(u, k | z, sequence): a first guess from the latents, then passes that mend it.

    Every pass of the `PairTransformer` looks at the distances that the guess before has,
    so that atoms can make room for each other.

    Args:
        width: size of the tokens.
        layers: attention layers of the first guess and of each pass.
        heads: attention heads.
        latent: size of the crystal's latent.
        passes: passes that mend the guess.
    """

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        heads: int,
        latent: int,
        passes: int,
    ) -> None:
        super().__init__()
        self.passes = passes
        self.species = SpeciesEmbedding(width)
        self.orbit = OrbitEmbedding(width)
        self.own = nn.Linear(ORBIT_LATENT, width)
        self.crystal = nn.Linear(latent, width)
        self.spacegroup = nn.Embedding(231, width)
        self.size = nn.Linear(2, width)
        self.body = Transformer(width=width, layers=layers, heads=heads, geometry=False)
        self.circle = nn.Linear(width, 6)
        self.code = nn.Linear(width, 6)
        self.sharp = nn.Linear(width, 3 * (passes + 1))
        self.spread = nn.Linear(width, 6 * (passes + 1))
        self.mend = PairTransformer(width=width, layers=layers, heads=heads)

    def forward(
        self,
        layout: Layout,
        species: Tensor,
        latent: Latent,
        condition: Tensor,
        scales: Scales,
        *,
        blur: torch.Generator | None = None,
    ) -> list[Decoding]:
        """Return the first guess and what each pass makes of it; the last one counts.

        Args:
            layout: orbits and what of them is free.
            species: element of each orbit, shape (crystals, orbits).
            latent: of crystals and orbits.
            condition: condition embedding, shape (crystals, width).
            scales: of the training set.
            blur: adds noise to half of the guesses before each pass, in training.
        """
        made = [self.first(layout, species, latent, condition)]
        for number in range(1, 1 + self.passes):
            made.append(self.mended(layout, species, made[-1], scales, number, blur))
        return made

    def first(
        self, layout: Layout, species: Tensor, latent: Latent, condition: Tensor
    ) -> Decoding:
        """Return the first guess, from the latents alone; as `forward`."""
        n = layout.n_atoms.to(latent.whole)
        whole = (
            self.crystal(latent.whole) + self.spacegroup(layout.spacegroup) + condition
        )
        whole = whole + self.size(torch.stack([n / 20, n.log()], 1))
        each = self.species(species) + self.orbit(layout) + self.own(latent.orbits)
        top, tokens = self.body(whole, each, layout.orbits)
        cosine, sine = self.circle(tokens).chunk(2, -1)
        u = wrap(torch.atan2(sine, cosine) / (2 * math.pi)) * layout.free
        return self._sure(u, self.code(top) * layout.code_free, top, tokens, 0)

    def mended(
        self,
        layout: Layout,
        species: Tensor,
        decoding: Decoding,
        scales: Scales,
        number: int,
        blur: torch.Generator | None = None,
    ) -> Decoding:
        """Return the guess after one pass.

        Args:
            layout: orbits and what of them is free.
            species: element of each orbit, shape (crystals, orbits).
            decoding: the guess before.
            scales: of the training set.
            number: of the pass, from 1.
            blur: adds noise to half of the guesses before, in training.
        """
        u, x, top, tokens, *_ = decoding
        u, x = u.detach(), x.detach()
        if blur is not None:
            u, x = _blurred(u, x, blur)
        index = layout.orbit[..., None].expand(-1, -1, tokens.shape[-1])
        out = self.mend(
            layout.expand_species(species),
            layout.expand(u),
            scales.lattice(scales.clamp(x), layout),
            x,
            torch.full_like(top[:, 0], 1 / number),
            whole=top,
            each=tokens.gather(1, index),
        )
        u = wrap(u + 0.1 * layout.pull_back(out.frac.to(u))) * layout.free
        x = (x + 0.3 * out.lattice.to(x)) * layout.code_free
        return self._sure(u, x, top, tokens, number)

    def _sure(
        self, u: Tensor, x: Tensor, top: Tensor, tokens: Tensor, number: int
    ) -> Decoding:
        """Return a guess with its uncertainty, after so many passes."""
        at = min(number, self.passes)
        sharp = self.sharp(tokens).unflatten(-1, (self.passes + 1, 3))
        spread = self.spread(top).unflatten(-1, (self.passes + 1, 6))
        kappa = SHARPEST * torch.sigmoid(sharp[:, :, at] - 5.0)
        log_std = 5 * torch.sigmoid(spread[:, at] - 0.5) - 4
        return Decoding(u, x, top, tokens, kappa, log_std)


def _blurred(u: Tensor, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return half of the guesses with noise of random size, the others as they are."""
    size = torch.rand((2, len(u)), generator=rng, device=rng.device).to(u)
    size = size[0] * (size[1] < 0.5)
    moves = torch.randn(u.shape, generator=rng, device=rng.device).to(u)
    change = torch.randn(x.shape, generator=rng, device=rng.device).to(x)
    moved = wrap(u + BLUR * size[:, None, None] * moves)
    return moved, x + 0.5 * size[:, None] * change
