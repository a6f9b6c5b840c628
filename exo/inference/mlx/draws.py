"""What the last rank does with the logits of a step: grammars, penalties, sampling."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from exo.inference.mlx.computed import Drawn
from exo.inference.mlx.masking import masked
from exo.inference.mlx.sampling import Bias, add_biases, greedy
from exo.inference.mlx.sequence import CachedSequence

Drafts = Sequence[Sequence[int]]


def draw(
    rows: Sequence[CachedSequence],
    positions: Sequence[int],
    tokens: mx.array,
    logits: mx.array,
    drafts: Drafts,
) -> Drawn:
    """Sample after the token and the draft of each row: tokens (B, L), logits (B, L, V), of which
    row i has `positions[i]` before them.

    What is drawn after a token of a draft is drawn as if the draft was right so far.
    """
    masks = _masks(rows, positions, tokens, logits, drafts)
    counts = [1 + len(draft) for draft in drafts]
    flat = _flattened(logits, counts)
    places = [
        (row, position + at - (row.prompt_tokens - 1))
        for row, position, count in zip(rows, positions, counts, strict=True)
        for at in range(count)
    ]
    if any(row.processors for row in rows):
        flat = _processed([row for row, _ in places], _flattened(tokens, counts), flat)
    if masks:
        flat = masked(flat, masks)
    logprobs = flat - mx.logsumexp(flat, axis=-1, keepdims=True)
    sampler = rows[0].sampler
    if all(row.sampler is sampler for row in rows) and (sampler is greedy or len(places) == 1):
        sampled = sampler(logprobs, places[0][1])
    else:
        parts = [
            row.sampler(logprobs[at : at + 1], place) for at, (row, place) in enumerate(places)
        ]
        sampled = mx.concatenate(parts, axis=0)
    failed = {
        row.name: row.constraint.failure
        for row in rows
        if row.constraint is not None and row.constraint.failure is not None
    }
    wanted = [
        None if row.logprobs is None else (logprobs[at], row.logprobs)
        for at, (row, _) in enumerate(places)
    ]
    return Drawn(sampled, wanted, failed)


def _masks(
    rows: Sequence[CachedSequence],
    positions: Sequence[int],
    tokens: mx.array,
    logits: mx.array,
    drafts: Drafts,
) -> list[bytes | None]:
    """What each row's grammar allows after its token and after each of its draft; nothing if no
    row has one."""
    if not any(row.constraint for row in rows):
        return []
    # The layers compute while the grammars are asked; what was sampled last is known by then.
    mx.async_eval(logits)
    known = cast("list[int]", tokens[:, 0].tolist())
    masks: list[bytes | None] = []
    for row, position, first, draft in zip(rows, positions, known, drafts, strict=True):
        for at, token in enumerate((first, *draft)):
            if row.constraint is None:
                masks.append(None)
                continue
            if position + at >= row.prompt_tokens:
                row.constraint.push(token, drafted=at > 0)
            masks.append(row.constraint.mask())
    return masks


def _flattened(array: mx.array, counts: Sequence[int]) -> mx.array:
    """The first `counts[i]` positions of each row, one after the other: (B, L, …) → (N, …)."""
    if all(count == array.shape[1] for count in counts):
        return array.flatten(0, 1)
    return mx.concatenate([array[at, :count] for at, count in enumerate(counts)], axis=0)


def _processed(rows: Sequence[CachedSequence], tokens: mx.array, logits: mx.array) -> mx.array:
    """The logits (N, V) that the processors of each row make, of tokens (N,)."""
    biases = [[p for p in row.processors if isinstance(p, Bias)] for row in rows]
    if [len(each) for each in biases] == [len(row.processors) for row in rows]:
        return add_biases(logits, biases)
    processed: list[mx.array] = []
    for at, row in enumerate(rows):
        context = row.history.add(tokens[at : at + 1]) if row.history else tokens
        one = logits[at : at + 1]
        for process in row.processors:
            one = process(context, one)
        processed.append(one)
    return mx.concatenate(processed, axis=0)
