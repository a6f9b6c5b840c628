"""What holds for every request: who may ask, and the one shape of errors."""

import ipaddress
import logging
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from exo.api.error_shapes import error_json
from exo.errors import BodyTooLarge, ExoError, Forbidden, NotFound, RequestError

log = logging.getLogger(__name__)


class _MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as an error object, OpenAI's or that of the API that was asked."""
    try:
        return await handler(request)
    except ExoError as error:
        response = error_response(error, request.path)
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
        response = error_response(
            ExoError("exo failed to answer this.", hint="See `exo logs`."), request.path
        )
    return response


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
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return response
