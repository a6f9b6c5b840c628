"""Between OpenAI's image objects, what a model can, and exo's one request for pictures: pure."""

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exo.api.image_schema import (
    AdvancedParams,
    EditRequest,
    ImageRequest,
    ImageStatsView,
    ImageUsageView,
    InputTokensView,
    Quality,
)
from exo.errors import RequestError
from exo.inference.image.checks import check_patches
from exo.inference.image.types import DrawRequest, DrawStats
from exo.models.card import ModelCard
from exo.models.image_traits import ImageTraits

# How much of the image stays, for the models that can be told so.
STRENGTH = {"low": 0.3, "high": 0.7}
# Width and height of what all the models call a token; sizes are multiples of it.
UNIT = 16
# A seed that a person can read out.
SEED_BITS = 32
_NAMED = 6


@dataclass(frozen=True)
class Sources:
    """What an edit starts from, as `DrawRequest` has it. `sizes` are those of the images as they
    came, (width, height) in pixels."""

    images: tuple[bytes, ...]
    sizes: tuple[tuple[int, int], ...]
    mask: bytes | None = None


@dataclass(frozen=True)
class Given:
    """The files of a request: how many images, and whether a mask."""

    images: int = 0
    mask: bool = False


@dataclass(frozen=True)
class Need:
    """What a request needs of its model; `cannot` is the rest of a sentence about one that is
    not `able`."""

    param: str
    cannot: str
    able: Callable[[ImageTraits], bool]


def needs(body: ImageRequest, given: Given) -> list[Need]:
    """All that a request needs which not every model has."""
    return [*_picture_needs(body, given), *_setting_needs(body)]


def _picture_needs(body: ImageRequest, given: Given) -> list[Need]:
    found: list[Need] = []
    if not given.images:
        text = "cannot draw from words alone: it edits images (/v1/images/edits)"
        found.append(Need("model", text, lambda traits: traits.draws))
    else:
        count = given.images
        found.append(Need("model", "cannot edit images", lambda traits: traits.edits > 0))
        text = f"cannot take {count} images at once"
        found.append(Need("image", text, lambda traits: traits.edits >= count))
    if given.mask:
        found.append(Need("mask", "cannot be told by a mask what to change", lambda t: t.mask))
    if isinstance(body, EditRequest) and body.input_fidelity == "high":
        text = "cannot be told how much of an image to keep"
        found.append(Need("input_fidelity", text, lambda traits: traits.strength))
    if not body.prompt.strip():
        found.append(Need("prompt", "cannot draw without words", lambda t: t.empty_prompt))
    return found


def _setting_needs(body: ImageRequest) -> list[Need]:
    found: list[Need] = []
    asked = body.advanced
    if asked.negative_prompt:
        param = "advanced_params.negative_prompt"
        found.append(Need(param, "takes no negative prompt", lambda t: t.negative_prompt))
    if (guidance := asked.guidance) is not None:
        param = "advanced_params.guidance"
        found.append(Need(param, "cannot be guided", lambda traits: traits.guidance is not None))
        text = f"cannot be guided by {guidance:g}"
        found.append(Need(param, text, lambda traits: _guides(traits, guidance)))
    if (steps := asked.num_inference_steps) is not None:
        param = "advanced_params.num_inference_steps"
        text = f"cannot draw in {steps} step{'s' * (steps > 1)}"
        found.append(Need(param, text, lambda traits: steps >= traits.min_steps))
    return found


def _guides(traits: ImageTraits, guidance: float) -> bool:
    return traits.guidance is not None and traits.guidance[0] <= guidance <= traits.guidance[1]


def unmet(card: ModelCard, needed: Sequence[Need]) -> Need | None:
    """The first of them that this model does not meet."""
    traits = traits_of(card)
    return next((need for need in needed if not need.able(traits)), None)


def refusal(card: ModelCard, need: Need, known: Sequence[ModelCard]) -> RequestError:
    """The error for what a model cannot; it names those of the `known` models that can."""
    traits = traits_of(card)
    limits = {
        "advanced_params.guidance": f" It takes {traits.guidance[0]:g} to {traits.guidance[1]:g}."
        if traits.guidance
        else "",
        "advanced_params.num_inference_steps": f" It takes {traits.min_steps} at least.",
        "image": f" It takes {traits.edits}.",
    }
    able = [one.model_id for one in known if one.image and need.able(one.image)]
    more = f" and {len(able) - _NAMED} more" if len(able) > _NAMED else ""
    hint = f"These can: {', '.join(able[:_NAMED])}{more}." if able else "No known model can."
    message = f"{card.model_id} {need.cannot}.{limits.get(need.param, '')}"
    return RequestError(message, hint=hint, param=need.param)


def traits_of(card: ModelCard) -> ImageTraits:
    """
    Raises:
        RequestError: it is no image model.
    """
    if card.image is None:
        raise RequestError(f"{card.model_id} makes no images.", param="model")
    return card.image


