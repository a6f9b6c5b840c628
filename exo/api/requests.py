"""Requests that came in: what became of each, and when."""

from aiohttp import web

from exo.api.context import context_of
from exo.api.routes import Route, json_response
from exo.cluster.trace import RequestTrace


async def trace(request: web.Request) -> web.Response:
    found = await context_of(request).tracing.find(request.match_info["request_id"])
    return json_response(found)


ROUTES = [
    Route("GET", "/v1/requests/{request_id}/trace", trace, "What became of a request, and when",
          RequestTrace, "requests", errors=(404,)),
]  # fmt: skip
