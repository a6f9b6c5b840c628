"""What grammars allow, on logits."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx

_WORD = 4
_BITS = mx.array([1 << bit for bit in range(8 * _WORD)], dtype=mx.uint32)


def masked(logits: mx.array, masks: Sequence[bytes | None]) -> mx.array:
    """Logits (N, V) with -inf for every token that its row's mask does not allow: one bit a token,
    the lowest first in each byte. A row without a mask stays as it is; what is beyond a mask's end
    is not allowed."""
    size = logits.shape[-1]
    width = (size + 8 * _WORD - 1) // (8 * _WORD) * _WORD
    rows = [b"\xff" * width if mask is None else mask[:width].ljust(width, b"\0") for mask in masks]
    packed = mx.array(cast("Any", memoryview(b"".join(rows)))).view(mx.uint32)
    bits = (packed.reshape(len(rows), -1, 1) & _BITS).astype(mx.bool_)
    allowed = bits.reshape(len(rows), -1)
    if allowed.shape[-1] > size:
        allowed = allowed[:, :size]
    return mx.where(allowed, logits, -mx.inf)
