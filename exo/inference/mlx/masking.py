"""What grammars allow, on logits."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
import numpy as np

# For every byte of a mask which of its eight tokens are not allowed, the lowest bit first.
_NOT_ALLOWED = np.unpackbits(~np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
# What to add to the logits of eight tokens, -inf or 0, as bits of each type that logits have.
_ADDED = {
    mx.float32: _NOT_ALLOWED * np.uint32(0xFF80_0000),
    mx.float16: _NOT_ALLOWED * np.uint16(0xFC00),
    mx.bfloat16: _NOT_ALLOWED * np.uint16(0xFF80),
}


def masked(logits: mx.array, masks: Sequence[bytes | None]) -> mx.array:
    """Logits (N, V) with -inf for every token that its row's mask does not allow: one bit a token,
    the lowest first in each byte. A row without a mask stays as it is; what is beyond a mask's end
    is not allowed.

    The masks are spread out by NumPy, at once: while the layers compute. MLX would do that when
    they are through.
    """
    size = logits.shape[-1]
    width = (size + 7) // 8
    rows = [b"\xff" * width if mask is None else mask[:width].ljust(width, b"\0") for mask in masks]
    packed = np.frombuffer(b"".join(rows), dtype=np.uint8)
    added = _ADDED[logits.dtype].take(packed, axis=0).reshape(len(rows), -1)[:, :size]
    return logits + mx.array(cast("Any", added)).view(logits.dtype)
