"""What holds for every request: who may ask and how often, and the one shape of errors."""

import asyncio
import ipaddress
import logging
import math
from collections.abc import Mapping
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from exo.api.access import ASKER, Access, Asker, admit
from exo.api.calls import CALL, read_call
from exo.api.context import CONTEXT
from exo.api.error_shapes import error_json
from exo.api.recording import NAME
from exo.api.routes import Route
from exo.api.sse import STREAM
from exo.cluster.rates import Rates
from exo.errors import (
    BodyTooLarge,
    ExoError,
    Forbidden,
    NotFound,
    RateLimited,
    RequestError,
    Unauthorized,
)

log = logging.getLogger(__name__)


class _MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as an error object, OpenAI's or that of the API that was asked."""
    response: web.StreamResponse
    try:
        return await handler(request)
    except ExoError as error:
        response = await _failed(request, error)
    except web.HTTPRequestEntityTooLarge:
        limit = request.client_max_size // 2**20
        response = error_response(
            BodyTooLarge(f"The body is larger than {limit} MiB."), request.path
        )
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not allowed here, only {allowed}."
        response = error_response(_MethodNotAllowed(message), request.path)
        response.headers["Allow"] = allowed
    except web.HTTPNotFound:
        response = error_response(NotFound(f"There is nothing at {request.path}."), request.path)
    except web.HTTPException as error:
        response = error_response(RequestError(error.reason), request.path)
    except Exception:
        # The edge of the process: what no one foresaw is logged here, with where it happened.
        log.exception("A request failed.")
        error = ExoError("exo failed to answer this.", hint="See `exo logs`.")
        response = await _failed(request, error)
    return response


async def _failed(request: web.Request, error: ExoError) -> web.StreamResponse:
    """An error as the answer, or as the end of the stream whose status is out."""
    stream = request.get(STREAM)
    return await stream.fail(error) if stream else error_response(error, request.path)


def guard(host: str) -> Middleware:
    """Refuse requests that a web page makes behind its reader's back.

    A page on another site can reach a loopback server through a name that resolves to it (DNS
    rebinding), which `Host` shows, or by a form or fetch, which `Origin` shows.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_allowed_host(request.headers.get("Host", ""), host):
            raise Forbidden(
                f"The host '{request.host}' is not this node.",
                hint="Use its address, or localhost.",
            )
        origin = request.headers.get("Origin")
        if origin is not None and not is_allowed_host(urlsplit(origin).netloc, host):
            raise Forbidden(f"Pages from '{origin}' may not use this API.")
        return await handler(request)

    return check


def keys(routes: Mapping[web.AbstractRoute, Route], longest: float) -> Middleware:
    """Refuse who has no key for what is asked, where keys are asked for, or has used up its rate.
    An answer may take `longest` seconds, 0 for no limit.

    What is no route, only who has a key is told so.
    """
    rates = Rates()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        context = request.app[CONTEXT]
        route = routes.get(request.match_info.route)
        access = route.access if route else Access.INFERENCE
        asker = admit(request.headers, access, context.doors, context.keys.find)
        token = ASKER.set(asker)
        try:
            if route is None or not route.is_counted:
                return await handler(request)
            _count(rates, asker)
            return await _within(request, handler, asker, longest)
        finally:
            ASKER.reset(token)

    return check


async def _within(
    request: web.Request, handler: Handler, asker: Asker, longest: float
) -> web.StreamResponse:
    """Answer, unless it takes too long or is cancelled.

    Raises:
        RequestTimedOut, RequestCancelled: as they say.
    """
    calls = request.app[CONTEXT].calls
    call = read_call(request.headers, request[NAME], asker.lane, longest)
    token = CALL.set(call)
    try:
        async with asyncio.timeout(call.seconds) as call.clock:
            calls.add(call)
            return await handler(request)
    except TimeoutError:
        if call.clock is None or not call.clock.expired():
            raise
        raise call.reason() from None
    finally:
        calls.remove(call)
        CALL.reset(token)


def _count(rates: Rates, asker: Asker) -> None:
    key = asker.key
    if key is None or key.rate is None:
        return
    wait = rates.take(key.key_id, key.rate, asyncio.get_running_loop().time())
    if wait:
        raise RateLimited(
            f"The API key '{key.name}' may ask {key.rate} times a minute.",
            hint=f"Ask again in {math.ceil(wait)} s.",
            retry_after=wait,
        )


def is_allowed_host(header: str, bound: str) -> bool:
    """Whether a `Host` (or the host of an `Origin`) names this node: an address, never a name
    that someone else's DNS may point here, but for localhost and the one that exo is bound to."""
    try:
        name = (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in {"localhost", bound}:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not ipaddress.ip_address(_literal(bound)).is_loopback


def _literal(bound: str) -> str:
    try:
        return str(ipaddress.ip_address(bound))
    except ValueError:
        return "127.0.0.1"


def error_response(error: ExoError, path: str) -> web.Response:
    """The HTTP answer for an error at this path."""
    response = web.json_response(error_json(error, path), status=error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
