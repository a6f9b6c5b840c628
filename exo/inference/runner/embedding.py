"""Requests for vectors in a runner: pure but for the engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exo.errors import ContextLengthExceeded, RequestError
from exo.inference.engine import Embedder, EmbedSpec, Engine
from exo.inference.messages import Embedded, Finished, Load, RequestFailed, WireError
from exo.inference.scheduler import Scheduler
from exo.inference.types import EmbedRequest, Stats, Wire


@dataclass
class _Asked:
    request: EmbedRequest
    texts: Sequence[Sequence[int]]
    arrived: float
    started: float = 0.0


class Embeddings:
    """Each request is one sequence to the scheduler, which takes the room of its largest batch."""

    def __init__(
        self, engine: Engine, load: Load, scheduler: Scheduler, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._load = load
        self._scheduler = scheduler
        self._clock = clock
        self._open: dict[int, _Asked] = {}

    @property
    def busy(self) -> bool:
        return bool(self._open)

    def submit(
        self, request: EmbedRequest, texts: Sequence[Sequence[int]], sequence_id: int
    ) -> int:
        """Take in a request; how many tokens it has.

        Raises:
            RequestError: it cannot be computed here.
            QueueFull: too many wait.
        """
        embedder = self._embedder()
        for number, text in enumerate(texts):
            if not text:
                raise RequestError(f"Input {number} is empty.", param="input")
            if len(text) > self._load.context_length:
                raise ContextLengthExceeded(
                    f"This model's context is {self._load.context_length} tokens; input {number} "
                    f"has {len(text)}.",
                    hint="Shorten it.",
                    param="input",
                )
        self._scheduler.submit(
            {sequence_id: embedder.room(texts)}, request.lane, batch=request.batch
        )
        self._open[sequence_id] = _Asked(request, texts, self._clock())
        return sum(map(len, texts))

    def admit(self, sequence_id: int) -> list[Wire]:
        """Begin with a request, if it is one of these."""
        asked = self._open.get(sequence_id)
        if asked is None:
            return []
        asked.started = self._clock()
        spec = EmbedSpec(sequence_id, asked.texts, asked.request.dimensions)
        try:
            self._embedder().add(spec)
        except RequestError as error:
            self._end(sequence_id)
            return [RequestFailed(request_id=asked.request.request_id, error=WireError.of(error))]
        return []

    def step(self) -> list[Wire]:
        """Compute one piece, and tell what there is of it."""
        if not self._open or self._engine.embedder is None:
            return []
        told: list[Wire] = []
        for found in self._engine.embedder.step():
            asked = self._open.get(found.sequence_id)
            if asked is None:
                continue
            name = asked.request.request_id
            told.append(Embedded(request_id=name, index=found.index, vector=found.vector))
            if found.last:
                self._end(found.sequence_id)
                told.append(Finished(request_id=name, stats=self._stats(asked)))
        return told

    def forget(self, request_id: str) -> bool:
        """Give a request up; whether it was one of these."""
        for sequence_id, asked in self._open.items():
            if asked.request.request_id == request_id:
                if self._engine.embedder is not None:
                    self._engine.embedder.remove(sequence_id)
                self._end(sequence_id)
                return True
        return False

    @property
    def requests(self) -> list[str]:
        """The ids of those that are open."""
        return [asked.request.request_id for asked in self._open.values()]

    @property
    def trace_ids(self) -> list[str]:
        """Of those that are open."""
        return [asked.request.trace_id for asked in self._open.values()]

    def _embedder(self) -> Embedder:
        embedder = self._engine.embedder
        if embedder is None:
            raise RequestError(
                "This model is computed by several nodes, which makes no vectors.",
                hint="Create an instance on one node (`--max-nodes 1`).",
                param="model",
            )
        return embedder

    def _end(self, sequence_id: int) -> None:
        del self._open[sequence_id]
        self._scheduler.release(sequence_id)

    def _stats(self, asked: _Asked) -> Stats:
        now = self._clock()
        tokens = sum(map(len, asked.texts))
        return Stats(
            prompt_tokens=tokens,
            generation_tokens=0,
            queue_time=asked.started - asked.arrived,
            ttft=now - asked.arrived,
            total_time=now - asked.arrived,
            prompt_tps=tokens / max(now - asked.started, 1e-9),
            generation_tps=0.0,
            peak_memory_usage=self._engine.peak_memory(),
        )
