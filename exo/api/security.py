"""Who may join the cluster: its secret, and the tokens that carry it."""

import ipaddress

from aiohttp import web

from exo.api.context import context_of
from exo.api.routes import Route, json_response, no_body
from exo.api.views import View
from exo.cluster.security import Lock, Security
from exo.errors import Forbidden

_SECRET_ONLY_HERE = "The cluster's secret is told on the node's own device only."  # noqa: S105  a text


class TokenView(View):
    """What `exo start --join` takes. Of an open cluster it carries no secret."""

    name: str
    locked: bool
    token: str


class LockView(TokenView):
    """`missed` are the names of nodes that did not get the secret: they need the token."""

    missed: list[str]


async def get_token(request: web.Request) -> web.Response:
    only_here(request, _SECRET_ONLY_HERE)
    security = context_of(request).security
    view = TokenView(name=security.name, locked=security.locked, token=security.token())
    return unkept(json_response(view))


async def lock(request: web.Request) -> web.Response:
    only_here(request, _SECRET_ONLY_HERE)
    await no_body(request)
    security = context_of(request).security
    return _locked(security, await security.lock())


async def rotate(request: web.Request) -> web.Response:
    only_here(request, _SECRET_ONLY_HERE)
    await no_body(request)
    security = context_of(request).security
    return _locked(security, await security.rotate())


def only_here(request: web.Request, message: str) -> None:
    """An API that is open to others does not hand them the keys.

    Raises:
        Forbidden: the request, says `message`, does not come from this device.
    """
    try:
        here = ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        here = False
    if not here:
        raise Forbidden(message)


def _locked(security: Security, done: Lock) -> web.Response:
    view = LockView(name=security.name, locked=True, token=done.token, missed=list(done.missed))
    return unkept(json_response(view))


def unkept(response: web.Response) -> web.Response:
    """A secret is kept by nobody on the way."""
    response.headers["Cache-Control"] = "no-store"
    return response


ROUTES = [
    Route("GET", "/cluster/token", get_token, "The token to join with", TokenView, "cluster",
          errors=(403,)),
    Route("POST", "/cluster/lock", lock, "Close the cluster to strangers", LockView, "cluster",
          errors=(400, 403, 503)),
    Route("POST", "/cluster/rotate", rotate, "Change the cluster's secret", LockView, "cluster",
          errors=(400, 403, 503)),
]  # fmt: skip
