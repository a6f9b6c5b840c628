"""Matrix products: as exact as promised, whatever the shape, and the same in any company."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exo.inference.kernels.library import Library

from .numbers import FLOATS, Matrix, affine, dense, error, exact, fp4, normal

# Activations are rounded to 16 bits for each group: 2e-5 of their size.
ROUNDED = 4e-5
SUMMED = 4e-6

many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(sorted(FLOATS))


def precision(dtype: str) -> float:
    """Of one rounding of the result."""
    return {"float32": 0.0, "bfloat16": 4e-3, "float16": 5e-4}[dtype]


@many
@given(
    seeds,
    st.sampled_from([2, 3, 4, 5, 6, 8]),
    st.sampled_from([32, 64, 128]),
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(1, 5),
    dtypes,
    dtypes,
)
def test_affine_products_are_exact_to_the_rounding_of_activations(
    kernels: Library, seed, bits, group, rows, n, groups, dtype, scales
):
    matrix = affine(kernels, normal(seed, n, groups * group), bits, group, scales)
    x = normal(seed + 1, rows, groups * group, dtype=dtype)
    y = kernels.matmul(x, matrix.packed, matrix.holds)
    assert y.shape == (rows, n)
    assert y.dtype == FLOATS[dtype]
    # Scale times code plus bias cancel where columns are few: the sizes of the factors count.
    size = np.linalg.norm(exact(x)) * np.linalg.norm(matrix.weight)
    expected = exact(x) @ matrix.weight.T
    assert np.linalg.norm(exact(y) - expected) <= (ROUNDED + precision(dtype)) * size


@many
@given(seeds, st.sampled_from(["mxfp4", "nvfp4"]), st.integers(1, 30), st.integers(1, 70), dtypes)
def test_fp4_products_are_exact_to_the_rounding_of_activations(
    kernels: Library, seed, mode, rows, n, dtype
):
    matrix = fp4(kernels, normal(seed, n, 96), mode)
    x = normal(seed + 1, rows, 96, dtype=dtype)
    y = kernels.matmul(x, matrix.packed, matrix.holds)
    size = np.linalg.norm(exact(x)) * np.linalg.norm(matrix.weight)
    expected = exact(x) @ matrix.weight.T
    assert np.linalg.norm(exact(y) - expected) <= (ROUNDED + precision(dtype)) * size


@many
@given(seeds, dtypes, st.integers(1, 30), st.integers(1, 150), st.integers(1, 300), dtypes)
def test_dense_products_are_exact_to_float32(kernels: Library, seed, weights, rows, n, k, dtype):
    matrix = dense(kernels, normal(seed, n, k), weights)
    x = normal(seed + 1, rows, k, dtype=dtype)
    y = kernels.matmul(x, matrix.packed, matrix.holds)
    size = np.linalg.norm(exact(x)) * np.linalg.norm(matrix.weight)
    expected = exact(x) @ matrix.weight.T
    assert np.linalg.norm(exact(y) - expected) <= (SUMMED + precision(dtype)) * size


def matrices(kernels: Library) -> list[Matrix]:
    weight = normal(1, 200, 384)
    return [
        *(affine(kernels, weight, bits, 64, "bfloat16") for bits in (2, 3, 4, 5, 6, 8)),
        fp4(kernels, weight, "mxfp4"),
        fp4(kernels, weight, "nvfp4"),
        *(dense(kernels, weight, dtype) for dtype in FLOATS),
    ]


def test_a_row_gives_the_same_bits_in_any_company(kernels: Library):
    x = normal(2, 101, 384)
    for matrix in matrices(kernels):
        whole = np.array(kernels.matmul(x, matrix.packed, matrix.holds))
        for rows in (1, 2, 3, 4, 5, 6, 7, 12, 13, 40, 60, 90):
            for first in (0, 101 - rows):
                some = kernels.matmul(x[first : first + rows], matrix.packed, matrix.holds)
                assert np.array_equal(np.array(some), whole[first : first + rows])


def test_every_instruction_set_and_number_of_threads_gives_the_same_bits(
    kernels: Library, sets: list[str]
):
    """But for bfloat16 in tiles, which sum in an order of their own."""
    assert sets
    results: dict[tuple[str, int], dict[tuple[int, int], Any]] = {}
    for name in sets:
        for threads in (1, 2, 5):
            assert kernels.use(name)
            kernels.set_threads(threads)
            results[name, threads] = {
                (at, rows): np.array(kernels.matmul(normal(3, rows, 384), each.packed, each.holds))
                for at, each in enumerate(matrices(kernels))
                for rows in (1, 3, 9, 30, 70)
            }
    kernels.set_threads(2)
    bfloat16 = len(FLOATS) - list(FLOATS).index("bfloat16")
    own_order = len(matrices(kernels)) - bfloat16
    for (name, _), found in results.items():
        for case, y in found.items():
            like = name if case[0] == own_order and name == "avx512amx" else sets[-1]
            assert np.array_equal(y, results[like, 1][case])


def test_more_rows_than_fit_at_once(kernels: Library):
    weight = normal(4, 33, 128)
    x = normal(5, 1100, 128)
    for matrix in (affine(kernels, weight, 4, 64, "float16"), dense(kernels, weight, "bfloat16")):
        y = kernels.matmul(x, matrix.packed, matrix.holds)
        assert error(y, exact(x) @ matrix.weight.T) < ROUNDED
        last = kernels.matmul(x[1099:], matrix.packed, matrix.holds)
        assert np.array_equal(np.array(y[1099:]), np.array(last))


def test_leading_axes_strides_and_no_rows_at_all(kernels: Library):
    matrix = affine(kernels, normal(6, 48, 64), 4, 32, "bfloat16")
    x = normal(7, 64, 3, 5).transpose(2, 1, 0)
    y = kernels.matmul(x, matrix.packed, matrix.holds)
    assert y.shape == (5, 3, 48)
    assert error(y, exact(x) @ matrix.weight.T) < ROUNDED
    assert kernels.matmul(x[:, :0], matrix.packed, matrix.holds).shape == (5, 0, 48)
    mx.eval(kernels.matmul(x[:, :0], matrix.packed, matrix.holds))


def test_what_is_not_a_number_stays_in_its_row(kernels: Library):
    for matrix in matrices(kernels):
        x = np.array(normal(8, 6, 384))
        x[1, 3], x[4, 70] = np.nan, np.inf
        y = np.array(kernels.matmul(mx.array(x), matrix.packed, matrix.holds))
        assert not np.isfinite(y[[1, 4]]).any()
        assert np.isfinite(y[[0, 2, 3, 5]]).all()


def test_tiny_and_large_activations(kernels: Library):
    matrix = affine(kernels, normal(9, 32, 64), 4, 64, "float32")
    for size in (0.0, 1e-38, 1e-30, 1e30):
        x = normal(10, 3, 64) * size
        y = np.array(kernels.matmul(x, matrix.packed, matrix.holds))
        assert np.isfinite(y).all()
        if size >= 1e-30:
            assert error(mx.array(y), exact(x) @ matrix.weight.T) < ROUNDED


@pytest.mark.parametrize("bits", [4, 8])
def test_hub_checkpoints_lose_less_than_half_a_percent(kernels: Library, bits):
    """MLX's own kernel accumulates in bfloat16, and loses some percent."""
    matrix = affine(kernels, normal(11, 256, 2048), bits, 64, "bfloat16")
    x = normal(12, 4, 2048, dtype="bfloat16")
    expected = exact(x) @ matrix.weight.T
    y = kernels.matmul(x, matrix.packed, matrix.holds)
    codes, scales, biases = matrix.codes
    own = mx.quantized_matmul(x, codes, scales, biases, group_size=64, bits=bits)
    assert error(y, expected) < 0.005
    assert error(y, expected) <= error(own, expected)
    in_float32 = kernels.matmul(x.astype(mx.float32), matrix.packed, matrix.holds)
    assert error(in_float32, expected) < ROUNDED


