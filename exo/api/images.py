"""The image endpoints, which this version does not have yet."""

from aiohttp import web

from exo.api.routes import Route
from exo.api.views import ErrorView
from exo.errors import NotImplementedYet


async def refuse(_: web.Request) -> web.Response:
    raise NotImplementedYet("This version of exo makes no images yet.", hint="It answers text.")


ROUTES = [
    Route("POST", path, refuse, "Not available yet", ErrorView, "images", errors=(501,))
    for path in (
        "/v1/images/generations",
        "/bench/images/generations",
        "/v1/images/edits",
        "/bench/images/edits",
    )
]
