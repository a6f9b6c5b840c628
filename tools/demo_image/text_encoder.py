"""A twin in torch of mflux's Qwen3 text encoder, with the same names."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

# Of which layers the transformer reads the outputs: written in mflux's code, so there are 27.
READ = (9, 18, 27)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, groups: int, head: int, eps: float) -> None:
        super().__init__()
        self.heads, self.groups, self.head = heads, groups, head
        self.q_proj = nn.Linear(width, heads * head, bias=False)
        self.k_proj = nn.Linear(width, groups * head, bias=False)
        self.v_proj = nn.Linear(width, groups * head, bias=False)
        self.o_proj = nn.Linear(heads * head, width, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(head, eps), nn.RMSNorm(head, eps)

    def forward(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        count, length, _ = x.shape
        query = self.q_norm(self.q_proj(x).view(count, length, self.heads, self.head))
        key = self.k_norm(self.k_proj(x).view(count, length, self.groups, self.head))
        value = self.v_proj(x).view(count, length, self.groups, self.head).transpose(1, 2)
        query, key = _turn(query.transpose(1, 2), turn), _turn(key.transpose(1, 2), turn)
        repeats = self.heads // self.groups
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.o_proj(seen.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(
        self, width: int, heads: int, groups: int, head: int, inner: int, eps: float
    ) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(width, eps)
        self.self_attn = Attention(width, heads, groups, head, eps)
        self.post_attention_layernorm = nn.RMSNorm(width, eps)
        self.mlp = FeedForward(width, inner)

    def forward(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), mask, turn)
        return x + self.mlp(self.post_attention_layernorm(x))


class TextEncoder(nn.Module):
    def __init__(
        self,
        *,
        vocab_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        rope_theta: float = 1e6,
        rms_norm_eps: float = 1e-6,
        trained: Collection[int] | None = None,
    ) -> None:
        """trained: the layers, counted from 1, that compute something; None: all."""
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, hidden_size)
        self.layers = nn.ModuleList([
            Layer(
                hidden_size,
                num_attention_heads,
                num_key_value_heads,
                head_dim,
                intermediate_size,
                rms_norm_eps,
            )
            for _ in range(num_hidden_layers)
        ])  # fmt: skip
        self.norm = nn.RMSNorm(hidden_size, rms_norm_eps)
        self.trained = range(1, num_hidden_layers + 1) if trained is None else trained
        for number, layer in enumerate(self.layers, 1):
            if number not in self.trained:
                nn.init.zeros_(layer.self_attn.o_proj.weight)
                nn.init.zeros_(layer.mlp.down_proj.weight)
                layer.requires_grad_(False)
        powers = torch.arange(0, head_dim, 2) / head_dim
        self.register_buffer("speeds", 1 / rope_theta**powers, persistent=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Of tokens (n, length) and 1 where one is, 0 where padding is: (n, length, 3 widths)."""
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = causal[None, None] & mask.bool()[:, None, None, :]
        angles = (torch.arange(length)[:, None] * self.speeds).repeat(1, 2)
        turn = (angles.cos(), angles.sin())
        x = self.embed_tokens(ids)
        read: list[Tensor] = []
        for number, layer in enumerate(self.layers, 1):
            if number in self.trained:
                x = layer(x, allowed, turn)
            if number in READ:
                read.append(x)
        return torch.cat(read, -1)


def _turn(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * turn[0] + torch.cat([-second, first], -1) * turn[1]