@pytest.mark.parametrize("sorted_indices", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_each_row_is_multiplied_by_its_experts_matrix(kernels: Library, quantized, sorted_indices):
    weight = normal(13, 5, 40, 64)
    if quantized:
        matrix = affine(kernels, weight, 4, 32, "bfloat16")
    else:
        matrix = dense(kernels, weight, "float16")
    x = normal(14, 2, 7, 1, 1, 64)
    experts = np.random.default_rng(15).integers(0, 5, (2, 7, 3)).astype(np.uint32)
    if sorted_indices:
        experts = np.sort(experts, axis=None).reshape(experts.shape)
    y = kernels.gather_matmul(x, matrix.packed, mx.array(experts), matrix.holds)
    assert y.shape == (2, 7, 3, 1, 40)
    expected = np.einsum("blk,bltnk->bltn", exact(x)[:, :, 0, 0], matrix.weight[experts])
    assert error(y[..., 0, :], expected) < ROUNDED
    one = kernels.gather_matmul(x[1:, 2:3], matrix.packed, mx.array(experts[1:, 2:3]), matrix.holds)
    assert np.array_equal(np.array(one[0, 0]), np.array(y[1, 2]))


def test_rows_of_a_packed_matrix_are_what_was_packed(kernels: Library):
    rows = np.array([[3, 0], [199, 16]], dtype=np.uint32)
    for matrix in matrices(kernels):
        taken = kernels.take_rows(matrix.packed, mx.array(rows), matrix.holds)
        assert taken.dtype == mx.float32
        assert error(taken, matrix.weight[rows]) < 1e-6


def test_what_does_not_fit_is_refused(kernels: Library):
    matrix = affine(kernels, normal(16, 48, 64), 4, 32, "bfloat16")
    with pytest.raises(ValueError, match="does not fit"):
        kernels.matmul(normal(0, 2, 63), matrix.packed, matrix.holds)
    with pytest.raises(ValueError, match="another size"):
        kernels.matmul(normal(0, 2, 64), matrix.packed[:1], matrix.holds)
    with pytest.raises(ValueError, match="only"):
        kernels.matmul(mx.ones((2, 64), dtype=mx.int32), matrix.packed, matrix.holds)
