"""The one module that touches mlx-lm's batching, caches and loading.

These interfaces change with about every second release of mlx-lm, so its version is pinned and
`tests/inference/test_mlx_lm_contract.py` states what is relied on.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
from mlx import nn
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models.cache import LRUPromptCache, make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model, load_tokenizer

from exo.inference.mlx.sampling import LogitsProcessor, Sampler
from exo.inference.types import FinishReason

Caches = list[Any]


@dataclass(frozen=True)
class Item:
    """A sequence as mlx-lm wants it. `cached` are the tokens that `caches` hold already."""

    prompt: list[int]
    max_tokens: int
    sampler: Sampler
    processors: list[LogitsProcessor]
    caches: Caches | None = None
    cached: Sequence[int] = ()


@dataclass(frozen=True)
class Output:
    """A sampled token; at the end also the caches and the tokens they hold."""

    uid: int
    token: int
    logprobs: mx.array
    finish_reason: FinishReason | None
    caches: Caches | None = None
    cached_tokens: list[int] | None = None


class Batch(Protocol):
    """Sequences computed together (or one after the other, if the model cannot be batched)."""

    def insert(self, items: Sequence[Item]) -> list[int]: ...
    def remove(self, uids: Sequence[int]) -> None: ...
    def step(self) -> list[Output]: ...


def open_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model with its weights not yet read from disk, and its config."""
    return load_model(path, lazy=True, trust_remote_code=False)


def open_tokenizer(path: Path, config: dict[str, Any]) -> TokenizerWrapper:
    return load_tokenizer(path, eos_token_ids=config.get("eos_token_id"))


def make_batch(
    model: nn.Module, eos: Sequence[int], max_concurrency: int, prefill_step: int
) -> Batch:
    """Continuous batching where every cache of the model can be merged, else one by one."""
    if all(hasattr(cache, "merge") for cache in make_prompt_cache(model)):
        return _Continuous(model, eos, max_concurrency, prefill_step)
    return _OneByOne(model, eos, prefill_step)


class _Continuous:
    """mlx-lm's `BatchGenerator`."""

    def __init__(
        self, model: nn.Module, eos: Sequence[int], max_concurrency: int, prefill_step: int
    ) -> None:
        self._generator = BatchGenerator(
            model,
            stop_tokens=[(token,) for token in eos],
            completion_batch_size=max_concurrency,
            prefill_batch_size=max_concurrency,
            prefill_step_size=prefill_step,
        )

    def insert(self, items: Sequence[Item]) -> list[int]:
        caches = [item.caches for item in items]
        return self._generator.insert(
            [item.prompt for item in items],
            max_tokens=[item.max_tokens for item in items],
            caches=caches if any(caches) else None,
            all_tokens=[list(item.cached) for item in items],
            samplers=[item.sampler for item in items],
            logits_processors=[item.processors for item in items],
        )

    def remove(self, uids: Sequence[int]) -> None:
        self._generator.remove(list(uids))

    def step(self) -> list[Output]:
        _, responses = self._generator.next()
        return [
            Output(
                uid=response.uid,
                token=response.token,
                logprobs=response.logprobs,
                finish_reason=FinishReason(response.finish_reason)
                if response.finish_reason
                else None,
                caches=response.prompt_cache,
                cached_tokens=response.all_tokens,
            )
            for response in responses
        ]


class _OneByOne:
    """mlx-lm's `generate_step`, for caches that cannot be batched (llama4's, for one)."""

    def __init__(self, model: nn.Module, eos: Sequence[int], prefill_step: int) -> None:
        self._model = model
        self._eos = frozenset(eos)
        self._prefill_step = prefill_step
        self._waiting: deque[tuple[int, Item]] = deque()
        self._uid = 0
        self._item: Item | None = None
        self._steps: Iterator[tuple[int, mx.array]] = iter(())
        self._count = 0
        self._next_uid = 0

    def insert(self, items: Sequence[Item]) -> list[int]:
        uids = list(range(self._next_uid, self._next_uid + len(items)))
        self._next_uid += len(items)
        self._waiting.extend(zip(uids, items, strict=True))
        return uids

    def remove(self, uids: Sequence[int]) -> None:
        self._waiting = deque(entry for entry in self._waiting if entry[0] not in uids)
        if self._uid in uids:
            self._item = None

    def step(self) -> list[Output]:
        if self._item is None and not self._start():
            return []
        assert self._item is not None  # noqa: S101  `_start` has set it
        token, logprobs = next(self._steps)
        self._count += 1
        reason = None
        if token in self._eos:
            reason = FinishReason.STOP
        elif self._count >= self._item.max_tokens:
            reason = FinishReason.LENGTH
        if reason:
            self._item = None
        return [Output(self._uid, token, logprobs, reason)]

    def _start(self) -> bool:
        if not self._waiting:
            return False
        self._uid, self._item = self._waiting.popleft()
        self._count = 0
        self._steps = generate_step(
            mx.array(self._item.prompt),
            self._model,
            max_tokens=self._item.max_tokens,
            sampler=self._item.sampler,
            logits_processors=self._item.processors,
            prefill_step_size=self._prefill_step,
        )
        return True


class PrefixCache:
    """Keys and values of earlier prompts and answers, reused by the longest common prefix."""

    _KEY = "model"

    def __init__(self, max_bytes: int) -> None:
        self._enabled = max_bytes > 0
        self._cache = LRUPromptCache(max_size=1 << 20, max_bytes=max_bytes)

    def take(self, prompt: Sequence[int]) -> tuple[Caches | None, int]:
        """A copy of the best match, and how many tokens of the prompt it holds. The prompt's last
        token is never matched: its logits are still to be computed."""
        if not self._enabled:
            return None, 0
        for known in (list(prompt), list(prompt[:-1])):
            caches, rest = self._cache.fetch_nearest_cache(self._KEY, known)
            if caches is None:
                break
            cached = len(known) - len(rest)
            if cached < len(prompt):
                return caches, cached
        return None, 0

    def put(self, tokens: list[int], caches: Caches) -> None:
        """Keep the caches of these tokens."""
        if self._enabled and tokens:
            self._cache.insert_cache(self._KEY, tokens, caches)


__all__ = [
    "Batch",
    "Caches",
    "Item",
    "Output",
    "PrefixCache",
    "TokenizerWrapper",
    "make_batch",
    "open_model",
    "open_tokenizer",
]
