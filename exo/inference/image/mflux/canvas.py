"""Pictures as they come and go: PNG, pixels, and masks."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import io
from typing import Any

import mlx.core as mx
import numpy as np
from mflux.utils.image_util import ImageUtil
from PIL import Image

from exo.errors import RequestError


def open_image(png: bytes, param: str = "image") -> Image.Image:
    """An RGB picture.

    Raises:
        RequestError: the bytes are no picture.
    """
    return _open(png, param).convert("RGB")


def open_mask(png: bytes) -> Image.Image:
    """A grey picture, white where something may change.

    Raises:
        RequestError: the bytes are no picture.
    """
    return _open(png, "mask").convert("L")


def _open(png: bytes, param: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(png))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(f"The {param} is no picture that can be read.", param=param) from error
    return image


def to_png(image: Image.Image) -> bytes:
    """The same bytes for the same picture, and no metadata."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def to_image(pixels: mx.array) -> Image.Image:
    """Of decoded (1, 3, height, width), from -1 to 1."""
    return ImageUtil.to_pil(pixels)


class Mask:
    """What of a picture of `width` x `height` pixels may change; everything else is as in
    `image`."""

    def __init__(self, mask: Image.Image, image: Image.Image, width: int, height: int) -> None:
        size = (width, height)
        self._mask = mask.resize(size, Image.Resampling.NEAREST).point(_to_black_or_white)
        self._image = ImageUtil.scale_to_dimensions(image, width, height)

    def plain(self, channels: int) -> mx.array:
        """In the order of plain latents: 1 where any pixel of a latent may change, else 0."""
        may: Any = np.asarray(self._mask) > 0
        height, width = may.shape
        cells = mx.array(may).reshape(height // 8, 8, width // 8, 8).any(axis=(1, 3))
        return mx.broadcast_to(cells.astype(mx.float32), (1, channels, *cells.shape))

    def apply(self, picture: Image.Image) -> Image.Image:
        """The picture, with the image's own pixels where nothing may change."""
        return Image.composite(picture, self._image, self._mask)


def _to_black_or_white(level: int) -> int:
    return 255 if level >= 128 else 0
