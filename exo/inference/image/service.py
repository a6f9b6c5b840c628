"""What a runner with an image model does with messages: pure but for the engine it drives.

Requests wait in a bounded queue, which is fair to API keys; the pictures of one are drawn one after
the other, a step at a time, so that a cancellation is heeded after the step that is being computed.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

from exo.errors import EngineError, ExoError, QueueFull
from exo.inference.fair import FairQueue
from exo.inference.image.engine import DrawSpec, ImageEngine, Picture, Stroke
from exo.inference.image.types import (
    DrawFinished,
    Drawing,
    Drawn,
    DrawRequest,
    DrawStats,
    Preview,
)
from exo.inference.messages import Accepted, Cancel, Draw, LoadStats, RequestFailed, WireError
from exo.inference.types import Wire


@dataclass
class _Open:
    """A request that is not finished: `done` of its pictures are, and one may be on the way."""

    request: DrawRequest
    arrived: float
    started: float | None = None
    done: int = 0
    picture: Picture | None = None
    strokes: Generator[Stroke] | None = None
    previews: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    approximate: bool = False

    @property
    def index(self) -> int:
        """Of the picture that is on the way."""
        return self.request.first + self.done

    def close(self) -> None:
        if self.strokes is not None:
            self.strokes.close()


class DrawService:
    """The requests of one image model, from arrival to the last picture."""

    def __init__(self, engine: ImageEngine, max_queue: int, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._max_queue = max_queue
        self._clock = clock
        self._drawn: _Open | None = None
        self._waiting: dict[str, _Open] = {}
        self._queue: FairQueue[str] = FairQueue()

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._drawn is not None or bool(self._waiting)

    @property
    def load_stats(self) -> LoadStats:
        """How much there is to do, in requests."""
        running = min(len(self._open), 1)
        return LoadStats(running=running, waiting=len(self._open) - running)

    @property
    def trace_ids(self) -> list[str]:
        """Of the requests that are open."""
        return [entry.request.trace_id for entry in self._open]

    @property
    def _open(self) -> list[_Open]:
        """All requests, the one that is being drawn first."""
        return [*([self._drawn] if self._drawn else []), *self._waiting.values()]

    def handle(self, message: Draw | Cancel) -> list[Wire]:
        """Take in a request or a cancellation."""
        if isinstance(message, Cancel):
            self._forget(message.request_id)
            return [self.load_stats]
        request = message.request
        waiting, room = len(self._waiting), self._max_queue
        if self._drawn is None:
            room += 1
        if waiting and not self._queue.waiting(request.lane):
            room += self._max_queue // 4
        if waiting >= room:
            error = QueueFull(
                f"{waiting} requests already wait for this model.",
                hint="Try again shortly.",
                retry_after=5,
            )
            return [_failed(request, error)]
        self._waiting[request.request_id] = _Open(request, self._clock())
        cost = request.n * request.steps * request.width * request.height
        self._queue.push(request.request_id, cost, request.lane, batch=request.batch)
        return [Accepted(request_id=request.request_id, prompt_tokens=0), self.load_stats]

    def step(self) -> list[Wire]:
        """Compute one step of the picture that is on the way, and say what came of it."""
        if self._drawn is None:
            self._drawn = self._waiting.pop(self._queue.pop())
        entry = self._drawn
        try:
            return self._advance(entry)
        except ExoError as error:
            self._forget(entry.request.request_id)
            return [_failed(entry.request, error), self.load_stats]

    def fail_all(self, error: ExoError) -> list[Wire]:
        """Give up every open request, when a step could not be computed."""
        failed = [entry.request for entry in self._open]
        for request in failed:
            self._forget(request.request_id)
        return [*(_failed(request, error) for request in failed), self.load_stats]

    def _advance(self, entry: _Open) -> list[Wire]:
        request, began = entry.request, self._clock()
        if entry.started is None:
            entry.started = began
        if entry.picture is None or entry.strokes is None:
            entry.picture = self._engine.begin(_spec(request, entry.index))
            entry.strokes = entry.picture.steps()
            entry.previews = 0
        stroke = next(entry.strokes, None)
        if stroke is None:
            raise EngineError("The picture ended before its last step.")
        entry.step_seconds += self._clock() - began
        entry.steps += 1
        entry.approximate |= stroke.approximate
        said: list[Wire] = [
            Drawing(
                request_id=request.request_id,
                index=entry.index,
                step=stroke.step,
                steps=stroke.steps,
            )
        ]
        if stroke.step >= stroke.steps:
            return [*said, *self._finish_picture(entry, entry.picture)]
        if stroke.step in preview_steps(stroke.steps, request.partial_images):
            preview = Preview(
                request_id=request.request_id,
                index=entry.index,
                number=entry.previews,
                png=entry.picture.png(),
            )
            entry.previews += 1
            said.append(preview)
        return said

    def _finish_picture(self, entry: _Open, picture: Picture) -> list[Wire]:
        request = entry.request
        drawn = Drawn(request_id=request.request_id, index=entry.index, png=picture.png())
        entry.close()
        entry.picture = entry.strokes = None
        entry.done += 1
        if entry.done < request.n:
            return [drawn]
        self._drawn = None
        finished = DrawFinished(request_id=request.request_id, stats=self._stats(entry))
        return [drawn, finished, self.load_stats]

    def _stats(self, entry: _Open) -> DrawStats:
        request, now = entry.request, self._clock()
        started = now if entry.started is None else entry.started
        return DrawStats(
            images=request.n,
            steps=entry.steps // request.n,
            width=request.width,
            height=request.height,
            queue_time=started - entry.arrived,
            seconds_per_step=entry.step_seconds / entry.steps,
            total_time=now - entry.arrived,
            peak_memory_usage=self._engine.peak_memory(),
            approximate=entry.approximate,
        )

    def _forget(self, request_id: str) -> None:
        if self._waiting.pop(request_id, None) is not None:
            self._queue.remove(request_id)
        elif self._drawn is not None and self._drawn.request.request_id == request_id:
            self._drawn.close()
            self._drawn = None


def preview_steps(steps: int, wanted: int) -> set[int]:
    """After which of the steps (from 1) there is a preview: evenly spread, none after the last."""
    return {round(k * steps / (wanted + 1)) for k in range(1, wanted + 1)} - {0, steps}


def _spec(request: DrawRequest, index: int) -> DrawSpec:
    return DrawSpec(
        prompt=request.prompt,
        width=request.width,
        height=request.height,
        steps=request.steps,
        seed=request.seed + index,
        guidance=request.guidance,
        negative_prompt=request.negative_prompt,
        images=request.images,
        mask=request.mask,
        strength=request.strength,
        patches=request.patches,
        sync_steps=request.sync_steps,
    )


def _failed(request: DrawRequest, error: ExoError) -> RequestFailed:
    return RequestFailed(request_id=request.request_id, error=WireError.of(error))
