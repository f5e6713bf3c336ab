"""What a property network sees: the surroundings of every site as smooth moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.crystals.geometry import reduce_lattice

_CANDIDATES = 2_000_000
"""Site pairs, images counted, after which the neighbour search begins a new block."""

_MOST_IMAGES = 6
"""Images searched on each side of every axis of the reduced cell."""


@dataclass(frozen=True)
class Neighbours:
    """Every ordered pair of sites within a radius, one entry for each image.

    Args:
        crystal: index of the crystal, shape (pairs,).
        i: site at the centre, shape (pairs,).
        j: site around it, shape (pairs,).
        vector: from i to this image of j in angstrom, differentiable in coordinates and
            lattice, shape (pairs, 3).
    """

    crystal: Tensor
    i: Tensor
    j: Tensor
    vector: Tensor


def neighbours(crystals: Crystals | SoftCrystals, radius: float) -> Neighbours:
    """Return all pairs of sites nearer than a radius, over all periodic images.

    Each cell is reduced first, so that the choice of the cell does not matter. Which
    pairs count is found without gradient; their vectors carry it.

    Args:
        crystals: anything with `frac`, `lattice` and `mask`.
        radius: angstrom.

    Accuracy:
        Exact where the reduced cell is at least radius / 5.5 high in every direction, 1.1
        angstrom for 6 angstrom; neighbours beyond are left out of flatter cells, which no
        crystal has.
    """
    parts = [
        _block(crystals, some, reach, radius)
        for some, reach in _blocks(crystals, radius)
    ]
    if not parts:
        none = torch.zeros(0, dtype=torch.long, device=crystals.frac.device)
        return Neighbours(none, none, none, crystals.frac.new_zeros(0, 3))
    return Neighbours(*(torch.cat(list(part)) for part in zip(*parts, strict=True)))


@torch.no_grad()
def heights(lattice: Tensor) -> Tensor:
    """Return how high reduced cells stand on each face, angstrom, shape (crystals, 3)."""
    lattice = lattice.double().nan_to_num(0.0, 0.0, 0.0)
    rows = reduce_lattice(lattice) @ lattice
    area = torch.linalg.cross(rows[:, [1, 2, 0]], rows[:, [2, 0, 1]]).norm(dim=-1)
    return torch.linalg.det(rows).abs()[:, None] / area.clamp(min=1e-9)


def _blocks(
    crystals: Crystals | SoftCrystals, radius: float
) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield crystals that need similar numbers of images, and these numbers."""
    if not len(crystals):
        return
    height = heights(crystals.lattice).clamp(min=1e-3)
    reach = (radius / height + 0.5).floor().clamp(max=_MOST_IMAGES).long()
    count = (2 * reach + 1).prod(1) * crystals.mask.sum(1).to(reach) ** 2
    order = torch.argsort(count)
    block = count[order].cumsum(0) // _CANDIDATES
    for number in block.unique():
        some = order[block == number]
        yield some, reach[some].amax(0).tolist()


