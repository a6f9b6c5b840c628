"""`/images`: the pictures whose address was asked for (`response_format: url`)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from aiohttp import web

from exo.api.access import Access
from exo.api.context import CONTEXT, context_of
from exo.api.image_store import LIFETIME, ImageStore, StoredImage
from exo.api.routes import Route, json_response
from exo.api.views import View
from exo.errors import NotFound


class StoredImageView(View):
    """A stored picture; `size` in bytes, times in seconds since the epoch."""

    image_id: str
    url: str
    content_type: str
    size: int
    created_at: int
    expires_at: int


class StoredImageListView(View):
    object: Literal["list"] = "list"
    data: list[StoredImageView]


async def list_all(request: web.Request) -> web.Response:
    images = await asyncio.to_thread(context_of(request).images.all)
    return json_response(StoredImageListView(data=[_view(request, one) for one in images]))


async def show(request: web.Request) -> web.StreamResponse:
    image_id = request.match_info["image_id"]
    image = await asyncio.to_thread(context_of(request).images.find, image_id)
    if image is None:
        raise NotFound(
            f"There is no picture '{image_id}' here.",
            hint=f"Pictures are kept for {LIFETIME / 60:.0f} minutes, by the node that made them.",
        )
    headers = {
        "Content-Type": _content_type(image),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": f"private, max-age={LIFETIME:.0f}",
    }
    return web.FileResponse(image.path, headers=headers)


def address(request: web.Request, image_id: str) -> str:
    """Where the client that asks will find the picture: on this node, by the name it used."""
    return f"{request.scheme}://{request.host}/images/{image_id}"


async def keep_clean(app: web.Application) -> AsyncIterator[None]:
    """While the application runs, remove what has expired."""
    task = asyncio.create_task(_clean(app[CONTEXT].images))
    yield
    task.cancel()
    await asyncio.wait({task})


async def _clean(images: ImageStore) -> None:
    left = await asyncio.to_thread(images.clean, unfinished=True)
    while True:
        # What is saved meanwhile lives longer than this.
        await asyncio.sleep(LIFETIME if left is None else max(left, 1.0))
        left = await asyncio.to_thread(images.clean)


def _view(request: web.Request, image: StoredImage) -> StoredImageView:
    return StoredImageView(
        image_id=image.image_id,
        url=address(request, image.image_id),
        content_type=_content_type(image),
        size=image.size,
        created_at=int(image.created),
        expires_at=int(image.expires),
    )


def _content_type(image: StoredImage) -> str:
    return f"image/{image.format}"


ROUTES = [
    Route("GET", "/images", list_all, "The stored pictures", StoredImageListView, "images"),
    Route("GET", "/images/{image_id}", show, "A stored picture", bytes, "images",
          media=("image/png", "image/jpeg", "image/webp"), errors=(404,), access=Access.OPEN),
]  # fmt: skip
