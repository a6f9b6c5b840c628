"""Nodes of one process, joined by a network in memory, with real runner processes that have the
fake engine in them."""

import asyncio
import os
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exo.cluster.local import NodeOptions
from exo.cluster.log import EventLog
from exo.cluster.node import Node
from exo.cluster.worker import WorkerOptions
from exo.models.card import ModelCard
from exo.models.registry import Registry
from exo.p2p.admission import Admission
from exo.p2p.assemble import make_links
from exo.p2p.core import Core
from exo.p2p.identity import Identity
from exo.p2p.inproc import InprocNetwork
from exo.p2p.network import Network, NetworkOptions
from exo.p2p.options import CoreOptions
from exo.p2p.peers import PeerInfo
from exo.p2p.term import Term
from exo.p2p.term_file import TermFile
from exo.p2p.transport import Transport
from tests.cluster.factory import card, device

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path)}
# Nodes that a test may have.
_MOST = 8
# Everything a LAN takes tenths of a second for.
FAST = CoreOptions(
    period=0.05,
    timeout_min=0.3,
    timeout_max=0.6,
    suspicion=0.3,
    grace=0.1,
    pause_min=0.02,
    pause_recent=0.1,
    slot=0.05,
)


class AnyModel(Registry):
    """Has every model, in a folder that is not read: the fake engine needs none."""

    def __init__(self, folder: Path = Path("/nowhere")) -> None:
        super().__init__(folder)

    def resolve(self, name: str) -> ModelCard:
        return card(name, path=Path("/invalid" if name == "bad" else f"/models/{name}"))


class NoModel(AnyModel):
    """Knows every model and has the weights of none."""

    def resolve(self, name: str) -> ModelCard:
        return card(name, path=None)


@dataclass(eq=False)
class Member:
    """One node of the lab, which may be started again after it was stopped or killed."""

    lab: "Lab"
    name: str
    folder: Path
    identity: Identity
    number: int
    registry: Registry
    engine: str = "tests.fakes.engine:FakeEngine"
    lives: int = 0
    running: bool = False
    node: Node = field(init=False)
    network: Network = field(init=False)

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    async def start(self) -> Node:
        self.lives += 1
        self.running = True
        boot = f"{self.name}-{self.lives}"
        me = PeerInfo(self.peer_id, self.name, "0", boot, (), eligible=True)
        links = partial(
            make_links,
            self.identity,
            self.lab.transport(self.peer_id),
            Admission("test"),
        )
        self.network = Network(
            me,
            NetworkOptions(f"/memory/{self.number}", self.lab.addresses(self.number)),
            make_links=links,
            make_core=_fast_core,
            terms=TermFile(self.folder / "term.json"),
        )
        self.node = self._make_node(boot)
        await self.network.start()
        await self.node.open(device())
        return self.node

    async def stop(self) -> None:
        """Leave in good order."""
        self.running = False
        await self.network.leave()
        await self.node.close()
        await self.network.close()

    async def kill(self) -> None:
        """Be gone from one moment to the next, as far as the others can see."""
        self.running = False
        await self.network.abort()
        await self.node.close()

    def _make_node(self, boot: str) -> Node:
        options = NodeOptions(
            node_id=self.peer_id,
            name=self.name,
            address="h:1",
            memory_fraction=0.8,
            boot=boot,
            links=lambda: self.network.listening,
        )
        worker = WorkerOptions(
            node_id=self.peer_id,
            engine=self.engine,
            environment=ENVIRONMENT,
            spare_runners=0,
            prefix_cache_bytes=0,
            max_queue=8,
        )
        database = EventLog(self.folder / "state.db")
        return Node(options, worker, database, self.registry, self.network, lambda: None)


def _fast_core(me: PeerInfo, term: Term | None) -> Core:
    return Core(me, term, FAST, seed=1)


class Lab:
    """Makes nodes that know each other's addresses, and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._memory = InprocNetwork()
        identities = [Identity(Ed25519PrivateKey.generate()) for _ in range(_MOST)]
        self._identities = sorted(identities, key=lambda identity: identity.peer_id)
        self.members: list[Member] = []
        self._apart: set[int] = set()

    def transport(self, peer_id: str) -> Transport:
        return self._memory.transport(peer_id)

    def addresses(self, but: int) -> tuple[str, ...]:
        if but in self._apart:
            return ()
        return tuple(f"/memory/{m.number}" for m in self.members if m.number != but)

    def separate(self, *members: Member) -> None:
        """Have these nodes not know of each other."""
        self._apart |= {member.number for member in members}

    def join(self, one: Member, other: Member) -> None:
        """Tell one where the other is."""
        one.network.find(f"/memory/{other.number}")

    def member(self, name: str, registry: Registry | None = None) -> Member:
        """A new node, not started yet. Each has a higher id than those before it."""
        folder = self._folder / name
        folder.mkdir()
        number = len(self.members) + 1
        made = Member(self, name, folder, self._identities.pop(0), number, registry or AnyModel())
        self.members.append(made)
        return made

    async def start(self, *names: str) -> list[Member]:
        """New nodes that have agreed on a master."""
        made = [self.member(name) for name in names]
        await asyncio.gather(*(member.start() for member in made))
        await self.settled(*made)
        return made

    async def settled(self, *members: Member) -> None:
        """Return when these nodes are one cluster, and all know it."""
        ids = {member.peer_id for member in members}
        for member in members:
            await member.node.wait_for(
                lambda state: {n.node_id for n in state.nodes.values() if n.online} == ids
            )
        terms = {member.network.term for member in members}
        assert len(terms) == 1, terms

    async def close(self) -> None:
        for member in self.members:
            if member.running:
                await member.kill()
