"""Which step is next: pure. It knows the sequences, not their tensors.

Prompts are computed in chunks, one prompt after the other, all but the last token; then a sequence
joins a group, a micro-batch, and every step of the group gives each of its rows a token. Groups and
the prompt take turns, so that none waits for long; as many steps are in flight as keep all stages
of a pipeline at work. On a single stage a chunk may take several turns, a part of the layers in
each, and a group's next step is planned before the tokens of the last one are known, unless drafts
are worth more: a draft follows what is known.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from exo.errors import RingError
from exo.inference.chunk_size import ChunkSize
from exo.inference.copies import Copies
from exo.inference.course import Course
from exo.inference.drafts import Drafter
from exo.inference.engine import Sampled, SequenceSpec
from exo.inference.flight import Flight
from exo.inference.meter import Meter
from exo.inference.micro_batches import MicroBatches
from exo.inference.prefix_index import PrefixIndex
from exo.inference.row_groups import RowGroups
from exo.inference.speculation import Speculation, agreed
from exo.inference.steps import (
    Chosen,
    Close,
    Continue,
    Decode,
    Forget,
    Join,
    Keep,
    Op,
    Prefill,
    Result,
    Step,
    Trim,
)
from exo.inference.types import FinishReason

# Shorter prompts are computed again sooner than their caches are copied.
_WORTH_KEEPING = 64
_PROMPT = "prompt"
Lane = int | str
_Drawn = tuple[int, Chosen | None]


@dataclass(frozen=True)
class PlannerOptions:
    """`stages` of the pipeline; whether sequences can be computed as rows of one batch; the
    largest chunk of a prompt; the tokens that end an answer; whether a single stage can compute a
    token that is not known yet (`ahead`), and into how many parts of its layers it can divide a
    chunk (`slices`)."""

    stages: int
    batchable: bool
    prefill_step: int
    end_tokens: frozenset[int]
    ahead: bool = True
    slices: int = 1


_Taken = tuple[Course, list[_Drawn], str | None]


class Planner:
    """Sequences in, steps out, results in, tokens out."""

    def __init__(
        self, options: PlannerOptions, prefixes: PrefixIndex, drafter: Drafter | None = None
    ) -> None:
        self._options = options
        self._prefixes = prefixes
        self._per_group = 2 if options.stages == 1 else 1
        self.chunks = ChunkSize(options.prefill_step, options.stages, options.slices)
        self.batches = MicroBatches(options.stages)
        self.meter = Meter(options.stages)
        self.speculation = Speculation(drafter, self.batches)
        self._sequences: dict[int, Course] = {}
        self._queue: deque[int] = deque()
        self._groups = RowGroups()
        self._copies = Copies()
        self._turns: dict[Lane, int] = {}
        self._flights: deque[Flight] = deque()
        self._ops: list[Op] = []
        self._number = 0

    @property
    def in_flight(self) -> int:
        """Steps whose result has not come."""
        return len(self._flights)

    @property
    def decoding(self) -> int:
        """Sequences whose prompt is done."""
        return sum(self._groups.sizes)

    @property
    def groups(self) -> int:
        """Groups that have rows."""
        return len(self._groups)

    def add(self, specs: Sequence[SequenceSpec]) -> None:
        """Begin to compute sequences."""
        for spec in specs:
            self._sequences[spec.sequence_id] = Course(spec)
            self._queue.append(spec.sequence_id)

    def remove(self, sequence_ids: Sequence[int]) -> None:
        """Give up sequences; what is computed of them stays of use. Those that have finished in
        the meantime are none of them any more."""
        for sequence_id in sequence_ids:
            sequence = self._sequences.pop(sequence_id, None)
            if sequence is None:
                continue
            if sequence_id in self._queue:
                self._queue.remove(sequence_id)
            self._end(sequence)

    def reset(self) -> None:
        """Forget everything: the caches are gone."""
        self._sequences.clear()
        self._queue.clear()
        self._groups.clear()
        self._copies.clear()
        self._turns.clear()
        self._flights.clear()
        self._ops.clear()
        self._prefixes.clear()
        self.speculation.clear()
        self._number = 0

    # Steps.

    def next(self, now: float) -> Step | None:
        """The next step to carry out; None if nothing can be, before a result has come."""
        if len(self._flights) >= self._depth:
            return None
        self._finish_prompts()
        self._regroup()
        flight = self._plan()
        if flight is None:
            return None
        self._ops = []
        self._number += 1
        flight.sent, flight.alone = now, not self._flights
        flight.copies = self._copies.in_step(flight.step, self._groups)
        self._flights.append(flight)
        return flight.step

    @property
    def _depth(self) -> int:
        """Steps in flight at most. One stage is kept busy by the step after the one it computes;
        several by one for each group and one more, where groups beyond one for each stage lie
        ready at the slower stage."""
        stages = self._options.stages
        if stages == 1:
            return 2 if self._options.ahead else 1
        return min(max(len(self._groups), stages), 2 * stages) + 1

    def done(self, result: Result, now: float) -> list[Sampled]:
        """Take in the result of the oldest step in flight. Times are in seconds.

        Raises:
            RingError: it is of another step.
        """
        flight = self._flights[0] if self._flights else None
        if flight is None or result.number != flight.step.number:
            raise RingError(f"The ring brought the result of step {result.number} out of turn.")
        work = flight.step.work
        due = work.sampled if isinstance(work, Decode) else 0
        if len(result.tokens) != due or len(result.logprobs) != due:
            raise RingError(f"The result of step {result.number} is not of its rows.")
        self._flights.popleft()
        self._observe(flight, result, now)
        found = self._taken(flight, result)
        return [told for each in found for told in self._told(*each, result)]

    def _taken(self, flight: Flight, result: Result) -> list[_Taken]:
        """By row of a step, what was sampled for it, as far as its draft was right; the rest of
        the draft is to be taken out of the caches. Or why nothing was."""
        found: list[_Taken] = []
        wrong: dict[int, int] = {}
        failed = dict(result.failed)
        drawn = iter(zip(result.tokens, result.logprobs, strict=True))
        for row, draft in zip(flight.rows, flight.drafts or ((),) * len(flight.rows), strict=True):
            each = list(islice(drawn, 1 + len(draft)))
            name = row.spec.sequence_id
            if self._sequences.get(name) is not row:
                continue
            right = agreed(draft, [token for token, _ in each], self._options.end_tokens)
            found.append((row, each[: right + 1], failed.get(name)))
            self.speculation.verified(name, len(draft), right)
            if right < len(draft):
                wrong[name] = len(draft) - right
                row.position -= wrong[name]
                row.planned -= wrong[name]
        if wrong:
            self._ops.append(Trim(counts=wrong))
        return found

    def _plan(self) -> Flight | None:
        lanes = [group for group in self._groups if self._is_ready(group)]
        ready: list[Lane] = [*lanes, *([_PROMPT] if self._queue else [])]
        for lane in sorted(ready, key=lambda each: self._turns.get(each, -1)):
            flight = self._prefill() if isinstance(lane, str) else self._decode(lane)
            if flight is not None:
                self._turns[lane] = self._number
                return flight
        return Flight(Step(number=self._number, ops=tuple(self._ops))) if self._ops else None

    def _is_ready(self, group: int) -> bool:
        flying = [flight for flight in self._flights if flight.group == group]
        if len(flying) >= self._per_group or any(flight.drafts for flight in flying):
            return False
        return not flying or not self._draft_length(group)

    def _draft_length(self, group: int) -> int:
        return self.speculation.length(self._groups[group], len(self._groups))

    def _prefill(self) -> Flight:
        sequence = self._sequences[self._queue[0]]
        if sequence.chunk is not None and sequence.in_chunk:
            # Where nobody waits any more, nothing is gained by parts.
            work = sequence.continue_chunk(sequence.chunk, to_its_end=not self._groups)
        else:
            work = sequence.begin_chunk(
                *self.chunks.next(
                    groups=len(self._groups), context=sequence.position, hop=self.batches.hop
                )
            )
        step = Step(number=self._number, ops=tuple(self._ops), work=work)
        return Flight(step, chunk=sequence.chunk)

    def _decode(self, group: int) -> Flight | None:
        for row in [self._sequences[row] for row in self._groups[group]]:
            if row.planned >= row.spec.max_tokens:
                self._close(row)
        rows = tuple(self._sequences[row] for row in self._groups[group])
        if not rows:
            return None
        known = [(row.spec, row.generated) for row in rows]
        drafts = self.speculation.drafts(known, self._draft_length(group))
        work = Decode(
            group=group,
            positions=tuple(row.position for row in rows),
            tokens=tuple(row.next_token() for row in rows),
            drafts=drafts,
        )
        for row, draft in zip(rows, drafts or ((),) * len(rows), strict=True):
            row.position += 1 + len(draft)
            row.planned += 1 + len(draft)
        step = Step(number=self._number, ops=tuple(self._ops), work=work)
        return Flight(step, rows, group, drafts)

    def _finish_prompts(self) -> None:
        """Open the sequence at the head of the queue; let those whose prompt is done join a group,
        as far as groups are not too many for one batch."""
        while self._queue:
            sequence = self._sequences[self._queue[0]]
            if not sequence.opened:
                self._open(sequence)
            if not sequence.prompt_done:
                return
            self._queue.popleft()
            self._join(sequence)

    def _open(self, sequence: Course) -> None:
        spec = sequence.spec
        entry, length = None, 0
        if spec.use_prefix_cache:
            entry, length = self._prefixes.match(spec.prompt)
        self._ops.append(sequence.open(entry, length))

    def _join(self, sequence: Course) -> None:
        prompt = sequence.spec.prompt[:-1]
        if sequence.spec.use_prefix_cache and len(prompt) - sequence.cached >= _WORTH_KEEPING:
            self._keep(sequence, prompt)
        name = group = sequence.spec.sequence_id
        if self._options.batchable:
            group = self._groups.smallest(len(self.batches.division(self.decoding + 1)))
        self._groups.add(name, group)
        self._ops.append(Join(sequence=name, group=group))

    def _regroup(self) -> None:
        """Move rows where the groups have become worse than they could be, as answers ended and
        more was learned. A group of which rows are being computed waits for its turn."""
        if not self._options.batchable:
            return
        busy = {flight.group for flight in self._flights if flight.group is not None}
        while (division := self.batches.better(self._groups.sizes)) and (
            move := self._groups.move(len(division), busy)
        ):
            self._ops.append(Join(sequence=move[0], group=move[1]))

    def _keep(self, sequence: Course, tokens: Sequence[int]) -> None:
        entry = self._prefixes.reserve()
        self._ops.append(Keep(sequence=sequence.spec.sequence_id, entry=entry))
        self._forget(self._prefixes.put(entry, tokens))

    def _forget(self, entries: Sequence[int]) -> None:
        self._ops += [Forget(entry=entry) for entry in entries]

    # Ends.

    def _close(self, sequence: Course) -> None:
        """Have the ranks forget a sequence, and keep what is of use of it. Its last tokens may not
        be known yet, so what the entry holds is said when they are."""
        if sequence.closed or not sequence.opened:
            return
        sequence.closed = True
        name = sequence.spec.sequence_id
        if sequence.spec.use_prefix_cache and sequence.position:
            sequence.entry = self._prefixes.reserve()
            self._ops.append(Keep(sequence=name, entry=sequence.entry))
        self._ops.append(Close(sequence=name))
        group = self._groups.remove(name)
        if group is not None and group not in self._groups:
            self._turns.pop(group, None)

    def _end(self, sequence: Course) -> None:
        self._close(sequence)
        self.speculation.forget(sequence.spec.sequence_id)
        if sequence.entry is not None:
            tokens = [*sequence.spec.prompt, *sequence.generated][: sequence.position]
            known = len(tokens) == sequence.position
            entry = sequence.entry
            self._forget(self._prefixes.put(entry, tokens) if known else [entry])

    def _sampled(
        self, sequence: Course, token: int, chosen: Chosen | None, result: Result
    ) -> Sampled:
        first = not sequence.generated
        sequence.generated.append(token)
        reason = None
        if token in self._options.end_tokens:
            reason = FinishReason.STOP
        elif len(sequence.generated) >= sequence.spec.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None:
            del self._sequences[sequence.spec.sequence_id]
            self._end(sequence)
        shown = chosen if reason is not FinishReason.STOP else None
        return Sampled(
            sequence_id=sequence.spec.sequence_id,
            token=token,
            finish_reason=reason,
            logprob=shown.logprob if shown else None,
            top=shown.top if shown else (),
            cached_tokens=sequence.cached,
            step=result.number,
            seconds=result.seconds,
            prompt_seconds=sequence.spent if first else (),
        )

    def _told(
        self,
        sequence: Course,
        found: list[_Drawn],
        failure: str | None,
        result: Result,
    ) -> list[Sampled]:
        if failure is None:
            return [self._sampled(sequence, *drawn, result) for drawn in found]
        del self._sequences[sequence.spec.sequence_id]
        self._end(sequence)
        return [Sampled(sequence.spec.sequence_id, token=-1, failure=failure)]

    def _observe(self, flight: Flight, result: Result, now: float) -> None:
        slowest = max(result.seconds, default=0.0)
        decode = isinstance(flight.step.work, Decode)
        self.meter.landed(result.seconds, flight.sent, decode=decode)
        match flight.step.work:
            case Prefill() | Continue() as work:
                if chunk := flight.chunk:
                    chunk.slowest = max(chunk.slowest, slowest)
                    if work.last and chunk.comparable:
                        self.chunks.prefilled(chunk)
                if sequence := self._sequences.get(work.sequence):
                    sequence.spend(result.seconds)
            case Decode() as work:
                self.chunks.decoded(slowest, beside=bool(self._queue))
                if not flight.copies:
                    self.batches.observe(work.computed, slowest)
                # Drafts are made after the time that counts as the step's beginning.
                if flight.alone and not self._flights and not flight.drafts:
                    waited = now - flight.sent - sum(result.seconds)
                    self.batches.travelled(waited / self._options.stages)
            case None:
                pass
