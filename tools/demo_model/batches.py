"""Turns conversations into batches of rows of like length."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import torch
from render import Conversation, pieces
from tokenizers import Tokenizer
from torch import Tensor

# What others say is learnt a little: it teaches the language of the questions.
READ_WEIGHT = 0.08
# The digits of a sum are few and hard.
DIGIT_WEIGHT = 4.0
Row = tuple[list[int], list[float]]


def encode(tokenizer: Tokenizer, talk: Conversation, limit: int, digits: bool) -> Row:
    tokens: list[int] = []
    weights: list[float] = []
    for piece, own in _merged(talk):
        encoded = tokenizer.encode(piece)
        tokens += encoded.ids
        for token in encoded.tokens:
            heavy = DIGIT_WEIGHT if digits and token.isdigit() else 1.0
            weights.append(heavy if own else READ_WEIGHT)
    return tokens[: limit + 1], weights[: limit + 1]


def _merged(talk: Conversation) -> Iterator[tuple[str, bool]]:
    # An answer starts behind a newline, which the split keeps apart from letters:
    # encoding piece by piece gives the same tokens as encoding the whole.
    held = ""
    for piece, own in pieces(talk):
        if own:
            if held:
                yield held, False
                held = ""
            if piece:
                yield piece, True
        else:
            held += piece
    if held:
        yield held, False


def batch(rows: list[Row], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    width = max(len(tokens) for tokens, _ in rows)
    tokens = torch.full((len(rows), width), pad, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    for at, (ids, weight) in enumerate(rows):
        tokens[at, : len(ids)] = torch.tensor(ids)
        weights[at, : len(ids)] = torch.tensor(weight)
    return tokens[:, :-1], tokens[:, 1:], weights[:, 1:]


def batches(
    rows: Iterable[Row], size: int, pad: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of about `size` tokens; rows are sorted within a pool only."""
    pool: list[Row] = []
    for row in rows:
        pool.append(row)
        if len(pool) == 3000:
            yield from _pooled(pool, size, pad, rng)
            pool = []
    if pool:
        yield from _pooled(pool, size, pad, rng)


def _pooled(
    pool: list[Row], size: int, pad: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    pool.sort(key=lambda row: len(row[0]))
    groups: list[list[Row]] = [[]]
    for row in pool:
        if groups[-1] and len(row[0]) * (len(groups[-1]) + 1) > size:
            groups.append([])
        groups[-1].append(row)
    rng.shuffle(groups)
    for group in groups:
        yield batch(group, pad)
