"""A channel through TLS, whose handshake is done.

OpenSSL reads and writes the socket itself, without buffers of exo's own: when the peer does not
read, `send` waits, and while nobody calls `receive`, the peer waits.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from OpenSSL import SSL

from exo.errors import HandshakeError, LinkClosed, ProtocolError
from exo.p2p.certificate import MALFORMED, verify_certificate
from exo.p2p.frames import LENGTH
from exo.p2p.readiness import Readiness
from exo.p2p.tls_context import ALPN
from exo.p2p.transport import MAX_FRAME, Buffer

# RFC 9266, section 2.
_BINDING_LABEL = b"EXPORTER-Channel-Binding"
_BINDING_BYTES = 32
# Bytes of a TLS record: RFC 8446, section 5.1.
_RECORD = 2**14
# What may be received without pause, in bytes, before other tasks get their turn; and what a frame
# counts at least.
_GREED = 2**18
_FRAME_COST = 2**8
# Seconds that the other side gets to take what was sent before a close.
_LINGER = 1.0

P = ParamSpec("P")
T = TypeVar("T")


class TlsChannel:
    """See `transport.Channel`."""

    def __init__(
        self,
        connection: SSL.Connection,
        sock: socket.socket,
        readiness: Readiness,
        address: str,
        expect: str | None,
    ) -> None:
        """Raises:
        HandshakeError: the other side is not `expect`, or no node.
        """
        if connection.get_alpn_proto_negotiated() != ALPN:
            raise HandshakeError(f"{address} is no node of exo's.")
        try:
            certificate = connection.get_peer_certificate(as_cryptography=True)
        except MALFORMED as error:
            raise HandshakeError(f"{address} shows a damaged certificate.") from error
        if certificate is None:
            raise HandshakeError(f"{address} shows no certificate.")
        self.peer_id = verify_certificate(certificate, expect)
        self.binding = connection.export_keying_material(_BINDING_LABEL, _BINDING_BYTES)
        self.address = address
        self._connection = connection
        self._socket = sock
        self._readiness = readiness
        self._pending = bytearray()
        self._greed = 0

    async def send(self, *parts: Buffer) -> None:
        # What is short is joined, to fill one record with the length and the beginning of what is
        # long; that is sent from where it lies.
        *heads, last = parts
        start = LENGTH.pack(sum(map(len, parts))) + b"".join(heads)
        room = max(_RECORD - len(start), 0)
        await self._send_all(start + bytes(last[:room]))
        await self._send_all(memoryview(last)[room:])

    async def receive(self, limit: int = MAX_FRAME) -> bytearray:
        while len(self._pending) < LENGTH.size:
            self._pending += await self._retry(self._connection.recv, _RECORD)
        (length,) = LENGTH.unpack_from(self._pending)
        if length > limit:
            raise ProtocolError(f"The other side sends a frame of {length} bytes.")
        end = LENGTH.size + length
        start, self._pending = self._pending[LENGTH.size : end], self._pending[end:]
        frame = bytearray(length)
        frame[: len(start)] = start
        with memoryview(frame) as view:
            await self._fill(view[len(start) :])
        await self._share(length)
        return frame

    def abort(self) -> None:
        self._readiness.close()

    async def close(self) -> None:
        if self._readiness.closed:
            return
        try:
            async with asyncio.timeout(_LINGER):
                await self._retry(self._connection.shutdown)
                self._socket.shutdown(socket.SHUT_WR)
                # A socket that is closed with something unread resets the connection, and what
                # was sent last would be lost on its way.
                while True:
                    await self._retry(self._connection.recv, _RECORD)
        except (LinkClosed, TimeoutError, OSError):
            pass  # It has taken everything, or had its time.
        finally:
            self.abort()

    async def _send_all(self, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[await self._retry(self._connection.send, rest) :]

    async def _fill(self, rest: memoryview) -> None:
        while rest:
            rest = rest[await self._retry(self._connection.recv_into, rest, _RECORD) :]

    async def _share(self, received: int) -> None:
        """Let others run now and then, however fast the peer is."""
        self._greed += received + _FRAME_COST
        if self._greed > _GREED:
            self._greed = 0
            await asyncio.sleep(0)

    async def _retry(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._readiness.retry(call, *args, **kwargs)
        except (SSL.Error, OSError) as error:
            raise LinkClosed("The connection was lost.") from error
