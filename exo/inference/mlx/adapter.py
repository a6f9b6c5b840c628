"""The one module that touches mlx-lm's caches and loading.

These interfaces change with about every second release of mlx-lm, so its version is pinned and
`tests/inference/test_mlx_lm_contract.py` states what is relied on.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlx import nn
from mlx_lm.models.cache import (
    CacheList,
    KVCache,
    RotatingKVCache,
    _BaseCache,  # pyright: ignore[reportPrivateUsage]  the only name that all caches share
    make_prompt_cache,
)
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model, load_tokenizer

from exo.inference.speech.channels import LAST, MARKS

Cache = _BaseCache

# Positions that no row of a batch uses, at its beginning. Copying them away costs more than a few.
_MOST_PADDING = 64


def open_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model with its weights not yet read from disk, and its config."""
    return load_model(path, lazy=True, trust_remote_code=False)


def open_tokenizer(path: Path, config: dict[str, Any]) -> TokenizerWrapper:
    tokenizer = load_tokenizer(path, eos_token_ids=config.get("eos_token_id"))
    known = tokenizer.get_vocab()
    if all(mark in known for mark in MARKS):
        # Not every folder says that a call is an answer's end too.
        ends = {known[mark] for mark in LAST}
        tokenizer.eos_token_ids = tokenizer.eos_token_ids | ends
    return tokenizer


# What a model's caches can do, by those of the whole model: every rank must act alike.


# Their code takes the position of a batch for that of one sequence.
_ALONE = frozenset({"gpt_bigcode"})


def can_batch(model: nn.Module) -> bool:
    """Whether sequences of this model can be rows of one batch."""
    if getattr(model, "model_type", "") in _ALONE:
        return False
    return all(hasattr(cache, "merge") for cache in _flat(make_prompt_cache(model)))


def longest_cut(model: nn.Module) -> int:
    """Up to how many tokens a filled cache of this model can be cut to any shorter length: a
    sliding window until it is full, a recurrent state never."""
    limit = sys.maxsize
    for cache in _flat(make_prompt_cache(model)):
        if isinstance(cache, RotatingKVCache):
            limit = min(limit, cache.max_size - 1)
        elif not isinstance(cache, KVCache):
            limit = 0
    return limit


def obstacle_to_cutting(model: nn.Module) -> str | None:
    """Why tokens cannot be taken out of this model's caches again, whatever is in them."""
    for cache in _flat(make_prompt_cache(model)):
        if isinstance(cache, RotatingKVCache):
            return "it has a sliding window, which forgets what it would have to go back to"
        if not isinstance(cache, KVCache):
            return "it has a recurrent state, which does not go back"
    return None


def _flat(caches: Iterable[Cache]) -> Iterable[Cache]:
    for cache in caches:
        if isinstance(cache, CacheList):
            yield from _flat(cache.caches)
        else:
            yield cache


# The caches of one sequence, and of a batch.


def cut(caches: Iterable[Cache], count: int) -> None:
    """Take the last `count` tokens out of the caches of one sequence."""
    if count:
        for cache in caches:
            cache.trim(count)


def as_batch(caches: Iterable[Cache]) -> list[Cache]:
    """The caches of one sequence as those of a batch of one row."""
    return [type(cache).merge([cache]) for cache in caches]


def extend(caches: Iterable[Cache], others: Iterable[Cache]) -> None:
    """Add the rows of other batch caches."""
    for cache, other in zip(caches, others, strict=True):
        cache.extend(other)


def extract(caches: Iterable[Cache], row: int) -> list[Cache]:
    """A copy of one row, as the caches of one sequence."""
    return [cache.extract(row) for cache in caches]


def keep_rows(caches: Iterable[Cache], rows: Sequence[int]) -> None:
    """Drop all rows but these."""
    for cache in caches:
        cache.filter(list(rows))


def cut_rows(caches: Iterable[Cache], counts: Sequence[int], longest: int) -> None:
    """Take the last `counts[i]` tokens out of row i; `longest` is how many the longest row then
    has. Rows end where the batch ends, so those that lose more than others are moved to there."""
    together = min(counts)
    more = [count - together for count in counts]
    for cache in caches:
        cache.trim(together)
        if any(more):
            cache.prepare(right_padding=more)
            cache.finalize()
        if cache.size() - longest > _MOST_PADDING:
            cache.filter(list(range(len(counts))))


def states(caches: Iterable[Cache]) -> list[object]:
    """All arrays in the caches, as a tree for `mx.eval`."""
    return [cache.state for cache in caches]


def size_of(caches: Iterable[Cache]) -> int:
    """Bytes of the caches."""
    return sum(cache.nbytes for cache in caches)


__all__ = [
    "Cache",
    "CacheList",
    "TokenizerWrapper",
    "as_batch",
    "can_batch",
    "cut",
    "cut_rows",
    "extend",
    "extract",
    "keep_rows",
    "longest_cut",
    "make_prompt_cache",
    "obstacle_to_cutting",
    "open_model",
    "open_tokenizer",
    "size_of",
    "states",
]
