"""Carries out steps on one stage's caches: what every rank does, the same way in the same order.

A sequence has caches of its own while its prompt is computed; then they become a row of its group's
batch caches. Prefix-cache entries are copies of them. Nothing here is evaluated: what `run` returns
is lazy, so that the caller says when to wait.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from exo.errors import RingError
from exo.inference.mlx.adapter import (
    Cache,
    TokenBuffer,
    as_batch,
    cut,
    extend,
    extract,
    keep_rows,
    states,
)
from exo.inference.mlx.sampling import (
    LogitsProcessor,
    Sampler,
    make_processors,
    make_sampler,
    scalar,
    top_logprobs,
)
from exo.inference.mlx.stage import Stage
from exo.inference.steps import (
    LAST_SAMPLED,
    Chosen,
    Close,
    Decode,
    Forget,
    Join,
    Keep,
    Op,
    Open,
    Prefill,
    Step,
)


@dataclass
class _Sequence:
    caches: list[Cache]
    length: int
    sampler: Sampler
    processors: list[LogitsProcessor]
    history: TokenBuffer
    logprobs: int | None
    group: int | None = None


@dataclass
class _Group:
    """`sampled` are the tokens that the last step sampled by row, (B,); 0 for a row that joined
    after it."""

    caches: list[Cache]
    rows: list[int]
    sampled: mx.array


@dataclass(frozen=True)
class Drawn:
    """What the last rank sampled: tokens (B,) and, where asked for, log probabilities (1, V), with
    how many of the likeliest are wanted."""

    tokens: mx.array
    logprobs: list[tuple[mx.array, int] | None]

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


class Executor:
    """The caches of one stage, and the steps on them."""

    def __init__(self, stage: Stage, *, batchable: bool) -> None:
        self._stage = stage
        self._batchable = batchable
        self._sequences: dict[int, _Sequence] = {}
        self._groups: dict[int, _Group] = {}
        self._entries: dict[int, tuple[list[Cache], int]] = {}

    def reset(self) -> None:
        """Drop all caches."""
        self._sequences.clear()
        self._groups.clear()
        self._entries.clear()

    def run(self, step: Step, inputs: Sequence[mx.array]) -> Computed:
        """Carry out a step; `inputs` is what the rank before computed.

        Raises:
            RingError: it does not fit what is here, so the ranks are not in step.
        """
        for op in step.ops:
            self._apply(op)
        match step.work:
            case Prefill():
                return self._prefill(step.work, inputs)
            case Decode():
                return self._decode(step.work, inputs)
            case None:
                return Computed()

    # Operations.

    def _apply(self, op: Op) -> None:
        try:
            match op:
                case Open():
                    self._open(op)
                case Join():
                    self._join(op)
                case Keep():
                    self._keep(op)
                case Close():
                    self._close(op.sequence)
                case Forget():
                    del self._entries[op.entry]
        except KeyError as error:
            raise RingError(f"The ranks are not in step: nothing is called {error}.") from error

    def _open(self, op: Open) -> None:
        if op.entry is None:
            caches = self._stage.make_cache()
        else:
            kept, length = self._entries[op.entry]
            caches = copy.deepcopy(kept)
            cut(caches, length - op.length)
        self._sequences[op.sequence] = _Sequence(
            caches=caches,
            length=op.length,
            sampler=make_sampler(op.sampling, op.index),
            processors=make_processors(op.sampling, op.prompt_tokens),
            # The last token of the prompt is added when it is computed.
            history=TokenBuffer(list(op.history[:-1])),
            logprobs=op.logprobs,
        )

    def _join(self, op: Join) -> None:
        sequence = self._sequences[op.sequence]
        sequence.group = op.group
        caches = as_batch(sequence.caches) if self._batchable else sequence.caches
        sequence.caches = []
        none = mx.zeros((1,), dtype=mx.int32)
        group = self._groups.get(op.group)
        if group is None:
            self._groups[op.group] = _Group(caches, [op.sequence], none)
            return
        if not self._batchable:
            raise RingError("The ranks are not in step: this model's sequences share no group.")
        extend(group.caches, caches)
        group.rows.append(op.sequence)
        group.sampled = mx.concatenate([group.sampled, none])

    def _keep(self, op: Keep) -> None:
        sequence = self._sequences[op.sequence]
        group = None if sequence.group is None else self._groups[sequence.group]
        if group is None or not self._batchable:
            caches = copy.deepcopy(group.caches if group else sequence.caches)
        else:
            caches = extract(group.caches, group.rows.index(op.sequence))
        self._entries[op.entry] = (caches, sequence.length)

    def _close(self, name: int) -> None:
        sequence = self._sequences.pop(name)
        if sequence.group is None:
            return
        group = self._groups[sequence.group]
        kept = [at for at, row in enumerate(group.rows) if row != name]
        if not kept:
            del self._groups[sequence.group]
            return
        keep_rows(group.caches, kept)
        group.rows = [group.rows[at] for at in kept]
        group.sampled = group.sampled[mx.array(kept)]

    # Work.

    def _prefill(self, work: Prefill, inputs: Sequence[mx.array]) -> Computed:
        sequence = self._sequences.get(work.sequence)
        if sequence is None or sequence.group is not None or sequence.length != work.position:
            raise RingError(f"The ranks are not in step at position {work.position} of a prompt.")
        sequence.length += len(work.tokens)
        outputs = self._stage(mx.array([list(work.tokens)]), inputs, sequence.caches)
        # The last stage's logits of a prompt are nobody's: they are never evaluated.
        tensors = [] if self._stage.last else outputs
        return Computed(tensors, state=states(sequence.caches))

    def _decode(self, work: Decode, inputs: Sequence[mx.array]) -> Computed:
        group = self._groups.get(work.group)
        rows = [] if group is None else [self._sequences[row] for row in group.rows]
        if group is None or tuple(row.length for row in rows) != work.positions:
            raise RingError(f"The ranks are not in step at positions {work.positions}.")
        for row in rows:
            row.length += 1
        tokens = _known(work.tokens, group.sampled)
        outputs = self._stage(tokens[:, None], inputs, group.caches)
        if not self._stage.last:
            return Computed(outputs, state=states(group.caches))
        drawn = _sample(rows, tokens, outputs[0][:, -1, :])
        group.sampled = drawn.tokens.astype(mx.int32)
        return Computed(drawn=drawn)


def _known(given: Sequence[int], sampled: mx.array) -> mx.array:
    """The tokens to compute, (B,): those given, or those sampled last."""
    if LAST_SAMPLED not in given:
        return mx.array(list(given), dtype=mx.int32)
    if all(token == LAST_SAMPLED for token in given):
        return sampled
    tokens = mx.array(list(given), dtype=mx.int32)
    return mx.where(tokens == LAST_SAMPLED, sampled, tokens)


def _sample(rows: Sequence[_Sequence], tokens: mx.array, logits: mx.array) -> Drawn:
    """Sample the next token of each row from logits (B, V)."""
    if any(row.processors for row in rows):
        processed: list[mx.array] = []
        for at, row in enumerate(rows):
            context = row.history.update_and_fetch(tokens[at : at + 1])
            one = logits[at : at + 1]
            for process in row.processors:
                one = process(context, one)
            processed.append(one)
        logits = mx.concatenate(processed, axis=0)
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    samplers = [row.sampler for row in rows]
    if all(sampler is samplers[0] for sampler in samplers):
        sampled = samplers[0](logprobs)
    else:
        parts = [sampler(logprobs[at : at + 1]) for at, sampler in enumerate(samplers)]
        sampled = mx.concatenate(parts, axis=0)
    wanted = [
        None if row.logprobs is None else (logprobs[at], row.logprobs)
        for at, row in enumerate(rows)
    ]
    return Drawn(sampled, wanted)
