"""Some of the layers of a model: of llama's kind only."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx import nn

from exo.errors import ModelInvalid
from exo.inference.mlx.adapter import Cache, make_prompt_cache


def trace(model: nn.Module) -> None:
    """See that the model can be cut.

    Raises:
        ModelInvalid: it is of another kind.
    """
    if getattr(model, "model_type", "") not in {"llama", "qwen2", "qwen3"}:
        raise ModelInvalid("Models of this architecture cannot be split over several nodes yet.")


class Stage:
    """Layers [start, end) of a model."""

    def __init__(self, model: Any, plan: None, start: int, end: int) -> None:
        del plan
        self.model: nn.Module = model
        self.last = end == len(model.layers)
        self._first = start == 0
        self._layers = slice(start, end)
        self._whole: Any = model

    def make_cache(self) -> list[Cache]:
        return make_prompt_cache(self.model)[self._layers]

    def __call__(
        self, tokens: mx.array, inputs: Sequence[mx.array], cache: list[Cache]
    ) -> list[mx.array]:
        from mlx_lm.models.base import create_attention_mask

        inner = self._whole.model
        hidden = inner.embed_tokens(tokens) if self._first else inputs[0]
        mask = create_attention_mask(hidden, cache[0])
        for layer, one in zip(inner.layers[self._layers], cache, strict=True):
            hidden = layer(hidden, mask, cache=one)
        if not self.last:
            return [hidden]
        hidden = inner.norm(hidden)
        head = getattr(self._whole, "lm_head", None)
        return [head(hidden) if head else inner.embed_tokens.as_linear(hidden)]
