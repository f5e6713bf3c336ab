"""`CausalTransformer`: each token sees those before it, and remembers them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


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


class Layer(nn.Module):
    """Attention over earlier tokens, then a perceptron.

    Equation:
        a_ij = softmax_{j <= i}(q_i . k_j / sqrt(d));  x_i += W sum_j a_ij v_j

    Args:
        width: size of the tokens, a multiple of `heads`.
        heads: attention heads.
        dropout: share of each update that is dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.norm_2 = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        at: Tensor,
        seen: Tensor,
        memory: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return updated tokens, and keys and values of all tokens so far.

        Everything but the attention itself runs on the tokens that exist.

        Args:
            x: new tokens that exist, in one row, shape (existing, width).
            at: where each lies in the padded batch, flattened, shape (existing,).
            seen: which tokens each new token may see, bool, shape
                (crystals, 1, new, tokens so far).
            memory: keys and values of the tokens before, or None.
        """
        b, _, n, _ = seen.shape
        qkv = self.query_key_value(self.norm_1(x))
        whole = qkv.new_zeros(b * n, qkv.shape[1]).index_copy(0, at, qkv)
        parts = whole.view(b, n, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # (b, heads, n, size)
        if memory is not None:
            k = torch.cat([memory[0], k], dim=2)
            v = torch.cat([memory[1], v], dim=2)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out = out.transpose(1, 2).reshape(b * n, -1)[at]
        x = x + self.drop(self.merge(out))
        y = nn.functional.silu(self.widen(self.norm_2(x)))
        return x + self.drop(self.narrow(y)), (k, v)


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
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
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
        b, new, width = x.shape
        at = valid.flatten().nonzero().squeeze(1)
        x = x.flatten(0, 1)[at]
        before = 0 if cache is None or cache.valid is None else cache.valid.shape[1]
        if cache is not None and cache.valid is not None:
            valid = torch.cat([cache.valid, valid], dim=1)
        row = torch.arange(new, device=x.device)[:, None] + before
        column = torch.arange(valid.shape[1], device=x.device)
        # a token that does not exist sees itself, so that no row is empty
        seen = ((column <= row) & valid[:, None]) | (column == row)
        made = Cache(valid=valid)
        for i, layer in enumerate(self.layers):
            memory = (cache.keys[i], cache.values[i]) if cache and before else None
            x, (k, v) = layer(x, at, seen[:, None], memory)
            made.keys.append(k)
            made.values.append(v)
        hidden = x.new_zeros(b * new, width).index_copy(0, at, self.norm(x))
        return hidden.view(b, new, width), made
