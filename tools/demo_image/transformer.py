"""A twin in torch of mflux's FLUX.2 transformer, with the same names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPS = 1e-6
Turn = tuple[Tensor, Tensor]
Change = tuple[Tensor, ...]


class Modulation(nn.Module):
    def __init__(self, width: int, sets: int) -> None:
        super().__init__()
        self.sets = sets
        self.linear = nn.Linear(width, width * 3 * sets, bias=False)

    def forward(self, time: Tensor) -> list[Change]:
        """Shift, scale and gate of each set."""
        parts = self.linear(functional.silu(time))[:, None].chunk(3 * self.sets, -1)
        return [parts[3 * index : 3 * index + 3] for index in range(self.sets)]


class FeedForward(nn.Module):
    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.linear_in = nn.Linear(width, int(width * ratio) * 2, bias=False)
        self.linear_out = nn.Linear(int(width * ratio), width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_out(_gated(self.linear_in(x)))


class Attention(nn.Module):
    """Of words and picture together, each with weights of its own."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
            setattr(self, name, nn.Linear(width, inner, bias=False))
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            setattr(self, name, nn.RMSNorm(head, 1e-5))
        self.to_out = nn.Linear(inner, width, bias=False)
        self.to_add_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, words: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
        count = words.shape[1]
        query = [self.norm_added_q(self._split(self.add_q_proj(words)))]
        query.append(self.norm_q(self._split(self.to_q(x))))
        key = [self.norm_added_k(self._split(self.add_k_proj(words)))]
        key.append(self.norm_k(self._split(self.to_k(x))))
        value = [self._split(self.add_v_proj(words)), self._split(self.to_v(x))]
        seen = _attend(torch.cat(query, 2), torch.cat(key, 2), torch.cat(value, 2), turn)
        return self.to_out(seen[:, count:]), self.to_add_out(seen[:, :count])

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, head: int, ratio: float) -> None:
        super().__init__()
        self.attn = Attention(width, heads, head)
        self.ff, self.ff_context = FeedForward(width, ratio), FeedForward(width, ratio)

    def forward(
        self, x: Tensor, words: Tensor, changes: list[list[Change]], turn: Turn
    ) -> tuple[Tensor, Tensor]:
        (attend, feed), (attend_words, feed_words) = changes
        seen, seen_words = self.attn(_changed(x, attend), _changed(words, attend_words), turn)
        x, words = x + attend[2] * seen, words + attend_words[2] * seen_words
        x = x + feed[2] * self.ff(_changed(x, feed))
        return x, words + feed_words[2] * self.ff_context(_changed(words, feed_words))


class SingleAttention(nn.Module):
    def __init__(self, width: int, heads: int, head: int, ratio: float) -> None:
        super().__init__()
        self.heads, self.inner = heads, heads * head
        mlp = int(width * ratio)
        self.to_qkv_mlp_proj = nn.Linear(width, self.inner * 3 + mlp * 2, bias=False)
        self.norm_q, self.norm_k = nn.RMSNorm(head, 1e-5), nn.RMSNorm(head, 1e-5)
        self.to_out = nn.Linear(self.inner + mlp, width, bias=False)

    def forward(self, x: Tensor, turn: Turn) -> Tensor:
        *parts, mlp = self.to_qkv_mlp_proj(x).split(
            [self.inner] * 3 + [self.to_qkv_mlp_proj.out_features - 3 * self.inner], -1
        )
        query, key, value = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        seen = _attend(self.norm_q(query), self.norm_k(key), value, turn)
        return self.to_out(torch.cat([seen, _gated(mlp)], -1))


class SingleBlock(nn.Module):
    def __init__(self, width: int, heads: int, head: int, ratio: float) -> None:
        super().__init__()
        self.attn = SingleAttention(width, heads, head, ratio)

    def forward(self, x: Tensor, change: Change, turn: Turn) -> Tensor:
        return x + change[2] * self.attn(_changed(x, change), turn)


