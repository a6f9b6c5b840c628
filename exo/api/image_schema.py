"""OpenAI's image objects (https://platform.openai.com/docs/api-reference/images) as far as exo
honours them, its `advanced_params`, and what is refused by name."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, model_validator

from exo.api.chat_schema import Part
from exo.api.views import View
from exo.errors import UnsupportedField

MAX_PICTURES = 10
MAX_PROMPT = 32_000
MAX_PREVIEWS = 3
MAX_PATCHES = 64

Format = Literal["png", "jpeg", "webp"]
Quality = Literal["low", "medium", "high"]

# What OpenAI's image API has and exo does not do, with what to do instead. Null asks for nothing.
REFUSED = {
    "style": "Describe the style in the prompt.",
    "complexity": "`quality` and advanced_params.num_inference_steps say how much is computed.",
    "frame_count": "exo draws single pictures.",
    "frame_duration_ms": "exo draws single pictures.",
    "svg": "exo draws png, jpeg and webp.",
    "markup": "Draw on the image itself, or give a mask.",
}


class AdvancedParams(Part):
    """How a picture is computed. Picture i of several uses `seed` + i. `patches`: over several
    nodes, faster and approximate, after `num_sync_steps` exact steps."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    num_inference_steps: int | None = Field(default=None, ge=1, le=100)
    guidance: float | None = Field(default=None, ge=1, le=20)
    negative_prompt: str | None = Field(default=None, max_length=MAX_PROMPT)
    patches: int | None = Field(default=None, ge=2, le=MAX_PATCHES)
    num_sync_steps: int | None = Field(default=None, ge=1, le=100)


class ImageRequest(Part):
    """The body of an image generation."""

    prompt: str = Field(max_length=MAX_PROMPT)
    model: str = Field(min_length=1)
    n: int | None = Field(None, ge=1, le=MAX_PICTURES)
    size: str | None = Field(None, pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] | None = None
    output_format: Format | None = None
    output_compression: int | None = Field(None, ge=0, le=100)
    response_format: Literal["b64_json", "url"] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=MAX_PREVIEWS)
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    advanced_params: AdvancedParams | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "ImageRequest":
        if self.partial_images and not self.stream:
            raise ValueError("partial_images needs stream to be true")
        if self.stream and self.response_format == "url":
            raise ValueError("response_format 'url' cannot be streamed: events carry b64_json")
        if self.file_format == "png" and self.output_compression not in {None, 100}:
            raise ValueError("output_compression is for jpeg and webp: png loses nothing")
        return self

    @property
    def file_format(self) -> Format:
        return self.output_format or "png"

    @property
    def advanced(self) -> AdvancedParams:
        return self.advanced_params or AdvancedParams()


class EditRequest(ImageRequest):
    """The fields of an image edit, besides its files."""

    input_fidelity: Literal["low", "high"] | None = None


Upload = Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "image/*"})]


class EditForm(EditRequest):
    """The form of an image edit: png, jpeg or webp. `image` may be repeated, or be `image[]`."""

    image: list[Upload] = Field(min_length=1)
    mask: Upload | None = None


def without_refused(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the fields that ask for nothing.

    Raises:
        UnsupportedField: a field asks for what exo does not do.
    """
    for name, hint in REFUSED.items():
        if body.get(name) is not None:
            raise UnsupportedField(f"The field '{name}' is not supported.", hint=hint, param=name)
    if body.get("background") == "transparent":
        raise UnsupportedField(
            "The background cannot be transparent.",
            hint="The models that exo runs make opaque pictures.",
            param="background",
        )
    return {name: value for name, value in body.items() if name not in REFUSED}


class PictureView(View):
    b64_json: str | None
    url: str | None
    revised_prompt: None = None
    seed: int


class InputTokensView(View):
    image_tokens: int
    text_tokens: int


class ImageUsageView(View):
    """A token of an image is a square of 16 by 16 pixels."""

    input_tokens: int
    input_tokens_details: InputTokensView
    output_tokens: int
    output_tokens_details: InputTokensView
    total_tokens: int


class ImagesView(View):
    """The answer: `n` pictures."""

    created: int
    background: Literal["opaque"] = "opaque"
    output_format: Format
    quality: Quality
    size: str
    data: list[PictureView]
    usage: ImageUsageView


class ImageStatsView(View):
    """How a request was computed: seconds, pixels, bytes; the steps are those of one picture.
    `approximate`: there were steps of patches."""

    seconds_per_step: float
    total_generation_time: float
    num_inference_steps: int
    num_images: int
    image_width: int
    image_height: int
    peak_memory_usage: int
    approximate: bool


class BenchImagesView(ImagesView):
    generation_stats: ImageStatsView


class _EventView(View):
    b64_json: str
    background: Literal["opaque"] = "opaque"
    created_at: int
    output_format: Format
    quality: Quality
    size: str
    image_index: int


class PartialImageView(_EventView):
    """A picture as it would be by now."""

    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    partial_image_index: int


class CompletedView(_EventView):
    """A picture that is done."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    seed: int
    usage: ImageUsageView
