"""Vectors of texts from hidden states: what is common to decoders and encoders."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import mlx.core as mx

from exo.inference.embedding import batches
from exo.inference.engine import EmbedSpec, Vector
from exo.models.pooling import Pooling

_MOST_ROWS = 64


@dataclass(frozen=True)
class Opened:
    """Texts that are computed together, the longest first: tokens (B, L), filled up with 0. `last`:
    they are the last ones of their request."""

    spec: EmbedSpec
    numbers: list[int]
    lengths: list[int]
    tokens: mx.array
    last: bool


B = TypeVar("B")


class PooledEmbedder(ABC, Generic[B]):
    """Texts are computed in batches of at most `limit` tokens (or one text), a piece in each step.
    `B` is what becomes of a batch on its way."""

    def __init__(self, pooling: Pooling, *, limit: int, batchable: bool) -> None:
        self._pooling = pooling
        self._limit = limit
        self._rows = _MOST_ROWS if batchable else 1
        self._waiting: deque[tuple[EmbedSpec, list[int], bool]] = deque()
        self._now: tuple[Opened, B] | None = None

    @abstractmethod
    def _begin(self, opened: Opened) -> B:
        """Before anything is computed of a batch."""

    @abstractmethod
    def _compute(self, opened: Opened, state: B) -> mx.array | None:
        """Compute the next piece. When it was the last one, what the states were pooled to: (B, D)
        in float32."""

    def room(self, texts: Sequence[Sequence[int]]) -> int:
        lengths = [len(text) for text in texts]
        return max(len(batch) * lengths[batch[0]] for batch in self._batches(lengths))

    def add(self, spec: EmbedSpec) -> None:
        found = self._batches([len(text) for text in spec.texts])
        for at, numbers in enumerate(found, 1):
            self._waiting.append((spec, numbers, at == len(found)))

    def remove(self, sequence_id: int) -> None:
        kept = [each for each in self._waiting if each[0].sequence_id != sequence_id]
        self._waiting = deque(kept)
        if self._now is not None and self._now[0].spec.sequence_id == sequence_id:
            self._now = None

    @property
    def waiting(self) -> bool:
        return not self._waiting and self._now is None

    def step(self) -> list[Vector]:
        if self._now is None:
            if not self._waiting:
                return []
            opened = _open(*self._waiting.popleft())
            self._now = (opened, self._begin(opened))
        pooled = self._compute(*self._now)
        if pooled is None:
            return []
        opened, self._now = self._now[0], None
        return self._vectors(opened, pooled)

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        return batches(lengths, self._limit, rows=self._rows)

    def _vectors(self, opened: Opened, found: mx.array) -> list[Vector]:
        found = found[:, : opened.spec.dimensions or self._pooling.size]
        if self._pooling.normalize:
            found = found / mx.maximum(mx.linalg.norm(found, axis=-1, keepdims=True), 1e-12)
        mx.eval(found)
        mx.clear_cache()
        order = sorted(range(len(opened.numbers)), key=lambda row: opened.numbers[row])
        return [
            Vector(
                sequence_id=opened.spec.sequence_id,
                index=opened.numbers[row],
                vector=bytes(memoryview(cast("Any", found[row]))),
                last=opened.last and at == len(order),
            )
            for at, row in enumerate(order, 1)
        ]


def _open(spec: EmbedSpec, numbers: list[int], last: bool) -> Opened:
    texts = [list(spec.texts[number]) for number in numbers]
    width = len(texts[0])
    filled = [text + [0] * (width - len(text)) for text in texts]
    return Opened(spec, numbers, [len(text) for text in texts], mx.array(filled), last)
