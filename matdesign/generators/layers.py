"""What networks are made of: species with their chemistry, pair geometry, attention."""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from matdesign.crystals import elements
from matdesign.crystals.elements import MASK


@cache
def chemistry_code() -> Tensor:
    """Return a fixed descriptor of every species index.

    One-hot period, group and block; how full the s, p, d and f shells of the valence are
    by the ideal filling order; electronegativity and radius, standardised. Elements that
    behave alike have codes that lie close, so what the network learns of one helps with
    the other.

    Returns:
        float32 tensor of shape (105, 35); rows 0 (padding) and 104 (undecided) are zero.

    Source:
        Crystalite, arXiv 2604.02270, species code. Changed: electronegativity and radius
        are added, and a learned embedding stands beside the code.
    """
    row = elements.table("row").long()
    group = elements.table("group").long()
    block = elements.table("block").long()
    z = torch.arange(elements.MAX_Z + 1)
    first_f = torch.where(row == 6, 57, 89)
    shells = torch.stack(
        [
            torch.where(block == 0, group.clamp(max=2), 2) / 2,
            (group - 12).clamp(0, 6) * (block == 1) / 6,
            torch.where(block == 2, group - 2, 10 * (block == 1) * (row >= 4)) / 10,
            ((z - first_f + 1).clamp(0, 14) * (block == 3)) / 14,
        ],
        dim=1,
    )
    shells[2] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # helium stands in group 18
    scales = []
    for name in ("electronegativity", "radius"):
        values = elements.table(name)[1:]
        known = values[values.isfinite()]
        scaled = ((values - known.mean()) / known.std()).nan_to_num(0.0)
        scales.append(torch.cat([torch.zeros(1), scaled]))
    one_hot = nn.functional.one_hot
    code = torch.cat(
        [
            one_hot(row.clamp(min=1) - 1, 7),
            one_hot(group.clamp(min=1) - 1, 18),
            one_hot(block, 4),
            shells,
            torch.stack(scales, dim=1),
        ],
        dim=1,
    ).float()
    code[0] = 0.0
    return torch.cat([code, torch.zeros(1, code.shape[1])])


class SpeciesEmbedding(nn.Module):
    """A learned vector for every species plus a linear map of its chemistry code.

    Args:
        width: size of the vectors.
    """

    code: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.learned = nn.Embedding(MASK + 1, width)
        self.register_buffer("code", chemistry_code(), persistent=False)
        self.chemistry = nn.Linear(self.code.shape[1], width, bias=False)

    def forward(self, species: Tensor) -> Tensor:
        """Return vectors (crystals, sites, width) of species indices (crystals, sites)."""
        table: Tensor = self.learned.weight + self.chemistry(self.code)
        return table[species]


class SpeciesHead(nn.Module):
    """Scores of all elements, from learned weights plus the chemistry code.

    Args:
        width: size of the site vectors.
    """

    code: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("code", chemistry_code()[:MASK], persistent=False)
        self.learned = nn.Linear(width, MASK)
        self.chemistry = nn.Linear(width, self.code.shape[1], bias=False)

    def forward(self, sites: Tensor) -> Tensor:
        """Return logits (crystals, sites, 104); entry 0 is never meant to be used."""
        logits: Tensor = self.learned(sites) + self.chemistry(sites) @ self.code.T
        return logits


