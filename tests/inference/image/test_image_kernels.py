"""Image models with the CPU kernels: the same pictures as with MLX's own functions in float32."""

import io
from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from mflux.models.common.config.model_config import ModelConfig
from PIL import Image

from exo.inference.image.mflux.engine import MfluxEngine
from exo.inference.image.mflux.loading import in_float32
from exo.inference.kernels.layers import PackedLinear, PackedQuantizedLinear
from exo.inference.kernels.use import use_kernels
from tests.inference.image.conftest import Folders, draw, load_of, spec_of

KINDS = ["flux.1-schnell", "flux.2-klein-4b", "qwen-image", "qwen-image-edit", "z-image"]


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    """mflux computes in what a class attribute says."""
    if use_kernels() is None:
        pytest.skip("there are no kernels here")
    kept = ModelConfig.precision
    yield
    ModelConfig.precision = kept


def levels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("variant", KINDS)
def test_pictures_are_those_of_float32(folders: Folders, variant: str, bits: int | None) -> None:
    spec, load = spec_of(variant), load_of(folders(variant, bits=bits))
    own = MfluxEngine(with_kernels=False)
    own.load(load, lambda *_: None)
    in_float32(own._loaded()[0])
    expected = draw(own, spec)
    engine = MfluxEngine()
    engine.load(load, lambda *_: None)
    found = draw(engine, spec)
    assert np.abs(levels(found) - levels(expected)).max() <= 2
    assert draw(engine, spec) == found


def test_linear_layers_are_packed(folders: Folders) -> None:
    counts = {}
    for bits in (None, 8):
        engine = MfluxEngine()
        engine.load(load_of(folders("flux.2-klein-4b", bits=bits)), lambda *_: None)
        transformer = dict(engine._loaded()[0].modules())["transformer"]
        modules = [module for module in transformer.modules() if "packed" in module]
        counts[bits] = {type(module) for module in modules}, len(modules)
    assert counts[None] == ({PackedLinear}, counts[8][1])
    assert PackedQuantizedLinear in counts[8][0]


def test_everything_else_is_float32(folders: Folders) -> None:
    engine = MfluxEngine()
    engine.load(load_of(folders("flux.1-schnell")), lambda *_: None)
    picture = engine.begin(spec_of("flux.1-schnell"))
    for _ in picture.steps():
        assert picture._shown is not None
        assert picture._shown.dtype == mx.float32
