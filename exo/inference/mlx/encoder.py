"""An encoder's layers: one class for all families that `exo.models.encoder_shape` tells apart."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import math
from collections.abc import Callable
from typing import cast

import mlx.core as mx
from mlx import nn
from mlx_lm.models import activations

from exo.models.encoder_shape import Activation, EncoderShape

_ACTIVATIONS: dict[Activation, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "gelu_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "silu": nn.silu,
}
# Distances from here on share a bucket (Raffel et al. 2020, arXiv:1910.10683, which MPNet follows).
_FARTHEST = 128
# By how far a layer sees to each side, what its tokens see.
Masks = dict[int | None, mx.array | None]


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part, each with a norm."""

    def __init__(self, shape: EncoderShape, number: int) -> None:
        super().__init__()
        self._shape = shape
        self._theta = shape.thetas[number] if shape.thetas else None
        self._activate = _ACTIVATIONS[shape.activation]
        self.window = shape.windows[number] if shape.windows else None
        hidden, up = shape.hidden, shape.width * (2 if shape.gated else 1)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=shape.attention_bias)
        self.out = nn.Linear(hidden, hidden, bias=shape.attention_bias)
        first = number == 0 and shape.norm_first
        self.attention_norm = nn.Identity() if first else _norm(shape)
        self.up = nn.Linear(hidden, up, bias=shape.up_bias)
        self.down = nn.Linear(shape.width, hidden, bias=shape.down_bias)
        self.norm = _norm(shape)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        """States (B, L, D) from those of the layer before; `mask` broadcasts to (B, H, L, L)."""
        if self._shape.norm_first:
            x = x + self._attend(self.attention_norm(x), mask)
            return x + self._feed(self.norm(x))
        x = self.attention_norm(x + self._attend(x, mask))
        return self.norm(x + self._feed(x))

    def _attend(self, x: mx.array, mask: mx.array | None) -> mx.array:
        shape = self._shape
        batch, length, hidden = x.shape
        heads = self.qkv(x).reshape(batch, length, 3, shape.heads, shape.head_dim)
        q, k, v = (heads[:, :, at].transpose(0, 2, 1, 3) for at in range(3))
        if self._theta is not None:
            q, k = self._rotate(q, self._theta), self._rotate(k, self._theta)
        seen = mx.fast.scaled_dot_product_attention(
            q, k, v, scale=shape.head_dim**-0.5, mask=_as(mask, q.dtype)
        )
        return self.out(seen.transpose(0, 2, 1, 3).reshape(batch, length, hidden))

    def _rotate(self, x: mx.array, theta: float) -> mx.array:
        size = self._shape.head_dim
        return mx.fast.rope(x, size, traditional=False, base=theta, scale=1.0, offset=0)

    def _feed(self, x: mx.array) -> mx.array:
        up = self.up(x)
        if not self._shape.gated:
            return self.down(self._activate(up))
        one, other = mx.split(up, 2, axis=-1)
        if self._shape.gate_last:
            one, other = other, one
        if self._shape.activation == "silu":
            return self.down(activations.swiglu(one, other))  # The CPU kernels have this.
        return self.down(self._activate(one) * other)


class Encoder(nn.Module):
    """The tokens' embedding, the layers, and what is behind them."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self._shape = shape
        self.words = nn.Embedding(shape.vocab_size, shape.hidden)
        if shape.positions:
            self.places = nn.Embedding(shape.positions, shape.hidden)
        if shape.types:
            self.types = nn.Embedding(shape.types, shape.hidden)
        if shape.buckets:
            self.distances = nn.Embedding(shape.buckets, shape.heads)
        self.norm = _norm(shape)
        self.layers = [EncoderLayer(shape, number) for number in range(shape.layers)]
        if shape.norm_first:
            self.last_norm = _norm(shape)

    def embed(self, tokens: mx.array) -> mx.array:
        """The states (B, L, D) that the first layer is given, of tokens (B, L)."""
        x = self.words(tokens)
        if self._shape.types:
            x = x + self.types(mx.zeros((1, 1), mx.int32))
        if self._shape.positions:
            at = mx.arange(self._shape.first, self._shape.first + tokens.shape[1])
            x = x + self.places(at[None])
        return self.norm(x)

    def finish(self, x: mx.array) -> mx.array:
        """The states of the last layer, as vectors are made of them."""
        return self.last_norm(x) if self._shape.norm_first else x

    def masks(self, lengths: list[int], width: int) -> Masks:
        """What the tokens of texts see that are filled up to `width`: the texts' own tokens, and
        themselves, so that what fills a text is a number too."""
        full = None
        if min(lengths) < width:
            full = (mx.arange(width)[None] < mx.array(lengths)[:, None])[:, None, None]
        if self._shape.buckets:
            bias = self._distance_bias(width)
            return {None: bias if full is None else mx.where(full, bias, -math.inf)}
        found: Masks = {None: full}
        for window in {layer.window for layer in self.layers} - {None}:
            found[window] = _near(full, width, cast("int", window))
        return found

    def __call__(self, tokens: mx.array, lengths: list[int]) -> mx.array:
        """The states (B, L, D) of texts, which are tokens (B, L) with these lengths."""
        masks = self.masks(lengths, tokens.shape[1])
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, masks[layer.window])
        return self.finish(x)

    def _distance_bias(self, width: int) -> mx.array:
        """(1, H, L, L): exact for near keys, then by the logarithm of the distance."""
        at = mx.arange(width)
        away = at[:, None] - at[None]  # from a key back to its query
        half = self._shape.buckets // 2
        exact = half // 2
        far = mx.log(mx.maximum(mx.abs(away), 1).astype(mx.float32) / exact)
        steps = (far / math.log(_FARTHEST / exact) * (half - exact)).astype(mx.int32)
        bucket = mx.where(mx.abs(away) < exact, mx.abs(away), mx.minimum(exact + steps, half - 1))
        bucket = bucket + mx.where(away < 0, half, 0)
        return self.distances(bucket).transpose(2, 0, 1)[None]


def _near(full: mx.array | None, width: int, window: int) -> mx.array | None:
    """What is seen of `full` at most `window` tokens away."""
    if width <= window + 1:
        return full
    at = mx.arange(width)
    away = mx.abs(at[:, None] - at[None])
    near = (away <= window)[None, None]
    return near if full is None else (near & full) | (away == 0)[None, None]


def _as(mask: mx.array | None, kind: mx.Dtype) -> mx.array | None:
    return mask if mask is None or mask.dtype == mx.bool_ else mask.astype(kind)


def _norm(shape: EncoderShape) -> nn.LayerNorm:
    return nn.LayerNorm(shape.hidden, eps=shape.epsilon, bias=shape.norm_bias)
