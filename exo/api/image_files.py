"""Picture files: from what clients upload to what engines take, and from what they draw to what
clients want. Everything here blocks: it is called in a thread.

Pillow is imported when the first picture comes, so that no start is slower for it.
"""

import io
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exo.api.image_adapter import Sources
from exo.api.image_schema import Format
from exo.errors import RequestError
from exo.models.image_traits import ImageTraits

if TYPE_CHECKING:
    from PIL import Image

READABLE = ("PNG", "JPEG", "WEBP")
# Pixels of one upload; looked at before it is decoded.
MAX_PIXELS = 64_000_000
# Bytes of all images of one request, as engines take them: they cross to the runner in one message.
MAX_BYTES = 48 * 2**20
# What Pillow's decoders raise for files that are damaged or end too early.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Upload:
    """A file of a form; `place` says which, for errors."""

    place: str
    data: bytes


def read_sources(uploads: Sequence[Upload], mask: Upload | None, traits: ImageTraits) -> Sources:
    """The images of an edit, upright, without metadata, and no larger than the model can use.

    Where the model takes masks and none is given, the transparent part of the first image is one.

    Raises:
        RequestError: one of them is no picture that exo reads, or the mask does not fit.
    """
    images: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    marked: bytes | None = None
    for index, upload in enumerate(uploads):
        picture = _decoded(upload)
        sizes.append(picture.size)
        size = _shrunk(picture.size, traits)
        if index == 0 and traits.mask:
            marked = (
                _png(_given_mask(mask, picture.size), size) if mask else _own_mask(picture, size)
            )
        images.append(_png(_flat(picture), size))
    if sum(map(len, images)) > MAX_BYTES:
        raise RequestError(
            "The images are too large together.", hint="Send fewer or smaller ones.", param="image"
        )
    return Sources(images=tuple(images), sizes=tuple(sizes), mask=marked)


def encode(png: bytes, form: Format, compression: int | None) -> bytes:
    """A drawn picture in another format. `compression` is 0 to 100, the best (None: that)."""
    if form == "png":
        return png
    image_type = _pillow()
    quality = 100 if compression is None else max(1, compression)
    with image_type.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return _written(picture, form.upper(), quality=quality)


def _decoded(upload: Upload) -> "Image.Image":
    """
    Raises:
        RequestError: it is no single picture that exo reads, or has too many pixels.
    """
    from PIL import ImageOps  # noqa: PLC0415

    image_type = _pillow()
    try:
        picture = image_type.open(io.BytesIO(upload.data), formats=READABLE)
        width, height = picture.size
        if width * height <= MAX_PIXELS and getattr(picture, "n_frames", 1) == 1:
            picture.load()
            return _eight_bit(ImageOps.exif_transpose(picture))
    except image_type.UnidentifiedImageError as error:
        raise RequestError(
            f"The file {upload.place} is no picture that exo reads.",
            hint="It reads png, jpeg and webp.",
            param=_field(upload),
        ) from error
    except _DAMAGED as error:
        raise RequestError(
            f"The file {upload.place} is damaged: {error}.", param=_field(upload)
        ) from error
    if width * height > MAX_PIXELS:
        raise RequestError(
            f"The picture {upload.place} has {width} by {height} pixels, more than "
            f"{MAX_PIXELS // 10**6} million.",
            hint="Make it smaller.",
            param=_field(upload),
        )
    raise RequestError(
        f"The picture {upload.place} is animated.",
        hint="Send one of its frames.",
        param=_field(upload),
    )


def _given_mask(mask: Upload, size: tuple[int, int]) -> "Image.Image":
    """White where the mask is fully transparent.

    Raises:
        RequestError: it has another size, or no transparent part.
    """
    picture = _decoded(mask)
    if picture.size != size:
        raise RequestError(
            f"The mask has {picture.width} by {picture.height} pixels, and the first image "
            f"{size[0]} by {size[1]}.",
            hint="They must have the same size.",
            param="mask",
        )
    hole = _hole(picture)
    if hole is None:
        raise RequestError(
            "The mask has no transparent part.",
            hint="What is transparent in the mask may change, the rest stays.",
            param="mask",
        )
    return hole


def _own_mask(picture: "Image.Image", size: tuple[int, int]) -> bytes | None:
    hole = _hole(picture)
    return None if hole is None else _png(hole, size)


def _hole(picture: "Image.Image") -> "Image.Image | None":
    """White where the picture is fully transparent; None if it is nowhere."""
    if not picture.has_transparency_data:
        return None
    hole = picture.convert("RGBA").getchannel("A").point([255] + [0] * 255)
    return hole if hole.getbbox() else None


def _flat(picture: "Image.Image") -> "Image.Image":
    """In RGB; what is transparent is on white."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = _pillow().new("RGBA", picture.size, "white")
    return _pillow().alpha_composite(white, picture).convert("RGB")


def _eight_bit(picture: "Image.Image") -> "Image.Image":
    """Grey of 16 bits in 8: Pillow would cut off what is above 255."""
    if not picture.mode.startswith("I"):
        return picture
    return picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def _shrunk(size: tuple[int, int], traits: ImageTraits) -> tuple[int, int]:
    width, height = size
    scale = min(
        1.0, traits.max_side / max(width, height), math.sqrt(traits.max_pixels / width / height)
    )
    return max(1, round(width * scale)), max(1, round(height * scale))


def _png(picture: "Image.Image", size: tuple[int, int]) -> bytes:
    if picture.size != size:
        resampling = _pillow().Resampling
        # A mask has no greys in between.
        sampler = resampling.NEAREST if picture.mode == "L" else resampling.LANCZOS
        picture = picture.resize(size, sampler)
    return _written(picture, "PNG", compress_level=1)


def _written(picture: "Image.Image", form: str, **settings: int) -> bytes:
    """The file, without the metadata that came with the picture."""
    bare = picture.copy()
    bare.info.clear()
    file = io.BytesIO()
    bare.save(file, form, **settings)
    return file.getvalue()


def _field(upload: Upload) -> str:
    return "mask" if upload.place == "mask" else "image"


def _pillow():  # noqa: ANN202  a module
    from PIL import Image  # noqa: PLC0415

    # Pillow's own limit only warns; `_decoded` looks at the pixels itself.
    Image.MAX_IMAGE_PIXELS = None
    return Image
