"""Attention: as exact as float32, and the same for a query whatever is computed beside it."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exo.inference.kernels.library import Library

from .numbers import FLOATS, Exact, error, exact, normal

many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def reference(
    q: mx.array, k: mx.array, v: mx.array, seen: Exact, sinks: Exact | None = None
) -> Exact:
    """Softmax of scores plus `seen` (0 or minus infinity), in float64."""
    shared = q.shape[1] // k.shape[1]
    keys, values = (np.repeat(exact(a), shared, axis=1) for a in (k, v))
    scores = exact(q) @ keys.transpose(0, 1, 3, 2) * 0.3 + seen
    if sinks is not None:
        column = np.broadcast_to(sinks[None, :, None, None], (*scores.shape[:3], 1))
        scores = np.concatenate([scores, column], axis=-1)
        values = np.concatenate([values, np.zeros_like(values[:, :, :1])], axis=2)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ values


def causal(length: int, keys: int) -> Exact:
    at = np.arange(keys - length, keys)[:, None]
    return np.where(np.arange(keys)[None] <= at, 0.0, -np.inf)


@many
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 2),
    st.sampled_from([(1, 1), (4, 1), (6, 2), (4, 4)]),
    st.integers(1, 70),
    st.integers(0, 70),
    st.sampled_from([(16, 16), (64, 64), (48, 80), (192, 128)]),
    st.sampled_from(["causal", "none", "bool", "additive"]),
    st.booleans(),
    st.sampled_from(list(FLOATS)),
)
def test_attention_is_exact_to_float32(
    kernels: Library, seed, batch, heads, length, before, sizes, kind, with_sinks, held
):
    keys = length + before
    q = normal(seed, batch, heads[0], length, sizes[0])
    k = normal(seed + 1, batch, heads[1], keys, sizes[0], dtype=held)
    v = normal(seed + 2, batch, heads[1], keys, sizes[1], dtype=held)
    sinks = normal(seed + 3, heads[0]) if with_sinks else None
    seen = causal(length, keys) if kind != "none" else np.zeros((length, keys))
    if kind in ("bool", "additive"):
        # Holes anywhere but at the query's own place.
        holes = np.random.default_rng(seed).random((length, keys)) < 0.3
        holes[np.arange(length), np.arange(before, keys)] = False
        seen = np.where(holes, -np.inf, seen)
    mask = None
    if kind == "bool":
        mask = mx.array(seen == 0)
    elif kind == "additive":
        mask = mx.array(np.where(seen == 0, 0.0, -1e30).astype(np.float32))
    y = kernels.attention(q, k, v, 0.3, kind == "causal", mask, sinks)
    assert y.shape == (batch, heads[0], length, sizes[1])
    assert y.dtype == mx.float32
    expected = reference(q, k, v, seen, None if sinks is None else exact(sinks))
    assert error(y, expected) < 1e-5


@pytest.mark.parametrize("held", FLOATS)
def test_a_query_gives_the_same_bits_alone_in_chunks_and_in_padded_batches(
    kernels: Library, sets: list[str], held: str
):
    heads, kv_heads, length, size, padding = 6, 2, 75, 64, 9
    q = normal(1, 1, heads, length, size)
    k, v = (normal(seed, 1, kv_heads, length, size, dtype=held) for seed in (2, 3))
    whole = np.array(kernels.attention(q, k, v, 0.2, True, None, None))
    for name in sets:
        assert kernels.use(name)
        for first, end in ((0, 20), (20, 64), (64, 75), (40, 41)):
            some = kernels.attention(
                q[:, :, first:end], k[:, :, :end], v[:, :, :end], 0.2, True, None, None
            )
            assert np.array_equal(np.array(some), whole[:, :, first:end])
        # As a row of a batch: keys that are not its own come before.
        rows, junk = 3, normal(4, 3, kv_heads, padding, size, dtype=held) * 50
        keys, values = (mx.concatenate([junk, mx.repeat(a, rows, axis=0)], axis=2) for a in (k, v))
        at = np.arange(length + padding)
        mask = (at >= padding) & (at <= at[padding:, None])
        last = kernels.attention(
            mx.repeat(q, rows, axis=0), keys, values, 0.2, False, mx.array(mask), None
        )
        assert np.array_equal(np.array(last), np.repeat(whole, rows, axis=0))


@pytest.mark.parametrize("held", ["bfloat16", "float16"])
def test_keys_that_are_held_in_half_give_the_bits_of_the_same_in_float32(
    kernels: Library, sets: list[str], held: str
):
    q = normal(1, 1, 4, 37, 64)
    k, v = (normal(seed, 1, 2, 53, 64, dtype=held) for seed in (2, 3))
    wide = [array.astype(mx.float32) for array in (k, v)]
    for name in sets:
        assert kernels.use(name)
        one, other = (kernels.attention(q, *kv, 0.2, True, None, None) for kv in ((k, v), wide))
        assert np.array_equal(np.array(one), np.array(other))


def test_keys_and_values_of_different_types_are_refused(kernels: Library):
    q = normal(1, 1, 1, 1, 16)
    with pytest.raises(ValueError, match="of one type"):
        kernels.attention(q, q, q.astype(mx.float16), 1.0, False, None, None)


def test_keys_in_a_longer_cache_and_transposed_queries(kernels: Library):
    cache = normal(5, 2, 2, 256, 32)
    k = v = cache[:, :, :50]
    q = normal(6, 2, 4, 6, 32).transpose(0, 2, 1, 3)
    y = kernels.attention(q, k, v, 0.3, True, None, None)
    assert error(y, reference(q, k, v, causal(4, 50))) < 1e-5
    across = normal(7, 2, 2, 32, 50).transpose(0, 1, 3, 2)
    y = kernels.attention(q, across, across, 0.3, False, None, None)
    assert error(y, reference(q, across, across, np.zeros((4, 50)))) < 1e-5


def test_a_query_that_sees_nothing_gives_nothing(kernels: Library):
    q = k = v = normal(8, 1, 1, 2, 16)
    mask = mx.array([[False, False], [True, False]])
    y = np.array(kernels.attention(q, k, v, 1.0, False, mask, None))
    assert not y[0, 0, 0].any()
    assert np.allclose(y[0, 0, 1], np.array(v)[0, 0, 0])
