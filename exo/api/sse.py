"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from aiohttp import web

from exo.errors import ExoError

KEEP_ALIVE_SECONDS = 10.0
T = TypeVar("T")


class EventStream:
    """An event stream to one client."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(
        self,
        request: web.Request,
        error_body: Callable[[ExoError], dict[str, Any]] = ExoError.to_json,
    ) -> None:
        """`error_body` is how an error is told; the event bears the name of its type, if any."""
        self._request = request
        self._error_body = error_body
        self.response = web.StreamResponse(
            headers={
                "Content-Type": self.content_type,
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
            }
        )

    async def open(self) -> None:
        """Send the headers: from here on an error is an event. Once is enough."""
        if not self.response.prepared:
            await self.response.prepare(self._request)
            self._request[STREAM] = self

    async def send(
        self, data: dict[str, Any], event_id: int | None = None, event: str | None = None
    ) -> None:
        head = f"id: {event_id}\n" if event_id is not None else ""
        head += f"event: {event}\n" if event is not None else ""
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        await self.response.write(f"{head}data: {text}\n\n".encode())

    async def comment(self, text: str) -> None:
        await self.response.write(f": {text}\n\n".encode())

    async def waits_for(self, what: str) -> None:
        """Tell why nothing comes yet: from here on an error is an event."""
        await self.open()
        await self.comment(what)

    async def done(self) -> None:
        """OpenAI's mark of a complete stream."""
        await self.response.write(b"data: [DONE]\n\n")

    async def fail(self, error: ExoError) -> web.StreamResponse:
        """End with an error; quietly if the client has gone."""
        body = self._error_body(error)
        with suppress(ConnectionResetError):
            await self.send(body, event=body.get("type"))
        return self.response

    async def forward(self, items: AsyncIterator[T], send: Callable[[T], Awaitable[None]]) -> bool:
        """Send each item as it comes, a keep-alive while none comes, an error as the last event.

        Returns whether all were sent. A client that has gone ends it quietly.
        """
        following = asyncio.ensure_future(anext(items, None))
        try:
            while True:
                ready, _ = await asyncio.wait({following}, timeout=KEEP_ALIVE_SECONDS)
                if not ready:
                    await self.comment("keep-alive")
                    continue
                item = following.result()
                if item is None:
                    return True
                following = asyncio.ensure_future(anext(items, None))
                await send(item)
        except ExoError as error:
            await self.fail(error)
        except ConnectionResetError:
            pass
        finally:
            await _close(following, items)
        return False


# The stream that a request is answered with, once its status is out.
STREAM: web.RequestKey[EventStream] = web.RequestKey("stream", EventStream)


class LineStream(EventStream):
    """The same as lines of JSON, which have no comments and no mark of their end."""

    content_type = "application/x-ndjson"

    async def send(
        self, data: dict[str, Any], event_id: int | None = None, event: str | None = None
    ) -> None:
        del event_id, event
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        await self.response.write(f"{text}\n".encode())

    async def comment(self, text: str) -> None:
        """Nothing can be said meanwhile."""


async def _close(following: "asyncio.Future[Any]", items: AsyncIterator[Any]) -> None:
    """End the source now, not when it is collected: a request it computes frees its slot."""
    following.cancel()
    await asyncio.wait({following})
    if not following.cancelled():
        following.exception()
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()
