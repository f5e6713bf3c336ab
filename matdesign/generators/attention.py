"""Attention over the tokens of a crystal: plain, and causal with a memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """One transformer layer: attention with a mask or bias, then a perceptron.

    Equation:
        a_ij = softmax_j(q_i . k_j / sqrt(d) + b_ij);  x_i += W sum_j a_ij v_j

    Args:
        width: size of the tokens, a multiple of `heads`.
        heads: attention heads.
        widen: size of the perceptron's hidden layer, in widths.
        dropout: share of each update that is dropped in training.
    """

    def __init__(
        self, width: int, heads: int, *, widen: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.widen = nn.Linear(width, widen * width)
        self.narrow = nn.Linear(widen * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, seen: Tensor, memory: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return updated tokens, and keys and values of all tokens so far.

        Args:
            x: tokens, shape (crystals, tokens, width).
            seen: which tokens each may see, bool, or what is added to the logits, shape
                (crystals, heads or 1, tokens, tokens so far).
            memory: keys and values of the tokens before, or None.
        """
        qkv = self.query_key_value(self.norm_1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (crystals, heads, tokens, size)
        if memory is not None:
            k, v = torch.cat([memory[0], k], dim=2), torch.cat([memory[1], v], dim=2)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.drop(self.merge(out.transpose(1, 2).flatten(2)))
        inner = functional.silu(self.widen(self.norm_2(x)))
        return x + self.drop(self.narrow(inner)), (k, v)


def hidden(present: Tensor, like: Tensor) -> Tensor:
    """Return the attention bias that hides padding, (crystals, 1, 1, tokens)."""
    return (~present)[:, None, None].to(like.dtype) * -1e9


@dataclass(eq=False)
class Cache:
    """Keys and values of all tokens read so far, so that no token is read twice.

    Args:
        keys: one tensor for each layer, shape (crystals, heads, tokens, size).
        values: same shapes.
        valid: which of the tokens exist, bool, shape (crystals, tokens).
    """

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    valid: Tensor | None = None


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
            Attention(width, heads, widen=4, dropout=dropout) for _ in range(layers)
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
        exists, new, before = valid[..., None], x.shape[1], 0
        if cache is not None and cache.valid is not None:
            before = cache.valid.shape[1]
            valid = torch.cat([cache.valid, valid], dim=1)
        row = torch.arange(new, device=x.device)[:, None] + before
        column = torch.arange(valid.shape[1], device=x.device)
        # a token that does not exist sees itself, so that no row is empty
        seen = ((column <= row) & valid[:, None]) | (column == row)
        made = Cache(valid=valid)
        for i, layer in enumerate(self.layers):
            memory = (cache.keys[i], cache.values[i]) if cache and before else None
            x, (k, v) = layer(x, seen[:, None], memory)
            made.keys.append(k)
            made.values.append(v)
        return self.norm(x) * exists, made
