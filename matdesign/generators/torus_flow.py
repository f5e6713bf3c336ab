"""The flows of `CouplingFlow`: the lattice code entry by entry, coordinates on the torus."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.layout import Layout
from matdesign.crystals.symmetry.wyckoff import wyckoff_table
from matdesign.generators.layers import Attention, hidden
from matdesign.generators.splines import circular_spline, line_spline

VOLUME_FIRST = (5, 4, 3, 2, 1, 0)
"""Order in which the entries of the lattice code are generated."""

CALM = 0.1
"""Factor on the numbers of all splines: a step of the optimiser bends them a little only."""

AXES = (0, 1, 2, None, None)
"""What the splits bend in turn: x, y, z, one half of the kinds, the other half."""


class Setting(NamedTuple):
    """What the coupling layers are told of crystals beside the coordinates they bend.

    Args:
        layout: orbits.
        species: element of each orbit, shape (crystals, orbits).
        free: coordinates that move, bool, shape (crystals, orbits, 3).
        each: vectors from the `OrbitEncoder`, shape (crystals, orbits, width).
        code: standardised lattice code, shape (crystals, 6).
    """

    layout: Layout
    species: Tensor
    free: Tensor
    each: Tensor
    code: Tensor


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


def kinds(layout: Layout, species: Tensor) -> Tensor:
    """Return the number of each orbit's kind: 0, 1, ... by letter, then element.

    Orbits of the same letter and element are of one kind, whatever their order, so a
    split by kind treats equal orbits alike.

    Args:
        layout: orbits.
        species: element of each, shape (crystals, orbits).

    Returns:
        Long, shape (crystals, orbits).
    """
    key = torch.where(layout.orbits, layout.letter * 128 + species, 10**6)
    same = (key[:, None] == key[:, :, None]).sum(-1)
    lower = key[:, None] < key[:, :, None]  # (b, i, j): j is of a lower kind
    return (lower / same[:, None]).sum(-1).round().long()


def split(number: int, free: Tensor, kind: Tensor) -> Tensor:
    """Return what the layer number `number` moves, bool, (crystals, orbits, 3).

    Five splits take turns: x given y and z of all orbits, y, z, then all axes of every
    other kind of orbit given those of the rest, and the reverse. The first three alone
    would leave two orbits with one free coordinate each independent of each other.

    Args:
        number: number of the layer.
        free: coordinates that may move, bool, shape (crystals, orbits, 3).
        kind: from `kinds`, shape (crystals, orbits).
    """
    axis = AXES[number % 5]
    if axis is None:
        return free & (kind % 2 == number % 5 - 3)[..., None]
    return free & (torch.arange(3, device=free.device) == axis)


def polar_axes(layout: Layout) -> Tensor:
    """Return the axes along which each group leaves the origin free, bool, (crystals, 3).

    All three in P1; along these all atoms may be shifted together, and the crystal stays
    what it is.
    """
    return wyckoff_table(str(layout.count.device)).polar[layout.spacegroup]


def rarest(layout: Layout, species: Tensor) -> Tensor:
    """Return the orbits that may be held at the origin, bool, (crystals, orbits).

    Those of the rarest kind, by letter and element, or of the first where several are
    equally rare: a choice that does not depend on the order of orbits. Where the group
    fixes the origin, the first of them stands for all.

    Args:
        layout: orbits.
        species: element of each, shape (crystals, orbits).
    """
    kind = layout.letter * 128 + species
    alike = (kind[:, None] == kind[:, :, None]) & layout.orbits[:, None]
    key = torch.where(layout.orbits, alike.sum(-1) * 4096 + kind, 10**7)
    least = key == key.amin(1, keepdim=True)
    loose = polar_axes(layout).any(1, keepdim=True)
    return least & (loose | (least.cumsum(1) == 1))


def hold(layout: Layout, u: Tensor, orbit: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is still free, and u, with one orbit at the origin of polar axes.

    Args:
        layout: orbits.
        u: coordinates, shape (crystals, orbits, 3).
        orbit: which one is held, shape (crystals,).
    """
    polar = polar_axes(layout)[:, None]
    origin = u.gather(1, orbit[:, None, None].expand(-1, -1, 3)) * polar
    number = torch.arange(u.shape[1], device=u.device)
    held = (number == orbit[:, None])[..., None] & polar
    free = layout.free & ~held
    return free, wrap(u - origin) * free


def log_mean(value: Tensor, row: Tensor, crystals: int) -> Tensor:
    """Return the log of the mean of exp(value) over the choices of each crystal.

    Args:
        value: of every choice, shape (choices,).
        row: crystal that each choice belongs to, in rising order, shape (choices,).
        crystals: number of crystals.
    """
    many = row.bincount(minlength=crystals)
    table = value.new_full((crystals, int(many.max())), -torch.inf)
    place = torch.arange(len(row), device=row.device) - torch.searchsorted(row, row)
    table[row, place] = value
    return table.logsumexp(1) - many.to(value).log()


