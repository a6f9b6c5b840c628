"""Nodes with links and nothing else, for tests."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from exo.p2p.admission import Admission, Hello
from exo.p2p.faulty import Faults, FaultyTransport
from exo.p2p.identity import Identity
from exo.p2p.inproc import InprocNetwork
from exo.p2p.link import Link, Services
from exo.p2p.link_events import LinkEvent, LinkUp
from exo.p2p.links import LinkLimits, Links
from exo.p2p.strangers import StrangerLimits
from exo.p2p.tls import TlsTransport
from exo.p2p.transport import Transport

T = TypeVar("T")
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


class Peer:
    """One node: its links, and what they told."""

    def __init__(
        self,
        who: Identity,
        transport: Transport,
        *,
        cluster: str = "exo",
        secret: bytes | None = None,
        protocols: tuple[int, ...] = (1,),
        services: Services | None = None,
        boot: str = "boot",
        limits: LinkLimits | None = None,
    ) -> None:
        self.peer_id = who.peer_id
        self.services = services or Services()
        self.boot = boot
        self.address = ""
        self.now = 0.0
        self.events: asyncio.Queue[LinkEvent] = asyncio.Queue()
        self.admission = Admission(cluster, secret, protocols)
        self.links = Links(
            identity=who,
            transport=transport,
            admission=self.admission,
            hello=self.hello,
            services=self.services,
            on_event=self.events.put_nowait,
            limits=limits,
            clock=lambda: self.now,
        )

    def hello(self) -> Hello:
        return Hello(
            peer_id=self.peer_id,
            name=self.peer_id[-4:],
            cluster=self.admission.cluster,
            version="0.1.0",
            boot=self.boot,
        )

    async def listen(self, address: str) -> "Peer":
        self.address = await self.links.listen(address)
        return self

    def dial(self, other: "Peer", *, blindly: bool = False) -> None:
        self.links.dial(None if blindly else other.peer_id, [other.address])

    async def next(self, kind: type[T]) -> T:
        """The next event, which must be one of these."""
        event = await self.events.get()
        assert isinstance(event, kind), event
        return event

    async def link(self, other: "Peer") -> Link:
        """Dial, and wait until both sides have the link: this one's side of it."""
        self.dial(other)
        await self.next(LinkUp)
        await other.next(LinkUp)
        return self.link_to(other)

    def link_to(self, other: "Peer") -> Link:
        link = self.links.get(other.peer_id)
        assert link is not None
        return link


class Lab:
    """Makes nodes that are closed at the end; then nothing may be left of them."""

    def __init__(self) -> None:
        self.network = InprocNetwork()
        self.faults = Faults()
        self._peers: list[Peer] = []

    async def peer(self, who: Identity, **options: object) -> Peer:
        """A node in memory that listens."""
        inner = self.network.transport(who.peer_id)
        peer = Peer(who, FaultyTransport(inner, self.faults, who.peer_id), **options)
        self._peers.append(peer)
        return await peer.listen("/memory/0")

    async def tls_peer(
        self, who: Identity, strangers: StrangerLimits | None = None, **options: object
    ) -> Peer:
        """A node on this machine's loopback that listens."""
        peer = Peer(who, TlsTransport(who, strangers), **options)
        self._peers.append(peer)
        return await peer.listen(LOOPBACK)

    async def close(self) -> None:
        self.faults.heal()
        await asyncio.gather(*(peer.links.close() for peer in self._peers))


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    tasks, files = asyncio.all_tasks(), open_files()
    found = Lab()
    try:
        yield found
    finally:
        await found.close()
    # A task that is done is so for all to see at the loop's next turn.
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= tasks
    assert open_files() == files


def open_files() -> Sequence[str]:
    """The files and sockets of this process, without the one that lists them."""
    folder = "/dev/fd"
    listing = os.open(folder, os.O_RDONLY)
    try:
        return [name for name in sorted(os.listdir(listing)) if name != str(listing)]  # noqa: PTH208
    finally:
        os.close(listing)
