"""Norms, gates and positions, compared with float64 and with MLX's own."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exo.inference.kernels.library import Library

from .numbers import FLOATS, error, exact, normal

many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(sorted(FLOATS))
# Half of a unit in the last place at most, and a little for what is computed in float32.
PRECISION = {"float32": 3e-6, "bfloat16": 1.01 * 2**-8, "float16": 1.01 * 2**-11}


@many
@given(seeds, st.integers(1, 9), st.integers(1, 400), dtypes, dtypes, st.booleans())
def test_rms_norm(kernels: Library, seed, rows, size, dtype, weights, weighted):
    x = normal(seed, rows, size, dtype=dtype) * 3
    weight = normal(seed + 1, size, dtype=weights) if weighted else None
    y = kernels.rms_norm(x, weight, 1e-5)
    expected = exact(x) / np.sqrt((exact(x) ** 2).mean(axis=-1, keepdims=True) + 1e-5)
    if weight is not None:
        expected = expected * exact(weight)
    assert y.dtype == FLOATS[dtype]
    assert error(y, expected) < PRECISION[dtype]


@many
@given(seeds, st.integers(0, 3000), dtypes)
def test_gated(kernels: Library, seed, size, dtype):
    gate, up = normal(seed, size, dtype=dtype) * 20, normal(seed + 1, size, dtype=dtype)
    with np.errstate(over="ignore"):
        expected = exact(gate) / (1 + np.exp(-exact(gate))) * exact(up)
    assert error(kernels.gated(gate, up), expected) < PRECISION[dtype]


def test_gates_at_the_ends(kernels: Library):
    gate = mx.array([-1e30, -100.0, 0.0, 100.0, 1e30, np.nan])
    y = np.array(kernels.gated(gate, mx.ones(6)))
    assert np.allclose(y[:5], np.array([0, -100 * np.exp(-100.0), 0, 100, 1e30], np.float32))
    assert np.isnan(y[5])


@many
@given(
    seeds,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 20),
    st.sampled_from([(8, 8), (64, 64), (64, 32), (80, 48)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1.0, 0.25]),
)
def test_rope_is_that_of_mlx(
    kernels: Library, seed, batch, heads, length, sizes, traditional, across, scale
):
    size, dims = sizes
    if across:
        x = normal(seed, batch, length, heads, size).transpose(0, 2, 1, 3)
    else:
        x = normal(seed, batch, heads, length, size)
    offsets = mx.array(np.random.default_rng(seed).integers(0, 500, batch).astype(np.int32))
    inverse = mx.array([10000.0 ** (-2 * i / dims) for i in range(dims // 2)])
    y = kernels.rope(x, dims, traditional, scale, offsets, inverse)
    own = mx.fast.rope(x, dims, traditional=traditional, base=10000.0, scale=scale, offset=offsets)
    assert error(y, exact(own)) < 1e-4


@pytest.mark.parametrize("offset", [0, 7])
def test_positions_do_not_depend_on_the_chunk(kernels: Library, offset):
    x = normal(1, 1, 3, 12, 64)
    inverse = mx.array([500000.0 ** (-2 * i / 64) for i in range(32)])
    whole = np.array(kernels.rope(x, 64, False, 1.0, mx.array(offset), inverse))
    part = kernels.rope(x[:, :, 5:], 64, False, 1.0, mx.array(offset + 5), inverse)
    assert np.array_equal(np.array(part), whole[:, :, 5:])
