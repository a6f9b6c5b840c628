"""Drawing tokens: filters, penalties, and randomness that depends on the request alone.

A draw uses a key made of (seed, index of the answer, position), never a global state, so that the
same request gives the same tokens whatever is computed beside it.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import mlx.core as mx

from exo.inference.types import Sampling

# Log probabilities and the position in the answer that is drawn for.
Sampler = Callable[[mx.array, int], mx.array]
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]

_MASK = (1 << 64) - 1


def greedy(logprobs: mx.array, position: int = 0) -> mx.array:
    """The likeliest token of each row: (B, V) → (B,), at any position. One object for all greedy
    sequences, so that it is called once for a whole batch."""
    del position
    return mx.argmax(logprobs, axis=-1)


def make_sampler(sampling: Sampling, index: int) -> Sampler:
    """A sampler for one sequence. It draws the same token whenever it is asked the same."""
    if sampling.temperature == 0:
        return greedy

    def sample(logprobs: mx.array, position: int) -> mx.array:
        key = mx.random.key(draw_key(sampling.seed, index, position))
        return _draw(logprobs, sampling, key)

    return sample


def draw_key(seed: int, index: int, position: int) -> int:
    """64 well-mixed bits of the three numbers (the finaliser of SplitMix64,
    https://doi.org/10.1145/2714064.2660195, applied after each)."""
    state = 0
    for number in (seed, index, position):
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def _draw(logprobs: mx.array, sampling: Sampling, key: mx.array) -> mx.array:
    """One token of each row of (1, V)."""
    scale = 1.0 / sampling.temperature
    filtered = sampling.top_p < 1 or sampling.min_p > 0
    if not filtered and not sampling.top_k:
        return mx.random.categorical(logprobs * scale, key=key)
    size = logprobs.shape[-1]
    if sampling.top_k and sampling.top_k < size:
        # Only the k likeliest need to be in order.
        order = mx.argpartition(-logprobs, kth=sampling.top_k - 1, axis=-1)[..., : sampling.top_k]
        logprobs = mx.take_along_axis(logprobs, order, axis=-1)
        inner = mx.argsort(-logprobs, axis=-1)
        order = mx.take_along_axis(order, inner, axis=-1)
    else:
        order = inner = mx.argsort(-logprobs, axis=-1)
    ranked = mx.take_along_axis(logprobs, inner, axis=-1)
    keep = _kept(ranked, sampling)
    ranked = mx.where(keep, ranked, -mx.inf)
    chosen = mx.random.categorical(ranked * scale, key=key)
    return mx.take_along_axis(order, chosen[..., None], axis=-1).squeeze(-1)


def _kept(ranked: mx.array, sampling: Sampling) -> mx.array:
    """Which of the log probabilities, likeliest first, may be drawn. The first always may."""
    keep = mx.ones(ranked.shape, dtype=mx.bool_)
    if sampling.top_p < 1:
        probabilities = mx.exp(ranked)
        before = mx.cumsum(probabilities, axis=-1) - probabilities
        keep = keep & (before < sampling.top_p)
    if sampling.min_p > 0:
        keep = keep & (ranked >= ranked[..., :1] + math.log(sampling.min_p))
    return keep


class Bias:
    """Adds to the logits of some tokens, each row for itself: a `LogitsProcessor`."""

    def __init__(self, bias: Mapping[int, float]) -> None:
        self.tokens = mx.array(list(bias))
        self.values = mx.array(list(bias.values()))

    def __call__(self, _: mx.array, logits: mx.array) -> mx.array:
        return logits.at[:, self.tokens].add(self.values.astype(logits.dtype))


def add_biases(logits: mx.array, biases: Sequence[Sequence[Bias]]) -> mx.array:
    """The logits (N, V) with the biases of each row; the bits are those of one row after the other,
    but every operation has its price, and so many rows would each have a few."""
    found = [(row, bias) for row, each in enumerate(biases) for bias in each]
    rows = mx.array([row for row, bias in found for _ in range(bias.tokens.size)])
    tokens = mx.concatenate([bias.tokens for _, bias in found])
    values = mx.concatenate([bias.values for _, bias in found])
    return logits.at[rows, tokens].add(values.astype(logits.dtype))


def make_processors(sampling: Sampling, prompt_tokens: int) -> list[LogitsProcessor]:
    """What changes the logits before sampling: (tokens so far, logits (1, V)) → logits."""
    processors: list[LogitsProcessor] = []
    if sampling.logit_bias:
        processors.append(Bias(sampling.logit_bias))
    if sampling.repetition_penalty != 1:
        processors.append(_repetition(sampling.repetition_penalty))
    if sampling.presence_penalty or sampling.frequency_penalty:
        processors.append(
            _counts(sampling.presence_penalty, sampling.frequency_penalty, prompt_tokens)
        )
    return processors


def _repetition(penalty: float) -> LogitsProcessor:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        seen = _count(tokens, logits.shape[-1]) > 0
        weakened = mx.where(logits > 0, logits / penalty, logits * penalty)
        return mx.where(seen, weakened, logits)

    return process


def _counts(presence: float, frequency: float, prompt_tokens: int) -> LogitsProcessor:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        answer = tokens[prompt_tokens:]
        if not answer.size:
            return logits
        counts = _count(answer, logits.shape[-1])
        return logits - frequency * counts - presence * (counts > 0)

    return process


def _count(tokens: mx.array, size: int) -> mx.array:
    return mx.zeros((size,)).at[tokens].add(1.0)


def top_logprobs(logprobs: mx.array, count: int) -> Sequence[tuple[int, float]]:
    """The `count` likeliest (token, log probability) of (V,), likeliest first; fewer if fewer are
    possible at all."""
    if count == 0:
        return ()
    order = mx.argpartition(-logprobs, kth=min(count, logprobs.size) - 1)[:count]
    pairs = [(int(token), scalar(logprobs[token])) for token in order]
    return sorted((pair for pair in pairs if pair[1] > -math.inf), key=lambda pair: -pair[1])


def scalar(array: mx.array) -> float:
    """The number in an array of one element."""
    return cast("float", array.item())
