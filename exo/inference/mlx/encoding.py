"""Vectors of texts, from an encoder."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from dataclasses import dataclass

import mlx.core as mx

from exo.inference.mlx.encoder import Encoder, Masks
from exo.inference.mlx.pooled import Opened, PooledEmbedder
from exo.models.pooling import Pooling


@dataclass
class _Batch:
    """A batch up to layer `layer`: states (B, L, D)."""

    states: mx.array
    masks: Masks
    layer: int = 0


class EncoderEmbedder(PooledEmbedder[_Batch]):
    """A text is computed whole, since all of its tokens see each other; one that is longer than
    `step` tokens, some layers at a time. A batch has at most `limit` tokens, or one text."""

    def __init__(self, model: Encoder, pooling: Pooling, *, step: int, limit: int) -> None:
        super().__init__(pooling, limit=min(step, limit), batchable=True)
        self._model = model
        self._step = step

    def _begin(self, opened: Opened) -> _Batch:
        masks = self._model.masks(opened.lengths, opened.tokens.shape[1])
        return _Batch(self._model.embed(opened.tokens), masks)

    def _compute(self, opened: Opened, state: _Batch) -> mx.array | None:
        layers = self._model.layers
        at_once = max(1, len(layers) * self._step // opened.tokens.size)
        for layer in layers[state.layer : state.layer + at_once]:
            state.states = layer(state.states, state.masks[layer.window])
        state.layer += at_once
        if state.layer < len(layers):
            mx.eval(state.states)
            return None
        return self._pooled(opened, self._model.finish(state.states).astype(mx.float32))

    def _pooled(self, opened: Opened, states: mx.array) -> mx.array:
        """Each text for itself: what fills it up is not even added as zeros."""
        match self._pooling.kind:
            case "mean":
                rows = [states[row, :n].mean(axis=0) for row, n in enumerate(opened.lengths)]
            case "last":
                rows = [states[row, n - 1] for row, n in enumerate(opened.lengths)]
            case "first":
                return states[:, 0]
        return mx.stack(rows)
