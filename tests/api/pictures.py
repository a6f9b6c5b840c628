"""Picture files for tests, and a look into those that come back."""

import base64
import io
from typing import Any

from PIL import Image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
CLEAR = (0, 0, 0, 0)


def plain(size: tuple[int, int] = (32, 32), color: Any = RED, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, color)


def halves(size: tuple[int, int] = (32, 32), left: Any = RED, right: Any = BLUE) -> Image.Image:
    """One colour on the left, another on the right."""
    picture = Image.new("RGB" if len(left) == 3 else "RGBA", size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def with_hole(size: tuple[int, int] = (32, 32), color: Any = RED) -> Image.Image:
    """Transparent on the left."""
    return halves(size, CLEAR, (*color, 255))


def file_of(picture: Image.Image, form: str = "PNG", **settings: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **settings)
    return file.getvalue()


def png(size: tuple[int, int] = (32, 32), color: Any = RED) -> bytes:
    return file_of(plain(size, color))


def opened(data: bytes | str) -> Image.Image:
    """The picture in a file, or in the base64 of one."""
    raw = base64.b64decode(data) if isinstance(data, str) else data
    picture = Image.open(io.BytesIO(raw))
    picture.load()
    return picture
