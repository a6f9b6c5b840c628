"""The form of an image edit (multipart/form-data), as JSON and files."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from exo.api.image_files import Upload
from exo.errors import BodyTooLarge, RequestError

MAX_PARTS = 100
_PIECE = 2**18
_IMAGE = re.compile(r"image(\[\d*\])?")
_NESTED = re.compile(r"(\w+)\[(\w+)\]")
# What is no string in the schema; what cannot be read stays one, and validation names it.
_VALUES = {
    "n",
    "output_compression",
    "partial_images",
    "stream",
    "frame_count",
    "frame_duration_ms",
    "advanced_params",
    "seed",
    "num_inference_steps",
    "guidance",
}
# Where the empty string is a value, and not a field that was left empty.
_TEXTS = {"prompt", "model", "user", "safety_identifier"}


@dataclass
class Form:
    """What a form carried: its fields as they came, and its files."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    images: list[Upload] = field(default_factory=list[Upload])
    mask: Upload | None = None

    def body(self) -> dict[str, Any]:
        """See `body_of`."""
        return body_of(self.fields)


def body_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields as they would be in JSON. `advanced_params` is JSON itself, or comes in pieces:
    `advanced_params[seed]`.

    Raises:
        RequestError: it comes in both ways.
    """
    body: dict[str, Any] = {}
    for name, text in fields.items():
        nested = _NESTED.fullmatch(name)
        if nested is None:
            body.setdefault(name, _value(name, text))
            continue
        outer, inner = nested.groups()
        values = body.setdefault(outer, {})
        if outer in fields:
            raise RequestError(f"The form has both '{outer}' and '{name}'.", param=outer)
        values[inner] = _value(inner, text)
    return body


def _value(name: str, text: str) -> Any:
    if not text and name not in _TEXTS:
        return None
    if name not in _VALUES:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


async def read_form(request: web.Request) -> Form:
    """The form in the body of `request`.

    Raises:
        RequestError: the body is no form, lacks an image, or has what no edit has.
        BodyTooLarge: it is larger than the server takes.
    """
    if request.content_type != "multipart/form-data":
        raise RequestError(
            f"An edit is a form: multipart/form-data, not {request.content_type}.",
            hint="`image` is its file.",
        )
    if (request.content_length or 0) > request.client_max_size:
        raise _too_large(request)
    form = Form()
    try:
        await _read_parts(request, form)
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        raise RequestError(f"The form cannot be read: {error}.".replace("..", ".")) from error
    if not form.images:
        raise RequestError("The form has no image.", hint="Send it as `image`.", param="image")
    return form


async def _read_parts(request: web.Request, form: Form) -> None:
    reader = await request.multipart()
    left = request.client_max_size
    parts = 0
    while (part := await reader.next()) is not None:
        parts += 1
        if isinstance(part, MultipartReader) or not part.name or parts > MAX_PARTS:
            raise RequestError("The form has a part without a name, or too many of them.")
        data = await _read_part(part, left)
        if data is None:
            raise _too_large(request)
        left -= len(data)
        _add(form, part.name, data)


async def _read_part(part: BodyPartReader, limit: int) -> bytes | None:
    """None if it is longer."""
    data = bytearray()
    while piece := await part.read_chunk(_PIECE):
        data += piece
        if len(data) > limit:
            return None
    return bytes(data)


def _add(form: Form, name: str, data: bytes) -> None:
    if _IMAGE.fullmatch(name):
        form.images.append(Upload(f"image {len(form.images) + 1}", data))
    elif name in form.fields or (name == "mask" and form.mask):
        raise RequestError(f"The form has the field '{name}' twice.", param=name)
    elif name == "mask":
        form.mask = Upload("mask", data)
    else:
        try:
            form.fields[name] = data.decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"The field '{name}' is no UTF-8 text.", param=name) from error


def _too_large(request: web.Request) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {request.client_max_size // 2**20} MiB.")
