"""What grammars allow, on logits."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx

# For every byte of a mask what to add to the logits of its eight tokens, the lowest bit first:
# faster on a CPU than to take bits apart and have MLX's `where` choose.
_ADDED = mx.array(
    [[0.0 if byte >> bit & 1 else -mx.inf for bit in range(8)] for byte in range(256)]
)


def masked(logits: mx.array, masks: Sequence[bytes | None]) -> mx.array:
    """Logits (N, V) with -inf for every token that its row's mask does not allow: one bit a token,
    the lowest first in each byte. A row without a mask stays as it is; what is beyond a mask's end
    is not allowed."""
    size = logits.shape[-1]
    width = (size + 7) // 8
    rows = [b"\xff" * width if mask is None else mask[:width].ljust(width, b"\0") for mask in masks]
    packed = mx.array(cast("Any", memoryview(b"".join(rows))))
    added = _ADDED.astype(logits.dtype)[packed].reshape(len(rows), -1)
    return logits + (added if added.shape[-1] == size else added[:, :size])
