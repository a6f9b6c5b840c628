"""The layers of one rank as a function."""

from collections.abc import Sequence
from typing import Protocol, cast

import mlx.core as mx
from mlx import nn

from exo.inference.mlx.adapter import Cache, make_prompt_cache
from exo.inference.mlx.held import KvForm


class Stage(Protocol):
    """Some of a model's layers, with the embedding if they are the first ones and the head if they
    are the last."""

    @property
    def model(self) -> nn.Module:
        """What holds the parameters that this stage needs, and no others."""
        ...

    @property
    def last(self) -> bool: ...

    def make_cache(self) -> list[Cache]:
        """Empty caches for one sequence."""
        ...

    def __call__(
        self, tokens: mx.array, inputs: Sequence[mx.array], cache: list[Cache]
    ) -> list[mx.array]:
        """Compute tokens (B, L), which every stage is given; `inputs` is what the stage before
        returned. Returns what the next one needs, the hidden state (B, L, D) first; of the last
        stage, logits (B, L, V)."""
        ...


class WholeModel:
    """All layers."""

    last = True

    def __init__(self, model: nn.Module, form: KvForm | None = None) -> None:
        self.model = model
        self._form = form or KvForm()

    def make_cache(self) -> list[Cache]:
        return self._form.of(make_prompt_cache(self.model))

    def __call__(
        self, tokens: mx.array, inputs: Sequence[mx.array], cache: list[Cache]
    ) -> list[mx.array]:
        del inputs
        return [cast("mx.array", self.model(tokens, cache=cache))]
