"""Random matrices, and float64 to compare with."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from exo.inference.kernels.library import Library, Packed

FLOATS = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
Exact = NDArray[np.float64]


def exact(array: mx.array) -> Exact:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def normal(seed: int, *shape: int, dtype: str = "float32") -> mx.array:
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return mx.array(values).astype(FLOATS[dtype])


def error(found: mx.array, expected: Exact) -> float:
    """Relative, over all elements."""
    size = np.linalg.norm(expected)
    return float(np.linalg.norm(exact(found) - expected) / size) if size else 0.0


@dataclass(frozen=True)
class Matrix:
    """A weight as the kernels hold it, and exactly."""

    packed: mx.array
    holds: Packed
    weight: Exact
    codes: tuple[Any, ...] = ()


def affine(kernels: Library, weight: mx.array, bits: int, group: int, scales: str) -> Matrix:
    codes, s, b = mx.quantize(weight.astype(mx.float32), group_size=group, bits=bits)
    s, b = s.astype(FLOATS[scales]), b.astype(FLOATS[scales])
    whole = mx.dequantize(
        codes, s.astype(mx.float32), b.astype(mx.float32), group_size=group, bits=bits
    )
    n, k = weight.shape[-2:]
    return Matrix(
        kernels.pack_quantized(codes, s, b, bits, group),
        kernels.quantized(n, k, bits, group, False, scales),
        exact(whole),
        (codes, s, b),
    )


def fp4(kernels: Library, weight: mx.array, mode: str) -> Matrix:
    codes, scales = mx.quantize(weight, mode=mode)[:2]
    group = {"mxfp4": 32, "nvfp4": 16}[mode]
    n, k = weight.shape[-2:]
    return Matrix(
        kernels.pack_quantized(codes, scales, None, 4, group),
        kernels.quantized(n, k, 4, group, True, "bfloat16"),
        exact(mx.dequantize(codes, scales, mode=mode)),
    )


def dense(kernels: Library, weight: mx.array, dtype: str) -> Matrix:
    n, k = weight.shape[-2:]
    held = weight.astype(FLOATS[dtype])
    return Matrix(kernels.pack_dense(held), kernels.dense(n, k, dtype), exact(held))
