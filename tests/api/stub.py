"""A node and its cluster without a network: what the routes ask, answered from plain data."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from exo.cluster.commands import find_node
from exo.cluster.security import Lock
from exo.cluster.state import ClusterState, Instance, NodeInfo
from exo.device.profile import Memory
from exo.errors import ExoError, PeerUnreachable, RequestError
from exo.inference.messages import DraftStats, LoadStats, RingStats
from exo.p2p.core import Status
from exo.p2p.link import Services
from exo.p2p.measure import LinkMeasure
from exo.p2p.term import Term
from tests.cluster.factory import TERM, node

TOKEN = "exo1-token"
MEMORY = Memory(total=100, available=40)


def member(peer_id: str, status: Status = Status.ALIVE, **fields: Any) -> SimpleNamespace:
    """A member; `ago` is how many seconds it has had its status."""
    since = asyncio.get_running_loop().time() - fields.pop("ago", 0.0)
    given = {
        "peer_id": peer_id,
        "name": peer_id,
        "status": status,
        "version": "0.1.0",
        "addresses": ("/ip4/10.0.0.2/tcp/52416",),
        "incarnation": 2,
        "since": since,
        "metadata": {"memory": "not shown"},
    }
    return SimpleNamespace(**{**given, **fields})


def peer_link(peer_id: str, *, outgoing: bool = True) -> SimpleNamespace:
    hello = SimpleNamespace(peer_id=peer_id, name=peer_id)
    return SimpleNamespace(hello=hello, address="/ip4/10.0.0.2/tcp/1", outgoing=outgoing)


def make_state(state: ClusterState | None = None, **fields: Any) -> ClusterState:
    """A state, or this one, with other fields."""
    base = state or ClusterState(index=5, term=TERM)
    return base.model_copy(update=fields)


@dataclass
class StubNetwork:
    peer_id: str = "a"
    term: Term | None = TERM
    members: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, LinkMeasure] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    listening: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/52416",)
    seen: tuple[Any, ...] = ()
    up: list[Any] = field(default_factory=list)
    services: Services = field(default_factory=Services)
    known: dict[str, Any] = field(default_factory=dict)
    discovery: Any = field(
        default_factory=lambda: SimpleNamespace(enabled=True, working=True, problem=None)
    )

    def links(self) -> list[Any]:
        return self.up

    async def request(self, peer_id: str, method: str, body: Any, **_: Any) -> Any:
        """What `known` has of a peer; it cannot be reached if there is nothing."""
        if peer_id not in self.known:
            raise PeerUnreachable(f"{peer_id} is not there.")
        return await self.known[peer_id](method, body)

    def discovery_status(self) -> Any:
        return self.discovery


class StubNode:
    """The node `a`, the master, with `b` beside it."""

    def __init__(self) -> None:
        self.rings: dict[str, RingStats] = {}
        self.drafts: dict[str, DraftStats] = {}
        self.loads: dict[str, LoadStats] = {}
        self.state: ClusterState = make_state(nodes={n: node(n, f"node-{n}") for n in "ab"})
        self.network = StubNetwork()
        self.options = SimpleNamespace(node_id="a")
        self.memory: dict[str, Memory] = {"a": MEMORY}
        self.left: list[str] = []
        self.error: ExoError | None = None

    @property
    def info(self) -> NodeInfo:
        return self.state.nodes["a"]

    def memory_of(self, node_id: str) -> Memory | None:
        return self.memory.get(node_id)

    def ring_stats(self, instance: Instance) -> RingStats | None:
        return self.rings.get(instance.instance_id)

    def load_stats(self, instance: Instance) -> LoadStats | None:
        return self.loads.get(instance.instance_id)

    def draft_stats(self, instance: Instance) -> DraftStats | None:
        return self.drafts.get(instance.instance_id)

    async def drain(self, name: str, *, draining: bool) -> NodeInfo:
        if self.error:
            raise self.error
        info = find_node(self.state, name).model_copy(update={"draining": draining})
        self.state = make_state(self.state, nodes={**self.state.nodes, info.node_id: info})
        return info

    async def leave(self, name: str) -> NodeInfo:
        info = find_node(self.state, name)
        self.left.append(info.node_id)
        return info


@dataclass
class StubSecurity:
    name: str = "exo"
    locked: bool = False
    missed: tuple[str, ...] = ()

    def token(self) -> str:
        return TOKEN

    async def lock(self) -> Lock:
        if self.locked:
            raise RequestError("The cluster is locked already.")
        self.locked = True
        return Lock(TOKEN, self.missed)

    async def rotate(self) -> Lock:
        if not self.locked:
            raise RequestError("The cluster is open.", hint="`exo cluster lock` locks it.")
        return Lock(TOKEN, self.missed)
