"""A sequence as a stage has it."""

from dataclasses import dataclass

from exo.inference.grammars.constraint import Constraint
from exo.inference.mlx.adapter import Cache
from exo.inference.mlx.history import History
from exo.inference.mlx.sampling import LogitsProcessor, Sampler
from exo.inference.mlx.slices import Unfinished


@dataclass
class CachedSequence:
    """`length` tokens are in its caches, or will be when its `chunk` is computed to the end.
    `history` is kept where penalties look at it, and a `constraint` where the answer follows a
    grammar and this rank samples."""

    name: int
    caches: list[Cache]
    length: int
    prompt_tokens: int
    sampler: Sampler
    processors: list[LogitsProcessor]
    history: History | None
    logprobs: int | None
    constraint: Constraint | None = None
    group: int | None = None
    chunk: Unfinished | None = None