class Coupling(nn.Module):
    """One coupling layer: a transformer reads some coordinates and bends the others.

    What it reads stays as it is, so the spline of what it bends can be found again from
    the result: the layer has an inverse although the transformer has none.

    Args:
        axis: the one that it bends, or None for all three.
        width: size of the tokens.
        heads: attention heads.
        bins: of the spline.
        frequencies: harmonics of the coordinates that it reads.
    """

    harmonics: Tensor

    def __init__(
        self,
        axis: int | None,
        width: int,
        heads: int,
        bins: int,
        frequencies: int,
    ) -> None:
        super().__init__()
        self.axes = slice(None) if axis is None else slice(axis, axis + 1)
        self.each = 3 * bins + 1
        whole = torch.arange(1, frequencies + 1)
        self.register_buffer("harmonics", whole, persistent=False)
        self.read = nn.Linear(6 * frequencies + 3 + 6, width)
        self.context = nn.Linear(width, width, bias=False)
        self.pair = nn.Parameter(torch.empty(heads, 6 * frequencies))
        self.layers = nn.ModuleList([Attention(width, heads, wide=2)])
        self.norm = nn.LayerNorm(width)
        self.numbers = nn.Linear(width, self.each * (3 if axis is None else 1))

    def spline_numbers(self, u: Tensor, seen: Tensor, about: Setting) -> Tensor:
        """Return the numbers of all splines, (crystals, orbits, axes, 3 bins + 1).

        Args:
            u: coordinates, shape (crystals, orbits, 3); read only where seen.
            seen: bool, same shape.
            about: the crystals.
        """
        angle = 2 * math.pi * u.unsqueeze(-1) * self.harmonics  # (b, o, 3, k)
        circle = torch.cat([angle.sin(), angle.cos()], -1) * seen.unsqueeze(-1)
        whole = about.code[:, None].expand(-1, u.shape[1], -1)
        x = self.read(torch.cat([circle.flatten(2), seen.to(u), whole], dim=-1))
        x = x + self.context(about.each)
        # sines and cosines of the difference, from those of the two coordinates
        k = self.harmonics.shape[0]
        sine, cosine = circle[..., :k].flatten(2), circle[..., k:].flatten(2)
        odd, even = self.pair.split(3 * k, dim=1)  # (heads, 3 k)
        to = torch.cat([sine, cosine], -1)[:, None]  # (b, 1, o, 6 k)
        sine, cosine = sine[:, None], cosine[:, None]
        odd, even = odd[:, None], even[:, None]
        of = torch.cat([cosine * odd + sine * even, cosine * even - sine * odd], -1)
        bias = of @ to.transpose(2, 3) + hidden(
            about.layout.orbits, x
        )  # (b, heads, o, o)
        x = self.layers[0](x, bias)
        out: Tensor = self.numbers(self.norm(x)).unflatten(-1, (-1, self.each))
        return CALM * out

    def forward(
        self, u: Tensor, moved: Tensor, about: Setting, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return moved coordinates and the log volume change of each crystal.

        Args:
            u: coordinates in [0, 1), shape (crystals, orbits, 3).
            moved: which of them move, bool, same shape; the others that mean something
                are read, also those of an orbit that is held at the origin.
            about: the crystals.
            inverse: go from latents towards data.
        """
        numbers = self.spline_numbers(u, about.layout.free & ~moved, about)
        old, moved = u[..., self.axes], moved[..., self.axes]
        bent, log_slope = circular_spline(old, numbers, inverse=inverse)
        new = u.clone()
        new[..., self.axes] = torch.where(moved, bent, old)
        return new, (log_slope * moved).sum((1, 2))


class TorusFlow(nn.Module):
    """All coupling layers in a row, from data to uniform noise and back.

    Args:
        couplings: number of layers; the splits of `split` take turns.
        width: size of the tokens.
        heads: attention heads.
        bins: of the splines.
        frequencies: harmonics of the coordinates that a layer reads.
    """

    def __init__(
        self,
        couplings: int,
        width: int,
        heads: int,
        bins: int,
        frequencies: int,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Coupling(AXES[number % 5], width, heads, bins, frequencies)
            for number in range(couplings)
        )

    def couplings(self, about: Setting) -> list[tuple[Coupling, Tensor]]:
        """Return each layer with what it moves, data side first."""
        kind = kinds(about.layout, about.species)
        return [
            (layer, split(number, about.free, kind))
            for number, layer in enumerate(self.layers)
            if isinstance(layer, Coupling)
        ]

    def forward(self, u: Tensor, about: Setting) -> tuple[Tensor, Tensor]:
        """Return latent coordinates and ln |det| of each layer on the way there.

        Args:
            u: coordinates, shape (crystals, orbits, 3).
            about: the crystals.

        Returns:
            u at the noise, and nats of shape (layers, crystals), data side first.
        """
        changes = []
        for layer, moved in self.couplings(about):
            u, change = layer(u, moved, about)
            changes.append(change)
        return u, torch.stack(changes)
