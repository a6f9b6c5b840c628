from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

Sampler = Callable[[mx.array], mx.array]
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]

class GenerationBatch:
    class Response:
        uid: int
        token: int
        logprobs: mx.array
        finish_reason: str | None
        prompt_cache: list[Any] | None
        all_tokens: list[int] | None

class PromptProcessingBatch:
    class Response:
        uid: int
        progress: tuple[int, int]
        end_of_segment: bool
        end_of_prompt: bool

class BatchGenerator:
    def __init__(
        self,
        model: nn.Module,
        *,
        max_tokens: int = ...,
        stop_tokens: Sequence[Sequence[int]] | None = ...,
        completion_batch_size: int = ...,
        prefill_batch_size: int = ...,
        prefill_step_size: int = ...,
        max_kv_size: int | None = ...,
    ) -> None: ...
    def insert(
        self,
        prompts: list[list[int]],
        max_tokens: list[int] | None = ...,
        caches: Sequence[list[Any] | None] | None = ...,
        all_tokens: list[list[int]] | None = ...,
        samplers: Sequence[Sampler] | None = ...,
        logits_processors: Sequence[Sequence[LogitsProcessor]] | None = ...,
    ) -> list[int]: ...
    def remove(self, uids: Sequence[int], return_prompt_caches: bool = ...) -> Any: ...
    def next(
        self,
    ) -> tuple[list[PromptProcessingBatch.Response], list[GenerationBatch.Response]]: ...
    def close(self) -> None: ...

def generate_step(
    prompt: mx.array,
    model: nn.Module,
    *,
    max_tokens: int = ...,
    sampler: Sampler | None = ...,
    logits_processors: Sequence[LogitsProcessor] | None = ...,
    prompt_cache: list[Any] | None = ...,
    prefill_step_size: int = ...,
) -> Iterator[tuple[int, mx.array]]: ...
