"""A small model that guesses what a large one will say: a `Drafter`.

It draws with the keys that the large model draws with at the same positions, so that the two agree
as often as their distributions let them (Gumbel coupling, https://arxiv.org/abs/2408.07978).
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import mlx.core as mx

from exo.inference.engine import SequenceSpec
from exo.inference.mlx.adapter import Cache, cut, states
from exo.inference.mlx.sampling import LogitsProcessor, Sampler, make_processors, make_sampler
from exo.inference.mlx.stage import Stage
from exo.inference.prefix_index import common_length

# Tokens of a prompt that are computed at once; until it is done there are no drafts.
_CHUNK = 256
# Weight of the latest draft in what is smoothed.
_NEW = 0.2


@dataclass
class _Held:
    """The caches of a sequence, and the tokens in them."""

    caches: list[Cache]
    sample: Sampler
    processors: list[LogitsProcessor]
    tokens: list[int] = field(default_factory=list[int])


class ModelDrafter:
    """Guesses with a whole model on this device, one sequence after the other."""

    def __init__(self, stage: Stage, vocabulary: int) -> None:
        """`vocabulary` is the number of tokens that the large model knows."""
        self._stage = stage
        self._vocabulary = vocabulary
        self._held: dict[int, _Held] = {}
        self.seconds = 0.0

    def draft(self, spec: SequenceSpec, generated: Sequence[int], count: int) -> tuple[int, ...]:
        held = self._held.get(spec.sequence_id)
        if held is None:
            held = self._held[spec.sequence_id] = _Held(
                self._stage.make_cache(),
                make_sampler(spec.sampling, spec.index),
                make_processors(spec.sampling, len(spec.prompt)),
            )
        known = [*spec.prompt, *generated]
        kept = min(common_length(held.tokens, known), len(known) - 1)
        cut(held.caches, len(held.tokens) - kept)
        del held.tokens[kept:]
        missing = known[kept:]
        if len(missing) > _CHUNK:
            self._compute(held, mx.array(missing[:_CHUNK]), missing[:_CHUNK])
            mx.eval(*states(held.caches))
            return ()
        return self._guess(held, known, len(generated), count)

    def forget(self, sequence_id: int) -> None:
        self._held.pop(sequence_id, None)

    def clear(self) -> None:
        self._held.clear()

    def _guess(self, held: _Held, known: list[int], position: int, count: int) -> tuple[int, ...]:
        """Guess `count` tokens after the known ones, the first one for this position."""
        begun = time.perf_counter()
        missing = known[len(held.tokens) :]
        context = mx.array(known if held.processors else missing)
        tokens, drawn = mx.array(missing), list[mx.array]()
        for at in range(count):
            logits = self._compute(held, tokens, missing if at == 0 else ())
            for process in held.processors:
                logits = process(context, logits)
            logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            tokens = held.sample(logprobs, position + at)
            context = mx.concatenate([context, tokens])
            drawn.append(tokens)
        guessed = [int(token) for token in mx.concatenate(drawn)]
        held.tokens += guessed[:-1]  # The last one is not in the caches.
        took = (time.perf_counter() - begun) / count
        self.seconds += (took - self.seconds) * (_NEW if self.seconds else 1.0)
        return tuple(takewhile(lambda token: token < self._vocabulary, guessed))

    def _compute(self, held: _Held, tokens: mx.array, known: Sequence[int]) -> mx.array:
        """The logits (1, V) after tokens (L,), which go into the caches."""
        held.tokens += known
        return self._stage(tokens[None], (), held.caches)[0][:, -1, :]
