"""The engine on mflux's models: tiny ones with random weights, which draw noise, but always the
same."""

import io
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mflux.models.flux.variants.kontext.flux_kontext import Flux1Kontext
from mflux.models.flux.variants.txt2img.flux import Flux1
from mflux.models.flux2.variants import Flux2Klein, Flux2KleinEdit
from mflux.models.qwen.variants.edit.qwen_image_edit import QwenImageEdit
from mflux.models.qwen.variants.txt2img.qwen_image import QwenImage
from mflux.models.z_image.variants.z_image import ZImage
from PIL import Image

from exo.errors import EngineError, RequestError
from exo.inference.image.engine import Stroke
from exo.inference.image.mflux.engine import MfluxEngine
from exo.inference.image.mflux.loading import model_config
from exo.models.image_file import read_image_file
from exo.models.image_variants import VARIANTS
from tests.inference.image.conftest import Engines, Folders, draw, load_of, noise_png, spec_of

EVERY = sorted(VARIANTS)
# One of each way to compute.
KINDS = [
    "flux.1-schnell",
    "flux.1-kontext-dev",
    "flux.2-klein-4b",
    "qwen-image",
    "qwen-image-edit",
    "z-image-turbo",
]
GUIDED = ["flux.2-klein-base-4b", "qwen-image", "z-image"]
BEGINS_FROM_IMAGES = ["flux.1-schnell", "flux.2-klein-4b", "qwen-image", "z-image-turbo"]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("variant", KINDS)
def test_draws_the_same_for_the_same_seed_alone(engines: Engines, variant: str) -> None:
    engine = engines(variant)
    once = draw(engine, spec_of(variant))
    assert pixels(once).shape == (64, 64, 3)
    assert draw(engine, spec_of(variant)) == once
    assert draw(engine, spec_of(variant, seed=8)) != once


@pytest.mark.parametrize("variant", KINDS)
def test_the_prompt_counts(engines: Engines, variant: str) -> None:
    engine = engines(variant)
    one = draw(engine, spec_of(variant))
    assert draw(engine, spec_of(variant, prompt="a quite different thing")) != one


@pytest.mark.parametrize("variant", EVERY)
def test_draws_what_mflux_itself_draws(engines: Engines, folders: Folders, variant: str) -> None:
    ours = pixels(draw(engines(variant), spec_of(variant, steps=3, width=96)))
    theirs = _by_mflux(folders, variant)
    assert np.array_equal(ours, np.asarray(theirs))


def _by_mflux(folders: Folders, variant: str, **given: Any) -> Image.Image:
    known, folder = VARIANTS[variant], folders(variant)
    config = model_config(known.mflux, read_image_file(folder))
    image = Image.open(io.BytesIO(noise_png(1)))
    guidance = {"flux.1-dev": 3.5, "flux.1-krea-dev": 4.5, "flux.1-kontext-dev": 2.5}
    asked = {
        "seed": 7,
        "prompt": "a red circle",
        "num_inference_steps": 3,
        "width": 96,
        "height": 64,
        "guidance": guidance.get(variant, 4.0),
        **given,
    }
    if known.family == "flux2":
        asked["guidance"] = 4.0 if "base" in variant else 1.0
    kinds: dict[tuple[str, bool], Any] = {
        ("flux", False): Flux1,
        ("flux", True): Flux1Kontext,
        ("flux2", True): Flux2KleinEdit if "image_paths" in given else Flux2Klein,
        ("qwen-image", False): QwenImage,
        ("qwen-image", True): QwenImageEdit,
        ("z-image", False): ZImage,
    }
    model = kinds[known.family, known.edit](model_path=str(folder), model_config=config)
    if known.family == "flux2":
        _with_few_tokens(model)
    if known.edit and known.family == "flux":
        asked["image_path"] = image
    if known.edit and known.family == "qwen-image":
        asked["image_paths"] = [image]
    return model.generate_image(**asked).image


def _with_few_tokens(model: Any) -> None:
    """mflux itself pads prompts to 512 tokens whatever its model's settings say."""
    tokenizer = model.tokenizers["qwen3"]
    whole = tokenizer.tokenize
    tokenizer.tokenize = lambda **asked: whole(**{**asked, "max_length": 64})
    for module in model.vae.modules():
        if hasattr(module, "num_groups"):
            module.num_groups = 4


