"""The planner against a model of the ranks: what they hold is always what the steps say."""

import itertools
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo.errors import RingError
from exo.inference.drafts import Drafter
from exo.inference.engine import Sampled, SequenceSpec
from exo.inference.planner import Planner, PlannerOptions
from exo.inference.prefix_index import PrefixIndex
from exo.inference.steps import (
    LAST_SAMPLED,
    Close,
    Continue,
    Decode,
    Forget,
    Join,
    Keep,
    Open,
    Prefill,
    Result,
    Step,
    Trim,
)
from exo.inference.types import FinishReason, Sampling

END = 999


@dataclass
class Ranks:
    """What every rank holds, as lists of tokens instead of tensors. The next token is a hash of
    all tokens before it, so a cache with a wrong token in it gives another answer."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    groups: dict[int, list[int]] = field(default_factory=dict)
    entries: dict[int, list[int]] = field(default_factory=dict)
    sampled: dict[int, int] = field(default_factory=dict)
    # Of chunks that are not computed to their end: parts that are, and of how many.
    unfinished: dict[int, tuple[int, int]] = field(default_factory=dict)
    number: int = 0
    prefilled: int = 0
    guessed: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    # What a decode step takes, in seconds, with every row more.
    per_row: float = 0.0

    def run(self, step: Step) -> Result:
        assert step.number == self.number
        self.number += 1
        for op in step.ops:
            self.apply(op)
        match step.work:
            case Prefill(sequence=sequence, position=position, tokens=tokens, parts=parts):
                assert tokens
                assert len(self.tokens[sequence]) == position
                assert all(sequence not in rows for rows in self.groups.values())
                assert sequence not in self.unfinished
                self.tokens[sequence] += tokens
                self.prefilled += len(tokens)
                if parts > 1:
                    self.unfinished[sequence] = 1, parts
            case Continue(sequence=sequence) as work:
                assert len(self.tokens[sequence]) == work.position + work.size
                done, parts = self.unfinished[sequence]
                assert done <= work.part < work.parts == parts
                self.unfinished[sequence] = work.part + 1, parts
                if work.last:
                    del self.unfinished[sequence]
            case Decode():
                return self.decode(step.number, step.work)
        return Result(number=step.number, seconds=(0.01,))

    def decode(self, number: int, work: Decode) -> Result:
        rows = self.groups[work.group]
        assert [len(self.tokens[row]) for row in rows] == list(work.positions)
        drawn = []
        drafts = work.drafts or ((),) * len(rows)
        for row, token, draft in zip(rows, work.tokens, drafts, strict=True):
            self.guessed += len(draft)
            for each in (token, *draft):
                self.tokens[row].append(self.sampled[row] if each == LAST_SAMPLED else each)
                self.sampled[row] = next_token(self.tokens[row])
                drawn.append(self.sampled[row])
        none = (None,) * len(drawn)
        failed = tuple((row, why) for row, why in self.failed.items() if row in rows)
        seconds = (0.01 + self.per_row * len(rows),)
        return Result(
            number=number, tokens=tuple(drawn), logprobs=none, seconds=seconds, failed=failed
        )

    def apply(self, op) -> None:
        match op:
            case Open():
                assert op.sequence not in self.tokens
                kept = [] if op.entry is None else self.entries[op.entry][: op.length]
                assert len(kept) == op.length
                self.tokens[op.sequence] = list(kept)
            case Join():
                assert op.sequence not in self.unfinished
                self.leave(op.sequence)
                self.groups.setdefault(op.group, []).append(op.sequence)
            case Keep():
                self.entries[op.entry] = list(self.tokens[op.sequence])
            case Close():
                del self.tokens[op.sequence]
                self.unfinished.pop(op.sequence, None)
                self.leave(op.sequence)
            case Forget():
                del self.entries[op.entry]
            case Trim():
                for sequence, count in op.counts.items():
                    assert 0 < count < len(self.tokens[sequence])
                    del self.tokens[sequence][-count:]

    def leave(self, sequence: int) -> None:
        for group, rows in list(self.groups.items()):
            if sequence in rows:
                rows.remove(sequence)
            if not rows:
                del self.groups[group]


def next_token(tokens: list[int]) -> int:
    found = hash(tuple(tokens)) % 50
    return END if found == 0 else found


def answer(prompt: list[int], max_tokens: int) -> list[int]:
    tokens, found = list(prompt), []
    while len(found) < max_tokens and END not in found:
        found.append(next_token(tokens))
        tokens.append(found[-1])
    return found


class Bench:
    def __init__(
        self,
        stages: int = 1,
        *,
        batchable: bool = True,
        kept: int = 1000,
        drafter: Drafter | None = None,
        slices: int = 1,
    ) -> None:
        options = PlannerOptions(stages, batchable, 8, frozenset({END}), slices=slices)
        self.planner = Planner(options, PrefixIndex(kept, 10**6), drafter)
        self.ranks = Ranks()
        self.flying: list[Step] = []
        self.answers: dict[int, list[Sampled]] = {}
        self.now = 0.0

    def add(self, sequence: int, prompt: list[int], max_tokens: int = 10, **fields) -> None:
        fields.setdefault("sampling", Sampling(temperature=0))
        self.planner.add([SequenceSpec(sequence, prompt, max_tokens, **fields)])
        self.answers[sequence] = []

    def send(self) -> Step | None:
        self.now += 0.001
        step = self.planner.next(self.now)
        if step is not None:
            self.flying.append(step)
        return step

    def land(self) -> None:
        self.now += 0.001
        result = self.ranks.run(self.flying.pop(0))
        for sampled in self.planner.done(result, self.now):
            self.answers[sampled.sequence_id].append(sampled)

    def run(self) -> None:
        while self.send() or self.flying:
            while self.send():
                pass
            if self.flying:
                self.land()

    def tokens(self, sequence: int) -> list[int]:
        return [sampled.token for sampled in self.answers[sequence]]


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("batchable", [True, False])
def test_many_answers_together_are_each_as_alone(stages: int, batchable: bool):
    bench = Bench(stages, batchable=batchable)
    prompts = {n: [n * 7 + i for i in range(1 + 5 * n)] for n in range(7)}
    for sequence, prompt in prompts.items():
        bench.add(sequence, prompt, max_tokens=5 + sequence)
    bench.run()
    for sequence, prompt in prompts.items():
        assert bench.tokens(sequence) == answer(prompt, 5 + sequence)
        last = bench.answers[sequence][-1].finish_reason
        assert last is (FinishReason.STOP if END in bench.tokens(sequence) else FinishReason.LENGTH)
    assert not bench.ranks.tokens
    assert not bench.ranks.groups


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 300),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.01]),
    st.randoms(use_true_random=False),
)
def test_whatever_comes_and_goes_in_whatever_order(
    stages, batchable, kept, slices, per_row, random: Random
):
    bench = Bench(stages, batchable=batchable, kept=kept, slices=slices if stages == 1 else 1)
    bench.ranks.per_row = per_row
    prompts: dict[int, tuple[list[int], int]] = {}
    open_now: set[int] = set()
    for sequence in range(random.randint(1, 8)):
        prompt = [random.randint(0, 2) for _ in range(random.randint(1, 100))]
        prompts[sequence] = prompt, random.randint(1, 12)
    waiting = list(prompts)
    while waiting or open_now or bench.flying:
        move = random.random()
        if waiting and move < 0.3:
            sequence = waiting.pop()
            bench.add(sequence, *prompts[sequence])
            open_now.add(sequence)
        elif open_now and move < 0.33:
            gone = random.choice(sorted(open_now))
            open_now.remove(gone)
            bench.planner.remove([gone])
        elif bench.flying and (move < 0.6 or not bench.send()):
            bench.land()
        elif not bench.flying and not bench.send() and not waiting:
            break
        open_now -= {s for s in open_now if bench.answers[s] and bench.answers[s][-1].finish_reason}
        assert bench.planner.in_flight == len(bench.flying) <= (2 * stages if stages > 1 else 1) + 1
    bench.run()
    assert not bench.ranks.tokens, "a sequence was not closed"
    for sequence, (prompt, most) in prompts.items():
        found = bench.tokens(sequence)
        assert found == answer(prompt, most)[: len(found)]


def test_chunks_flow_through_the_stages_one_behind_the_other():
    bench = Bench(stages=3)
    bench.add(1, list(range(100)))
    steps = [bench.send() for _ in range(4)]
    assert [step.work.position for step in steps] == [0, 8, 16, 24]
    assert bench.send() is None


def test_every_stage_has_a_group_to_work_on():
    bench = Bench(stages=3)
    for sequence in range(6):
        bench.add(sequence, [sequence], max_tokens=100)
    bench.send()
    groups = {step.work.group for step in [*bench.flying, bench.send(), bench.send()]}
    assert groups == {0, 1, 2}
    assert bench.planner._groups.sizes == [2, 2, 2]


def test_when_answers_end_rows_move_so_that_every_stage_has_work():
    bench = Bench(stages=2)
    bench.ranks.per_row = 0.01
    long = [n for n in range(200) if len(answer([n], 60)) == 60][:8]
    for sequence in long:
        bench.add(sequence, [sequence], max_tokens=60)
    while bench.planner.decoding < 8 or not all(bench.tokens(n) for n in long):
        bench.send()
        bench.land()
    assert bench.planner._groups.sizes == [4, 4]
    ended = bench.planner._groups[1]
    bench.planner.remove(ended)
    moves = []
    for _ in range(3):
        while step := bench.send():
            moves += [op for op in step.ops if isinstance(op, Join)]
        bench.land()
    assert len(moves) == 2
    assert bench.planner._groups.sizes == [2, 2]
    bench.run()
    for sequence in long:
        if sequence not in ended:
            assert bench.tokens(sequence) == answer([sequence], 60)


def prompt_beside_a_stream(tokens: int, slices: int = 1) -> Bench:
    """A stream that decodes, and a prompt of so many tokens that comes meanwhile."""
    bench = Bench(slices=slices)
    bench.add(1, [1], max_tokens=100)
    bench.send()
    bench.land()
    bench.add(2, list(range(tokens)))
    return bench


def test_a_prompt_and_answers_take_turns():
    bench = prompt_beside_a_stream(64)
    kinds = []
    for _ in range(8):
        while step := bench.send():
            kinds.append(type(step.work))
        bench.land()
    assert kinds.count(Prefill) >= 3
    assert all(a is not b for a, b in itertools.pairwise(kinds))


def in_parts() -> Bench:
    """A stream that decodes, and two steps of the first chunk of a prompt of 40 tokens beside it,
    in four parts."""
    bench = prompt_beside_a_stream(40, slices=4)
    begun = 0
    while begun < 2:
        step = bench.send()
        begun += isinstance(step.work, Prefill | Continue)
        bench.land()
    return bench


def test_between_the_parts_of_a_chunk_the_stream_has_its_steps():
    bench = prompt_beside_a_stream(40, slices=4)
    works = []
    for _ in range(10):
        while step := bench.send():
            works.append(step.work)
        bench.land()
    first, *rest = [work for work in works if not isinstance(work, Decode)]
    assert (first.position, first.parts) == (0, 4)
    assert [(work.position, work.part, work.size) for work in rest[:3]] == [
        (0, part, first.size) for part in (1, 2, 3)
    ]
    assert isinstance(rest[3], Prefill)
    assert rest[3].position == first.size
    assert all(isinstance(a, Decode) != isinstance(b, Decode) for a, b in itertools.pairwise(works))


def test_in_parts_the_answers_are_the_same():
    bench = in_parts()
    bench.add(3, list(range(20)), max_tokens=7)
    bench.run()
    assert bench.tokens(1) == answer([1], 100)
    assert bench.tokens(2) == answer(list(range(40)), 10)
    assert bench.tokens(3) == answer(list(range(20)), 7)


def test_the_rest_of_a_chunk_is_one_step_once_nobody_decodes():
    bench = in_parts()
    bench.planner.remove([1])
    while bench.flying:
        bench.land()
    work = bench.send().work
    assert isinstance(work, Continue)
    assert work.last
    bench.land()
    assert bench.send().work == Prefill(
        sequence=2, position=work.size, tokens=tuple(range(work.size, work.size + 8))
    )


def test_a_prompt_that_is_given_up_between_two_parts_is_kept_as_far_as_its_chunk_goes():
    bench = in_parts()
    size = len(bench.ranks.tokens[2])
    assert bench.ranks.unfinished == {2: (2, 4)}
    bench.planner.remove([2])
    bench.add(3, list(range(40)))
    bench.run()
    assert bench.answers[3][0].cached_tokens == size
    assert bench.tokens(3) == answer(list(range(40)), 10)
    assert not bench.ranks.unfinished


def test_what_a_chunk_costs_is_learned_once_from_its_parts(monkeypatch):
    bench = in_parts()
    learned = []
    monkeypatch.setattr(bench.planner.chunks, "prefilled", learned.append)
    while not learned:
        bench.send()
        bench.land()
    (chunk,) = learned
    assert (chunk.position, chunk.parts, chunk.slowest) == (0, 4, 0.01)


def test_nothing_is_learned_of_a_chunk_whose_last_parts_were_made_one(monkeypatch):
    bench = in_parts()
    learned = []
    monkeypatch.setattr(bench.planner.chunks, "prefilled", learned.append)
    bench.planner.remove([1])
    bench.run()
    assert learned
    assert all(chunk.position for chunk in learned)


def test_after_a_reset_between_two_parts_it_begins_anew():
    bench = in_parts()
    bench.planner.reset()
    bench.flying.clear()
    bench.ranks = Ranks()
    bench.add(2, list(range(40)))
    bench.run()
    assert bench.tokens(2)[-10:] == answer(list(range(40)), 10)


def test_what_the_parts_of_a_prompt_took_comes_with_its_first_token():
    bench = in_parts()
    steps = 2
    while not bench.answers[2]:
        step = bench.send()
        steps += isinstance(step.work, Prefill | Continue)
        bench.land()
    assert bench.answers[2][0].prompt_seconds == pytest.approx((0.01 * steps,))


def test_on_one_stage_the_next_step_does_not_wait_for_the_token():
    bench = Bench()
    bench.add(1, [5, 6, 7])
    work = [bench.send().work, bench.send().work]
    assert isinstance(work[0], Prefill)
    bench.land()
    assert bench.send().work.tokens == (LAST_SAMPLED,)


def test_answers_to_one_long_prompt_share_its_prefill():
    bench = Bench(stages=2)
    prompt = list(range(100))
    for index in range(3):
        bench.add(index, prompt, index=index)
    bench.run()
    assert bench.ranks.prefilled == 99
    assert [bench.answers[n][0].cached_tokens for n in range(3)] == [0, 99, 99]


def test_the_next_turn_reuses_prompt_and_answer():
    bench = Bench(stages=2)
    bench.add(1, list(range(70)), max_tokens=5)
    bench.run()
    longer = [*range(70), *bench.tokens(1), 1, 2, 3]
    bench.add(2, longer, max_tokens=5)
    bench.run()
    assert bench.answers[2][0].cached_tokens == 74
    assert bench.tokens(2) == answer(longer, 5)


def test_a_result_out_of_turn_or_of_other_rows_ends_the_ring():
    bench = Bench(stages=2)
    bench.add(1, [1, 2])
    step = bench.send()
    with pytest.raises(RingError, match="out of turn"):
        bench.planner.done(Result(number=step.number + 1), 0.0)
    with pytest.raises(RingError, match="not of its rows"):
        bench.planner.done(Result(number=step.number, tokens=(1,), logprobs=(None,)), 0.0)


def test_after_a_reset_it_begins_anew():
    bench = Bench(stages=2)
    bench.add(1, list(range(100)))
    bench.send()
    bench.planner.reset()
    bench.flying.clear()
    bench.ranks = Ranks()
    assert bench.send() is None
    bench.add(2, [1, 2, 3])
    bench.run()
    assert bench.tokens(2) == answer([1, 2, 3], 10)


def test_a_sequence_whose_grammar_fails_ends_alone():
    """Its last result may be a step late; the others of its group go on."""
    for stages in (1, 2):
        bench = Bench(stages)
        bench.add(1, [1, 2, 3], grammar="one")
        bench.add(2, [4, 5, 6])
        for _ in range(4):
            bench.send()
            bench.land()
        good = bench.tokens(1)
        bench.ranks.failed = {1: "too much"}
        bench.run()
        last = bench.answers[1][-1]
        assert (bench.tokens(1), last.failure) == ([*good, -1], "too much")
        assert bench.tokens(2) == answer([4, 5, 6], 10)
        assert not bench.ranks.tokens


def test_what_the_steps_of_a_prompt_took_comes_with_its_first_token():
    bench = Bench()
    bench.add(1, list(range(20)), max_tokens=3)
    bench.run()
    first, *others = bench.answers[1]
    chunks = -(-19 // bench.planner.chunks.next(groups=0).tokens)
    assert first.prompt_seconds == pytest.approx((0.01 * chunks,))
    assert others
    assert {each.prompt_seconds for each in others} == {()}
    assert {each.seconds for each in bench.answers[1]} == {(0.01,)}
