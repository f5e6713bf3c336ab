"""Parts of `CouplingFlow`: tokens of orbits, the flow of the lattice."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matdesign.crystals.symmetry.layout import Layout
from matdesign.generators.layers import Attention, SpeciesEmbedding, sinusoid
from matdesign.generators.splines import line_spline

VOLUME_FIRST = (5, 4, 3, 2, 1, 0)
"""Order in which the entries of the lattice code are generated."""


CALM = 0.1
"""Factor on the numbers of all splines: a step of the optimiser bends them a little only."""


def hidden(present: Tensor, like: Tensor) -> Tensor:
    """Return the attention bias that hides padding, (crystals, 1, 1, tokens)."""
    return (~present)[:, None, None].to(like.dtype) * -1e9


class PositionFeatures(nn.Module):
    """What the layout says about each orbit: letter, sites, freedom, place, cell size.

    Args:
        width: size of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(27, width)
        self.count = nn.Embedding(193, width)
        self.spacegroup = nn.Embedding(231, width)
        self.place = nn.Linear(3 + 9 + 6 + 32, width)

    def forward(self, layout: Layout, like: Tensor) -> Tensor:
        """Return one vector for each orbit, shape (crystals, orbits, width).

        Args:
            layout: orbits and what of them is free.
            like: a tensor whose number format the result takes.
        """
        orbits, sites = layout.count.shape[1], layout.mask.shape[1]
        before = layout.count.cumsum(1) - layout.count  # sites of orbits before each
        first = before.clamp(max=max(sites - 1, 0))  # its anchor's site
        move = layout.move.flatten(2).gather(1, first[..., None].expand(-1, -1, 9))
        shift = layout.shift.gather(1, first[..., None].expand(-1, -1, 3)).to(like)
        angle = 2 * math.pi * shift
        size = sinusoid(layout.n_atoms.to(like) / 20, 32, 100.0)
        place = torch.cat(
            [
                layout.free.to(like),
                move.to(like),
                angle.sin(),
                angle.cos(),
                size[:, None].expand(-1, orbits, -1),
            ],
            dim=-1,
        )
        made: Tensor = (
            self.place(place)
            + self.letter(layout.letter)
            + self.count(layout.count.clamp(max=192))
            + self.spacegroup(layout.spacegroup)[:, None]
        )
        return made


class Latents(NamedTuple):
    """Where crystals lie in the space of the noise.

    Args:
        layout: orbits; along polar axes one orbit of each crystal is held at the origin.
        species: element of each orbit, shape (crystals, orbits).
        u: latent coordinates, uniform on the torus for a calibrated flow, 0 where not
            free, shape (crystals, orbits, 3).
        z: latent lattice code, standard normal for a calibrated flow, 0 where not free,
            shape (crystals, 6).
        changes: ln |det| of each coupling layer on the way from data to u, the layer
            next to the data first, shape (layers, crystals); None for noise.
    """

    layout: Layout
    species: Tensor
    u: Tensor
    z: Tensor
    changes: Tensor | None = None


class OrbitEncoder(nn.Module):
    """Turns layout, species and condition into a vector for each orbit and for the whole.

    Args:
        width: size of the vectors.
        heads: attention heads.
        layers: attention layers.
    """

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.species = SpeciesEmbedding(width)
        self.position = PositionFeatures(width)
        self.layers = nn.ModuleList(
            Attention(width, heads, wide=2) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, layout: Layout, species: Tensor, condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return vectors of orbits (crystals, orbits, width) and wholes (crystals, width).

        Args:
            layout: orbits.
            species: element of each orbit, shape (crystals, orbits).
            condition: condition embedding, shape (crystals, width).
        """
        x = (
            self.species(species)
            + self.position(layout, condition)
            + condition[:, None]
        )
        bias = hidden(layout.orbits, x)
        for layer in self.layers:
            x = layer(x, bias)
        x = self.norm(x)
        share = layout.count / layout.n_atoms.clamp(min=1)[:, None]
        return x, (x * share.to(x)[..., None]).sum(1)


class LatticeFlow(nn.Module):
    """An exact density of the lattice code, entry by entry, volume first.

    Equation:
        z_i = T_i(x_i; whole, x_before), z_i ~ N(0, 1) for each free entry i

    Args:
        width: size of the context and of the hidden layers.
        bins: of the splines.
    """

    def __init__(self, width: int, bins: int) -> None:
        super().__init__()
        self.read = nn.ModuleList(nn.Linear(width + 12, width) for _ in range(6))
        self.numbers = nn.ModuleList(nn.Linear(width, 3 * bins + 1) for _ in range(6))

    def _numbers(self, entry: int, whole: Tensor, x: Tensor, free: Tensor) -> Tensor:
        before = torch.zeros_like(x)
        done = list(VOLUME_FIRST[: VOLUME_FIRST.index(entry)])
        before[:, done] = x[:, done]
        inner = torch.cat([whole, before, free.to(x)], dim=1)
        out: Tensor = self.numbers[entry](nn.functional.silu(self.read[entry](inner)))
        return CALM * out

    def forward(self, x: Tensor, whole: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents and the log density of the code.

        Args:
            x: standardised code, shape (crystals, 6).
            whole: context, shape (crystals, width).
            free: which entries are free, bool, shape (crystals, 6).

        Returns:
            z, zero where not free, shape (crystals, 6), and the log density in nats with
            respect to the free entries of x, shape (crystals,).
        """
        z, log_p = torch.zeros_like(x), x.new_zeros(len(x))
        for entry in VOLUME_FIRST:
            numbers = self._numbers(entry, whole, x, free)
            latent, log_slope = line_spline(x[:, entry], numbers)
            z[:, entry] = latent * free[:, entry]
            normal = -0.5 * (latent.square() + math.log(2 * math.pi))
            log_p = log_p + (normal + log_slope) * free[:, entry]
        return z, log_p

    def generate(self, z: Tensor, whole: Tensor, free: Tensor) -> Tensor:
        """Return the code of latents, the inverse of `forward`, shape (crystals, 6)."""
        x = torch.zeros_like(z)
        for entry in VOLUME_FIRST:
            numbers = self._numbers(entry, whole, x, free)
            value, _ = line_spline(z[:, entry], numbers, inverse=True)
            x[:, entry] = value * free[:, entry]
        return x
