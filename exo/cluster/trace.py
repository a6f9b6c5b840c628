"""What became of a request, and when: pure, the time is passed in.

Times within a trace are seconds since the request came in; durations are seconds. A trace has no
word of what was asked or answered.
"""

import contextvars
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from exo.cluster.requests import Asked, Output
from exo.cluster.state import Instance, Shard
from exo.errors import ExoError
from exo.inference.image.types import DrawFinished, Drawing, Drawn
from exo.inference.messages import Accepted, Finished
from exo.inference.types import Delta, Stats

# Of those that came in last; a trace takes a few KB.
KEPT = 1000

Outcome = Literal["open", "finished", "failed", "cancelled"]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class StageTrace(_View):
    """The layers [start_layer, end_layer) on one node, and how long they computed for a request:
    steps of its prompt, and steps that gave it a token, alone or beside others."""

    rank: int
    node_id: str
    start_layer: int
    end_layer: int
    prefill: float | None = None
    decode: float | None = None


class GenerationTrace(_View):
    """What an instance computed for a request. `generation_id` is what the answer is called;
    `node_id` is the node of rank 0. `sent`, `accepted`, `first_token` and `ended` are times;
    `queue`, `prefill` and `decode` are durations, as the runner measured them, once it has
    finished. A picture's `first_token` is its first step. `error` is an error's code."""

    generation_id: str
    model_id: str
    instance_id: str
    node_id: str
    outcome: Outcome
    error: str | None
    sent: float
    accepted: float | None
    first_token: float | None
    ended: float | None
    queue: float | None
    prefill: float | None
    decode: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    generated_tokens: int
    reasoning_tokens: int | None
    images: int
    image_steps: int
    stages: list[StageTrace]


class RequestTrace(_View):
    """A request: `node_id` is the node that it came in at, `started_at` is ISO 8601. `status` is
    that of the answer, 499 if the client left before it; None while there is none."""

    id: str
    method: str
    route: str
    status: int | None
    started_at: str
    seconds: float | None
    node_id: str
    generations: list[GenerationTrace]


class Watcher(Protocol):
    """Is told of generations as they go on."""

    def accepted(self, model_id: str, prompt_tokens: int) -> None: ...
    def first_token(self, model_id: str, seconds: float) -> None:
        """Seconds since the request came in."""
        ...

    def token(self, model_id: str, gap: float | None) -> None:
        """Another token, so many seconds after the one before of the same answer, if any."""
        ...

    def image_step(self, model_id: str, gap: float | None) -> None:
        """As `token`."""
        ...

    def ended(self, trace: GenerationTrace) -> None: ...


