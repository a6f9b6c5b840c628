"""Whole models with the kernels: the same function as with MLX's own."""

import importlib
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_map
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from exo.inference.kernels.functions import install
from exo.inference.kernels.layers import PackedLinear, PackedQuantizedLinear, swap
from exo.inference.kernels.library import Library
from exo.inference.mlx.adapter import as_batch, extend, make_prompt_cache
from tests.inference.architectures import build, configurations, random_weights
from tests.inference.test_split import OF_EACH_KIND

from .numbers import normal

KNOWN = configurations()
PROMPT = [(7 * n + 3) % 40 for n in range(33)]


@pytest.fixture
def functions() -> Iterator[None]:
    """Whatever is replaced is put back."""
    activations = importlib.import_module("mlx_lm.models.activations")
    kept = {name: getattr(mx.fast, name) for name in dir(mx.fast) if not name.startswith("_")}
    swiglu = activations.swiglu
    yield
    for name, function in kept.items():
        setattr(mx.fast, name, function)
    activations.swiglu = swiglu


def logits(model: Any, chunks: tuple[int, ...] = (33, 1, 1)) -> list[mx.array]:
    """Of the positions after each chunk."""
    caches, at, found = make_prompt_cache(model), 0, []
    tokens = [*PROMPT, 5, 9]
    for size in chunks:
        found.append(model(mx.array([tokens[at : at + size]]), cache=caches)[0, -1])
        mx.eval(found[-1])
        at += size
    return found


def in_float32(model: nn.Module) -> nn.Module:
    halves = (mx.float16, mx.bfloat16)
    model.update(
        tree_map(lambda a: a.astype(mx.float32) if a.dtype in halves else a, model.parameters())
    )
    return model


def difference(found: list[mx.array], expected: list[mx.array]) -> float:
    pairs = [
        (np.array(a, np.float64), np.array(b, np.float64))
        for a, b in zip(found, expected, strict=True)
    ]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_models_compute_what_they_did(kernels: Library, name):
    weights = random_weights(build(KNOWN[name]))
    expected = logits(build(KNOWN[name], weights))
    model = build(KNOWN[name], weights)
    install(kernels)
    assert swap(model, kernels) > 0
    assert difference(logits(model), expected) < 3e-5


def quantised(name: str, weights: list[tuple[str, mx.array]], bits: int) -> nn.Module:
    model = build(KNOWN[name], weights)
    nn.quantize(
        model,
        32,
        bits,
        class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-1] % 32 == 0,
    )
    return in_float32(model)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere2", "falcon_h1", "qwen3"])
def test_quantised_models_compute_what_they_did_to_the_rounding_of_activations(
    kernels: Library, name, bits
):
    weights = random_weights(build(KNOWN[name]))
    expected = logits(quantised(name, weights, bits))
    model = quantised(name, weights, bits)
    install(kernels)
    assert swap(model, kernels) > 0
    assert difference(logits(model), expected) < 1e-3


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(("mode", "bits"), [("mxfp8", 8), ("mxfp4", 4)])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_models_of_small_floats_compute_what_they_did(kernels: Library, name, mode, bits):
    weights = random_weights(build(KNOWN[name]))

    def model() -> nn.Module:
        made = build(KNOWN[name], weights)
        nn.quantize(
            made,
            32,
            bits,
            mode=mode,
            class_predicate=lambda _, m: (
                hasattr(m, "to_quantized") and m.weight.shape[-1] % 32 == 0
            ),
        )
        return in_float32(made)

    expected = logits(model())
    packed = model()
    install(kernels)
    assert swap(packed, kernels) > 0
    assert not any(type(m) is nn.QuantizedLinear for m in packed.modules())
    # Products with mxfp8 are of float32; with mxfp4 activations are rounded.
    assert difference(logits(packed), expected) < (3e-5 if mode == "mxfp8" else 1e-3)


def with_dense_experts(model: nn.Module) -> nn.Module:
    """The same numbers, for the MLX that cannot multiply quantised experts."""
    for layer in [m for m in model.modules() if type(m) is QuantizedSwitchLinear]:
        weight = mx.dequantize(
            layer.weight, layer.scales, layer.biases, group_size=layer.group_size, bits=layer.bits
        )
        for name in ("weight", "scales", "biases"):
            layer.pop(name)
        layer.__class__ = SwitchLinear
        layer.weight = weight
    return model


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("name", ["deepseek_v3", "jamba", "gpt_oss"])
def test_quantised_experts(kernels: Library, name):
    weights = random_weights(build(KNOWN[name]))
    expected = logits(with_dense_experts(quantised(name, weights, 8)))
    model = quantised(name, weights, 8)
    install(kernels)
    swap(model, kernels)
    assert not any(type(m) is QuantizedSwitchLinear for m in model.modules())
    assert difference(logits(model), expected) < 1e-3


@pytest.mark.usefixtures("functions")
def test_a_sequence_gives_the_same_bits_alone_in_chunks_and_in_company(kernels: Library):
    install(kernels)
    model: Any = quantised("llama", random_weights(build(KNOWN["llama"])), 4)
    swap(model, kernels)
    alone = logits(model)
    in_chunks = logits(model, (20, 13, 1, 1))
    assert np.array_equal(np.array(alone[0]), np.array(in_chunks[1]))
    assert np.array_equal(np.array(alone[2]), np.array(in_chunks[3]))
    # As one of three rows of a batch, after a prompt of its own.
    rows = []
    for length in (9, 33, 50):
        caches = make_prompt_cache(model)
        prompt = PROMPT if length == 33 else [(3 * n + 1) % 40 for n in range(length)]
        mx.eval(model(mx.array([prompt]), cache=caches))
        rows.append(as_batch(caches))
    batch = rows[0]
    for other in rows[1:]:
        extend(batch, other)
    together = model(mx.array([[1], [5], [2]]), cache=batch)
    assert np.array_equal(np.array(together[1, -1]), np.array(alone[1]))


def test_layers_stay_what_they_were_to_the_models_code(kernels: Library):
    linear = nn.Linear(64, 40)
    codes = nn.QuantizedLinear.from_linear(nn.Linear(64, 40), 32, 4)
    own = type("Own", (nn.Linear,), {})(64, 40)
    model = nn.Sequential(linear, codes, own)
    weight, x = linear.weight, normal(1, 3, 64)
    expected = linear(x)
    mx.eval(weight, expected)
    assert swap(model, kernels) == 2
    assert isinstance(linear, PackedLinear)
    assert isinstance(codes, PackedQuantizedLinear)
    assert type(own).__name__ == "Own"
    assert set(linear.parameters()) == {"packed", "bias"}
    assert np.allclose(np.array(linear(x)), np.array(expected), atol=1e-5)
    assert np.array_equal(np.array(linear.weight), np.array(weight))
    linear.weight = weight * 2
    assert type(linear) is nn.Linear
    assert np.allclose(
        np.array(linear(x) - linear.bias), 2 * np.array(expected - linear.bias), atol=1e-5
    )


@pytest.mark.usefixtures("functions")
def test_a_norm_of_one_type_by_weights_of_another_is_float32(kernels: Library):
    install(kernels)
    for one, other in [("bfloat16", "float32"), ("float32", "bfloat16"), ("bfloat16", "float16")]:
        x, weight = normal(1, 3, 64, dtype=one), normal(2, 64, dtype=other)
        found = mx.fast.rms_norm(x, weight, 1e-5)
        assert found.dtype == mx.float32
        wide = mx.fast.rms_norm(x.astype(mx.float32), weight.astype(mx.float32), 1e-5)
        assert np.array_equal(np.array(found), np.array(wide))
