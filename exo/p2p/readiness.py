"""Waiting for a socket that OpenSSL reads and writes itself."""

import asyncio
import socket
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from OpenSSL import SSL

from exo.errors import LinkClosed

P = ParamSpec("P")
T = TypeVar("T")


class Readiness:
    """Wakes those who wait for one socket, and owns it. TLS may have to read in order to write, so
    several can wait for the same side of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.closed = False
        self._socket = sock
        self._number = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._readers: set[asyncio.Future[None]] = set()
        self._writers: set[asyncio.Future[None]] = set()

    async def retry(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns, once the socket lets it.

        Raises:
            LinkClosed: `close` was called.
            SSL.Error: what `call` raises.
        """
        while not self.closed:
            try:
                return call(*args, **kwargs)
            except SSL.WantReadError:
                await self.readable()
            except SSL.WantWriteError:
                await self.writable()
        raise LinkClosed("The connection is closed.")

    async def readable(self) -> None:
        """Return when the socket can be read, or is closed."""
        if not self._readers:
            self._loop.add_reader(self._number, _wake, self._readers)
        await self._wait(self._readers, self._loop.remove_reader)

    async def writable(self) -> None:
        """Return when the socket can be written, or is closed."""
        if not self._writers:
            self._loop.add_writer(self._number, _wake, self._writers)
        await self._wait(self._writers, self._loop.remove_writer)

    def close(self) -> None:
        """Close the socket. Who waits is woken."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._number)
            self._loop.remove_writer(self._number)
            _wake(self._readers)
            _wake(self._writers)
            self._socket.close()

    async def _wait(
        self, waiting: set[asyncio.Future[None]], remove: Callable[[int], bool]
    ) -> None:
        future = self._loop.create_future()
        waiting.add(future)
        try:
            await future
        finally:
            waiting.discard(future)
            if not waiting and not self.closed:
                remove(self._number)


def _wake(waiting: set[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
