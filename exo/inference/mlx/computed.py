"""What a step gives, not evaluated yet."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from exo.inference.mlx.sampling import scalar, top_logprobs
from exo.inference.steps import Chosen


@dataclass(frozen=True)
class Drawn:
    """What the last rank sampled, row by row and position by position: tokens (N,) and, where
    asked for, log probabilities (V,), with how many of the likeliest are wanted. `failed` are the
    sequences whose grammar could not be followed, and why."""

    tokens: mx.array
    logprobs: list[tuple[mx.array, int] | None]
    failed: dict[int, str]

    def chosen(self, tokens: Sequence[int]) -> list[Chosen | None]:
        """The log probabilities of the sampled tokens."""
        return [
            row and Chosen(logprob=scalar(row[0][token]), top=tuple(top_logprobs(*row)))
            for token, row in zip(tokens, self.logprobs, strict=True)
        ]


@dataclass(frozen=True)
class Computed:
    """What a step gave, not yet evaluated: tensors for the next rank, or what was sampled, and the
    state of the caches."""

    tensors: list[mx.array] = field(default_factory=list[mx.array])
    drawn: Drawn | None = None
    state: list[object] = field(default_factory=list[object])

    def outputs(self) -> list[object]:
        """Everything to be evaluated."""
        if self.drawn is None:
            return [*self.tensors, *self.state]
        wanted = [row[0] for row in self.drawn.logprobs if row]
        return [self.drawn.tokens, *wanted, *self.state]
