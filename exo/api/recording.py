"""A name for every request, by which its log lines and its trace are found, and its count."""

import logging
import re
import secrets
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from exo.api.context import context_of
from exo.api.error_shapes import ANTHROPIC

# Where a client may say what a request is to be called: the second one is OpenAI's.
_GIVEN = ("x-request-id", "x-client-request-id")
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,127}")
# What a request is called.
NAME: web.RequestKey[str] = web.RequestKey("name", str)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# What nginx calls a request whose client left before the answer.
GONE = 499
NOWHERE = "none"

log = logging.getLogger(__name__)


@web.middleware
async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name a request, keep a trace of what it leads to, and count it.

    What only reads leads to nothing that is worth a trace, and would push others out.
    """
    context = context_of(request)
    name = request[NAME] = request_name(request)
    route = route_of(request)
    method = request.method if request.method in _METHODS else NOWHERE
    one = context.tracing.begin(name, method, route)
    if method not in {"GET", "HEAD"}:
        context.tracing.keep(one)
    context.meters.request_begins()
    status = GONE
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        now = time.monotonic()
        one.end(status, now)
        context.meters.request_ends(method, route, status, now - one.came)
        level = logging.DEBUG if method == "GET" else logging.INFO
        log.log(level, "%s %s: %d in %.3f s", method, route, status, now - one.came)


async def name_response(request: web.Request, response: web.StreamResponse) -> None:
    """Say in an answer's head, a stream's too, what its request is called."""
    name = request[NAME]
    response.headers["x-request-id"] = name
    if request.path.startswith(ANTHROPIC):
        response.headers["request-id"] = name  # Where Anthropic's clients look for it.


def request_name(request: web.Request) -> str:
    """What the client calls it, if that is short and plain enough for a log, or a new name."""
    for header in _GIVEN:
        given = request.headers.get(header, "")
        if _SANE.fullmatch(given):
            return given
    return f"req_{secrets.token_hex(12)}"


def route_of(request: web.Request) -> str:
    """The path of the route, with the names of its parameters; a client's own words never."""
    resource = request.match_info.route.resource
    return NOWHERE if resource is None else resource.canonical