def test_edits_with_references_as_mflux_does(engines: Engines, folders: Folders) -> None:
    spec = spec_of(
        "flux.2-klein-4b", steps=3, width=96, images=(noise_png(1), noise_png(2, 32, 64))
    )
    ours = pixels(draw(engines("flux.2-klein-4b"), spec))
    references = [Image.open(io.BytesIO(png)) for png in spec.images]
    theirs = _by_mflux(folders, "flux.2-klein-4b", image_paths=references)
    assert np.array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("variant", KINDS)
def test_the_hubs_layout_draws_the_same(engines: Engines, variant: str) -> None:
    spec = spec_of(variant)
    assert draw(engines(variant, hub=True), spec) == draw(engines(variant), spec)


@pytest.mark.parametrize("variant", KINDS)
def test_quantised_weights_draw(engines: Engines, variant: str) -> None:
    spec = spec_of(variant)
    quantised = draw(engines(variant, bits=8), spec)
    assert draw(engines(variant, bits=8), spec) == quantised
    assert quantised != draw(engines(variant), spec)


@pytest.mark.parametrize("variant", ["flux.1-schnell", "qwen-image"])
def test_steps_one_at_a_time_with_previews(engines: Engines, variant: str) -> None:
    picture = engines(variant).begin(spec_of(variant, steps=3))
    seen, previews = [], []
    for stroke in picture.steps():
        seen.append(stroke)
        previews.append(picture.png())
    assert seen == [Stroke(1, 3), Stroke(2, 3), Stroke(3, 3)]
    assert len(set(previews)) == 3
    assert picture.png() == previews[-1]
    # Who looks on the way gets the same picture in the end.
    assert previews[-1] == draw(engines(variant), spec_of(variant, steps=3))


def test_a_picture_that_is_given_up_leaves_the_engine_as_it_was(engines: Engines) -> None:
    engine = engines("z-image-turbo")
    once = draw(engine, spec_of("z-image-turbo"))
    picture = engine.begin(spec_of("z-image-turbo", steps=5))
    steps = picture.steps()
    next(steps)
    steps.close()
    assert draw(engine, spec_of("z-image-turbo")) == once


def test_two_pictures_can_be_drawn_in_turns(engines: Engines) -> None:
    engine = engines("flux.2-klein-4b")
    specs = [spec_of("flux.2-klein-4b", seed=seed) for seed in (1, 2)]
    alone = [draw(engine, spec) for spec in specs]
    pictures = [engine.begin(spec) for spec in specs]
    for _ in zip(*(picture.steps() for picture in pictures), strict=True):
        pass
    assert [picture.png() for picture in pictures] == alone


def test_there_is_no_picture_before_the_first_step(engines: Engines) -> None:
    with pytest.raises(EngineError):
        engines("z-image-turbo").begin(spec_of("z-image-turbo")).png()


@pytest.mark.parametrize("variant", BEGINS_FROM_IMAGES)
def test_with_more_strength_more_of_an_image_stays(engines: Engines, variant: str) -> None:
    engine, image = engines(variant), noise_png(3)
    drawn = {
        strength: draw(engine, spec_of(variant, steps=4, images=(image,), strength=strength))
        for strength in (0.0, 0.5, 1.0)
    }
    assert len(set(drawn.values())) == 3
    picture = engine.begin(spec_of(variant, steps=4, images=(image,), strength=0.5))
    assert [stroke.steps for stroke in picture.steps()] == [2, 2]


@pytest.mark.parametrize("variant", ["flux.1-schnell", "qwen-image", "z-image-turbo"])
def test_an_image_counts_even_if_no_strength_is_given(engines: Engines, variant: str) -> None:
    engine = engines(variant)
    drawn = [
        draw(engine, spec_of(variant, steps=4, images=images))
        for images in ((), (noise_png(3),), (noise_png(4),))
    ]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("variant", KINDS)
def test_only_what_the_mask_covers_changes(engines: Engines, variant: str) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:50, 10:30] = 255
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    image = noise_png(3)
    spec = spec_of(variant, images=(image,), mask=stream.getvalue())
    drawn, before = pixels(draw(engines(variant), spec)), pixels(image)
    assert np.array_equal(drawn[mask == 0], before[mask == 0])
    assert not np.array_equal(drawn[mask == 255], before[mask == 255])


@pytest.mark.parametrize("variant", ["flux.2-klein-4b", "qwen-image-edit"])
def test_every_one_of_several_images_counts(engines: Engines, variant: str) -> None:
    engine, first = engines(variant), noise_png(1)
    drawn = [
        draw(engine, spec_of(variant, images=images))
        for images in ((first,), (first, noise_png(2)), (first, noise_png(3)))
    ]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("variant", GUIDED)