def _block(
    crystals: Crystals | SoftCrystals, some: Tensor, reach: list[int], radius: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return crystal, i, j and vector of the pairs of some crystals."""
    mask = crystals.mask[some]
    used = int(mask.any(0).nonzero().max()) + 1 if bool(mask.any()) else 0
    mask = mask[:, :used]
    lattice = crystals.lattice[some]
    change = reduce_lattice(lattice).to(lattice)
    rows = change @ lattice  # (b, 3, 3)
    frac = crystals.frac[some][:, :used] @ torch.linalg.inv(change).round()
    delta = frac[:, None] - frac[:, :, None]  # (b, i, j, 3)
    delta = delta - delta.detach().round()
    with torch.no_grad():
        axes = [torch.arange(-n, n + 1, device=rows.device) for n in reach]
        shift = torch.cartesian_prod(*axes).to(rows)  # (images, 3)
        cart = (delta @ rows[:, None]).unsqueeze(3) + (shift @ rows)[:, None, None]
        near = cart.square().sum(-1) < radius**2  # (b, i, j, images)
        near &= (mask[:, :, None] & mask[:, None])[..., None]
        own = torch.eye(used, dtype=torch.bool, device=rows.device)[..., None]
        near &= ~(own & (shift == 0).all(-1))
        b, i, j, image = near.nonzero().unbind(1)
    moved = delta[b, i, j] + shift[image]
    vector = (moved.unsqueeze(1) @ rows[b]).squeeze(1)
    return some[b], i, j, vector


class Moments(nn.Module):
    """Surroundings of a site as sums over its neighbours that are linear in them.

    Because they are plain sums over all images, a doubled cell has the same moments, and
    the cutoff is smooth. The network learns from them what it needs: it weighs them with
    what the neighbours are, mixes them, and squares the directed ones.

    Equation:
        M_ij,k = sum_images g_k(d);
        M_ij,kl = sum_images g'_k(d) x^a y^b z^c sqrt(l! / (a! b! c!)), a + b + c = l,
        with (x, y, z) the unit vector to the image, so that the product of two moments
        of degree l summed over (a, b, c) is a sum of cos(angle)^l over pairs.

    Args:
        radius: of the undirected moments, angstrom.
        radial: number of their Gaussians.
        near: radius of the directed moments, angstrom.
        coarse: number of their Gaussians.
        degree: highest degree l.

    Source:
        Moment tensors, Shapeev, arXiv 1512.06054, with Gaussians for the radial part.
    """

    centres: Tensor
    coarse_centres: Tensor
    power: Tensor
    weight: Tensor
    degree_of: Tensor

    def __init__(
        self,
        *,
        radius: float = 6.0,
        radial: int = 24,
        near: float = 5.0,
        coarse: int = 6,
        degree: int = 3,
    ) -> None:
        super().__init__()
        self.radius, self.near = radius, near
        self.radial, self.coarse = radial, coarse
        power = [
            (a, b, n - a - b)
            for n in range(1, degree + 1)
            for a in range(n + 1)
            for b in range(n + 1 - a)
        ]
        count = [
            math.factorial(sum(p)) / math.prod(math.factorial(x) for x in p)
            for p in power
        ]
        tables = {
            "centres": torch.linspace(0.8, radius - 0.4, radial),
            "coarse_centres": torch.linspace(1.4, near - 0.8, coarse),
            "power": torch.tensor(power),
            "weight": torch.tensor(count).sqrt(),
            "degree_of": torch.tensor([sum(p) for p in power]),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self.directed = len(power)
        self.size = radial + self.directed * coarse

    def of_pairs(self, vector: Tensor) -> Tensor:
        """Return the terms of the sums, shape (pairs, size), of vectors (pairs, 3)."""
        d = (vector.square().sum(-1) + 1e-12).sqrt()
        fine = self._radial(d, self.centres, self.radius)
        broad = self._radial(d, self.coarse_centres, self.near)
        unit = vector / d[:, None]
        ladder = [torch.ones_like(unit)]
        for _ in range(int(self.degree_of.max())):
            ladder.append(ladder[-1] * unit)
        steps = torch.stack(ladder, dim=1)  # (pairs, degree + 1, 3): x^a, y^a, z^a
        a, b, c = self.power.unbind(1)
        shape = steps[:, a, 0] * steps[:, b, 1] * steps[:, c, 2] * self.weight
        directed = (shape[:, :, None] * broad[:, None]).flatten(1)
        return torch.cat([fine, directed], dim=1)

    def share(self, values: Tensor) -> Tensor:
        """Return one number per moment, (size,), equal for all directions of a degree.

        What scales the moments must not prefer an axis, or rotations would matter.
        """
        fine, directed = values.tensor_split([self.radial])
        table = directed.view(self.directed, self.coarse).clone()
        for degree in self.degree_of.unique().tolist():
            rows = self.degree_of == degree
            table[rows] = table[rows].mean(0)
        return torch.cat([fine, table.flatten()])

    def _radial(self, d: Tensor, centres: Tensor, radius: float) -> Tensor:
        """Return Gaussians of distances that end smoothly at a radius."""
        width = float(centres[1] - centres[0])
        inside = (d / radius).clamp(max=1.0)
        cut = (1 - inside.square()).square()
        return torch.exp(-0.5 * ((d[:, None] - centres) / width) ** 2) * cut[:, None]

    def forward(self, crystals: Crystals | SoftCrystals) -> list[tuple[Tensor, Tensor]]:
        """Return the moments of a batch, crystals of equal size together.

        Args:
            crystals: hard or soft; only their geometry is used.

        Returns:
            One pair for each number n of atoms in the batch, rising: which crystals,
            shape (c,), and their moments, shape (c, n, size, n), the last axis running
            over the neighbours j.
        """
        with torch.autocast(crystals.frac.device.type, enabled=False):
            pairs = neighbours(crystals, self.radius)
            terms = self.of_pairs(pairs.vector)
        mask = crystals.mask
        n_atoms = mask.sum(1)
        place = (mask.cumsum(1) - 1).clamp(min=0)  # sites without the padding between
        i, j = place[pairs.crystal, pairs.i], place[pairs.crystal, pairs.j]
        size = n_atoms[pairs.crystal]
        out = []
        for n in n_atoms.unique().tolist():
            if not n:
                continue
            which = (n_atoms == n).nonzero().squeeze(1)
            rank = torch.zeros_like(n_atoms)
            rank[which] = torch.arange(len(which), device=rank.device)
            mine = (size == n).nonzero().squeeze(1)
            row = (rank[pairs.crystal[mine]] * n + i[mine]) * n + j[mine]
            flat = terms.new_zeros(len(which) * n * n, self.size)
            flat = flat.index_add(0, row, terms[mine])
            block = flat.view(len(which), n, n, self.size).transpose(2, 3)
            out.append((which, block.contiguous()))
        return out


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a property network learns from: crystals of equal size one after the other.

    Args:
        species: atomic numbers of all sites, shape (sites,).
        blocks: moments of crystals of equal size, each (c, n, size, n).
        target: their properties, NaN = unknown, shape (crystals, properties).
    """

    species: Tensor
    blocks: list[Tensor]
    target: Tensor

    def to(self, device: torch.device | str) -> Surroundings:
        """Return the same on a device, moments in full precision."""
        blocks = [block.to(device).float() for block in self.blocks]
        return Surroundings(self.species.to(device), blocks, self.target.to(device))


class TrainingSet:
    """The surroundings of a whole set in half precision, found once.

    Args:
        surroundings: of a batch of crystals, as `Moments.forward` returns them.
        crystals: the set; about 40 kB for a crystal of ten atoms.
        properties: names of the targets.
        device: where the surroundings are found and kept.

    Attributes:
        n_atoms: what `training` splits batches by: nothing, for `Surroundings` have no
            padding.
    """

    def __init__(
        self,
        surroundings: Callable[[Crystals], list[tuple[Tensor, Tensor]]],
        crystals: Crystals,
        properties: Sequence[str],
        device: torch.device,
    ) -> None:
        self.n_atoms = torch.zeros(len(crystals), dtype=torch.long)
        self.species = [row[row > 0] for row in crystals.species.cpu()]
        values = [crystals.properties[name].float().cpu() for name in properties]
        self.target = torch.stack(values, dim=1)
        self.blocks = [torch.empty(0)] * len(crystals)
        with torch.no_grad():
            for chunk in torch.arange(len(crystals)).split(256):
                for which, block in surroundings(crystals[chunk].to(device)):
                    rows = chunk[which.cpu()].tolist()
                    for row, one in zip(rows, block.half(), strict=True):
                        self.blocks[row] = one

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: Tensor) -> Surroundings:
        """Return what is known of some crystals, in rising order of size."""
        sizes = torch.tensor([len(self.species[i]) for i in index.tolist()])
        order = index[sizes.argsort(stable=True)]
        species = [self.species[i] for i in order.tolist()]
        groups = groupby(order.tolist(), lambda i: len(self.species[i]))
        blocks = [torch.stack([self.blocks[i] for i in some]) for _, some in groups]
        return Surroundings(torch.cat(species), blocks, self.target[order])