class PairFeatures(nn.Module):
    """Geometry of every ordered pair of sites, invariant to translation and rotation.

    Equation:
        sin and cos of 2 pi k (f_j - f_i) for k = 1..frequencies on each axis, beside 16
        Gaussians of the minimum-image distance, centred from 0 to 8 angstrom.

    Args:
        frequencies: harmonics on each axis.

    Accuracy:
        The nearest image is sought among the 27 around the wrapped displacement in the
        metric of the cell: exact for reduced cells, an upper bound for very skewed ones.
    """

    images: Tensor
    centres: Tensor
    harmonics: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        shifts = torch.tensor([-1.0, 0.0, 1.0])
        images = torch.cartesian_prod(shifts, shifts, shifts)
        harmonics = 2 * math.pi * torch.arange(1, frequencies + 1)
        self.register_buffer("images", images, persistent=False)
        self.register_buffer("centres", torch.linspace(0.0, 8.0, 16), persistent=False)
        self.register_buffer("harmonics", harmonics, persistent=False)
        self.width = 8.0 / 15
        self.size = 6 * frequencies + 16

    def forward(self, frac: Tensor, lattice: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of all pairs and their odd part.

        Args:
            frac: fractional coordinates, shape (crystals, sites, 3).
            lattice: rows in angstrom, shape (crystals, 3, 3).

        Returns:
            Features (crystals, sites, sites, size), and the sines alone
            (crystals, sites, sites, 3 frequencies), which change sign when i and j swap.
        """
        # geometry keeps its digits where the rest runs in half precision
        with torch.autocast(frac.device.type, enabled=False):
            delta = frac[:, None] - frac[:, :, None]  # (b, i, j, 3): f_j - f_i
            delta = delta - torch.round(delta)
            angle = (delta.unsqueeze(-1) * self.harmonics).flatten(-2)  # (b, i, j, 3 k)
            sine, cosine = torch.sin(angle), torch.cos(angle)
            metric = lattice @ lattice.transpose(1, 2)  # (b, 3, 3)
            image = ((self.images @ metric) * self.images).sum(-1)  # (b, 27): |n L|^2
            along = torch.einsum("bijx,bxy->bijy", delta, metric)  # (b, i, j, 3)
            square = (along * delta).sum(-1, keepdim=True) + (
                2 * along @ self.images.T + image[:, None, None]
            )
            distance = square.amin(-1, keepdim=True).clamp(min=1e-8).sqrt()
            radial = torch.exp(-0.5 * ((distance - self.centres) / self.width) ** 2)
            return torch.cat([sine, cosine, radial], dim=-1), sine


def sinusoid(value: Tensor, size: int, longest: float = 1000.0) -> Tensor:
    """Return sines and cosines of a number at geometrically spaced frequencies.

    Args:
        value: shape (crystals,).
        size: even number of features.
        longest: highest angular frequency.

    Returns:
        Shape (crystals, size).
    """
    rate = torch.logspace(0, math.log10(longest), size // 2, device=value.device)
    angle = value[:, None] * rate.to(value.dtype)
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


def redraw(module: nn.Module, rng: torch.Generator, *, tables: bool = True) -> None:
    """Draw linear layers, pair values and (`tables`) embeddings anew, by their width."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            bound = part.in_features**-0.5
            part.weight.uniform_(-bound, bound, generator=rng)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.Embedding) and tables:
            part.weight.normal_(generator=rng).mul_(0.3)
        elif isinstance(part, PairAttention):
            part.pair_value.normal_(generator=rng)
            part.pair_value.div_(math.sqrt(part.pair_value.shape[1]))


def at(log_p: Tensor, index: Tensor) -> Tensor:
    """Return the log probability of an index, shape of `index`."""
    return log_p.gather(-1, index[..., None]).squeeze(-1)


def hidden(present: Tensor, like: Tensor) -> Tensor:
    """Return the attention bias that hides padding, (crystals, 1, 1, tokens)."""
    return (~present)[:, None, None].to(like.dtype) * -1e9


