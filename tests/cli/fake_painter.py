"""The image routes of the fake API: what they were asked, and scripted pictures."""

import base64
import io
import json
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from aiohttp import web

SIZE = (32, 16)


def picture(index: int, step: int, form: str = "png") -> bytes:
    """All of one colour, which says which picture it is, and how far."""
    from PIL import Image  # noqa: PLC0415  not paid for by tests without pictures

    file = io.BytesIO()
    Image.new("RGB", SIZE, (index * 10, step * 10, 200)).save(file, form.upper())
    return file.getvalue()


@dataclass
class FakePainter:
    """Each request is drawn in `steps`; `uploads` are the files of the edits, (field, bytes).
    `ends_early` closes the stream before the last picture; `together` has all pictures drawn at
    once."""

    steps: int = 2
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list[Any])
    uploads: list[tuple[str, bytes]] = field(default_factory=list[Any])
    ends_early: bool = False
    together: bool = False
    stream_error: dict[str, Any] | None = None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/images/generations", self._generate),
            web.post("/v1/images/edits", self._edit),
        ]

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await request.json())

    async def _edit(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = {}
        async for part in await request.multipart():
            data = bytes(await part.read())
            if part.filename:
                self.uploads.append((part.name, data))
            elif part.name in {"n", "stream", "partial_images", "advanced_params"}:
                body[part.name] = json.loads(data)
            else:
                body[part.name] = data.decode()
        return await self._answer(request, body)

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        self.requests.append((request.path, body))
        if body.get("stream"):
            return await self._stream(request, body)
        form = body["output_format"]
        pictures = [
            {"b64_json": _text(picture(i, self.steps, form)), "url": None, "seed": 7 + i}
            for i in range(body["n"])
        ]
        return web.json_response({"size": "32x16", "data": pictures})

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        form = body["output_format"]
        pictures, steps = range(body["n"]), range(1, self.steps + 1)
        order = sorted(product(pictures, steps), key=lambda at: at[1] if self.together else at[0])
        for index, step in order:
            await stream.write(f": step {step}/{self.steps} image {index}\n\n".encode())
            if step <= body["partial_images"]:
                data = picture(index, step, form)
                await _send(stream, "image_generation.partial_image", index, data)
            if step < self.steps:
                continue
            if self.stream_error:
                await stream.write(f"data: {json.dumps(self.stream_error)}\n\n".encode())
                return stream
            if not self.ends_early:
                data = picture(index, self.steps, form)
                await _send(stream, "image_generation.completed", index, data)
        await stream.write(b"data: [DONE]\n\n")
        return stream


async def _send(stream: web.StreamResponse, kind: str, index: int, data: bytes) -> None:
    event = {
        "type": kind, "image_index": index, "b64_json": _text(data), "seed": 7 + index,
        "size": "32x16",
    }  # fmt: skip
    await stream.write(f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
