"""A model split by tensors: every rank has a part of each layer, and all compute each step at once.

A STEP frame goes from rank to rank and is passed on before it is computed. What is computed holds
collective operations of `mx.distributed`, which only end when every rank has come to them, in the
same order: so every rank evaluates the same arrays at the same times. Rank 0 samples, and tells the
tokens with the next step.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx import nn

from exo.errors import ModelInvalid, RingError
from exo.inference.mlx.adapter import Cache, states
from exo.inference.mlx.carriers import losses, read_step_frame, step_frame
from exo.inference.mlx.executor import Executor
from exo.inference.mlx.held import KvForm
from exo.inference.mlx.pipelines import result_of, tidy
from exo.inference.mlx.stage import WholeModel
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame
from exo.inference.steps import Decode, Result, Step, pack, unpack_step
from exo.models.shares import shares


def shard(model: nn.Module, group: mx.distributed.Group, config: dict[str, Any]) -> None:
    """Keep this rank's part of every layer, as mlx-lm's authors split them. Nothing is read yet.

    Raises:
        ModelInvalid: the architecture cannot be split so, or not over so many ranks.
    """
    split, known = getattr(model, "shard", None), shares(config)
    if split is None or known is None:
        raise ModelInvalid(f"Models of type {config.get('model_type')} cannot be split by tensors.")
    if obstacle := known.obstacle(group.size()):
        # mlx-lm does not look at all of these, and would compute something else.
        raise ModelInvalid(f"The layers cannot be split by tensors: {obstacle}.")
    try:
        split(group)
    except (ArithmeticError, AssertionError, AttributeError, TypeError, ValueError) as error:
        raise ModelInvalid(
            f"The layers cannot be split over {group.size()} nodes by tensors: {error}."
        ) from error


class SharedModel(WholeModel):
    """A rank's part of every layer, with the embedding and the head. `last` says whether it is the
    rank that samples."""

    def __init__(self, model: nn.Module, form: KvForm | None = None, *, last: bool) -> None:
        super().__init__(model, form)
        self.last = last
        self._logits: mx.array | None = None
        self._cache: list[Cache] = []

    def __call__(
        self, tokens: mx.array, inputs: Sequence[mx.array], cache: list[Cache]
    ) -> list[mx.array]:
        outputs = super().__call__(tokens, inputs, cache)
        self._logits, self._cache = outputs[0], cache
        return outputs

    def settle(self, step: Step) -> None:
        """Wait for what the last call began: the same on every rank, whatever each makes of it.

        Raises:
            RingError: a rank is lost.
        """
        logits, cache = self._logits, self._cache
        # Whoever holds on to the caches while they grow makes MLX copy them.
        self._logits, self._cache = None, []
        with losses():
            if isinstance(step.work, Decode):
                mx.eval(logits)
            elif step.work is not None:
                mx.eval(states(cache))


class Leader:
    """Rank 0: a `Pipeline` in which a step begins on all ranks at once."""

    remote = False

    def __init__(self, executor: Executor, stage: SharedModel, ring: Ring, life: int) -> None:
        self._executor = executor
        self._stage = stage
        self._ring = ring
        self._life = life
        self._results: deque[Result] = deque()

    def submit(self, step: Step) -> None:
        self._ring.send(step_frame(pack(step)), self._life)
        begun = time.perf_counter()
        computed = self._executor.run(step, ())
        self._stage.settle(step)
        with losses():
            mx.eval(*computed.outputs())
        tidy(step)
        self._results.append(result_of(step, computed, [time.perf_counter() - begun]))

    def collect(self) -> list[Result]:
        return [self._results.popleft()] if self._results else []

    def receive(self, frame: Frame) -> None:
        """Nothing comes back to it.

        Raises:
            RingError: always.
        """
        raise RingError(f"A frame of kind {frame.kind.name} came to rank 0.")


class Member:
    """Any rank but 0: it passes steps on and computes its part of them."""

    def __init__(
        self, executor: Executor, stage: SharedModel, ring: Ring, life: int, *, last: bool
    ) -> None:
        self._executor = executor
        self._stage = stage
        self._ring = ring
        self._life = life
        self._last = last
        self._next = 0

    def receive(self, frame: Frame) -> None:
        """Take a step.

        Raises:
            RingError: the frame is no step, or not the next one; or a rank is lost.
        """
        packed, _, _ = read_step_frame(frame)
        if not self._last:
            self._ring.send(frame, self._life)
        step = unpack_step(packed)
        if step.number != self._next:
            raise RingError(f"Step {step.number} came where step {self._next} was due.")
        self._next += 1
        self._executor.run(step, ())
        self._stage.settle(step)
        tidy(step)
