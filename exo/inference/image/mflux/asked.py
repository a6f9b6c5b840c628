"""What a picture is to be."""

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Asked:
    """What a picture is made from. `guidance` is 0 where the model has none."""

    prompt: str
    negative_prompt: str | None
    guidance: float
    width: int
    height: int
    images: tuple[Image.Image, ...] = ()
