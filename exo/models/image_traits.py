"""What an image model can draw, and with which settings."""

from pydantic import BaseModel, ConfigDict, Field


class Qualities(BaseModel):
    """Denoising steps for each of OpenAI's qualities."""

    model_config = ConfigDict(frozen=True)

    low: int = Field(ge=1, le=100)
    medium: int = Field(ge=1, le=100)
    high: int = Field(ge=1, le=100)


class ImageTraits(BaseModel):
    """What holds for one image model.

    Sizes are in pixels, both sides multiples of 16. `edits` is how many images it takes for an
    edit, 0 if it cannot edit; `draws` whether it makes pictures from words alone; `strength`
    whether it can be told how much of the image to keep. `guidance` is the range that it honours,
    None if it has none; `two_passes` says that guidance computes each step twice.
    """

    model_config = ConfigDict(frozen=True)

    size: int = 1024
    min_side: int = 64
    max_side: int = 2048
    max_pixels: int = 4_194_304
    steps: int = Field(ge=1, le=100)
    min_steps: int = Field(default=1, ge=1)
    qualities: Qualities
    draws: bool = True
    edits: int = Field(default=0, ge=0)
    mask: bool = False
    strength: bool = False
    negative_prompt: bool = False
    empty_prompt: bool = False
    guidance: tuple[float, float] | None = None
    default_guidance: float | None = None
    two_passes: bool = False