def test_guidance_and_the_negative_prompt_count(engines: Engines, variant: str) -> None:
    engine = engines(variant)
    own = draw(engine, spec_of(variant))
    assert draw(engine, spec_of(variant, guidance=4.0)) == own
    assert draw(engine, spec_of(variant, guidance=2.0)) != own
    assert draw(engine, spec_of(variant, negative_prompt="blurred, ugly")) != own
    assert draw(engine, spec_of(variant, negative_prompt="")) == own
    without = draw(engine, spec_of(variant, guidance=1.0))
    assert draw(engine, spec_of(variant, guidance=1.0, negative_prompt="blurred")) == without


def test_guidance_of_flux_counts(engines: Engines) -> None:
    engine = engines("flux.1-dev")
    own = draw(engine, spec_of("flux.1-dev"))
    assert draw(engine, spec_of("flux.1-dev", guidance=3.5)) == own
    assert draw(engine, spec_of("flux.1-dev", guidance=9.0)) != own


def test_one_step_of_qwen_is_refused(engines: Engines) -> None:
    """It would be all black: its schedule divides by zero."""
    picture = engines("qwen-image").begin(spec_of("qwen-image", steps=1))
    with pytest.raises(RequestError) as caught:
        next(picture.steps())
    assert caught.value.param == "num_inference_steps"


@pytest.mark.parametrize(
    "variant", ["flux.1-schnell", "flux.2-klein-base-4b", "qwen-image", "z-image"]
)
def test_a_prompt_is_read_to_its_end_or_refused(engines: Engines, variant: str) -> None:
    with pytest.raises(RequestError) as caught:
        draw(engines(variant), spec_of(variant, prompt="word " * 400))
    assert caught.value.param == "prompt"
    if variant != "flux.1-schnell":
        with pytest.raises(RequestError) as caught:
            draw(engines(variant), spec_of(variant, negative_prompt="word " * 400))
        assert caught.value.param == "negative_prompt"


@pytest.mark.parametrize("image", [b"", b"no picture", noise_png(1)[:200]])
def test_what_is_no_picture_is_refused(engines: Engines, image: bytes) -> None:
    picture = engines("flux.2-klein-4b").begin(spec_of("flux.2-klein-4b", images=(image,)))
    with pytest.raises(RequestError) as caught:
        next(picture.steps())
    assert caught.value.param == "image"


def test_prompts_are_remembered_and_not_too_many(engines: Engines) -> None:
    engine = engines("z-image-turbo")
    calls = []
    family, _ = engine._loaded()
    encode = family.encode
    family.encode = lambda asked: calls.append(asked.prompt) or encode(asked)
    try:
        for number in (*range(6), 5, 0):
            draw(engine, spec_of("z-image-turbo", prompt=f"number {number}"))
    finally:
        del family.encode
    assert calls == [f"number {number}" for number in (*range(6), 0)]
    assert len(engine._encoded) == 4


def test_nothing_is_compiled_on_a_cpu(folders: Folders) -> None:
    mx.enable_compile()
    engine = MfluxEngine(with_kernels=False)
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("computes on a GPU")
    engine.load(load_of(folders("z-image-turbo")), lambda *_: None)
    ran = []

    @mx.compile
    def compiled(x: mx.array) -> mx.array:
        ran.append(x)
        return x + 1

    compiled(mx.array(1))
    compiled(mx.array(1))
    assert len(ran) == 2  # A compiled function is traced once.


def test_loading_tells_how_far_it_is(folders: Folders) -> None:
    told: list[tuple[int, int]] = []
    size = MfluxEngine(with_kernels=False).load(
        load_of(folders("flux.1-schnell")), lambda *done: told.append(done)
    )
    (total,) = {total for _, total in told}
    assert [done for done, _ in told] == list(range(total + 1))
    assert total > 4
    assert size > 5_000_000


@pytest.mark.parametrize("variant", ["flux.1-kontext-dev", "qwen-image-edit", "z-image"])
def test_warming_up_works_for_those_that_edit_as_well(engines: Engines, variant: str) -> None:
    engine = engines(variant)
    engine.warm_up()
    assert engine.peak_memory() > 0


def test_a_folder_that_does_not_say_is_the_cards_variant(folders: Folders) -> None:
    """Kontext's files look like those of FLUX.1-dev."""
    engine = MfluxEngine(with_kernels=False)
    engine.load(load_of(folders("flux.1-dev"), "flux.1-dev"), lambda *_: None)
    assert draw(engine, spec_of("flux.1-dev"))
