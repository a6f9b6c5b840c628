"""What changes logits before a token is drawn."""

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.inference.mlx.sampling import Bias, add_biases

VOCABULARY = 50
biases = st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100), min_size=1)
# A row has one bias or none; one of them has one, or there would be nothing to do.
batches = st.lists(st.lists(biases, max_size=1), min_size=1, max_size=6).filter(any)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@given(batch=batches, seed=st.integers(0, 2**32))
def test_the_biases_of_all_rows_are_added_as_if_each_row_was_alone(batch, seed, dtype):
    rows = [[Bias(bias) for bias in row] for row in batch]
    logits = mx.random.normal((len(rows), VOCABULARY), key=mx.random.key(seed)).astype(dtype)
    alone: list[mx.array] = []
    for at, row in enumerate(rows):
        one = logits[at : at + 1]
        for bias in row:
            one = bias(mx.array([]), one)
        alone.append(one)
    assert mx.array_equal(add_biases(logits, rows), mx.concatenate(alone))
