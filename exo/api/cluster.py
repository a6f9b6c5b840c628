"""The node, the state, the events, and whether this node is up."""

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from exo.api.context import context_of
from exo.api.routes import Route, json_list, json_response, read_query
from exo.api.sse import EventStream
from exo.api.views import NodeIdView, StateView, StatusView, state_view
from exo.cluster.events import Entry
from exo.errors import Unavailable

_entries: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(list[dict[str, Any]])


class EventsQuery(BaseModel):
    """Events with an index above `since`, oldest first."""

    model_config = ConfigDict(extra="forbid")

    since: int = Field(0, ge=0, lt=2**63)
    limit: int = Field(1000, ge=1, le=10_000)
    follow: bool = False


class EventView(BaseModel):
    """One entry of the log; the event's own fields stand beside these."""

    model_config = ConfigDict(extra="allow")

    index: int
    time: str
    type: str


async def get_node_id(request: web.Request) -> web.Response:
    term = context_of(request).node.state.term
    if term is None:
        raise Unavailable("There is no master yet.", retry_after=1)
    return json_response(NodeIdView(node_id=term.master_id))


async def get_state(request: web.Request) -> web.Response:
    context = context_of(request)
    return json_response(state_view(context.node, context.cluster_name))


async def get_events(request: web.Request) -> web.StreamResponse:
    node = context_of(request).node
    query = read_query(request, EventsQuery)
    if not query.follow:
        entries = await node.events(query.since, query.limit)
        return json_list(_entries, [entry.to_api() for entry in entries])
    stream = EventStream(request)
    await stream.open()

    async def send(entry: Entry) -> None:
        await stream.send(entry.to_api(), event_id=entry.index)

    await stream.forward(node.follow(query.since), send)
    return stream.response


async def get_health(_: web.Request) -> web.Response:
    return json_response(StatusView(status="ok"))


async def get_ready(request: web.Request) -> web.Response:
    if context_of(request).draining:
        raise Unavailable("This node is stopping.", retry_after=5)
    return json_response(StatusView(status="ready"))


ROUTES = [
    Route("GET", "/node_id", get_node_id, "The master's node id", NodeIdView, "cluster",
          errors=(503,)),
    Route("GET", "/state", get_state, "The state of the cluster", StateView, "cluster"),
    Route("GET", "/events", get_events, "The log of events", list[EventView], "cluster",
          query=EventsQuery, streams=EventView, errors=(400,)),
    Route("GET", "/healthz", get_health, "Whether the daemon is alive", StatusView, "health"),
    Route("GET", "/readyz", get_ready, "Whether this node takes requests", StatusView, "health",
          errors=(503,)),
]  # fmt: skip
