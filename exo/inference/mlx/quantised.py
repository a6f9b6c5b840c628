"""KV caches whose numbers have 8 or 4 bits: of one sequence, and of the rows of a batch.

They do what mlx-lm's `KVCache` and `BatchKVCache` do, and are used in their place. Attention reads
them as they are (`mlx_lm.models.base.scaled_dot_product_attention`, by their `bits`).
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable, Sequence
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import KVCache, QuantizedKVCache

from exo.errors import ModelInvalid
from exo.inference.mlx.adapter import Cache, CacheList
from exo.models.card import KV_GROUPS

_STEP = 256
# Packed numbers, scales and biases of keys, then those of values: (B, heads, tokens, …) each.
Parts = tuple[mx.array, ...]


def quantised(caches: Sequence[Cache], bits: int | None) -> list[Cache]:
    """Empty caches with so many bits in the place of empty plain ones."""
    return list(caches) if bits is None else [_quantised(cache, bits) for cache in caches]


def check_quantisable(model: nn.Module, caches: Sequence[Cache], bits: int) -> None:
    """See that a model computes with quantised caches, by a pass of which nothing is evaluated.

    Raises:
        ModelInvalid: it does not.
    """
    others = {type(cache).__name__ for cache in caches if type(cache) is not KVCache}
    try:
        if not others:
            call = cast("Callable[..., object]", model)
            call(mx.zeros((1, 2), dtype=mx.int32), cache=quantised(caches, bits))
            return
        reason = f"it keeps something else ({', '.join(sorted(others))})"
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise ModelInvalid(
        f"Keys and values of this model cannot be quantised: {reason}.",
        hint="Create the instance without kv_bits.",
        param="kv_bits",
    )


def _quantised(cache: Cache, bits: int) -> Cache:
    if isinstance(cache, CacheList) or type(cache) is not KVCache:
        return cache
    return QuantisedCache(bits)


class QuantisedCache(QuantizedKVCache):
    """Of one sequence. The group is chosen when the size of a head is seen."""

    def __init__(self, bits: int) -> None:
        super().__init__(group_size=KV_GROUPS[0], bits=bits)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        sizes = (keys.shape[-1], values.shape[-1])
        fitting = [group for group in KV_GROUPS if all(size % group == 0 for size in sizes)]
        if not fitting:
            raise ValueError(f"a head has {sizes[0]} and {sizes[1]} numbers, no multiples of 32")
        self.group_size = fitting[0]
        return super().update_and_fetch(keys, values)

    def size(self) -> int:
        return self.offset

    @classmethod
    def merge(cls, caches: Sequence["QuantisedCache"]) -> Cache:
        (cache,) = caches
        return QuantisedRows.of(cache)


class QuantisedRows(Cache):
    """Of the rows of a batch, which end together: shorter ones are padded on the left."""

    def __init__(self, bits: int, group_size: int, parts: Parts | None, length: int) -> None:
        self.bits = bits
        self.group_size = group_size
        self.parts = parts
        self.length = length
        self.left_padding = mx.array([0])
        self.offset = mx.array([length])
        self._right: mx.array | None = None

    @classmethod
    def of(cls, cache: QuantisedCache) -> "QuantisedRows":
        """A batch of one row."""
        parts = None if cache.keys is None else (*cache.keys, *cache.values)
        return cls(cache.bits, cache.group_size, parts, cache.offset)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Parts, Parts]:
        new = [
            part
            for each in (keys, values)
            for part in mx.quantize(each, group_size=self.group_size, bits=self.bits)
        ]
        end = self.length + keys.shape[2]
        parts = self.parts or tuple(part[..., :0, :] for part in new)
        if end > parts[0].shape[2]:
            more = -(-keys.shape[2] // _STEP) * _STEP
            parts = tuple(_widened(part[..., : self.length, :], more) for part in parts)
        for part, each in zip(parts, new, strict=True):
            part[..., self.length : end, :] = each
        self.parts, self.length = parts, end
        self.offset = self.offset + keys.shape[2]
        shown = tuple(part[..., :end, :] for part in parts)
        return shown[:3], shown[3:]

    def make_mask(self, length: int, return_array: bool = False, **kwargs: Any) -> mx.array:
        del return_array
        return create_causal_mask(
            length, offset=self.length, left_padding=self.left_padding, **kwargs
        )

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        n = min(self.length, n)
        self.length -= n
        self.offset = self.offset - n
        return n

    def prepare(self, *, right_padding: Sequence[int]) -> None:
        self._right = mx.array(list(right_padding))

    def finalize(self) -> None:
        """Move each row to the right by its padding there."""
        right, self._right = self._right, None
        if right is None:
            return
        if self.parts is not None:
            self.parts = tuple(_rolled(part[..., : self.length, :], right) for part in self.parts)
        self.offset = self.offset - right
        self.left_padding = self.left_padding + right

    def filter(self, batch_indices: Sequence[int]) -> None:
        rows = mx.array(list(batch_indices))
        self.offset, self.left_padding = self.offset[rows], self.left_padding[rows]
        unused = int(mx.min(self.left_padding))
        if self.parts is not None:
            self.parts = tuple(part[rows][..., unused:, :] for part in self.parts)
        self.length -= unused
        self.left_padding = self.left_padding - unused

    def extend(self, other: "QuantisedRows") -> None:
        length = max(self.length, other.length)
        both = [each.padded(length, self.parts or other.parts) for each in (self, other)]
        if both[0] and both[1]:
            self.parts = tuple(mx.concatenate(pair) for pair in zip(*both, strict=True))
        self.offset = mx.concatenate([self.offset, other.offset])
        self.left_padding = mx.concatenate(
            [each.left_padding + (length - each.length) for each in (self, other)]
        )
        self.length = length

    def extract(self, idx: int) -> QuantisedCache:
        cache = QuantisedCache(self.bits)
        cache.group_size = self.group_size
        begin = int(self.left_padding[idx])
        cache.offset = self.length - begin
        if self.parts is not None:
            row = [mx.contiguous(p[idx : idx + 1, :, begin : self.length]) for p in self.parts]
            cache.keys, cache.values = row[:3], row[3:]
        return cache

    def size(self) -> int:
        return self.length

    def empty(self) -> bool:
        return self.parts is None

    @property
    def state(self) -> Any:
        return self.parts or (), self.offset, self.left_padding

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts or ())

    def padded(self, length: int, like: Parts | None) -> Parts | None:
        """The parts with this length, the padding on the left."""
        if like is None:
            return None
        rows = self.offset.shape[0]
        parts = self.parts or tuple(
            mx.zeros((rows, part.shape[1], 0, part.shape[3]), part.dtype) for part in like
        )
        pad = [(0, 0), (0, 0), (length - self.length, 0), (0, 0)]
        return tuple(mx.pad(part[..., : self.length, :], pad) for part in parts)


def _widened(part: mx.array, more: int) -> mx.array:
    return mx.pad(part, [(0, 0), (0, 0), (0, more), (0, 0)])


def _rolled(part: mx.array, shifts: mx.array) -> mx.array:
    """(B, heads, tokens, …) with each row moved to the right by its shift; what falls out comes in
    on the left."""
    size = part.shape[2]
    places = (mx.arange(size)[None] - shifts[:, None]) % size
    return mx.take_along_axis(part, places[:, None, :, None], axis=2)