def to_draw(
    body: ImageRequest, card: ModelCard, request_id: str, sources: Sources | None = None
) -> DrawRequest:
    """What the engine is asked. What the client leaves out is the model's own.

    Raises:
        RequestError: the size is not one of this model's, or has too few rows for the patches.
    """
    traits = traits_of(card)
    width, height = _size(body, traits, sources)
    asked = body.advanced
    _check_patches(asked, height)
    strength = None
    if isinstance(body, EditRequest) and body.input_fidelity and traits.strength:
        strength = STRENGTH[body.input_fidelity]
    return DrawRequest(
        request_id=request_id,
        prompt=body.prompt,
        width=width,
        height=height,
        steps=_steps(body, traits),
        seed=secrets.randbits(SEED_BITS) if asked.seed is None else asked.seed,
        n=body.n or 1,
        guidance=asked.guidance,
        negative_prompt=asked.negative_prompt or None,
        images=sources.images if sources else (),
        mask=sources.mask if sources and traits.mask else None,
        strength=strength,
        patches=asked.patches,
        sync_steps=asked.num_sync_steps,
        partial_images=body.partial_images or 0,
    )


def _check_patches(asked: AdvancedParams, height: int) -> None:
    """What the engine would refuse, before anything is placed."""
    try:
        check_patches(asked.patches, asked.num_sync_steps, height)
    except RequestError as error:
        param = f"advanced_params.{error.param}"
        raise RequestError(error.message, hint=error.hint, param=param) from error


def _steps(body: ImageRequest, traits: ImageTraits) -> int:
    if body.advanced.num_inference_steps is not None:
        return body.advanced.num_inference_steps
    qualities = traits.qualities
    chosen = {
        "low": qualities.low,
        "medium": qualities.medium,
        "standard": qualities.medium,
        "high": qualities.high,
        "hd": qualities.high,
    }
    return max(chosen.get(body.quality or "auto", traits.steps), traits.min_steps)


def quality_of(steps: int, traits: ImageTraits) -> Quality:
    """The best quality that takes no more steps; low where even that takes more."""
    if steps >= traits.qualities.high:
        return "high"
    return "medium" if steps >= traits.qualities.medium else "low"


def _size(body: ImageRequest, traits: ImageTraits, sources: Sources | None) -> tuple[int, int]:
    if body.size is None or body.size == "auto":
        if sources is None:
            return traits.size, traits.size
        return fitted(*sources.sizes[0], traits)
    width, height = (int(side) for side in body.size.split("x"))
    fits = (
        width % UNIT == 0
        and height % UNIT == 0
        and traits.min_side <= min(width, height)
        and max(width, height) <= traits.max_side
        and width * height <= traits.max_pixels
    )
    if not fits:
        near = "x".join(str(side) for side in fitted(width, height, traits))
        raise RequestError(
            f"The size {body.size} is not possible: both sides must be multiples of {UNIT} from "
            f"{traits.min_side} to {traits.max_side}, and their product at most "
            f"{traits.max_pixels}.",
            hint=f"{near} is the nearest.",
            param="size",
        )
    return width, height


def fitted(width: int, height: int, traits: ImageTraits) -> tuple[int, int]:
    """The size nearest to this shape that the model can draw: no larger than it must be, and no
    more out of proportion than the limits force it to be."""
    largest = min(
        traits.max_side / max(width, height), math.sqrt(traits.max_pixels / width / height)
    )
    scale = min(max(1.0, traits.min_side / min(width, height)), largest)
    low = math.ceil(traits.min_side / UNIT) * UNIT
    high = traits.max_side // UNIT * UNIT
    sides = [min(max(round(side * scale / UNIT) * UNIT, low), high) for side in (width, height)]
    while sides[0] * sides[1] > traits.max_pixels and max(sides) > low:
        sides[sides.index(max(sides))] -= UNIT
    return sides[0], sides[1]


def usage_of(
    draw: DrawRequest, pictures: int, sources: Sources | None, words: int
) -> ImageUsageView:
    """The usage of so many of the pictures; `words` are the tokens of the prompt."""
    read = sum(_tokens(*size) for size in sources.sizes) if sources else 0
    made = _tokens(draw.width, draw.height) * pictures
    return ImageUsageView(
        input_tokens=read + words,
        input_tokens_details=InputTokensView(image_tokens=read, text_tokens=words),
        output_tokens=made,
        output_tokens_details=InputTokensView(image_tokens=made, text_tokens=0),
        total_tokens=read + words + made,
    )


def _tokens(width: int, height: int) -> int:
    return math.ceil(width / UNIT) * math.ceil(height / UNIT)


def stats_view(stats: DrawStats) -> ImageStatsView:
    return ImageStatsView(
        seconds_per_step=stats.seconds_per_step,
        total_generation_time=stats.total_time,
        num_inference_steps=stats.steps,
        num_images=stats.images,
        image_width=stats.width,
        image_height=stats.height,
        peak_memory_usage=stats.peak_memory_usage,
        approximate=stats.approximate,
    )
