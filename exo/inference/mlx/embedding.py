"""Vectors of texts, from the hidden states of a decoder's last layer."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from dataclasses import dataclass
from typing import Protocol, cast

import mlx.core as mx
from mlx import nn

from exo.errors import RequestError
from exo.inference.engine import EmbedSpec
from exo.inference.mlx.adapter import Cache, make_prompt_cache, states
from exo.inference.mlx.pooled import Opened, PooledEmbedder
from exo.models.pooling import Pooling

_TRUNKS = ("model", "transformer", "backbone")
# What calling a model in a way that it does not know raises.
_STRANGE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class Trunk(Protocol):
    """A model without its head: hidden states (B, L, D) of tokens (B, L)."""

    def __call__(self, tokens: mx.array, *, cache: list[Cache]) -> mx.array: ...


@dataclass
class _Batch:
    """A batch up to column `position`. `pooled` (B, D) is what has been made of its states so
    far."""

    caches: list[Cache]
    lengths: mx.array
    pooled: mx.array
    position: int = 0


class MlxEmbedder(PooledEmbedder[_Batch]):
    """Vectors of a decoder. Texts are computed in pieces of `step` tokens, with no cache but their
    own."""

    def __init__(self, model: nn.Module, pooling: Pooling, *, step: int, batchable: bool) -> None:
        super().__init__(pooling, limit=step, batchable=batchable)
        self._model = model
        self._step = step
        self._trunk: Trunk | None = None

    def add(self, spec: EmbedSpec) -> None:
        self._trunk = self._trunk or find_trunk(self._model, self._pooling.size)
        super().add(spec)

    def _begin(self, opened: Opened) -> _Batch:
        return _Batch(
            caches=make_prompt_cache(self._model),
            lengths=mx.array(opened.lengths),
            pooled=mx.zeros((len(opened.lengths), self._pooling.size)),
        )

    def _compute(self, opened: Opened, state: _Batch) -> mx.array | None:
        """Take in the next columns. What stands behind the end of a text is seen by none of its
        tokens, since each sees only those before it."""
        trunk = self._trunk
        assert trunk is not None  # noqa: S101  `add` has found it
        begin, width = state.position, opened.tokens.shape[1]
        end = min(begin + max(1, self._step // len(opened.numbers)), width)
        hidden = trunk(opened.tokens[:, begin:end], cache=state.caches).astype(mx.float32)
        places = mx.arange(begin, end)[None, :]
        taken = self._taken(places, state.lengths[:, None])
        state.pooled += mx.where(taken[..., None], hidden, 0).sum(axis=1)
        state.position = end
        mx.eval(state.pooled, states(state.caches))
        if end < width:
            return None
        mean = self._pooling.kind == "mean"
        return state.pooled / state.lengths[:, None] if mean else state.pooled

    def _taken(self, places: mx.array, lengths: mx.array) -> mx.array:
        match self._pooling.kind:
            case "mean":
                return places < lengths
            case "last":
                return places == lengths - 1
            case "first":
                return mx.broadcast_to(places == 0, (lengths.shape[0], places.shape[1]))


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
