"""Responses on their way: computed for a client that waits, or in the background."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from exo.api.response_events import Answering, Event
from exo.api.response_items import Item
from exo.api.response_views import Kept, ResponseView
from exo.cluster.requests import Output
from exo.errors import EngineError, ExoError, StorageFull, Unavailable
from exo.inference.messages import Finished
from exo.inference.types import Delta

Save = Callable[[Kept], Awaitable[None]]


log = logging.getLogger(__name__)


def stopped() -> Unavailable:
    """Why a response that was computed in the background is not complete."""
    return Unavailable("The node was stopped before the response was complete.")


async def unsaved(_: Kept) -> None:
    """Keep nothing."""


class Run:
    """One response, from the first output to the last event. `items` is all that it answers;
    `save` is called with what is to be kept before anyone hears that it is complete."""

    def __init__(
        self,
        answering: Answering,
        outputs: AsyncGenerator[Output],
        items: list[Item],
        save: Save = unsaved,
    ) -> None:
        self._answering = answering
        self._outputs = outputs
        self._items = items
        self._save = save

    @property
    def view(self) -> ResponseView:
        """The response so far."""
        return self._answering.view

    def kept(self, events: list[Event] | None = None) -> Kept:
        """What is stored of it, as it is now."""
        return Kept(response=self.view, items=self._items, events=events)

    async def events(self) -> AsyncGenerator[Event]:
        """What comes. An error is the last event. Closed early, the request is cancelled."""
        try:
            async with aclosing(self._steps()) as steps:
                async for event in steps:
                    yield event
        except ExoError as error:
            for event in self._answering.fail(error):
                yield event

    async def whole(self) -> ResponseView:
        """All of it at once.

        Raises:
            ExoError: the request failed.
        """
        async with aclosing(self._steps()) as steps:
            async for _ in steps:
                pass
        return self.view

    def cancel(self) -> list[Event]:
        """The client wants no more of it."""
        return self._answering.cancel()

    def stop(self) -> list[Event]:
        """The node wants no more of it."""
        return self._answering.fail(stopped())

    async def _steps(self) -> AsyncGenerator[Event]:
        answering = self._answering
        for event in answering.begin():
            yield event
        async with aclosing(self._outputs) as outputs:
            async for output in outputs:
                if isinstance(output, Delta):
                    for event in answering.take(output):
                        yield event
                elif isinstance(output, Finished):
                    last = answering.end(output.stats, int(time.time()))
                    await self._save(self.kept())
                    for event in last:
                        yield event
                    return
        raise EngineError("The runner ended the answer without finishing it.")


class BackgroundRun:
    """A response that is computed whether or not anyone waits, and can be followed meanwhile."""

    def __init__(self, run: Run, save: Save, *, streams: bool) -> None:
        """`streams` says whether the events are kept with the response."""
        self.streams = streams
        self._run = run
        self._save = save
        self._events: list[Event] = []
        self._changed = asyncio.Event()
        self._computed = self._over = self._stopping = False
        self._task = asyncio.create_task(self._compute())

    def kept(self) -> Kept:
        """What it is by now."""
        return self._run.kept(self._events if self.streams else None)

    async def follow(self, after: int) -> AsyncGenerator[Event]:
        """The events with a number above `after`, up to the last one."""
        at = after + 1
        while True:
            changed = self._changed
            while at < len(self._events):
                yield self._events[at]
                at += 1
            if self._over:
                return
            await changed.wait()

    async def cancel(self) -> ResponseView:
        """Compute no more of it; what it is then. One that is complete stays so."""
        if not self._computed:
            self._task.cancel()
        await self.wait()
        return self._run.view

    async def stop(self) -> None:
        """The node stops, and the response fails. One that is complete is still written down."""
        self._stopping = True
        await self.cancel()

    async def wait(self) -> None:
        """Return when it is complete and written down."""
        await asyncio.wait({self._task})

    async def _compute(self) -> None:
        try:
            async with aclosing(self._run.events()) as events:
                async for event in events:
                    self._add(event)
        except asyncio.CancelledError:
            for event in self._run.stop() if self._stopping else self._run.cancel():
                self._add(event)
        self._computed = True
        try:
            await self._save(self.kept())
        except StorageFull as error:
            log.warning("A response that was computed is lost: %s", error)
        self._over = True
        self._wake()

    def _add(self, event: Event) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
