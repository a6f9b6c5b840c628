"""TLS 1.3 over TCP: the real `Transport`.

Both sides show a certificate (`certificate`), whose key TLS proves; whom it speaks for is checked
before anything is said.
"""

import asyncio
import socket
from collections import Counter

from OpenSSL import SSL

from exo.errors import HandshakeError, PeerTimeout, PeerUnreachable
from exo.p2p import sockets
from exo.p2p.addresses import parse
from exo.p2p.certificate import make_certificate
from exo.p2p.identity import Identity
from exo.p2p.readiness import Readiness
from exo.p2p.strangers import StrangerLimits, Strangers
from exo.p2p.tls_channel import TlsChannel
from exo.p2p.tls_context import make_context
from exo.p2p.tls_listener import TlsListener
from exo.p2p.transport import Accept


class TlsTransport:
    """One node's way to its peers, with a certificate of its own."""

    def __init__(self, identity: Identity, limits: StrangerLimits | None = None) -> None:
        self.refused: Counter[str] = Counter()
        self._limits = limits or StrangerLimits()
        self._strangers = Strangers(self._limits)
        self._context = make_context(make_certificate(identity))

    async def listen(self, address: str, accept: Accept) -> TlsListener:
        """Port 0 picks a free one."""
        return TlsListener(
            parse(address),
            secure=self._secure_server,
            accept=accept,
            strangers=self._strangers,
            patience=self._limits.patience,
            refused=self.refused,
        )

    async def connect(self, address: str, expect: str | None) -> TlsChannel:
        try:
            async with asyncio.timeout(self._limits.patience):
                sock = await sockets.connect(parse(address))
                connection = SSL.Connection(self._context, sock)
                connection.set_connect_state()
                return await _secure(connection, sock, address, expect)
        except TimeoutError as error:
            raise PeerTimeout(f"{address} does not answer.") from error

    async def _secure_server(self, sock: socket.socket, address: str) -> TlsChannel:
        connection = SSL.Connection(self._context, sock)
        connection.set_accept_state()
        return await _secure(connection, sock, address, None)


async def _secure(
    connection: SSL.Connection, sock: socket.socket, address: str, expect: str | None
) -> TlsChannel:
    """Do the handshake.

    Raises:
        PeerUnreachable: the other side hung up.
        HandshakeError: it is not `expect`, or no node.
    """
    readiness = Readiness(sock)
    try:
        sockets.tune(sock)
        await readiness.retry(connection.do_handshake)
        return TlsChannel(connection, sock, readiness, address, expect)
    except (SSL.SysCallError, SSL.ZeroReturnError, OSError) as error:
        readiness.close()
        raise PeerUnreachable(
            f"{address} hung up before it had said who it is.",
            hint="It may be busy with too many connections, or be no node of exo's.",
        ) from error
    except SSL.Error as error:
        readiness.close()
        raise HandshakeError(
            f"{address} does not speak TLS 1.3 as a node does{_why(error)}.",
            hint="Another program may be listening there.",
        ) from error
    except BaseException:
        readiness.close()
        raise


def _why(error: SSL.Error) -> str:
    """OpenSSL's last word on what went wrong: errors are lists of (library, function, reason)."""
    match error.args:
        case [[*_, [_, _, str(reason)]]] if reason:
            return f" ({reason})"
        case _:
            return ""
