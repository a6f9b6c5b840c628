"""Open requests: what a runner says of each, on its way to the one who asked."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from exo.errors import ExoError
from exo.inference.image.types import DrawFinished, Drawing, Drawn, DrawRequest, Preview
from exo.inference.messages import (
    Accepted,
    Cancel,
    Draw,
    Embed,
    Embedded,
    Finished,
    FromRunner,
    Generate,
    RequestFailed,
    Tokens,
    ToRunner,
)
from exo.inference.types import Delta, EmbedRequest, GenerateRequest

# To a request for text, for vectors or for pictures.
Output = Accepted | Delta | Embedded | Finished | Drawing | Preview | Drawn | DrawFinished


Asked = GenerateRequest | EmbedRequest | DrawRequest


class OpenRequests:
    """The requests that one runner is working on."""

    def __init__(self, send: Callable[[ToRunner], None]) -> None:
        self._send = send
        self._queues: dict[str, asyncio.Queue[Output | ExoError]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._queues)

    async def run(self, request: Asked) -> AsyncGenerator[Output]:
        """Send the request and yield what comes back: Accepted, Deltas or Embedded, Finished; or
        Accepted, what becomes of the pictures, DrawFinished.

        Left early (the client has gone), the request is cancelled in the runner.

        Raises:
            ExoError: the runner refused the request, or died.
        """
        queue: asyncio.Queue[Output | ExoError] = asyncio.Queue()
        self._queues[request.request_id] = queue
        self._idle.clear()
        done = False
        try:
            if isinstance(request, DrawRequest):
                self._send(Draw(request=request))
            elif isinstance(request, EmbedRequest):
                self._send(Embed(request=request))
            else:
                self._send(Generate(request=request))
            while not done:
                output = await queue.get()
                done = isinstance(output, Finished | DrawFinished | ExoError)
                if isinstance(output, ExoError):
                    raise output
                yield output
        finally:
            del self._queues[request.request_id]
            if not self._queues:
                self._idle.set()
            if not done:
                self._send(Cancel(request_id=request.request_id))

    async def wait_idle(self) -> None:
        """Return when no request is open."""
        await self._idle.wait()

    def deliver(self, message: FromRunner) -> None:
        """Pass on what concerns a request. One that was cancelled is no longer known."""
        match message:
            case Tokens(deltas=deltas):
                for delta in deltas:
                    self._put(delta.request_id, delta)
            case (
                Accepted()
                | Embedded()
                | Finished()
                | Drawing()
                | Preview()
                | Drawn()
                | DrawFinished()
            ):
                self._put(message.request_id, message)
            case RequestFailed(error=error):
                self._put(message.request_id, error.to_error())
            case _:
                pass

    def fail(self, error: ExoError) -> None:
        """Tell every open request that its runner is gone."""
        for request_id in list(self._queues):
            self._put(request_id, error)

    def abandon(self, error: ExoError) -> None:
        """Tell every open request that its runner does not answer, and the runner to forget it."""
        for request_id in list(self._queues):
            self._put(request_id, error)
            self._send(Cancel(request_id=request_id))

    def _put(self, request_id: str, output: Output | ExoError) -> None:
        if queue := self._queues.get(request_id):
            queue.put_nowait(output)