class Time(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, width, bias=False)
        self.linear_2 = nn.Linear(width, width, bias=False)

    def forward(self, time: Tensor) -> Tensor:
        half = self.channels // 2
        angles = time[:, None] * torch.exp(-math.log(10000.0) * torch.arange(half) / half)
        waves = torch.cat([angles.cos(), angles.sin()], -1)
        return self.linear_2(functional.silu(self.linear_1(waves)))


class NormOut(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width * 2, bias=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.linear(functional.silu(time))[:, None].chunk(2, -1)
        return _changed(x, (shift, scale))


class Transformer(nn.Module):
    def __init__(
        self,
        num_layers: int,
        num_single_layers: int,
        num_attention_heads: int,
        attention_head_dim: int,
        joint_attention_dim: int,
        axes_dims_rope: tuple[int, ...],
        *,
        channels: int = 128,
        timestep_guidance_channels: int = 256,
        mlp_ratio: float = 3.0,
        rope_theta: float = 2000,
    ) -> None:
        super().__init__()
        heads, head = num_attention_heads, attention_head_dim
        width = heads * head
        self.axes, self.theta = axes_dims_rope, rope_theta
        self.time_guidance_embed = Time(timestep_guidance_channels, width)
        self.double_stream_modulation_img = Modulation(width, 2)
        self.double_stream_modulation_txt = Modulation(width, 2)
        self.single_stream_modulation = Modulation(width, 1)
        self.x_embedder = nn.Linear(channels, width, bias=False)
        self.context_embedder = nn.Linear(joint_attention_dim, width, bias=False)
        self.transformer_blocks = nn.ModuleList(
            [Block(width, heads, head, mlp_ratio) for _ in range(num_layers)]
        )
        self.single_transformer_blocks = nn.ModuleList(
            [SingleBlock(width, heads, head, mlp_ratio) for _ in range(num_single_layers)]
        )
        self.norm_out = NormOut(width)
        self.proj_out = nn.Linear(width, channels, bias=False)

    def forward(self, x: Tensor, words: Tensor, sigma: Tensor, places: Tensor) -> Tensor:
        """The velocity from the picture to the noise.

        x: (n, patches, 128); words: (n, length, joint_attention_dim); sigma: (n,), 0 to 1;
        places: (patches, 4), of the patches: image, row, column, 0.
        """
        count = words.shape[1]
        of_words = torch.zeros(count, 4)
        of_words[:, 3] = torch.arange(count)
        turn = self._turn(torch.cat([of_words, places]))
        time = self.time_guidance_embed(sigma * 1000)
        x, words = self.x_embedder(x), self.context_embedder(words)
        changes = [self.double_stream_modulation_img(time), self.double_stream_modulation_txt(time)]
        for block in self.transformer_blocks:
            x, words = block(x, words, changes, turn)
        x = torch.cat([words, x], 1)
        (change,) = self.single_stream_modulation(time)
        for block in self.single_transformer_blocks:
            x = block(x, change, turn)
        return self.proj_out(self.norm_out(x[:, count:], time))

    def _turn(self, places: Tensor) -> Turn:
        angles = torch.cat(
            [
                places[:, axis, None] / self.theta ** (torch.arange(0, size, 2) / size)
                for axis, size in enumerate(self.axes)
            ],
            -1,
        )
        return angles.cos(), angles.sin()


def grid(rows: int, columns: int, image: int = 0) -> Tensor:
    """The places of a picture's patches, (rows * columns, 4); reference images are 10, 20, …"""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    number = torch.full_like(down, image)
    return torch.stack([number, down, across, torch.zeros_like(down)], -1).reshape(-1, 4).float()


def _changed(x: Tensor, change: Change) -> Tensor:
    shift, scale, *_ = change
    return functional.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift


def _gated(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, -1)
    return functional.silu(gate) * value


def _attend(query: Tensor, key: Tensor, value: Tensor, turn: Turn) -> Tensor:
    seen = functional.scaled_dot_product_attention(_turned(query, turn), _turned(key, turn), value)
    return seen.transpose(1, 2).flatten(2)


def _turned(x: Tensor, turn: Turn) -> Tensor:
    real, other = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = turn
    return torch.stack([real * cos - other * sin, other * cos + real * sin], -1).flatten(-2)
