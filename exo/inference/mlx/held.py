"""In which form a stage keeps keys and values: as the model computes them, in half precision, or
quantised.

The CPU kernels compute in float32, but their attention reads keys and values of any type: kept in
the checkpoint's own half type, they take half of the memory, and half of the time to be read.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache

from exo.inference.mlx.adapter import Cache, CacheList
from exo.inference.mlx.quantised import quantised

# Of their kind, since what others hold need not go into attention as it is.
_PLAIN = (KVCache, RotatingKVCache)


@dataclass(frozen=True)
class KvForm:
    """`bits` of a number if it is quantised; else its type, if that is not the model's own."""

    bits: int | None = None
    dtype: mx.Dtype | None = None

    def of(self, caches: Sequence[Cache]) -> list[Cache]:
        """Empty caches of this form in the place of empty ones."""
        if self.bits is not None:
            return quantised(caches, self.bits)
        if self.dtype is not None:
            for each in caches:
                _hold_plain(each, self.dtype)
        return list(caches)


class _Held:
    """What it is given is kept in another type; so is what rows of a batch are made of it."""

    held: mx.Dtype

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        above = cast("Any", super())
        return above.update_and_fetch(keys.astype(self.held), values.astype(self.held))

    @classmethod
    def merge(cls, caches: Sequence[Cache]) -> Cache:
        return _hold(cast("Any", super()).merge(caches), cls.held)

    def extract(self, idx: int) -> Cache:
        return _hold(cast("Any", super()).extract(idx), self.held)


def _hold_plain(each: Cache, dtype: mx.Dtype) -> None:
    if isinstance(each, CacheList):
        for part in each.caches:
            _hold_plain(part, dtype)
    elif type(each) in _PLAIN:
        _hold(each, dtype)


def _hold(each: Cache, dtype: mx.Dtype) -> Cache:
    """The class of an object is changed rather than the object: what makes caches is mlx-lm, which
    knows the classes of its own."""
    each.__class__ = _held_class(type(each), dtype)
    return each


@cache
def _held_class(of: type[Cache], dtype: mx.Dtype) -> type[Cache]:
    return type(f"Held{of.__name__}", (_Held, of), {"held": dtype})
