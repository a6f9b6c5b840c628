"""Vectors of texts, from the hidden states of a model's last layer."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import mlx.core as mx
from mlx import nn

from exo.errors import RequestError
from exo.inference.embedding import batches
from exo.inference.engine import EmbedSpec, Vector
from exo.inference.mlx.adapter import Cache, make_prompt_cache, states
from exo.models.pooling import Pooling

_MOST_ROWS = 64
_TRUNKS = ("model", "transformer", "backbone")
# What calling a model in a way that it does not know raises.
_STRANGE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class Trunk(Protocol):
    """A model without its head: hidden states (B, L, D) of tokens (B, L)."""

    def __call__(self, tokens: mx.array, *, cache: list[Cache]) -> mx.array: ...


@dataclass
class _Batch:
    """Texts that are computed together, up to column `position`. `pooled` (B, D) is what has been
    made of the states so far."""

    spec: EmbedSpec
    numbers: list[int]
    lengths: mx.array
    tokens: mx.array
    caches: list[Cache]
    last: bool
    pooled: mx.array
    position: int = 0


class MlxEmbedder:
    """Texts are computed in batches, in pieces of `step` tokens, with no cache but their own."""

    def __init__(self, model: nn.Module, pooling: Pooling, *, step: int, batchable: bool) -> None:
        self._model = model
        self._pooling = pooling
        self._step = step
        self._rows = _MOST_ROWS if batchable else 1
        self._waiting: deque[tuple[EmbedSpec, list[int], bool]] = deque()
        self._batch: _Batch | None = None
        self._trunk: Trunk | None = None

    def room(self, texts: Sequence[Sequence[int]]) -> int:
        lengths = [len(text) for text in texts]
        return max(len(batch) * lengths[batch[0]] for batch in self._batches(lengths))

    def add(self, spec: EmbedSpec) -> None:
        self._trunk = self._trunk or find_trunk(self._model, self._pooling.size)
        found = self._batches([len(text) for text in spec.texts])
        for at, numbers in enumerate(found, 1):
            self._waiting.append((spec, numbers, at == len(found)))

    def remove(self, sequence_id: int) -> None:
        kept = [each for each in self._waiting if each[0].sequence_id != sequence_id]
        self._waiting = deque(kept)
        if self._batch is not None and self._batch.spec.sequence_id == sequence_id:
            self._batch = None

    @property
    def waiting(self) -> bool:
        return not self._waiting and self._batch is None

    def step(self) -> list[Vector]:
        if self._batch is None:
            if not self._waiting:
                return []
            self._batch = self._open(*self._waiting.popleft())
        batch = self._batch
        self._compute(batch)
        if batch.position < batch.tokens.shape[1]:
            return []
        self._batch = None
        return self._vectors(batch)

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        return batches(lengths, self._step, rows=self._rows)

    def _open(self, spec: EmbedSpec, numbers: list[int], last: bool) -> _Batch:
        texts = [list(spec.texts[number]) for number in numbers]
        width = len(texts[0])
        filled = [text + [0] * (width - len(text)) for text in texts]
        return _Batch(
            spec=spec,
            numbers=numbers,
            lengths=mx.array([len(text) for text in texts]),
            tokens=mx.array(filled),
            caches=make_prompt_cache(self._model),
            last=last,
            pooled=mx.zeros((len(texts), self._pooling.size)),
        )

    def _compute(self, batch: _Batch) -> None:
        """Take in the next columns. What stands behind the end of a text is seen by none of its
        tokens, since each sees only those before it."""
        trunk = self._trunk
        assert trunk is not None  # noqa: S101  `add` has found it
        begin = batch.position
        end = min(begin + max(1, self._step // len(batch.numbers)), batch.tokens.shape[1])
        hidden = trunk(batch.tokens[:, begin:end], cache=batch.caches).astype(mx.float32)
        places = mx.arange(begin, end)[None, :]
        taken = self._taken(places, batch.lengths[:, None])
        batch.pooled += mx.where(taken[..., None], hidden, 0).sum(axis=1)
        batch.position = end
        mx.eval(batch.pooled, states(batch.caches))

    def _taken(self, places: mx.array, lengths: mx.array) -> mx.array:
        match self._pooling.kind:
            case "mean":
                return places < lengths
            case "last":
                return places == lengths - 1
            case "first":
                return mx.broadcast_to(places == 0, (lengths.shape[0], places.shape[1]))

    def _vectors(self, batch: _Batch) -> list[Vector]:
        found = batch.pooled
        if self._pooling.kind == "mean":
            found = found / batch.lengths[:, None]
        found = found[:, : batch.spec.dimensions or self._pooling.size]
        if self._pooling.normalize:
            found = found / mx.maximum(mx.linalg.norm(found, axis=-1, keepdims=True), 1e-12)
        mx.eval(found)
        mx.clear_cache()
        order = sorted(range(len(batch.numbers)), key=lambda row: batch.numbers[row])
        return [
            Vector(
                sequence_id=batch.spec.sequence_id,
                index=batch.numbers[row],
                vector=bytes(memoryview(cast("Any", found[row]))),
                last=batch.last and at == len(order),
            )
            for at, row in enumerate(order, 1)
        ]


def find_trunk(model: nn.Module, size: int) -> Trunk:
    """The part of a model that gives hidden states of `size` numbers. Nothing is computed.

    Raises:
        RequestError: its code has none that is known.
    """
    whole = model
    while isinstance(inner := getattr(whole, "language_model", None), nn.Module):
        whole = inner
    for name in _TRUNKS:
        trunk = getattr(whole, name, None)
        if isinstance(trunk, nn.Module) and _gives_states(cast("Trunk", trunk), model, size):
            return cast("Trunk", trunk)
    raise RequestError(
        "Vectors cannot be made with this model's architecture.",
        hint="Use a model for embeddings.",
        param="model",
    )


def _gives_states(trunk: Trunk, model: nn.Module, size: int) -> bool:
    try:
        hidden = cast("object", trunk(mx.zeros((1, 2), mx.int32), cache=make_prompt_cache(model)))
    except _STRANGE:
        return False
    return isinstance(hidden, mx.array) and hidden.shape == (1, 2, size)
