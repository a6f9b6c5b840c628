"""What a node answers over its links, and the tasks that answer one link's other side."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from exo.errors import ExoError, NotImplementedYet
from exo.p2p.frames import Body
from exo.p2p.mux import Mux
from exo.p2p.mux_events import Called, Cancelled, Credited, Noticed, Opened, Question

# A stream that every node serves, to measure a link by.
BULK = "link.bulk"
BULK_ITEM = 2**16
BULK_ITEMS = 256

log = logging.getLogger(__name__)
RequestHandler = Callable[[str, Body], Awaitable[Body]]
StreamHandler = Callable[[str, Body], AsyncGenerator[Body]]
NoticeHandler = Callable[[str, Body], None]


@dataclass(frozen=True)
class Services:
    """What this node answers, by method; called with the peer's id and the body.

    Handlers are cancelled when nobody waits for their answer any more: the peer has lost patience,
    or the link is gone. An `ExoError` of theirs is raised again on the other side.
    """

    requests: dict[str, RequestHandler] = field(default_factory=dict[str, RequestHandler])
    streams: dict[str, StreamHandler] = field(default_factory=dict[str, StreamHandler])
    notices: dict[str, NoticeHandler] = field(default_factory=dict[str, NoticeHandler])


class Servant:
    """Answers the other side of one link. `wake` is called when there is something to send."""

    def __init__(
        self, services: Services, peer_id: str, mux: Mux, wake: Callable[[], None]
    ) -> None:
        self._services = services
        self._peer_id = peer_id
        self._mux = mux
        self._wake = wake
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._rooms: dict[int, asyncio.Event] = {}

    def handle(self, event: Question) -> None:
        """Take up what the other side wants."""
        match event:
            case Called(stream=stream, method=method):
                self._start(stream, method, self._reply(event))
            case Opened(stream=stream, method=method):
                self._start(stream, method, self._fill(event))
            case Cancelled(stream=stream):
                if task := self._tasks.get(stream):
                    task.cancel()
            case Credited(stream=stream):
                self.make_room(stream)
            case Noticed(method=method, body=body):
                self._notice(method, body)

    def make_room(self, stream: int) -> None:
        """There may be room for another item."""
        room = self._rooms.get(stream)
        if room and self._mux.has_room(stream):
            room.set()

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel all that is being answered; the tasks to wait for."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        return tasks

    def _start(self, stream: int, method: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._answer(stream, method, work))
        self._tasks[stream] = task
        task.add_done_callback(lambda _: self._tasks.pop(stream, None))
        task.add_done_callback(lambda _: work.close())

    async def _answer(self, stream: int, method: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ExoError as error:
            self._mux.fail(stream, error)
        except Exception:  # the edge: a bug in one handler must not take the link along
            log.exception("The handler of '%s' failed.", method)
            self._mux.fail(stream, ExoError(f"The other node failed at '{method}'."))
        self._wake()

    def _notice(self, method: str, body: Body) -> None:
        handler = self._services.notices.get(method)
        if handler is None:
            log.debug("%s says '%s', which nobody here listens to.", self._peer_id, method)
            return
        try:
            handler(self._peer_id, body)
        except ExoError as error:
            log.warning("What %s said ('%s') was refused: %s", self._peer_id, method, error)
        except Exception:  # the edge: a bug in one handler must not take the link along
            log.exception("The handler of '%s' failed.", method)

    async def _reply(self, event: Called) -> None:
        handler = self._services.requests.get(event.method)
        if handler is None:
            raise _unknown(event.method)
        self._mux.reply(event.stream, await handler(self._peer_id, event.body))

    async def _fill(self, event: Opened) -> None:
        handler = _bulk if event.method == BULK else self._services.streams.get(event.method)
        if handler is None:
            raise _unknown(event.method)
        stream = event.stream
        room = self._rooms[stream] = asyncio.Event()
        try:
            async with aclosing(handler(self._peer_id, event.body)) as items:
                async for item in items:
                    while not self._mux.has_room(stream):
                        room.clear()
                        await room.wait()
                    self._mux.item(stream, item)
                    self._wake()
            self._mux.end(stream)
        finally:
            del self._rooms[stream]


async def _bulk(_: str, __: Body) -> AsyncGenerator[Body]:
    item = os.urandom(BULK_ITEM)
    for _number in range(BULK_ITEMS):
        yield item


def _unknown(method: str) -> NotImplementedYet:
    return NotImplementedYet(
        f"The other node does not know '{method}'.", hint="Run the same version of exo on both."
    )
