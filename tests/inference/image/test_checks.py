"""What a model can draw is checked before anything is computed."""

from dataclasses import replace

import pytest

from exo.errors import RequestError
from exo.inference.image.checks import check
from exo.inference.image.engine import DrawSpec
from exo.models.image_traits import ImageTraits, Qualities

TRAITS = ImageTraits(
    steps=4,
    qualities=Qualities(low=2, medium=4, high=8),
    max_pixels=1024 * 1024,
    edits=2,
    mask=True,
    strength=True,
    negative_prompt=True,
    guidance=(1.0, 10.0),
)
PLAIN = ImageTraits(steps=4, qualities=Qualities(low=2, medium=4, high=8))
SPEC = DrawSpec(prompt="a red circle", width=512, height=256, steps=4, seed=1)
EDIT = replace(SPEC, images=(b"1", b"2"), mask=b"m", strength=0.5, guidance=2.0)


def test_what_a_model_can_draw_passes() -> None:
    check(SPEC, PLAIN)
    check(SPEC, TRAITS)
    check(replace(EDIT, negative_prompt="ugly"), TRAITS)
    check(replace(SPEC, prompt=""), PLAIN.model_copy(update={"empty_prompt": True}))
    check(replace(SPEC, seed=2**64 - 1, steps=100), PLAIN)


@pytest.mark.parametrize(
    ("spec", "traits", "param"),
    [
        (replace(SPEC, width=500), PLAIN, "size"),
        (replace(SPEC, height=48), PLAIN, "size"),
        (replace(SPEC, width=2064), PLAIN, "size"),
        (replace(SPEC, width=1040, height=1024), TRAITS, "size"),
        (replace(SPEC, prompt="  \n"), PLAIN, "prompt"),
        (replace(SPEC, steps=0), PLAIN, "num_inference_steps"),
        (replace(SPEC, steps=101), PLAIN, "num_inference_steps"),
        (
            replace(SPEC, steps=1),
            PLAIN.model_copy(update={"min_steps": 2}),
            "num_inference_steps",
        ),
        (replace(SPEC, seed=2**64), PLAIN, "seed"),
        (SPEC, TRAITS.model_copy(update={"draws": False}), "image"),
        (replace(EDIT, images=(b"1",) * 3), TRAITS, "image"),
        (replace(SPEC, images=(b"1",)), PLAIN, "image"),
        (replace(SPEC, mask=b"m"), TRAITS, "mask"),
        (EDIT, TRAITS.model_copy(update={"mask": False}), "mask"),
        (replace(SPEC, strength=0.5), TRAITS, "strength"),
        (EDIT, TRAITS.model_copy(update={"strength": False}), "strength"),
        (replace(SPEC, negative_prompt="ugly"), PLAIN, "negative_prompt"),
        (replace(SPEC, guidance=2.0), PLAIN, "guidance"),
        (replace(SPEC, guidance=10.5), TRAITS, "guidance"),
        (replace(SPEC, guidance=0.5), TRAITS, "guidance"),
    ],
)
def test_what_it_cannot_is_refused_by_name(spec: DrawSpec, traits: ImageTraits, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        check(spec, traits)
    assert caught.value.param == param
