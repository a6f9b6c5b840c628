"""The kernels' matrix products, for measuring them."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable

import mlx.core as mx

from exo.inference.kernels.library import Library

_BITS, _GROUP = 4, 64
# Given x (n, n) and w (n, n), makes ready what computes a product of the two.
Product = Callable[[mx.array, mx.array], Callable[[], mx.array]]


def products(library: Library) -> dict[str, Product]:
    """By the type of the weights; activations are float32."""

    def dense(kind: str) -> Product:
        def prepare(x: mx.array, w: mx.array) -> Callable[[], mx.array]:
            packed, activations = library.pack_dense(w), x.astype(mx.float32)
            mx.eval(packed, activations)
            holds = library.dense(w.shape[0], w.shape[1], kind)
            return lambda: library.matmul(activations, packed, holds)

        return prepare

    def quantized(x: mx.array, w: mx.array) -> Callable[[], mx.array]:
        n, k = w.shape
        # Any codes will do, and MLX takes long to find those that are nearest.
        codes = mx.random.randint(0, 2**31 - 1, (n, k * _BITS // 32)).astype(mx.uint32)
        scales = mx.ones((n, k // _GROUP), dtype=mx.bfloat16)
        packed = library.pack_quantized(codes, scales, scales, _BITS, _GROUP)
        mx.eval(packed)
        holds = library.quantized(n, k, _BITS, _GROUP, False, "bfloat16")
        return lambda: library.matmul(x, packed, holds)

    kinds = ("float32", "bfloat16", "float16")
    return {**{kind: dense(kind) for kind in kinds}, "quantized": quantized}
