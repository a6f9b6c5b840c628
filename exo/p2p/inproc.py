"""A network within one process: the `Transport` of tests and simulations.

Addresses are `/memory/N`. Channels behave as those of `tls` do, but that nothing is encrypted: who
is who, the network knows.
"""

import asyncio
import hashlib
from collections import Counter, deque

from exo.errors import HandshakeError, LinkClosed, PeerUnreachable, PortInUse, ProtocolError
from exo.p2p.addresses import Address, parse
from exo.p2p.transport import MAX_FRAME, Accept, Buffer

# Bytes that a channel holds for a peer that does not read.
CAPACITY = 2**18
_FIRST_EPHEMERAL = 1_000_000


class InprocNetwork:
    """What the nodes of one process share. `transport` makes one node's part of it."""

    def __init__(self) -> None:
        self.listeners: dict[str, InprocListener] = {}
        self._next = _FIRST_EPHEMERAL
        self._sessions = 0

    def transport(self, peer_id: str) -> "InprocTransport":
        return InprocTransport(self, peer_id)

    def new_address(self) -> str:
        self._next += 1
        return str(Address("memory", str(self._next)))

    def new_binding(self) -> bytes:
        self._sessions += 1
        return hashlib.sha256(b"inproc session %d" % self._sessions).digest()


class InprocTransport:
    """One node's way to the others of an `InprocNetwork`."""

    def __init__(self, network: InprocNetwork, peer_id: str) -> None:
        self.refused: Counter[str] = Counter()
        self.peer_id = peer_id
        self._network = network
        self._host = network.new_address()

    async def listen(self, address: str, accept: Accept) -> "InprocListener":
        """`/memory/0` picks a free number."""
        wanted = parse(address).with_peer(None)
        text = self._network.new_address() if wanted.host == "0" else str(wanted)
        if text in self._network.listeners:
            raise PortInUse(f"Somebody listens on {text} already.")
        listener = InprocListener(self._network, text, self.peer_id, accept)
        self._network.listeners[text] = listener
        return listener

    async def connect(self, address: str, expect: str | None) -> "InprocChannel":
        listener = self._network.listeners.get(str(parse(address).with_peer(None)))
        if listener is None:
            raise PeerUnreachable(f"Nobody listens on {address}.", refused=True)
        if expect is not None and listener.peer_id != expect:
            raise HandshakeError(f"{address} is {listener.peer_id}, not {expect} as expected.")
        binding = self._network.new_binding()
        mine, theirs = _Pipe(), _Pipe()
        here = InprocChannel(listener.peer_id, binding, listener.address, mine, theirs)
        there = InprocChannel(self.peer_id, binding, self._host, theirs, mine)
        listener.take(there)
        return here


class InprocListener:
    """Accepts until it is closed."""

    def __init__(self, network: InprocNetwork, address: str, peer_id: str, accept: Accept) -> None:
        self.peer_id = peer_id
        self._network = network
        self._address = address
        self._accept = accept
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return self._address

    def take(self, channel: "InprocChannel") -> None:
        task = asyncio.create_task(self._accept(channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        self._network.listeners.pop(self._address, None)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class InprocChannel:
    """One end of two pipes."""

    def __init__(
        self, peer_id: str, binding: bytes, address: str, reads: "_Pipe", writes: "_Pipe"
    ) -> None:
        self.peer_id = peer_id
        self.binding = binding
        self.address = address
        self._reads = reads
        self._writes = writes

    async def send(self, *parts: Buffer) -> None:
        await self._writes.put(b"".join(parts))

    async def receive(self, limit: int = MAX_FRAME) -> bytes:
        frame = await self._reads.get()
        if len(frame) > limit:
            raise ProtocolError(f"The other side sends a frame of {len(frame)} bytes.")
        return frame

    def abort(self) -> None:
        self._reads.close(drop=True)
        self._writes.close(drop=True)

    async def close(self) -> None:
        self._reads.close(drop=True)
        self._writes.close(drop=False)


class _Pipe:
    """One way, with room for so many bytes."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, frame: bytes) -> None:
        while not self._closed and self._size >= CAPACITY:
            await self._changed.wait()
        if self._closed:
            raise LinkClosed("The connection is closed.")
        self._frames.append(frame)
        self._size += len(frame)
        self._tell()

    async def get(self) -> bytes:
        while not self._frames:
            if self._closed:
                raise LinkClosed("The connection is closed.")
            await self._changed.wait()
        frame = self._frames.popleft()
        self._size -= len(frame)
        self._tell()
        return frame

    def close(self, *, drop: bool) -> None:
        self._closed = True
        if drop:
            self._frames.clear()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
