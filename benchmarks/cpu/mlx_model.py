"""`python -m benchmarks.cpu.mlx_model SHAPE KIND`: MLX with or without exo's kernels.

KIND is `q4`, `q8` (groups of 64 with bfloat16 scales, as on the hub), `bf16` or `f32`; with `-f32`
after it, everything that is not quantised is cast to float32. EXO_KERNELS=off is stock MLX.

As in exo and in mlx-lm, a token is begun before the one before it is there; with the kernels, keys
and values are held in the checkpoint's type.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.llama import Model, ModelArgs

from benchmarks.cpu.pace import report
from benchmarks.cpu.shapes import SHAPES
from exo.inference.kernels.layers import swap
from exo.inference.kernels.use import use_kernels
from exo.inference.mlx.casting import to_float32
from exo.inference.mlx.held import KvForm


def make(shape_name: str, kind: str) -> Any:
    shape = SHAPES[shape_name]
    arguments = ModelArgs(
        model_type="llama",
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head,
        rms_norm_eps=1e-5,
        vocab_size=shape.vocabulary,
        rope_theta=500000.0,
        tie_word_embeddings=True,
    )
    model = Model(arguments)
    storage = kind.split("-", maxsplit=1)[0]
    bits = {"q4": 4, "q8": 8}.get(storage, 0)
    if bits:
        nn.quantize(model, 64, bits)
    draw = np.random.default_rng(0)
    dtype = mx.float32 if storage == "f32" else mx.bfloat16

    def fill(name: str, array: mx.array) -> mx.array:
        if array.dtype == mx.uint32:
            return mx.array(draw.integers(0, 2**32, array.shape, dtype=np.uint32))
        if name.endswith("scales"):
            return mx.full(array.shape, 0.1 / 2**bits, dtype=dtype)
        if name.endswith("biases"):
            return mx.full(array.shape, -0.05, dtype=dtype)
        if array.ndim == 1:
            return mx.ones(array.shape, dtype=dtype)
        values = draw.standard_normal(array.shape, dtype=np.float32)
        return mx.array(values * array.shape[-1] ** -0.5).astype(dtype)

    model.update(tree_unflatten([(n, fill(n, a)) for n, a in tree_flatten(model.parameters())]))
    return model


def ready(shape: str, kind: str) -> tuple[Any, KvForm]:
    """The model as exo computes it, where the kernels are on, and how its keys and values are
    held."""
    mx.set_default_device(mx.Device(mx.cpu))
    mx.disable_compile()
    model = make(shape, kind)
    kernels = use_kernels()
    if kernels is not None:
        swap(model, kernels)
    if kernels is not None or kind.endswith("-f32"):
        to_float32(model)
    mx.eval(model.parameters())
    half = kernels is not None and not kind.startswith("f32")
    return model, KvForm(dtype=mx.bfloat16 if half else None)


def decoder(model: Any, form: KvForm, batch: int) -> Callable[[], None]:
    """Steps of so many streams, each begun before the one before it is there."""
    caches = form.of(make_prompt_cache(model))
    tokens = mx.array([[n + 5] for n in range(batch)])

    def step() -> None:
        nonlocal tokens
        following = mx.argmax(model(tokens, cache=caches)[:, -1:], axis=-1)
        mx.async_eval(following)
        mx.eval(tokens)
        tokens = following

    return step


def main() -> None:
    shape, kind = sys.argv[1:]
    model, form = ready(shape, kind)

    def prefill(size: int) -> None:
        caches = form.of(make_prompt_cache(model))
        for at in range(0, size, 512):
            count = min(512, size - at)
            # The head is for the last token only, as in a server.
            model.model(mx.array([[(7 * n) % 1000 for n in range(count)]]), cache=caches)
            mx.eval([cache.state for cache in caches])

    report(prefill, lambda batch: decoder(model, form, batch))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # OpenBLAS has been seen to wait for its own threads for ever at the end of a process.
    os._exit(0)
