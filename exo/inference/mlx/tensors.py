"""Tensors between processes: MLX arrays as bytes and back, without a change of a bit."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import math
from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx

from exo.errors import RingError

_DTYPES = {
    str(dtype).removeprefix("mlx.core."): dtype
    for dtype in (mx.float32, mx.bfloat16, mx.float16, mx.int32, mx.uint32, mx.bool_)
}
Shape = tuple[str, list[int]]


def describe(tensors: Sequence[mx.array]) -> list[Shape]:
    """Dtype and shape of each."""
    return [(str(t.dtype).removeprefix("mlx.core."), list(t.shape)) for t in tensors]


def to_buffers(tensors: Sequence[mx.array]) -> list[memoryview]:
    """The evaluated tensors' bytes, in row-major order."""
    return [_bytes_of(tensor) for tensor in tensors]


def _bytes_of(tensor: mx.array) -> memoryview:
    if not tensor.size:
        return memoryview(b"")
    # An array is a buffer, which its stub does not say. As a rule its bytes lie as they should, and
    # to compute others would be one more wait for MLX in each step.
    buffer = memoryview(cast("Any", tensor))
    if not buffer.c_contiguous:
        buffer = memoryview(cast("Any", mx.contiguous(tensor)))
    return buffer.cast("B")


def dtype_of(name: str, shape: Sequence[int]) -> mx.Dtype:
    """The dtype of a tensor that was described so.

    Raises:
        RingError: there can be no such tensor.
    """
    dtype = _DTYPES.get(name)
    if dtype is None or any(size < 0 for size in shape):
        raise RingError(f"A neighbour in the ring sent a tensor of {name} {list(shape)}.")
    return dtype


def size_of(shape: Shape) -> int:
    """The bytes of a tensor that was described so.

    Raises:
        RingError: there can be no such tensor.
    """
    name, sizes = shape
    return math.prod(sizes) * dtype_of(name, sizes).size


def from_buffer(shapes: Sequence[Shape], buffer: memoryview) -> list[mx.array]:
    """The tensors whose bytes follow each other in `buffer`.

    Raises:
        RingError: it holds more or less than they need, or a dtype is unknown.
    """
    tensors: list[mx.array] = []
    at = 0
    for shape in shapes:
        size = size_of(shape)
        part = buffer[at : at + size]
        at += size
        if len(part) != size:
            break
        tensors.append(mx.array(cast("Any", part)).view(dtype_of(*shape)).reshape(shape[1]))
    if at != len(buffer):
        raise RingError(f"A neighbour in the ring sent {len(buffer)} bytes of tensors, not {at}.")
    return tensors
