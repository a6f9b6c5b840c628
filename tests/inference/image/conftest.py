"""Tiny models of every variant, made and loaded once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from exo.inference.image.engine import DrawSpec
from exo.inference.image.mflux.canvas import to_png
from exo.inference.image.mflux.engine import MfluxEngine
from exo.inference.messages import Load
from exo.models import image_folder
from exo.models.image_variants import VARIANTS
from tests.inference.image import maker, small

Folders = Callable[..., Path]
Engines = Callable[..., MfluxEngine]


@pytest.fixture(scope="package", autouse=True)
def small_models() -> Iterator[None]:
    """mflux makes its models small, and exo expects them so."""
    names = maker.small_names()
    with small.small_mflux(), patch.object(image_folder, "image_names", lambda: names):
        yield


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The folder of a variant; not to be changed."""
    made: dict[tuple[str, bool, int | None], Path] = {}

    def folder(variant: str, *, hub: bool = False, bits: int | None = None) -> Path:
        key = (variant, hub, bits)
        if key not in made:
            where = tmp_path_factory.mktemp("image") / variant
            made[key] = maker.make_image_model(where, variant, hub=hub, bits=bits)
        return made[key]

    return folder


@pytest.fixture(scope="package")
def engines(folders: Folders, small_models: None) -> Engines:
    """An engine that has loaded a variant."""
    loaded: dict[tuple[str, bool, int | None], MfluxEngine] = {}

    def engine(variant: str, *, hub: bool = False, bits: int | None = None) -> MfluxEngine:
        key = (variant, hub, bits)
        if key not in loaded:
            loaded[key] = MfluxEngine(with_kernels=False)
            loaded[key].load(load_of(folders(variant, hub=hub, bits=bits)), lambda *_: None)
        return loaded[key]

    return engine


def load_of(folder: Path, variant: str = "") -> Load:
    return Load(
        path=folder,
        variant=variant,
        start_layer=0,
        end_layer=1,
        context_length=1,
        max_concurrency=1,
        max_queue=1,
        kv_tokens=1,
        kv_bytes_per_token=1,
        prefix_cache_bytes=0,
        cast_float32=False,
    )


def noise_png(seed: int, width: int = 64, height: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return to_png(Image.fromarray(pixels))


def spec_of(variant: str, *, steps: int = 2, seed: int = 7, **given: object) -> DrawSpec:
    """What any variant can draw: those that only edit get an image."""
    variants = VARIANTS[variant]
    if "images" not in given and variants.edit and variants.family != "flux2":
        given["images"] = (noise_png(1),)
    fields = {"prompt": "a red circle", "width": 64, "height": 64, **given}
    return DrawSpec(steps=steps, seed=seed, **fields)


def draw(engine: MfluxEngine, spec: DrawSpec) -> bytes:
    picture = engine.begin(spec)
    for _ in picture.steps():
        pass
    return picture.png()
