"""`PairTransformer` and `Transformer`: networks that look at the sites of a crystal."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from matdesign.crystals.batch import generator
from matdesign.generators.layers import (
    PairAttention,
    PairFeatures,
    SpeciesEmbedding,
    SpeciesHead,
    hidden,
    redraw,
    sinusoid,
)


class Prediction(NamedTuple):
    """What the network says about a batch of noisy crystals.

    Args:
        frac: a vector for every site in fractional coordinates, zero mean over the sites
            of a crystal, zero on padding, shape (crystals, sites, 3).
        lattice: a vector in the lattice code, shape (crystals, 6).
        species: logits of all elements, shape (crystals, sites, 104).
    """

    frac: Tensor
    lattice: Tensor
    species: Tensor


class PairTransformer(nn.Module):
    """A transformer over the sites of a crystal and one token for the whole of it.

    What it sees of a crystal does not change when the atoms are reordered, shifted
    together, moved by whole cells or rotated: species, differences f_j - f_i on the
    torus, distances, and a rotation-free lattice code. So its outputs are equivariant to
    reordering and invariant to the rest, with no equivariant tensors. Padding never
    changes a result. After `reset` all output layers are zero.

    Args:
        width: size of the tokens, a multiple of `heads`.
        layers: attention layers.
        heads: attention heads.
        pair_width: size of the pair vectors.

    Source:
        adaLN-zero: Peebles and Xie, arXiv 2212.09748; one modulation shared by all layers
        plus a learned offset of each: PixArt-alpha, arXiv 2310.00426. Pair bias:
        Crystalite, arXiv 2604.02270; we add pair values and a pair head for directions.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        layers: int = 6,
        heads: int = 8,
        pair_width: int = 48,
    ) -> None:
        super().__init__()
        self.heads, self.depth = heads, layers
        self.species = SpeciesEmbedding(width)
        self.features = PairFeatures(10)
        self.pair = nn.Sequential(
            nn.Linear(self.features.size, 2 * pair_width),
            nn.SiLU(),
            nn.Linear(2 * pair_width, pair_width),
        )
        self.bias = nn.Linear(pair_width, layers * heads)
        self.condition = nn.Sequential(
            nn.Linear(64 + 32 + 6, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        self.offset = nn.Parameter(torch.zeros(layers, 6, width))
        self.whole = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(
            PairAttention(width, heads, pair_width) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.species_head = SpeciesHead(width)
        self.lattice_head = nn.Linear(width, 6)
        self.site_head = nn.Linear(width, 3, bias=False)
        self.near = nn.Linear(width, pair_width)
        self.far = nn.Linear(width, pair_width, bias=False)
        self.direction = nn.Linear(pair_width, 3 * len(self.features.harmonics))

    @torch.no_grad()
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed; output and gate layers start at zero."""
        rng = generator(seed)
        redraw(self, rng, tables=False)
        self.species.learned.weight.normal_(generator=rng).mul_(0.3)
        self.offset.zero_()
        self.whole.zero_()
        heads = (self.species_head.learned, self.species_head.chemistry)
        for zero in (
            self.modulation,
            self.lattice_head,
            self.site_head,
            self.direction,
            *heads,
        ):
            for parameter in zero.parameters():
                parameter.zero_()

    def forward(
        self,
        species: Tensor,
        frac: Tensor,
        lattice: Tensor,
        code: Tensor,
        t: Tensor,
        *,
        whole: Tensor | None = None,
        each: Tensor | None = None,
    ) -> Prediction:
        """Return what the network says about noisy crystals.

        Args:
            species: 0 padding, 1-103 elements, 104 undecided, shape (crystals, sites).
            frac: fractional coordinates, shape (crystals, sites, 3).
            lattice: rows in angstrom, for distances, shape (crystals, 3, 3).
            code: standardised lattice code, shape (crystals, 6).
            t: time in [0, 1], shape (crystals,).
            whole: further features of each crystal, such as what it is asked to be,
                shape (crystals, width).
            each: further features of each site, shape (crystals, sites, width).
        """
        mask = species > 0  # (b, n)
        n_atoms = mask.sum(1)
        features, sine = self.features(frac, lattice)
        pair = self.pair(features)  # (b, n, n, p)
        wide = nn.functional.pad(pair, (0, 0, 1, 0, 1, 0))  # the whole has no position
        present = nn.functional.pad(mask, (1, 0), value=True)  # (b, n + 1)
        bias = self.bias(wide).unflatten(-1, (self.depth, self.heads))
        bias = bias.permute(3, 0, 4, 1, 2) + hidden(present, pair)

        size = sinusoid(n_atoms.to(frac.dtype) / 20, 32, 100.0)
        about = self.condition(torch.cat([sinusoid(t, 64), size, code], dim=1))
        about = about if whole is None else about + whole
        shared = self.modulation(nn.functional.silu(about)).unflatten(1, (6, -1))
        atoms = self.species(species)
        atoms = atoms if each is None else atoms + each
        x = torch.cat([(about + self.whole)[:, None], atoms], dim=1)
        # taken apart at once: indexing would fill a whole zero tensor for each gradient
        each_bias = bias.unbind(0)
        for i, layer in enumerate(self.layers):
            x = layer(x, wide, each_bias[i], shared + self.offset[i])
        x = self.norm(x)
        crystal, sites = x[:, 0], x[:, 1:]

        # a sum over neighbours along the sines of the displacement to each
        both = self.near(sites)[:, :, None] + self.far(sites)[:, None] + pair
        push = self.direction(nn.functional.silu(both)) * sine  # (b, i, j, 3 k)
        push = (push * mask[:, None, :, None]).sum(2).unflatten(-1, (3, -1)).sum(-1)
        moved = push / n_atoms.clamp(min=1).sqrt()[:, None, None] + self.site_head(
            sites
        )
        moved = moved * mask.unsqueeze(-1)
        drift = moved.sum(1, keepdim=True) / n_atoms.clamp(min=1)[:, None, None]
        moved = (moved - drift) * mask.unsqueeze(-1)
        return Prediction(moved, self.lattice_head(crystal), self.species_head(sites))


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
        bias = hidden(present, whole)
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