@dataclass
class Generation:
    """One on its way: `saw` what comes of it, then `fail` or `close`."""

    watcher: Watcher
    instance: Instance
    generation_id: str
    came: float
    sent: float
    outcome: Outcome = "open"
    error: str | None = None
    accepted: float | None = None
    first: float | None = None
    ended: float | None = None
    prompt_tokens: int | None = None
    tokens: int = 0
    images: int = 0
    image_steps: int = 0
    stats: Stats | None = None
    queue: float | None = None
    decode: float | None = None
    _last: dict[int, float] = field(default_factory=dict[int, float])

    def saw(self, output: Output, now: float) -> None:
        """Take in what a runner says."""
        match output:
            case Accepted(prompt_tokens=count):
                self.accepted, self.prompt_tokens = now, count
                self.watcher.accepted(self._model, count)
            case Delta(index=index):
                self._begins(now)
                self.tokens += 1
                self.watcher.token(self._model, self._gap(index, now))
            case Drawing(index=index):
                self._begins(now)
                self.image_steps += 1
                self.watcher.image_step(self._model, self._gap(index, now))
            case Drawn():
                self.images += 1
            case Finished(stats=stats):
                self.stats, self.queue = stats, stats.queue_time
                self.decode = stats.total_time - stats.ttft
                self.outcome = "finished"
            case DrawFinished(stats=stats):
                self.queue, self.decode = stats.queue_time, stats.total_time - stats.queue_time
                self.outcome = "finished"
            case _:
                pass

    def fail(self, error: ExoError) -> None:
        self.outcome, self.error = "failed", error.code

    def close(self, now: float) -> None:
        """It has ended, whichever way."""
        if self.outcome == "open":
            self.outcome = "cancelled"
        self.ended = now
        self.watcher.ended(self.trace())

    def trace(self) -> GenerationTrace:
        """As far as it has come."""
        stats = self.stats
        return GenerationTrace(
            generation_id=self.generation_id,
            model_id=self._model,
            instance_id=self.instance.instance_id,
            node_id=self.instance.placement.shards[0].node_id,
            outcome=self.outcome,
            error=self.error,
            sent=self.sent - self.came,
            accepted=self._since(self.accepted),
            first_token=self._since(self.first),
            ended=self._since(self.ended),
            queue=self.queue,
            prefill=stats.ttft - stats.queue_time if stats else None,
            decode=self.decode,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=stats.cached_tokens if stats else None,
            generated_tokens=self.tokens,
            reasoning_tokens=stats.reasoning_tokens if stats else None,
            images=self.images,
            image_steps=self.image_steps,
            stages=list(self._stages()),
        )

    @property
    def _model(self) -> str:
        return self.instance.card.model_id

    def _begins(self, now: float) -> None:
        if self.first is None:
            self.first = now
            self.watcher.first_token(self._model, now - self.came)

    def _gap(self, index: int, now: float) -> float | None:
        before = self._last.get(index)
        self._last[index] = now
        return None if before is None else now - before

    def _since(self, at: float | None) -> float | None:
        return None if at is None else at - self.came

    def _stages(self) -> Iterator[StageTrace]:
        for shard in self.instance.placement.shards:
            yield StageTrace(
                rank=shard.rank,
                node_id=shard.node_id,
                start_layer=shard.start_layer,
                end_layer=shard.end_layer,
                prefill=_of(self.stats.prefill_stages, shard) if self.stats else None,
                decode=_of(self.stats.decode_stages, shard) if self.stats else None,
            )


def _of(seconds: tuple[float, ...], shard: Shard) -> float:
    """A shard's part. Where all ranks compute every step at once, there is one for all; where
    there was no step (the whole prompt was known), there is none."""
    if len(seconds) == 1:
        return seconds[0]
    return seconds[shard.rank] if shard.rank < len(seconds) else 0.0


@dataclass
class Recording:
    """A request on its way; `came` is when it came in, by the clock that all times are of."""

    id: str
    method: str
    route: str
    started_at: str
    node_id: str
    came: float
    watcher: Watcher
    status: int | None = None
    ended: float | None = None
    generations: list[Generation] = field(default_factory=list[Generation])

    def begin(self, instance: Instance, asked: Asked, now: float) -> Generation:
        """An instance is asked for something."""
        generation = Generation(self.watcher, instance, asked.request_id, self.came, now)
        self.generations.append(generation)
        return generation

    def end(self, status: int, now: float) -> None:
        self.status, self.ended = status, now

    def trace(self) -> RequestTrace:
        """As far as it has come."""
        return RequestTrace(
            id=self.id,
            method=self.method,
            route=self.route,
            status=self.status,
            started_at=self.started_at,
            seconds=None if self.ended is None else self.ended - self.came,
            node_id=self.node_id,
            generations=[generation.trace() for generation in self.generations],
        )


# The request that is being answered, in the task that does so.
recording: contextvars.ContextVar[Recording | None] = contextvars.ContextVar(
    "recording", default=None
)


class Recordings:
    """The requests that came in last, whatever became of them."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, Recording] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, one: Recording) -> None:
        """Keep it, instead of an older one with its id, or of the oldest."""
        self._kept.pop(one.id, None)
        self._kept[one.id] = one
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def find(self, name: str) -> Recording | None:
        """By the request's id, or by that of what was generated for it."""
        if found := self._kept.get(name):
            return found
        for one in reversed(self._kept.values()):
            if any(generation.generation_id == name for generation in one.generations):
                return one
        return None
