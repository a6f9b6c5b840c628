"""One peer, linked: requests, streams and notices in both directions over one channel.

Whatever waits on a link ends at once when the link does, with LinkClosed.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import cast

from exo.errors import BodyTooLarge, ExoError, LinkClosed, PeerTimeout, ProtocolError
from exo.p2p.admission import Hello
from exo.p2p.frames import Body, unpack
from exo.p2p.mux import Mux, MuxLimits
from exo.p2p.mux_events import Ended, Event, Failed, Item, Ponged, Replied, SaidGoodbye
from exo.p2p.services import BULK, Servant, Services
from exo.p2p.transport import Channel

__all__ = ["Body", "Hello", "Link", "Services"]

REQUEST_TIMEOUT = 10.0
PING_TIMEOUT = 5.0
# Seconds that a measurement of the bandwidth takes, about; and at most, with what is slow to come.
_BULK_SECONDS = 0.5
_BULK_PATIENCE = 10.0
# Seconds for the last words of a link that is closed.
_FAREWELL = 1.0

log = logging.getLogger(__name__)


class Link:
    """A link that is up, from `start` on. `hello` is what the other side said of itself."""

    def __init__(
        self,
        channel: Channel,
        hello: Hello,
        services: Services,
        *,
        outgoing: bool,
        protocol: int = 1,
        limits: MuxLimits | None = None,
        on_closed: Callable[["Link"], None] = lambda _: None,
    ) -> None:
        self.hello = hello
        self.outgoing = outgoing
        self.address = channel.address
        self.protocol = protocol
        self._channel = channel
        self._on_closed = on_closed
        self._mux = Mux(dialer=outgoing, limits=limits)
        self._to_send = asyncio.Event()
        self._servant = Servant(services, hello.peer_id, self._mux, self._to_send.set)
        self._replies: dict[int, asyncio.Future[Body]] = {}
        self._streams: dict[int, _Items] = {}
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._nonce = 0
        self._error: LinkClosed | None = None
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def peer_id(self) -> str:
        return self.hello.peer_id

    @property
    def closed(self) -> LinkClosed | None:
        """Why the link is closed, None while it is up."""
        return self._error

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of it."""
        return self._over.is_set()

    def start(self, first: Sequence[bytes] = ()) -> None:
        """Begin to serve, after sending the frames in `first`."""
        self._writer = asyncio.create_task(self._write(first))
        self._reader = asyncio.create_task(self._read())
        self._tasks += [self._writer, self._reader]

    # For whom wants something of the peer.

    async def request(
        self,
        method: str,
        body: Body = None,
        *,
        timeout: float = REQUEST_TIMEOUT,  # noqa: ASYNC109  the peer's time, and it is told
    ) -> Body:
        """The peer's answer.

        Raises:
            ExoError: the handler's, or `BodyTooLarge` or `QueueFull` of this side.
            PeerTimeout: it did not come in time; the peer is told to stop.
            LinkClosed
        """
        self._check()
        stream = self._mux.request(method, body)
        reply = self._replies[stream] = asyncio.get_running_loop().create_future()
        self._to_send.set()
        try:
            async with asyncio.timeout(timeout):
                return await reply
        except TimeoutError as error:
            raise PeerTimeout(
                f"{self.hello.name} did not answer '{method}' within {timeout:g} s."
            ) from error
        finally:
            self._replies.pop(stream, None)
            self._mux.cancel(stream)
            self._to_send.set()

    async def stream(self, method: str, body: Body = None) -> AsyncGenerator[Body]:
        """What the peer sends for it, item by item, as fast as they are taken. Close it
        (`contextlib.aclosing`), if not taken to the end: the peer is told to stop.

        Raises: like `request`, but that there is no timeout.
        """
        self._check()
        stream = self._mux.open(method, body)
        items = self._streams[stream] = _Items()
        self._to_send.set()
        try:
            while (item := await items.take()) is not None:
                self._mux.taken(stream, item.cost)
                self._to_send.set()
                yield self._unpack(item)
        finally:
            del self._streams[stream]
            self._mux.cancel(stream)
            self._to_send.set()

    def notify(self, method: str, body: Body) -> None:
        """Tell the peer something small that has no answer. Lost if the link is, or if too much
        waits to be told already."""
        if self._error is None:
            try:
                told = self._mux.notify(method, body)
            except (BodyTooLarge, ProtocolError) as error:
                log.error("'%s' cannot be told to %s: %s", method, self.hello.name, error)
                return
            if not told:
                log.debug("%s does not read; '%s' is dropped.", self.hello.name, method)
            self._to_send.set()

    async def ping(self) -> float:
        """The round trip, in seconds.

        Raises:
            PeerTimeout, LinkClosed
        """
        self._check()
        self._nonce += 1
        nonce = self._nonce
        pong = self._pings[nonce] = asyncio.get_running_loop().create_future()
        self._mux.ping(nonce)
        self._to_send.set()
        start = time.perf_counter()
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await pong
        except TimeoutError as error:
            raise PeerTimeout(f"{self.hello.name} does not answer.") from error
        finally:
            del self._pings[nonce]
        return time.perf_counter() - start

    async def bandwidth(self) -> float:
        """How fast the peer's bytes come, in bytes/s, by a transfer of at most 16 MiB.

        Raises:
            PeerTimeout, LinkClosed
        """
        size, start, now = 0, 0.0, 0.0
        try:
            async with asyncio.timeout(_BULK_PATIENCE), aclosing(self.stream(BULK)) as items:
                async for item in items:
                    now = time.perf_counter()
                    # The first item starts the clock: until it came, the peer was asked.
                    size += len(cast("bytes", item)) if start else 0
                    start = start or now
                    if size and now - start > _BULK_SECONDS:
                        break
        except TimeoutError as error:
            raise PeerTimeout(f"{self.hello.name} sends too slowly to be measured.") from error
        return size / max(now - start, 1e-9)

    def close(self, reason: str) -> None:
        """Say goodbye. What waits ends at once."""
        if self._error is None:
            self._leave(reason, LinkClosed(f"The link was closed: {reason}.", clean=True))

    def abort(self, reason: str) -> None:
        """Cut the link without a word to a peer that does not answer."""
        self._end(LinkClosed(f"The link was cut: {reason}."))

    async def wait_closed(self) -> LinkClosed:
        """Return when the link is closed and nothing of it is left: why it was."""
        await self._over.wait()
        return self._make_error()

    # What goes on underneath.

    async def _write(self, first: Sequence[bytes]) -> None:
        try:
            for frame in first:
                await self._channel.send(frame)
            while True:
                while frame := self._mux.next_frame():
                    self._servant.make_room(frame.stream)
                    await self._channel.send(frame.head, frame.payload)
                if self._error:
                    return  # That was the goodbye.
                self._to_send.clear()
                await self._to_send.wait()
        except LinkClosed as error:
            self._end(error)
        except Exception:  # the edge: half a link must not stay behind a bug
            log.exception("Sending to %s failed.", self.hello.name)
            self._end(LinkClosed("Sending failed."))

    async def _read(self) -> None:
        try:
            # What it handles may close the link.
            while self._error is None:
                for event in self._mux.receive(await self._channel.receive()):
                    self._handle(event)
                self._to_send.set()
        except LinkClosed as error:
            self._end(error)
        except ProtocolError as error:
            self._break(error)
        except Exception:  # the edge: half a link must not stay behind a bug
            log.exception("Receiving from %s failed.", self.hello.name)
            self._end(LinkClosed("Receiving failed."))

    def _handle(self, event: Event) -> None:
        match event:
            case Item(stream=stream):
                if items := self._streams.get(stream):
                    items.put(event)
            case Replied(stream=stream, body=body):
                if (reply := self._replies.get(stream)) and not reply.done():
                    reply.set_result(body)
            case Ended(stream=stream):
                if items := self._streams.get(stream):
                    items.put(None)
            case Failed(stream=stream, error=error):
                self._fail(stream, error)
            case Ponged(nonce=nonce):
                if (pong := self._pings.get(nonce)) and not pong.done():
                    pong.set_result(None)
            case SaidGoodbye(reason=reason):
                raise LinkClosed(f"{self.hello.name} said goodbye: {reason}.", clean=True)
            case _:
                self._servant.handle(event)

    def _fail(self, stream: int, error: ExoError) -> None:
        if (reply := self._replies.get(stream)) and not reply.done():
            reply.set_exception(error)
        if items := self._streams.get(stream):
            items.put(error)

    def _unpack(self, item: Item) -> Body:
        try:
            return unpack(item.data)
        except ProtocolError as error:
            self._break(error)
            raise

    def _break(self, error: ProtocolError) -> None:
        log.warning("The link with %s is closed: %s", self.hello.name, error)
        self._leave(
            error.message, LinkClosed(f"{self.hello.name} broke the protocol: {error.message}")
        )

    def _leave(self, reason: str, error: LinkClosed) -> None:
        if self._error is None:
            self._mux.goodbye(reason)
            self._end(error, farewell=True)

    def _end(self, error: LinkClosed, *, farewell: bool = False) -> None:
        if self._error is not None:
            return
        self._error = error
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(self._make_error())
        for pong in self._pings.values():
            if not pong.done():
                pong.set_exception(self._make_error())
        for items in self._streams.values():
            items.put(self._make_error())
        self._tasks += self._servant.stop()
        self._reader.cancel()
        self._to_send.set()
        self._funeral = asyncio.create_task(self._bury(farewell=farewell))
        self._on_closed(self)

    async def _bury(self, *, farewell: bool) -> None:
        if farewell:
            await asyncio.wait([self._writer], timeout=_FAREWELL)
            if self._writer.done():
                await self._channel.close()
        self._channel.abort()
        self._writer.cancel()
        await asyncio.wait(self._tasks)
        self._over.set()

    def _check(self) -> None:
        if self._error is not None:
            raise self._make_error()

    def _make_error(self) -> LinkClosed:
        """One of its own for each that waits, since an exception collects where it was raised."""
        error = self._error or LinkClosed("The link is up.")
        return LinkClosed(error.message, clean=error.clean, hint=error.hint)


class _Items:
    """What has come of a stream and is not taken yet."""

    def __init__(self) -> None:
        self._items: deque[Item | ExoError | None] = deque()
        self._come = asyncio.Event()

    def put(self, item: Item | ExoError | None) -> None:
        """Add an item, its end (None), or the error that it ends with."""
        if isinstance(item, LinkClosed):
            self._items.clear()
        self._items.append(item)
        self._come.set()

    async def take(self) -> Item | None:
        """The next item, None at the end.

        Raises:
            ExoError: what the stream ended with.
        """
        while not self._items:
            self._come.clear()
            await self._come.wait()
        item = self._items.popleft()
        if isinstance(item, ExoError):
            raise item
        return item
