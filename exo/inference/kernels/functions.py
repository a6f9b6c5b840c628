"""MLX's fast functions with the kernels behind them.

Models call `mx.fast.rms_norm` and the like by name, so each is replaced there, in this process. A
call that the kernels do not know goes to MLX's own.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import importlib
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import mlx.core as mx

from exo.inference.kernels.library import Library

_FLOATS = (mx.float32, mx.bfloat16, mx.float16)
_HEAD_MULTIPLE = 16
# Where models live.
_MODELS = ("mlx_lm.models.", "mflux.models.")


def install(library: Library) -> None:
    """Replace the functions, for as long as this process lives."""
    fast: Any = mx.fast
    attention = fast.scaled_dot_product_attention
    fast.rms_norm = _rms_norm(library, fast.rms_norm)
    fast.rope = _rope(library, fast.rope)
    fast.scaled_dot_product_attention = _attention(library, attention)
    _replace_taken("scaled_dot_product_attention", attention, fast.scaled_dot_product_attention)
    swiglu = importlib.import_module("mlx_lm.models.activations").swiglu
    _replace_taken("swiglu", swiglu, _swiglu(library, swiglu))


def _replace_taken(name: str, old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """Models have taken the function into their own modules when they were imported."""
    for module in [*sys.modules.values()]:
        of_model = getattr(module, "__name__", "").startswith(_MODELS)
        if of_model and getattr(module, name, None) is old:
            setattr(module, name, new)


def _rms_norm(library: Library, own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    @wraps(own)
    def rms_norm(
        x: mx.array, weight: mx.array | None = None, eps: float = 1e-5, **options: Any
    ) -> mx.array:
        if options or x.dtype not in _FLOATS or (weight is not None and weight.ndim != 1):
            return own(x, weight, eps, **options)
        if weight is not None and weight.dtype != x.dtype:
            x = x.astype(mx.float32)  # As MLX's own does.
        return library.rms_norm(x, weight, eps)

    return rms_norm


def _rope(library: Library, own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    @wraps(own)
    def rope(
        a: mx.array,
        dims: int,
        *,
        traditional: bool,
        base: float | None,
        scale: float,
        offset: int | mx.array,
        freqs: mx.array | None = None,
        **options: Any,
    ) -> mx.array:
        if options or a.ndim != 4 or a.dtype not in _FLOATS or (base is None) == (freqs is None):
            return own(
                a,
                dims,
                traditional=traditional,
                base=base,
                scale=scale,
                offset=offset,
                freqs=freqs,
                **options,
            )
        inverse = 1.0 / freqs if freqs is not None else _inverse(dims, base or 1.0)
        at = offset if isinstance(offset, mx.array) else mx.array(offset, dtype=mx.int32)
        return library.rope(a, dims, traditional, scale, at, inverse)

    return rope


@lru_cache
def _inverse(dims: int, base: float) -> mx.array:
    """The angle per position of each pair: base^(-2i / dims)."""
    return mx.array([base ** (-2 * i / dims) for i in range(dims // 2)])


def _attention(library: Library, own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    @wraps(own)
    def scaled_dot_product_attention(
        q: mx.array,
        k: mx.array,
        v: mx.array,
        *,
        scale: float,
        mask: str | mx.array | None = None,
        sinks: mx.array | None = None,
        **options: Any,
    ) -> mx.array:
        known = (
            not options
            and q.dtype == mx.float32
            and k.dtype == v.dtype
            and k.dtype in _FLOATS
            and q.shape[-1] % _HEAD_MULTIPLE == v.shape[-1] % _HEAD_MULTIPLE == 0
        )
        if not known:
            return own(q, k, v, scale=scale, mask=mask, sinks=sinks, **options)
        array = mask if isinstance(mask, mx.array) else None
        return library.attention(q, k, v, scale, isinstance(mask, str), array, sinks)

    return scaled_dot_product_attention


def _swiglu(library: Library, own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    @wraps(own)
    def swiglu(gate: mx.array, x: mx.array) -> mx.array:
        if gate.dtype not in _FLOATS or gate.dtype != x.dtype or gate.shape != x.shape:
            return own(gate, x)
        return library.gated(gate, x)

    return swiglu
