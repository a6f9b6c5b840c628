"""`/v1/images/generations`, `/v1/images/edits` and their benchmarked twins."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar, cast

from aiohttp import web

from exo.api.access import Access
from exo.api.context import context_of
from exo.api.image_adapter import (
    Given,
    Sources,
    needs,
    quality_of,
    refusal,
    stats_view,
    to_draw,
    traits_of,
    unmet,
    usage_of,
)
from exo.api.image_files import encode, read_sources
from exo.api.image_form import Form, read_form
from exo.api.image_schema import (
    BenchImagesView,
    CompletedView,
    EditForm,
    EditRequest,
    ImageRequest,
    ImagesView,
    PartialImageView,
    PictureView,
    without_refused,
)
from exo.api.routes import Route, json_response, read_json, validate
from exo.api.sse import EventStream
from exo.api.stored_images import address
from exo.cluster.requests import Output
from exo.errors import EngineError
from exo.inference.ids import new_id
from exo.inference.image.types import (
    DrawFinished,
    Drawing,
    Drawn,
    DrawRequest,
    DrawStats,
    Preview,
)
from exo.inference.messages import Accepted
from exo.models.card import ModelCard, Task

P = ParamSpec("P")
T = TypeVar("T")
Kind = Literal["image_generation", "image_edit"]

# Pictures are large when they are decoded: only so many at once.
_pool = ThreadPoolExecutor(2, "pictures")


@dataclass
class _Drawing:
    """One request on its way through the API."""

    kind: Kind
    body: ImageRequest
    card: ModelCard
    draw: DrawRequest
    sources: Sources | None
    bench: bool
    created: int
    prompt_tokens: int = 0

    def event(self, index: int) -> dict[str, Any]:
        """What all events about picture `index` say."""
        return {**self._common(), "created_at": self.created, "image_index": index}

    def partial(self, preview: Preview, data: str) -> PartialImageView:
        return PartialImageView(
            **self.event(preview.index),
            type=cast("Any", f"{self.kind}.partial_image"),
            partial_image_index=preview.number,
            b64_json=data,
        )

    def completed(self, index: int, data: str) -> CompletedView:
        return CompletedView(
            **self.event(index),
            type=cast("Any", f"{self.kind}.completed"),
            b64_json=data,
            seed=self.draw.seed + index,
            usage=usage_of(self.draw, 1, self.sources, self.prompt_tokens),
        )

    def whole(self, pictures: list[PictureView], stats: DrawStats) -> ImagesView:
        view = ImagesView(
            **self._common(),
            created=self.created,
            data=pictures,
            usage=usage_of(self.draw, len(pictures), self.sources, self.prompt_tokens),
        )
        if not self.bench:
            return view
        return BenchImagesView(**dict(view), generation_stats=stats_view(stats))

    def _common(self) -> dict[str, Any]:
        return {
            "output_format": self.body.file_format,
            "quality": quality_of(self.draw.steps, traits_of(self.card)),
            "size": f"{self.draw.width}x{self.draw.height}",
        }

    async def encoded(self, png: bytes) -> bytes:
        """A picture in the format that the client wants."""
        return await _in_thread(encode, png, self.body.file_format, self.body.output_compression)

    async def text(self, png: bytes) -> str:
        """The same in base64."""
        return await _in_thread(_base64, await self.encoded(png))


async def generate(request: web.Request) -> web.StreamResponse:
    return await _generate(request, bench=False)


async def generate_bench(request: web.Request) -> web.StreamResponse:
    return await _generate(request, bench=True)


async def edit(request: web.Request) -> web.StreamResponse:
    return await _edit(request, bench=False)


async def edit_bench(request: web.Request) -> web.StreamResponse:
    return await _edit(request, bench=True)


async def _generate(request: web.Request, *, bench: bool) -> web.StreamResponse:
    body = validate(ImageRequest, without_refused(await read_json(request)))
    card = await _able_card(request, body, Given())
    draw = to_draw(body, card, new_id("img"))
    drawing = _Drawing("image_generation", body, card, draw, None, bench, int(time.time()))
    return await _answer(request, drawing)


async def _edit(request: web.Request, *, bench: bool) -> web.StreamResponse:
    form = await read_form(request)
    body = validate(EditRequest, without_refused(form.body()))
    card = await _able_card(request, body, _given(form))
    sources = await _in_thread(read_sources, form.images, form.mask, traits_of(card))
    draw = to_draw(body, card, new_id("img"), sources)
    drawing = _Drawing("image_edit", body, card, draw, sources, bench, int(time.time()))
    return await _answer(request, drawing)


def _given(form: Form) -> Given:
    return Given(images=len(form.images), mask=form.mask is not None)


async def _able_card(request: web.Request, body: ImageRequest, given: Given) -> ModelCard:
    """The model's card, before anything is placed or decoded for it.

    Raises:
        ModelNotFound: no model has that name.
        RequestError: it cannot do what is asked.
    """
    context = context_of(request)
    card = await context.able_card(body.model, Task.IMAGE)
    if need := unmet(card, needs(body, given)):
        raise refusal(card, need, await context.cards())
    return card


async def _answer(request: web.Request, drawing: _Drawing) -> web.StreamResponse:
    context = context_of(request)
    stream = EventStream(request) if drawing.body.stream else None
    instances = await context.begin_all(drawing.body.model, Task.IMAGE, stream)
    outputs = context.draw(instances, drawing.draw)
    async with aclosing(outputs):
        accepted = await anext(outputs)  # Or a refusal, which still can be an HTTP status.
        if isinstance(accepted, Accepted):
            drawing.prompt_tokens = accepted.prompt_tokens
        if stream is not None:
            return await _stream(stream, drawing, outputs)
        return await _whole(request, drawing, outputs)


async def _whole(
    request: web.Request, drawing: _Drawing, outputs: AsyncGenerator[Output]
) -> web.Response:
    drawn: dict[int, bytes] = {}
    async for output in outputs:
        match output:
            case Drawn(index=index, png=png):
                drawn[index] = await drawing.encoded(png)
            case DrawFinished(stats=stats):
                files = [drawn[index] for index in range(drawing.draw.n)]
                pictures = await _pictures(request, drawing, files)
                return json_response(drawing.whole(pictures, stats))
            case _:
                pass
    raise EngineError("The runner ended the pictures without finishing them.")


async def _pictures(
    request: web.Request, drawing: _Drawing, files: list[bytes]
) -> list[PictureView]:
    seeds = [drawing.draw.seed + index for index in range(len(files))]
    if drawing.body.response_format == "url":
        images = context_of(request).images
        ids = await asyncio.to_thread(images.save, files, drawing.body.file_format)
        return [
            PictureView(b64_json=None, url=address(request, image_id), seed=seed)
            for image_id, seed in zip(ids, seeds, strict=True)
        ]
    return [
        PictureView(b64_json=await _in_thread(_base64, file), url=None, seed=seed)
        for file, seed in zip(files, seeds, strict=True)
    ]


async def _stream(
    stream: EventStream, drawing: _Drawing, outputs: AsyncGenerator[Output]
) -> web.StreamResponse:
    """OpenAI's events; what it has none for are comments, which clients pass over."""
    await stream.open()

    async def send(output: object) -> None:
        match output:
            case Drawing(index=index, step=step, steps=steps):
                await stream.comment(f"step {step}/{steps} image {index}")
            case Preview(png=png):
                await event(drawing.partial(output, await drawing.text(png)))
            case Drawn(index=index, png=png):
                await event(drawing.completed(index, await drawing.text(png)))
            case DrawFinished(stats=stats) if drawing.bench:
                figures = stats_view(stats).model_dump(mode="json")
                await stream.comment(f"generation_stats {json.dumps(figures)}")
            case _:
                pass

    async def event(view: PartialImageView | CompletedView) -> None:
        await stream.send(view.model_dump(mode="json"), event=view.type)

    if await stream.forward(outputs, send):
        await stream.done()
    return stream.response


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


async def _in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call` in one of the threads for pictures."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool, partial(call, *args, **kwargs))


_ERRORS = (400, 404, 429, 500, 503, 507)
_STREAMS = PartialImageView | CompletedView
ROUTES = [
    Route("POST", "/v1/images/generations", generate, "Draw pictures", ImagesView, "images",
          body=ImageRequest, streams=_STREAMS, errors=_ERRORS, access=Access.INFERENCE),
    Route("POST", "/bench/images/generations", generate_bench, "Draw pictures, with statistics",
          BenchImagesView, "images", body=ImageRequest, streams=_STREAMS, errors=_ERRORS,
          access=Access.INFERENCE),
    Route("POST", "/v1/images/edits", edit, "Edit pictures", ImagesView, "images",
          form=EditForm, streams=_STREAMS, errors=_ERRORS, access=Access.INFERENCE),
    Route("POST", "/bench/images/edits", edit_bench, "Edit pictures, with statistics",
          BenchImagesView, "images", form=EditForm, streams=_STREAMS, errors=_ERRORS,
          access=Access.INFERENCE),
]  # fmt: skip
