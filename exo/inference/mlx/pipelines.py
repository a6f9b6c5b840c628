"""Where a step goes: through this process's layers, and round the ring if others have more.

`Alone` computes whole models, one step ahead of what is read; `Head` is rank 0 of a ring, and
`Follower` any other rank. A STEP frame goes from rank to rank, a RESULT frame from the last one to
rank 0.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import time
from collections import deque
from typing import Protocol, cast

import mlx.core as mx

from exo.errors import RingError
from exo.inference.mlx.carriers import Carrier, begin_body, read_step_frame
from exo.inference.mlx.computed import Computed
from exo.inference.mlx.executor import Executor
from exo.inference.ring.frames import Frame, Kind
from exo.inference.steps import Decode, Result, Step, pack, unpack_result, unpack_step

# Steps between two times that MLX is told to give unused memory back.
_TIDY_EVERY = 256
_LARGE = 256


class Pipeline(Protocol):
    """Takes steps in order and gives their results in the same order."""

    @property
    def remote(self) -> bool:
        """Whether results come by themselves, so that there is something else to look after
        between two steps."""
        ...

    def submit(self, step: Step) -> None: ...
    def collect(self) -> list[Result]:
        """The results that are there; a pipeline that is not remote waits for the oldest one."""
        ...


class Alone:
    """The whole model in this process. A step is begun before the one before has been read."""

    remote = False

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._begun: deque[tuple[Step, Computed, float]] = deque()
        self._results: deque[Result] = deque()
        self._ended = 0.0

    def submit(self, step: Step) -> None:
        if not isinstance(step.work, Decode):
            # Whoever holds on to the caches while they grow makes MLX copy them, and what a chunk
            # of a prompt gives is their state: so the chunk before is waited for.
            while self._chunk_begun:
                self._end()
        begun = time.perf_counter()
        computed = self._executor.run(step, ())
        if self._chunk_begun or not isinstance(step.work, Decode):
            # What each took is known only of those that are computed one by one; beside the one
            # before, this one was made ready.
            while self._begun:
                self._end()
        self._begun.append((step, computed, begun))
        mx.async_eval(*computed.outputs())

    @property
    def _chunk_begun(self) -> bool:
        return any(not isinstance(step.work, Decode) for step, *_ in self._begun)

    def collect(self) -> list[Result]:
        if self._begun and not self._results:
            self._end()
        return [self._results.popleft()] if self._results else []

    def _end(self) -> None:
        """Wait for the oldest step."""
        step, computed, begun = self._begun.popleft()
        mx.eval(*computed.outputs())
        now = time.perf_counter()
        seconds = now - max(begun, self._ended)
        self._ended = now
        tidy(step)
        self._results.append(result_of(step, computed, [seconds]))


class Head:
    """Rank 0: it computes its layers and sends what follows round the ring."""

    remote = True

    def __init__(self, executor: Executor, carrier: Carrier) -> None:
        self._executor = executor
        self._carrier = carrier
        self._came: deque[Result] = deque()

    def submit(self, step: Step) -> None:
        begun = time.perf_counter()
        expected = self._executor.take(step, ())
        computed = expected.computed if expected else self._executor.run(step, ())
        # Before the layers are computed: they leave nothing of this code in the core's caches.
        body = begin_body(pack(step), computed.tensors)
        mx.eval(*computed.outputs())
        seconds = [time.perf_counter() - begun]
        self._carrier.send_step(body, computed.tensors, seconds)
        tidy(step)

    def receive(self, frame: Frame) -> None:
        if frame.kind is not Kind.RESULT:
            raise RingError(f"A frame of kind {frame.kind.name} came to rank 0.")
        self._came.append(unpack_result(frame.body))

    def collect(self) -> list[Result]:
        came = list(self._came)
        self._came.clear()
        return came


class Follower:
    """Any rank but 0: it computes what comes and sends it on; the last one samples."""

    def __init__(self, executor: Executor, carrier: Carrier, *, last: bool) -> None:
        self._executor = executor
        self._carrier = carrier
        self._last = last
        self._next = 0

    def receive(self, frame: Frame) -> None:
        """Raises:
        RingError: the frame is no step, or not the next one.
        """
        begun = time.perf_counter()
        packed, shapes, seconds = read_step_frame(frame)
        step = unpack_step(packed)
        if step.number != self._next:
            raise RingError(f"Step {step.number} came where step {self._next} was due.")
        self._next += 1
        if expected := self._executor.take(step, shapes):
            self._carrier.fill(expected.inputs, frame)
            computed = expected.computed
        else:
            computed = self._executor.run(step, self._carrier.tensors_of(frame, shapes))
        body = b"" if self._last else begin_body(packed, computed.tensors)
        mx.eval(*computed.outputs())
        seconds = [*seconds, time.perf_counter() - begun]
        if self._last:
            self._carrier.send_result(pack(result_of(step, computed, seconds)))
        else:
            self._carrier.send_step(body, computed.tensors, seconds)
        tidy(step)


def result_of(step: Step, computed: Computed, seconds: list[float]) -> Result:
    """What a step that is evaluated sampled, and the seconds that each rank took."""
    drawn = computed.drawn
    if drawn is None:
        return Result(number=step.number, seconds=tuple(seconds))
    tokens = cast("list[int]", drawn.tokens.tolist())
    return Result(
        number=step.number,
        tokens=tuple(tokens),
        logprobs=tuple(drawn.chosen(tokens)),
        failed=tuple(drawn.failed.items()),
        seconds=tuple(seconds),
    )


def tidy(step: Step) -> None:
    """Give memory back that a large chunk of a prompt needed and later steps will not. To get it
    again costs more than a small one takes."""
    work = step.work
    large = work is not None and not isinstance(work, Decode) and work.last and work.size >= _LARGE
    if large or step.number % _TIDY_EVERY == 0:
        mx.clear_cache()