class Attention(nn.Module):
    """Attention, then a perceptron.

    Equation:
        a^h_ij = softmax_j(q_i . k_j / sqrt(d) + b^h_ij);  x_i += W sum_j a_ij v_j

    Args:
        width: size of the tokens, a multiple of `heads`.
        heads: attention heads.
        wide: size of the perceptron's middle over that of the tokens.
        dropout: share of each update that is dropped in training.
    """

    def __init__(
        self, width: int, heads: int, *, wide: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.widen = nn.Linear(width, wide * width)
        self.narrow = nn.Linear(wide * width, width)
        self.drop = nn.Dropout(dropout)

    def split(self, y: Tensor) -> Tensor:
        """Return queries, keys and values, shape (3, crystals, heads, tokens, size)."""
        parts = self.query_key_value(y).unflatten(-1, (3, self.heads, -1))
        return parts.permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return updated tokens.

        Args:
            x: tokens, shape (crystals, tokens, width).
            bias: added to the logits, very negative where a token may not look, or bool,
                whether it may; shape (crystals, heads or 1, tokens, tokens).
        """
        return self.remembering(x, bias)[0]

    def remembering(
        self, x: Tensor, bias: Tensor, memory: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return updated tokens, and keys and values of all tokens so far.

        Args:
            x: new tokens, shape (crystals, new, width).
            bias: as in `forward`, of new tokens on all so far.
            memory: keys and values of the tokens before, or None.
        """
        q, k, v = self.split(self.norm_1(x))
        if memory is not None:
            k, v = torch.cat([memory[0], k], dim=2), torch.cat([memory[1], v], dim=2)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.drop(self.merge(out.transpose(1, 2).flatten(2)))
        y = nn.functional.silu(self.widen(self.norm_2(x)))
        return x + self.drop(self.narrow(y)), (k, v)


class PairAttention(Attention):
    """`Attention` with pair bias and pair values, modulated and gated.

    Equation:
        a^h_ij = softmax_j(q_i.k_j / sqrt(d) + b^h_ij);
        o^h_i = sum_j a^h_ij (v_j + W^h u_ij).

    A bias alone can weigh neighbours but not say in which direction they lie; the pair
    values W u_ij can, through the sines in u.

    Args:
        width: size of the tokens.
        heads: attention heads.
        pair_width: size of the pair vectors u.
    """

    def __init__(self, width: int, heads: int, pair_width: int) -> None:
        super().__init__(width, heads)
        self.norm_1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_2 = nn.LayerNorm(width, elementwise_affine=False)
        self.pair_value = nn.Parameter(torch.empty(heads, pair_width, width // heads))

    def forward(  # type: ignore[override]
        self, x: Tensor, pair: Tensor, bias: Tensor, modulation: Tensor
    ) -> Tensor:
        """Return updated tokens.

        Args:
            x: tokens, shape (crystals, tokens, width).
            pair: pair vectors u, shape (crystals, tokens, tokens, pair_width).
            bias: b, minus a large number for absent tokens j, shape
                (crystals, heads, tokens, tokens).
            modulation: shift, scale, gate, twice, shape (crystals, 6, width).
        """
        b, n, width = x.shape
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation[
            :, :, None
        ].unbind(1)
        y = torch.addcmul(shift_1, self.norm_1(x), 1 + scale_1)
        q, k, v = self.split(y)  # (b, heads, n, size)
        logits = torch.matmul(q / math.sqrt(q.shape[-1]), k.transpose(2, 3)) + bias
        weight = logits.softmax(-1)  # (b, heads, n, n)
        out = torch.matmul(weight, v).transpose(1, 2)  # (b, n, heads, size)
        seen = torch.matmul(weight.transpose(1, 2), pair)  # (b, n, heads, pair_width)
        value = torch.matmul(seen.permute(2, 0, 1, 3).flatten(1, 2), self.pair_value)
        out = out + value.unflatten(1, (b, n)).permute(1, 2, 0, 3)
        x = torch.addcmul(x, gate_1, self.merge(out.reshape(b, n, width)))
        y = torch.addcmul(shift_2, self.norm_2(x), 1 + scale_2)
        y = self.narrow(nn.functional.silu(self.widen(y)))
        return torch.addcmul(x, gate_2, y)


class Cache(NamedTuple):
    """Keys and values of all tokens read so far, so that no token is read twice.

    Args:
        layers: keys and values of each layer, shape (crystals, heads, tokens, size).
        valid: which of the tokens exist, bool, shape (crystals, tokens).
    """

    layers: list[tuple[Tensor, Tensor]]
    valid: Tensor


class CausalTransformer(nn.Module):
    """Layers of causal attention with a memory for one token at a time.

    Reading a sequence at once and reading it token by token with a `Cache` give the same
    vectors; the first is for training, the second for sampling.

    Args:
        width: size of the tokens.
        layers: attention layers.
        heads: attention heads.
        dropout: share of each update that is dropped in training.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Attention(width, heads, dropout=dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, valid: Tensor, cache: Cache | None = None
    ) -> tuple[Tensor, Cache]:
        """Return one vector for each new token, zero where none exists, and the memory.

        Args:
            x: new tokens, shape (crystals, new, width).
            valid: which of them exist, bool, shape (crystals, new); the first token of
                a sequence always does.
            cache: memory of the tokens before; None at the start.
        """
        new, known = x.shape[1], valid
        if cache is not None:
            valid = torch.cat([cache.valid, valid], dim=1)
        column = torch.arange(valid.shape[1], device=x.device)
        row = column[len(column) - new :, None]
        # a token that does not exist sees itself, so that no row is empty
        seen = ((column <= row) & valid[:, None]) | (column == row)
        made = []
        for i, layer in enumerate(self.layers):
            memory = None if cache is None else cache.layers[i]
            assert isinstance(layer, Attention)
            x, kept = layer.remembering(x, seen[:, None], memory)
            made.append(kept)
        return self.norm(x) * known[..., None], Cache(made, valid)
