"""Carries out steps on one stage's caches: what every rank does, the same way in the same order.

A sequence has caches of its own while its prompt is computed; then they become a row of its group's
batch caches. Prefix-cache entries are copies of them. Nothing here is evaluated: what `run` returns
is lazy, so that the caller says when to wait.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import copy
from array import array
from collections.abc import Mapping, Sequence

import mlx.core as mx

from exo.errors import RingError
from exo.inference.grammars.compiler import Grammars
from exo.inference.grammars.constraint import Constraint
from exo.inference.mlx.adapter import (
    Cache,
    as_batch,
    cut,
    cut_rows,
    extract,
    states,
)
from exo.inference.mlx.batch import Batch
from exo.inference.mlx.computed import Computed
from exo.inference.mlx.draws import Drafts, draw
from exo.inference.mlx.expected import Blanks, Expected, can_be_filled
from exo.inference.mlx.history import History
from exo.inference.mlx.sampling import make_processors, make_sampler
from exo.inference.mlx.sequence import CachedSequence
from exo.inference.mlx.slices import Unfinished
from exo.inference.mlx.stage import Stage
from exo.inference.mlx.tensors import Shape, describe
from exo.inference.steps import (
    LAST_SAMPLED,
    Close,
    Continue,
    Decode,
    Forget,
    Join,
    Keep,
    Op,
    Open,
    Prefill,
    Step,
    Trim,
)


class Executor:
    """The caches of one stage, and the steps on them."""

    def __init__(self, stage: Stage, *, batchable: bool, grammars: Grammars | None = None) -> None:
        """`grammars` are needed where tokens are sampled."""
        self._stage = stage
        self._grammars = grammars
        self._batchable = batchable
        self._sequences: dict[int, CachedSequence] = {}
        self._groups: dict[int, Batch] = {}
        self._entries: dict[int, tuple[list[Cache], int]] = {}
        # Groups that decode, the one first whose turn is next, with what they were given last.
        self._turns: dict[int, list[Shape]] = {}
        self._can_foresee = can_be_filled()
        self._expected: Expected | None = None

    def reset(self) -> None:
        """Drop all caches."""
        self._sequences.clear()
        self._groups.clear()
        self._entries.clear()
        self._turns.clear()
        self._expected = None

    def foresee(self) -> None:
        """Build the step that is likely to come next, while there is nothing else to do."""
        if self._expected is not None or not self._turns or not self._can_foresee:
            return
        number, shapes = next(iter(self._turns.items()))
        rows = self._rows(self._groups[number])
        if self._stage.last and any(row.constraint or row.history for row in rows):
            return  # What these allow depends on tokens that are not known.
        try:
            self._expected = self._build(number, rows, shapes)
        except ValueError:
            # What comes from the rank before is not as large as the last time.
            self._can_foresee = False

    def _build(
        self, number: int, rows: Sequence[CachedSequence], shapes: Sequence[Shape]
    ) -> Expected | None:
        """The next step of a group's rows."""
        positions = tuple(row.length for row in rows)
        blanks, inputs = Blanks([("int32", [len(rows)])]), Blanks(shapes)
        tokens = blanks.arrays[0][:, None]
        # Should another step come, nothing has happened to the group's own.
        caches = copy.deepcopy(self._groups[number].caches)
        outputs = self._stage(tokens, inputs.arrays, caches)
        computed = self._outcome(rows, positions, tokens, outputs, ((),) * len(rows), caches)
        if blanks.seen or inputs.seen:
            # Some layer looked at them, and would the next time.
            self._can_foresee = False
            return None
        return Expected(number, positions, blanks, inputs, caches, computed)

    def take(self, step: Step, shapes: Sequence[Shape]) -> Expected | None:
        """What was built for this step, if it was expected, with inputs of these shapes: they have
        to be filled in before it is evaluated."""
        known, work = self._expected, step.work
        if known is None or step.ops or not isinstance(work, Decode) or work.group != known.group:
            return None
        self._expected = None
        if not known.is_step(work, shapes):
            return None
        known.tokens.fill([memoryview(array("i", work.tokens)).cast("B")])
        group = self._groups[work.group]
        group.caches = known.caches
        for row in self._rows(group):
            row.length += 1
        self._note_turn(work.group, known.inputs.shapes, known.computed)
        return known

    def run(self, step: Step, inputs: Sequence[mx.array]) -> Computed:
        """Carry out a step; `inputs` is what the rank before computed.

        Raises:
            RingError: it does not fit what is here, so the ranks are not in step.
        """
        if step.ops:
            self._expected = None
        for op in step.ops:
            self._apply(op)
        match step.work:
            case Prefill():
                return self._prefill(step.work, inputs)
            case Continue():
                return self._continue(step.work)
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
                case Trim():
                    self._trim(op.counts)
        except KeyError as error:
            raise RingError(f"The ranks are not in step: nothing is called {error}.") from error

    def _open(self, op: Open) -> None:
        if op.entry is None:
            caches = self._stage.make_cache()
        else:
            kept, length = self._entries[op.entry]
            caches = copy.deepcopy(kept)
            cut(caches, length - op.length)
        self._sequences[op.sequence] = CachedSequence(
            name=op.sequence,
            caches=caches,
            length=op.length,
            prompt_tokens=op.prompt_tokens,
            sampler=make_sampler(op.sampling, op.index),
            processors=make_processors(op.sampling, op.prompt_tokens),
            # The last token of the prompt is added when it is computed.
            history=History(op.history[:-1]) if op.history else None,
            logprobs=op.logprobs,
            constraint=self._constraint(op.grammar),
        )

    def _constraint(self, grammar: str) -> Constraint | None:
        if not grammar or self._grammars is None or not self._stage.last:
            return None
        return self._grammars.open(grammar)

    def _join(self, op: Join) -> None:
        sequence = self._sequences[op.sequence]
        if sequence.chunk is not None:
            raise RingError("The ranks are not in step: a prompt is not computed to its end.")
        if sequence.group is None:
            caches = as_batch(sequence.caches) if self._batchable else sequence.caches
            joining = Batch(caches, [op.sequence], mx.zeros((1,), dtype=mx.int32))
            sequence.caches = []
        else:
            left = self._groups[sequence.group]
            joining = left if left.rows == [op.sequence] else left.row(op.sequence)
            self._leave(sequence.group, op.sequence)
        sequence.group = op.group
        group = self._groups.setdefault(op.group, joining)
        if group is joining:
            return
        if not self._batchable:
            raise RingError("The ranks are not in step: this model's sequences share no group.")
        self._turns.pop(op.group, None)
        group.add(joining)

    def _leave(self, number: int, name: int) -> None:
        """Take a row out of a group, which ends with its last one."""
        group = self._groups[number]
        self._turns.pop(number, None)
        if group.rows == [name]:
            del self._groups[number]
        else:
            group.remove(name)

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
        if sequence.group is not None:
            self._leave(sequence.group, name)

    def _trim(self, counts: Mapping[int, int]) -> None:
        for name, count in counts.items():
            sequence = self._sequences[name]
            sequence.length -= count
            if sequence.history is not None and self._stage.last:
                sequence.history.cut(count)
            if sequence.constraint is not None:
                sequence.constraint.cut(count)
        for group in self._groups.values():
            self._cut_rows(group, [counts.get(row, 0) for row in group.rows])

    def _cut_rows(self, group: Batch, counts: Sequence[int]) -> None:
        """Take the last tokens out of a group's caches; the lengths of its rows say so already."""
        if not any(counts):
            return
        if self._batchable:
            longest = max(self._sequences[row].length for row in group.rows)
            cut_rows(group.caches, counts, longest)
        else:
            cut(group.caches, counts[0])

    # Work.

    def _prefill(self, work: Prefill, inputs: Sequence[mx.array]) -> Computed:
        sequence = self._sequences.get(work.sequence)
        if (
            sequence is None
            or sequence.group is not None
            or sequence.chunk is not None
            or sequence.length != work.position
        ):
            raise RingError(f"The ranks are not in step at position {work.position} of a prompt.")
        sequence.length += work.size
        outputs = self._stage(mx.array([list(work.tokens)]), inputs, sequence.caches)
        # The last stage's logits of a prompt are nobody's: they are never evaluated.
        tensors = [] if self._stage.last else outputs
        if not work.last:
            sequence.chunk = Unfinished(work.parts)
            return Computed(tensors, state=states(sequence.chunk.next(sequence.caches, 0)))
        return Computed(tensors, state=states(sequence.caches))

    def _continue(self, work: Continue) -> Computed:
        sequence = self._sequences.get(work.sequence)
        chunk = sequence.chunk if sequence is not None else None
        if (
            sequence is None
            or chunk is None
            or sequence.length != work.position + work.size
            or not chunk.done <= work.part < work.parts == chunk.parts
        ):
            raise RingError(f"The ranks are not in step in a chunk at position {work.position}.")
        if work.last:
            sequence.chunk = None
        return Computed(state=states(chunk.next(sequence.caches, work.part)))

    def _decode(self, work: Decode, inputs: Sequence[mx.array]) -> Computed:
        group = self._groups.get(work.group)
        rows = [] if group is None else self._rows(group)
        if group is None or tuple(row.length for row in rows) != work.positions:
            raise RingError(f"The ranks are not in step at positions {work.positions}.")
        tokens = _known(work.tokens, group.sampled)[:, None]
        drafts = work.drafts or ((),) * len(rows)
        longest = max(map(len, drafts))
        if longest:
            filled = [[*draft, *[0] * (longest - len(draft))] for draft in drafts]
            tokens = mx.concatenate([tokens, mx.array(filled, dtype=mx.int32)], axis=1)
        outputs = self._stage(tokens, inputs, group.caches)
        for row, draft in zip(rows, drafts, strict=True):
            row.length += 1 + len(draft)
        self._cut_rows(group, [longest - len(draft) for draft in drafts])
        computed = self._outcome(rows, work.positions, tokens, outputs, drafts, group.caches)
        if longest:
            self._turns.pop(work.group, None)
        else:
            self._note_turn(work.group, describe(inputs), computed)
        return computed

    def _outcome(
        self,
        rows: Sequence[CachedSequence],
        positions: Sequence[int],
        tokens: mx.array,
        outputs: list[mx.array],
        drafts: Drafts,
        caches: list[Cache],
    ) -> Computed:
        """What a decode step gives."""
        if not self._stage.last:
            return Computed(outputs, state=states(caches))
        drawn = draw(rows, positions, tokens, outputs[0], drafts)
        return Computed(drawn=drawn, state=states(caches) if any(drafts) else [])

    def _note_turn(self, number: int, shapes: list[Shape], computed: Computed) -> None:
        """A group has had a step without drafts: it is the last whose turn is next."""
        self._turns.pop(number, None)
        self._turns[number] = shapes
        if computed.drawn is not None:
            self._groups[number].sampled = computed.drawn.tokens.astype(mx.int32)

    def _rows(self, group: Batch) -> list[CachedSequence]:
        return [self._sequences[row] for row in group.rows]


def _known(given: Sequence[int], sampled: mx.array) -> mx.array:
    """The tokens to compute, (B,): those given, or those sampled last."""
    if LAST_SAMPLED not in given:
        return mx.array(list(given), dtype=mx.int32)
    if all(token == LAST_SAMPLED for token in given):
        return sampled
    tokens = mx.array(list(given), dtype=mx.int32)
    return mx.where(tokens == LAST_SAMPLED, sampled, tokens)
