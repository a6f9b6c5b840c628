"""Requests that came in: what became of each, and when; and the end of one by its id."""

from typing import Literal

from aiohttp import web

from exo.api.access import ASKER, Access
from exo.api.context import context_of
from exo.api.routes import Route, json_response, no_body
from exo.api.views import View
from exo.cluster.trace import RequestTrace
from exo.errors import RequestNotFound


class CancelledView(View):
    id: str
    object: Literal["request.cancelled"] = "request.cancelled"
    cancelled: Literal[True] = True


async def trace(request: web.Request) -> web.Response:
    found = await context_of(request).tracing.find(request.match_info["request_id"])
    return json_response(found)


async def cancel(request: web.Request) -> web.Response:
    await no_body(request)
    asker, name = ASKER.get(), request.match_info["request_id"]
    lane = None if asker.is_admin else asker.lane
    if not await context_of(request).cancelling.cancel(name, lane):
        raise RequestNotFound(f"No request '{name}' is open.", hint="It may have ended already.")
    return json_response(CancelledView(id=name))


ROUTES = [
    Route("GET", "/v1/requests/{request_id}/trace", trace, "What became of a request, and when",
          RequestTrace, "requests", errors=(404,)),
    Route("POST", "/v1/requests/{request_id}/cancel", cancel, "Cancel an open request",
          CancelledView, "requests", errors=(400, 404), access=Access.INFERENCE, free=True),
]  # fmt: skip
