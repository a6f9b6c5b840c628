"""Accepting TCP connections of strangers, few at a time, and each for a short time."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from exo.errors import HandshakeError, PeerError
from exo.p2p import sockets
from exo.p2p.addresses import Address, of_ip, origin
from exo.p2p.strangers import Strangers
from exo.p2p.transport import Accept, Channel

# Connections accepted before other work gets its turn.
_BATCH = 64
# Seconds until the next try when the system has no room for another connection.
_PAUSE = 1.0

log = logging.getLogger(__name__)
Secure = Callable[[socket.socket, str], Coroutine[Any, Any, Channel]]


class TlsListener:
    """Listens on one address. `secure` does the TLS handshake, `accept` takes the channel."""

    def __init__(
        self,
        address: Address,
        *,
        secure: Secure,
        accept: Accept,
        strangers: Strangers,
        patience: float,
        refused: Counter[str],
    ) -> None:
        self._secure = secure
        self._accept = accept
        self._strangers = strangers
        self._patience = patience
        self._refused = refused
        self._tasks: set[asyncio.Task[None]] = set()
        self._fresh: set[socket.socket] = set()  # accepted, and their tasks have not begun
        self._pause: asyncio.TimerHandle | None = None
        self._socket = sockets.listen(address)
        host, port, *_ = self._socket.getsockname()
        self._address = str(of_ip(host, port))
        self._loop = asyncio.get_running_loop()
        self._resume()

    @property
    def address(self) -> str:
        return self._address

    async def close(self) -> None:
        """Stop accepting, and cut those that are not known yet."""
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for sock in self._fresh:
            sock.close()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._take)

    def _take(self) -> None:
        for _ in range(_BATCH):
            try:
                sock, (host, port, *_) = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("No connection can be accepted for now: %s.", error.strerror)
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(_PAUSE, self._resume)
                return
            self._greet(sock, str(of_ip(host, port)))

    def _greet(self, sock: socket.socket, address: str) -> None:
        host = origin(address)
        if reason := self._strangers.enter(host):
            self._refused[reason] += 1
            sock.close()
            return
        self._fresh.add(sock)
        task = self._loop.create_task(self._admit(sock, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._strangers.leave(host))

    async def _admit(self, sock: socket.socket, address: str) -> None:
        self._fresh.discard(sock)
        unsettled: Channel | None = None
        try:
            async with asyncio.timeout(self._patience):
                unsettled = await self._secure(sock, address)
                await self._accept(unsettled)
                unsettled = None
        except TimeoutError as error:
            self._count("too_slow", address, error)
        except HandshakeError as error:
            self._count("bad_handshake", address, error)
        except PeerError as error:
            self._count("hung_up", address, error)
        finally:
            if unsettled:
                unsettled.abort()

    def _count(self, reason: str, address: str, error: Exception) -> None:
        log.debug("%s was cut (%s): %s", address, reason, error)
        self._refused[reason] += 1
