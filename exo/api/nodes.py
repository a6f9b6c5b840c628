"""Nodes: have one take no new instances, or leave."""

from aiohttp import web

from exo.api.context import context_of
from exo.api.routes import Route, json_response, no_body
from exo.api.views import NodeView, node_view


async def drain(request: web.Request) -> web.Response:
    return await _set_draining(request, draining=True)


async def undrain(request: web.Request) -> web.Response:
    return await _set_draining(request, draining=False)


async def leave(request: web.Request) -> web.Response:
    await no_body(request)
    node = context_of(request).node
    return json_response(node_view(node, await node.leave(_name(request))))


async def _set_draining(request: web.Request, *, draining: bool) -> web.Response:
    await no_body(request)
    node = context_of(request).node
    return json_response(node_view(node, await node.drain(_name(request), draining=draining)))


def _name(request: web.Request) -> str:
    """A node's id, its name, or the end of its id."""
    return request.match_info["node"]


ROUTES = [
    Route("POST", "/nodes/{node}/drain", drain, "Give a node no new instances", NodeView, "nodes",
          errors=(400, 404, 503, 507)),
    Route("POST", "/nodes/{node}/undrain", undrain, "Give a node new instances again", NodeView,
          "nodes", errors=(400, 404, 503, 507)),
    Route("POST", "/nodes/{node}/leave", leave,
          "Have a node finish its answers, leave the cluster and stop", NodeView, "nodes",
          errors=(400, 404, 503)),
]  # fmt: skip
