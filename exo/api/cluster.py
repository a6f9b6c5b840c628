"""The cluster: master, state, events, members, the network; and whether this node is up."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from exo.api.access import Access
from exo.api.context import context_of
from exo.api.routes import Route, json_list, json_response, read_query
from exo.api.sse import EventStream
from exo.api.views import (
    ClusterView,
    NodeIdView,
    StateView,
    StatusView,
    View,
    cluster_view,
    since,
    state_view,
)
from exo.cluster.events import Entry
from exo.cluster.node import Node
from exo.errors import Unavailable
from exo.p2p.core import Member, Status
from exo.p2p.discovery import Seen
from exo.p2p.interfaces import usable_interfaces
from exo.p2p.link import Link
from exo.p2p.measure import LinkMeasure
from exo.p2p.term import Term

_entries: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(list[dict[str, Any]])


class MemberView(View):
    """A peer, as the answering node sees it. `addresses` are multiaddrs."""

    peer_id: str
    name: str
    status: Status
    version: str
    addresses: list[str]
    incarnation: int
    since: str


class MembersView(ClusterView):
    """The cluster as the answering node, `node_id`, sees it."""

    node_id: str
    master_id: str | None
    term: Term | None
    members: list[MemberView]


class InterfaceView(View):
    name: str
    addresses: list[str]


class DiscoveryView(View):
    """Whether nodes can be found by multicast; if not, `problem` says why."""

    enabled: bool
    working: bool
    problem: str | None


class SeenView(View):
    """A node that announced itself, of whatever cluster, as it says."""

    peer_id: str
    cluster: str
    version: str
    addresses: list[str]


class OwnLinkView(View):
    """A link of the answering node: seconds of a round trip, bytes/s, once they are measured."""

    peer_id: str
    name: str
    address: str
    outgoing: bool
    latency: float | None
    bandwidth: float | None


class NetworkView(View):
    """The network as the answering node sees it; `listening` are multiaddrs."""

    listening: list[str]
    interfaces: list[InterfaceView]
    discovery: DiscoveryView
    seen: list[SeenView]
    links: list[OwnLinkView]
    refused: dict[str, int]


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
    return json_response(state_view(context_of(request)))


async def get_cluster(request: web.Request) -> web.Response:
    context = context_of(request)
    network = context.node.network
    term = network.term
    view = MembersView(
        **cluster_view(context).model_dump(),
        node_id=network.peer_id,
        master_id=term.master_id if term else None,
        term=term,
        members=[_member_view(context.node, member) for member in network.members.values()],
    )
    return json_response(view)


async def get_network(request: web.Request) -> web.Response:
    network = context_of(request).node.network
    discovery = network.discovery_status()
    view = NetworkView(
        listening=list(network.listening),
        interfaces=[
            InterfaceView(name=one.name, addresses=list(one.addresses))
            for one in usable_interfaces()
        ],
        discovery=DiscoveryView(
            enabled=discovery.enabled, working=discovery.working, problem=discovery.problem
        ),
        seen=[_seen_view(seen) for seen in network.seen],
        links=[_own_link_view(link, network.measures) for link in network.links()],
        refused=dict(network.refused),
    )
    return json_response(view)


def _member_view(node: Node, member: Member) -> MemberView:
    return MemberView(
        peer_id=member.peer_id,
        name=member.name,
        status=member.status,
        version=member.version,
        addresses=list(member.addresses),
        incarnation=member.incarnation,
        since=since(node, member),
    )


def _seen_view(seen: Seen) -> SeenView:
    return SeenView(
        peer_id=seen.peer_id,
        cluster=seen.cluster,
        version=seen.version,
        addresses=list(seen.addresses),
    )


def _own_link_view(link: Link, measures: Mapping[str, LinkMeasure]) -> OwnLinkView:
    measure = measures.get(link.hello.peer_id)
    return OwnLinkView(
        peer_id=link.hello.peer_id,
        name=link.hello.name,
        address=link.address,
        outgoing=link.outgoing,
        latency=measure.latency if measure else None,
        bandwidth=measure.bandwidth if measure else None,
    )


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
    Route("GET", "/cluster", get_cluster, "The cluster and its members", MembersView, "cluster"),
    Route("GET", "/network", get_network, "The network as this node sees it", NetworkView,
          "cluster"),
    Route("GET", "/events", get_events, "The log of events", list[EventView], "cluster",
          query=EventsQuery, streams=EventView, errors=(400,)),
    Route("GET", "/healthz", get_health, "Whether the daemon is alive", StatusView, "health",
          access=Access.OPEN),
    Route("GET", "/readyz", get_ready, "Whether this node takes requests", StatusView, "health",
          errors=(503,), access=Access.OPEN),
]  # fmt: skip
