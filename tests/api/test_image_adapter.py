"""Sizes that models can draw, and what is asked of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.api.image_adapter import Sources, fitted, quality_of, to_draw
from exo.api.image_schema import EditRequest, ImageRequest
from exo.models.image_traits import ImageTraits

from .painter import QUALITIES, image_card, traits

SIDE = st.integers(1, 20_000)
# A square of the longest side may have too many pixels; one of the shortest never has.


def limited(low: int, more: int, pixels: int) -> ImageTraits:
    fewest = (low + 15) // 16 * 16 * (low + 32)
    return traits(min_side=low, max_side=low + more, max_pixels=max(pixels, fewest))


LIMITS = st.builds(
    limited, low=st.integers(16, 512), more=st.integers(32, 4096), pixels=st.integers(2**12, 2**24)
)


@given(width=SIDE, height=SIDE, limits=LIMITS)
def test_a_fitted_size_can_be_drawn(width: int, height: int, limits: ImageTraits):
    fit = fitted(width, height, limits)
    assert all(side % 16 == 0 for side in fit)
    assert all(limits.min_side <= side <= limits.max_side for side in fit)
    assert fit[0] * fit[1] <= limits.max_pixels
    if width > height:
        assert fit[0] >= fit[1]
    draw = to_draw(request(size=f"{fit[0]}x{fit[1]}"), card_of(limits), "r")
    assert (draw.width, draw.height) == fit, "and is taken when it is asked for"


@given(width=st.integers(4, 16), height=st.integers(4, 16))
def test_what_can_be_drawn_stays(width: int, height: int):
    limits = traits(min_side=64, max_side=256, max_pixels=65_536)
    assert fitted(width * 16, height * 16, limits) == (width * 16, height * 16)


@given(width=st.integers(300, 4000), height=st.integers(300, 4000))
def test_proportions_stay_where_the_limits_let_them(width: int, height: int):
    limits = traits(min_side=64, max_side=2048, max_pixels=2**20)
    shape = fitted(width, height, limits)
    ratio = shape[0] / shape[1] / (width / height)
    assert 0.8 < ratio < 1.25


def request(**fields: object) -> ImageRequest:
    return ImageRequest.model_validate({"model": "m", "prompt": "x", **fields})


def card_of(limits: ImageTraits):
    return image_card("m").model_copy(update={"image": limits})


def test_steps_are_never_fewer_than_the_model_needs():
    card = image_card("m", min_steps=3)
    assert to_draw(request(quality="low"), card, "r").steps == 3


@pytest.mark.parametrize(
    ("steps", "quality"), [(1, "low"), (3, "low"), (4, "medium"), (7, "medium"), (50, "high")]
)
def test_the_quality_that_so_many_steps_make(steps: int, quality: str):
    assert quality_of(steps, traits(qualities=QUALITIES)) == quality


def test_masks_are_for_models_that_take_them():
    sources = Sources(images=(b"x",), sizes=((64, 64),), mask=b"m")
    body = EditRequest.model_validate({"model": "m", "prompt": "x"})
    assert to_draw(body, image_card("m", edits=1), "r", sources).mask is None
    assert to_draw(body, image_card("m", edits=1, mask=True), "r", sources).mask == b"m"
