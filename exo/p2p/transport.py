"""The seam between links and the network.

`tls` is the real one, `inproc` joins nodes of one process, `faulty` puts faults into another.
"""

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

# Bytes of one frame.
MAX_FRAME = 2**20

Buffer = bytes | bytearray | memoryview


class Channel(Protocol):
    """An authenticated, encrypted, ordered pipe of frames with one peer. One task sends, one
    receives; if one is cancelled in the middle of a frame, all that is left is `abort`."""

    @property
    def peer_id(self) -> str:
        """Who the other side has proven to be."""
        ...

    @property
    def binding(self) -> bytes:
        """The same on both sides, and unlike that of any other channel (RFC 9266)."""
        ...

    @property
    def address(self) -> str:
        """The other side's multiaddr."""
        ...

    async def send(self, *parts: Buffer) -> None:
        """One frame, whole or in parts that belong together. Waits while the peer does not read.

        Raises:
            LinkClosed
        """
        ...

    async def receive(self, limit: int = MAX_FRAME) -> bytes | bytearray:
        """The next frame, whole.

        Raises:
            LinkClosed
            ProtocolError: it is longer than `limit`.
        """
        ...

    def abort(self) -> None:
        """Close at once; whoever waits gets LinkClosed."""
        ...

    async def close(self) -> None:
        """Close when what was sent has arrived, within a bounded time."""
        ...


Accept = Callable[[Channel], Coroutine[Any, Any, None]]


class Listener(Protocol):
    @property
    def address(self) -> str:
        """The multiaddr listened on, with its real port."""
        ...

    async def close(self) -> None:
        """Stop accepting. Channels that `accept` has returned from live on."""
        ...


class Transport(Protocol):
    refused: Counter[str]
    """Connections that never became channels, by reason."""

    async def listen(self, address: str, accept: Accept) -> Listener:
        """Accept connections to a multiaddr. A channel belongs to `accept`; until that returns, the
        other side counts as a stranger and has only little time.

        Raises:
            ConfigError: the address is wrong.
            PortInUse: it is taken.
        """
        ...

    async def connect(self, address: str, expect: str | None) -> Channel:
        """Connect to a multiaddr where the peer id `expect` is, or anybody if that is None.

        Raises:
            PeerUnreachable: nobody is there (`refused`: the host answered that nobody listens), or
                who is there hung up.
            PeerTimeout: there was no answer.
            HandshakeError: there is somebody else, or no node.
        """
        ...
