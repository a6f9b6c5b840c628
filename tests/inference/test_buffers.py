"""Tensors go from process to process without a change of a bit, however they lie in memory."""

from collections.abc import Callable

import mlx.core as mx
import pytest

from exo.errors import RingError
from exo.inference.mlx.tensors import describe, from_buffer, to_buffers

DTYPES = [mx.float32, mx.bfloat16, mx.float16, mx.int32, mx.uint32, mx.bool_]
FORMS: dict[str, Callable[[mx.array], mx.array]] = {
    "as it is": lambda t: t,
    "rows of it": lambda t: t[1:3],
    "a number": lambda t: t[0, 0, 0],
    "transposed": lambda t: t.transpose(1, 2, 0),
    "every other": lambda t: t[:, ::2],
    "columns": lambda t: t[:, :, 1:5],
    "backwards": lambda t: t[::-1],
    "repeated": lambda t: mx.broadcast_to(t[:1], (5, 3, 8)),
    "nothing": lambda t: t[:0],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_is_what_was_written(form, dtype):
    whole = mx.random.normal((4, 3, 8), key=mx.random.key(0)).astype(dtype)
    tensors = [FORMS[form](whole), mx.array([1, 2], dtype=mx.int32)]
    mx.eval(tensors)
    sent = b"".join(to_buffers(tensors))
    for found, expected in zip(
        from_buffer(describe(tensors), memoryview(sent)), tensors, strict=True
    ):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert mx.array_equal(found, expected)


@pytest.mark.parametrize("off", [-1, 1])
def test_bytes_that_are_too_many_or_too_few_are_refused(off):
    tensor = mx.array([1, 2, 3], dtype=mx.int32)
    with pytest.raises(RingError, match="bytes of tensors"):
        from_buffer(describe([tensor]), memoryview(bytes(12 + off)))
