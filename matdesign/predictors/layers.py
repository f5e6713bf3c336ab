"""`MomentNetwork`: from the surroundings of sites to numbers about a crystal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import generator
from matdesign.crystals.elements import MASK
from matdesign.generators.layers import SpeciesEmbedding, redraw
from matdesign.predictors.features import Moments


def crystal_mean(x: Tensor, blocks: list[Tensor]) -> Tensor:
    """Return the mean over the sites of each crystal.

    Args:
        x: one row per site, crystal after crystal, shape (sites, size).
        blocks: moments of crystals of equal size, which say how the rows are grouped.

    Returns:
        Shape (crystals, size).
    """
    parts = x.split([block.shape[0] * block.shape[1] for block in blocks])
    means = [
        part.view(*block.shape[:2], -1).mean(1)
        for part, block in zip(parts, blocks, strict=True)
    ]
    return torch.cat(means)


class Layer(nn.Module):
    """Weigh the surroundings of a site with what its neighbours are; update the site.

    Equation:
        A_i,k = sum_j M_ij,k (V h_j); m_i = W A_i; p_i,l = sqrt(sum_abc (W_l A_i,l)^2);
        h_i <- h_i + W_3 (silu(W_1 x_i) * W_2 x_i), x_i = [h_i, m_i, p_i, mean_j h_j]

    The sum over (a, b, c) makes p invariant to rotations: it is a sum over pairs of
    neighbours of cos(angle)^l, so the site knows its bond angles.

    Args:
        width: size of the site vectors h.
        channels: size of what a site sends, V h.
        mixed: angular features p for each degree l.
        moments: says how many moments M there are.
    """

    def __init__(self, width: int, channels: int, mixed: int, moments: Moments) -> None:
        super().__init__()
        self.radial = moments.radial
        self.degrees = torch.bincount(moments.degree_of)[1:].tolist()
        self.norm = nn.LayerNorm(width)
        self.send = nn.Linear(width, channels)
        self.receive = nn.Linear(moments.radial * channels, width)
        self.mix = nn.ModuleList(
            nn.Linear(moments.coarse * channels, mixed, bias=False)
            for _ in self.degrees
        )
        self.context = nn.Linear(width, 4 * width, bias=False)
        self.widen = nn.Linear(2 * width + mixed * len(self.degrees), 4 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, h: Tensor, blocks: list[Tensor], owner: Tensor) -> Tensor:
        """Return updated site vectors.

        Args:
            h: site vectors, crystal after crystal, shape (sites, width).
            blocks: moments of crystals of equal size, each (c, n, size, n).
            owner: crystal of each site, shape (sites,).
        """
        y = self.norm(h)
        sizes = [block.shape[0] * block.shape[1] for block in blocks]
        seen = []
        for block, sent in zip(blocks, self.send(y).split(sizes), strict=True):
            c, n, size, _ = block.shape
            flat = torch.bmm(block.view(c, n * size, n), sent.view(c, n, -1))
            seen.append(flat.view(c * n, size, -1))
        around = torch.cat(seen)  # (sites, size, channels)
        near, directed = around.tensor_split([self.radial], dim=1)
        parts = [y, self.receive(near.flatten(1))]
        by_degree = directed.reshape(len(h), sum(self.degrees), -1).split(
            self.degrees, 1
        )
        for mix, part in zip(self.mix, by_degree, strict=True):
            parts.append((mix(part).square().sum(1) + 0.01).sqrt())
        wide = self.widen(torch.cat(parts, dim=1))
        wide = wide + self.context(crystal_mean(y, blocks))[owner]
        gate, value = wide.chunk(2, dim=1)
        out: Tensor = h + self.narrow(nn.functional.silu(gate) * value)
        return out


class MomentNetwork(nn.Module):
    """Site vectors from species, a few layers of moments, means over the sites.

    All means are over sites, so a doubled cell gives the same numbers.

    Args:
        moments: what the layers see of the geometry.
        count: numbers to predict for a crystal.
        width: size of the site vectors.
        layers: how often sites look at their neighbours.
        channels: size of what a site sends.
        mixed: angular features for each degree.
    """

    def __init__(
        self,
        moments: Moments,
        *,
        count: int,
        width: int,
        layers: int,
        channels: int,
        mixed: int,
    ) -> None:
        super().__init__()
        self.species = SpeciesEmbedding(width)
        self.layers = nn.ModuleList(
            Layer(width, channels, mixed, moments) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.site_head = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, count)
        )
        self.whole_head = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, count)
        )

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None, seen: Tensor) -> None:
        """Draw all weights anew from a seed.

        Args:
            seed: of the weights.
            seen: elements of the training set, shape (104,); the others start, and stay,
                with their chemistry code alone, so that they resemble their neighbours in
                the periodic table.
        """
        rng = generator(seed)
        redraw(self, rng, tables=False)
        self.species.learned.weight.normal_(generator=rng).mul_(0.3)
        self.species.learned.weight[:MASK] *= seen[:, None]

    def forward(self, species: Tensor, blocks: list[Tensor]) -> Tensor:
        """Return the numbers of each crystal.

        Args:
            species: atomic numbers of all sites, shape (sites,), or probabilities of
                them, shape (sites, 104); crystal after crystal.
            blocks: moments of crystals of equal size, each (c, n, size, n).

        Returns:
            Shape (crystals, count), in the order of the blocks.
        """
        if species.ndim == 1:
            h = self.species(species)
        else:  # the expected vector
            h = species @ self.species(torch.arange(MASK, device=species.device))
        sizes = torch.tensor([block.shape[1] for block in blocks])
        crystals = torch.tensor([block.shape[0] for block in blocks])
        each = sizes.repeat_interleave(crystals).to(h.device)
        owner = torch.arange(len(each), device=h.device).repeat_interleave(each)
        for layer in self.layers:
            h = layer(h, blocks, owner)
        y = self.norm(h)
        mean = crystal_mean(y, blocks)
        spread = crystal_mean((y - mean[owner]).square(), blocks)
        whole = torch.cat([mean, (spread + 0.01).sqrt()], dim=1)
        out: Tensor = crystal_mean(self.site_head(y), blocks) + self.whole_head(whole)
        return out
