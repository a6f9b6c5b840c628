"""Whether a model can draw what is asked: pure."""

from exo.errors import RequestError
from exo.inference.image.engine import DrawSpec
from exo.models.image_traits import ImageTraits

# Latents are an eighth of a picture's sides, and are computed in patches of two by two.
MULTIPLE = 16
MAX_STEPS = 100
# Seeds are the keys of MLX's generator.
MAX_SEED = 2**64


def check(spec: DrawSpec, traits: ImageTraits) -> None:
    """Refuse what this model cannot draw.

    Raises:
        RequestError: the first thing that is wrong, with the field's name as `param`.
    """
    _check_size(spec, traits)
    if not spec.prompt.strip() and not traits.empty_prompt:
        raise RequestError("The prompt is empty, and this model needs one.", param="prompt")
    if not traits.min_steps <= spec.steps <= MAX_STEPS:
        raise RequestError(
            f"This model draws in {traits.min_steps} to {MAX_STEPS} steps, not in {spec.steps}.",
            param="num_inference_steps",
        )
    if not 0 <= spec.seed < MAX_SEED:
        raise RequestError(f"A seed is from 0 to {MAX_SEED - 1}.", param="seed")
    _check_images(spec, traits)
    _check_guidance(spec, traits)
    check_patches(spec.patches, spec.sync_steps, spec.height)


def _check_size(spec: DrawSpec, traits: ImageTraits) -> None:
    for side in (spec.width, spec.height):
        if side % MULTIPLE or not traits.min_side <= side <= traits.max_side:
            raise RequestError(
                f"A side of {side} pixels: this model draws {traits.min_side} to "
                f"{traits.max_side}, in multiples of {MULTIPLE}.",
                param="size",
            )
    if spec.width * spec.height > traits.max_pixels:
        raise RequestError(
            f"{spec.width}x{spec.height} is more than this model's {traits.max_pixels} pixels.",
            param="size",
        )


def _check_images(spec: DrawSpec, traits: ImageTraits) -> None:
    if not spec.images:
        if not traits.draws:
            raise RequestError("This model edits: it needs an image.", param="image")
        if spec.mask is not None:
            raise RequestError("There is a mask, and no image that it is for.", param="mask")
        if spec.strength is not None:
            raise RequestError("There is no image of which to keep something.", param="strength")
        return
    if len(spec.images) > traits.edits:
        can = f"takes {traits.edits} at most" if traits.edits else "draws from words alone"
        raise RequestError(f"{len(spec.images)} images: this model {can}.", param="image")
    if spec.mask is not None and not traits.mask:
        raise RequestError("This model takes no mask.", param="mask")
    if spec.strength is not None and not traits.strength:
        raise RequestError(
            "This model cannot be told how much of an image to keep.", param="strength"
        )


def _check_guidance(spec: DrawSpec, traits: ImageTraits) -> None:
    if spec.negative_prompt is not None and not traits.negative_prompt:
        raise RequestError("This model takes no negative prompt.", param="negative_prompt")
    if spec.guidance is None:
        return
    if traits.guidance is None:
        raise RequestError("This model has no guidance.", param="guidance")
    low, high = traits.guidance
    if not low <= spec.guidance <= high:
        raise RequestError(f"This model's guidance is from {low} to {high}.", param="guidance")


def check_patches(patches: int | None, sync_steps: int | None, height: int) -> None:
    """Refuse patches that a picture of so many pixels does not have.

    Raises:
        RequestError: as `check`.
    """
    rows = height // MULTIPLE
    if patches is not None and not 1 <= patches <= rows:
        raise RequestError(
            f"A picture of {height} pixels has {rows} rows of {MULTIPLE}, too few for {patches} "
            "patches.",
            param="patches",
        )
    if sync_steps is not None and patches is None:
        raise RequestError(
            "num_sync_steps is for pictures in patches.",
            hint="`patches` says how many; without it, every step is of the whole picture.",
            param="num_sync_steps",
        )
