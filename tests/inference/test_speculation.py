"""Drafts: what is guessed, how much of it, and that nothing of an answer depends on it."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo.inference.drafts import NgramDrafter
from exo.inference.engine import SequenceSpec
from exo.inference.micro_batches import MicroBatches
from exo.inference.speculation import LONGEST, Speculation, agreed, expected
from exo.inference.types import FinishReason, Sampling
from tests.inference.test_planner import END, Bench, answer, next_token


class Oracle:
    """Knows what the ranks of the planner's tests will sample; of its guesses the share `wrong` is
    wrong."""

    def __init__(self, wrong: float = 0.3, seconds: float = 0.0) -> None:
        self._wrong = wrong
        self.seconds = seconds

    def draft(self, spec: SequenceSpec, generated: Sequence[int], count: int) -> tuple[int, ...]:
        tokens, found = [*spec.prompt, *generated], []
        for _ in range(count):
            before = [*tokens, *found]
            wrong = hash((*before, 0)) % 1000 < 1000 * self._wrong
            found.append(7 if wrong else next_token(before))
        return tuple(found)

    def forget(self, sequence_id: int) -> None:
        pass

    def clear(self) -> None:
        pass


def guess(prompt: Sequence[int], generated: Sequence[int] = (), count: int = 4) -> tuple[int, ...]:
    spec = SequenceSpec(1, prompt, 100, Sampling())
    return NgramDrafter().draft(spec, generated, count)


def test_what_came_after_the_same_tokens_is_guessed():
    assert guess([1, 2, 3, 4, 5, 6, 9, 2, 3]) == (4, 5, 6, 9)
    assert guess([1, 2, 3, 4], [5, 1, 2], count=3) == (3, 4, 5)
    assert guess([1, 2, 3, 4]) == ()
    assert guess([1, 2, 3, 1]) == ()  # One token is not enough to go by.


def test_the_longest_match_and_then_the_latest_one_counts():
    assert guess([1, 2, 3, 7, 2, 3, 8, 1, 2, 3], count=1) == (7,)
    assert guess([2, 3, 7, 2, 3, 8, 2, 3], count=1) == (8,)


def test_what_repeats_itself_is_guessed_on_and_on():
    assert guess([5, 6, 5, 6], count=7) == (5, 6, 5, 6, 5, 6, 5)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 9), st.data())
def test_a_drafter_that_is_asked_again_and_again_guesses_as_one_asked_once(tokens, count, data):
    spec = SequenceSpec(1, tokens[: data.draw(st.integers(1, len(tokens)))], 100, Sampling())
    drafter, generated = NgramDrafter(), []
    for token in [*tokens[len(spec.prompt) :], None]:
        assert drafter.draft(spec, generated, count) == guess([*spec.prompt, *generated], (), count)
        generated.append(token)


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_answers_are_the_same_however_good_the_drafts_are(stages: int, wrong: float):
    bench = Bench(stages, drafter=Oracle(wrong))
    prompts = {n: [n * 7 + i for i in range(1 + 5 * n)] for n in range(7)}
    for sequence, prompt in prompts.items():
        bench.add(sequence, prompt, max_tokens=5 + 3 * sequence)
    bench.run()
    assert bench.ranks.guessed
    for sequence, prompt in prompts.items():
        assert bench.tokens(sequence) == answer(prompt, 5 + 3 * sequence)
        ends = END in bench.tokens(sequence)
        reasons = [sampled.finish_reason for sampled in bench.answers[sequence]]
        assert reasons[-1] is (FinishReason.STOP if ends else FinishReason.LENGTH)
        assert not any(reasons[:-1])
    assert not bench.ranks.tokens


@settings(max_examples=200)
@given(st.integers(1, 4), st.booleans(), st.integers(0, 300), st.randoms(use_true_random=False))
def test_drafts_change_nothing_whatever_comes_and_goes(stages, batchable, kept, random: Random):
    bench = Bench(stages, batchable=batchable, kept=kept, drafter=Oracle())
    prompts: dict[int, tuple[list[int], int]] = {}
    for sequence in range(random.randint(1, 8)):
        prompt = [random.randint(0, 2) for _ in range(random.randint(1, 100))]
        prompts[sequence] = prompt, random.randint(1, 40)
    waiting, removed = list(prompts), set()
    while waiting or bench.flying:
        move = random.random()
        if waiting and move < 0.3:
            sequence = waiting.pop()
            bench.add(sequence, *prompts[sequence])
        elif move < 0.33 and bench.answers:
            gone = random.choice(sorted(bench.answers))
            removed.add(gone)
            bench.planner.remove([gone])
        elif bench.flying and (move < 0.6 or not bench.send()):
            bench.land()
        elif not bench.flying and not bench.send() and not waiting:
            break
    bench.run()
    assert not bench.ranks.tokens, "a sequence was not closed"
    for sequence, (prompt, most) in prompts.items():
        found, due = bench.tokens(sequence), answer(prompt, most)
        assert found == (due[: len(found)] if sequence in removed else due)


def test_the_next_turn_reuses_an_answer_that_had_drafts():
    bench = Bench(stages=2, drafter=Oracle())
    bench.add(1, list(range(70)), max_tokens=30)
    bench.run()
    known = [*range(70), *bench.tokens(1)]
    bench.add(2, [*known, 1, 2, 3], max_tokens=5)
    bench.run()
    assert bench.answers[2][0].cached_tokens == len(known) - 1


def test_an_answer_that_ends_within_a_draft_ends_there():
    assert agreed((4, END, 5), (4, END, 5, 6), frozenset({END})) == 1
    assert agreed((4, 5), (4, 5, 6), frozenset({END})) == 2
    assert agreed((4, 5), (3, 5, 6), frozenset({END})) == 0


def batches(stages: int, fixed: float, each: float, hop: float = 0.0) -> MicroBatches:
    """Of which it is known what a step takes: `fixed` seconds, and `each` for a position."""
    found = MicroBatches(stages)
    for positions in (1, 2, 4, 8, 16, 1, 2, 4):
        found.observe(positions, fixed + each * positions)
    found.travelled(hop)
    return found


def test_the_tokens_that_a_draft_gives_are_those_of_the_formula():
    assert expected(0.5, 2) == pytest.approx(1 + 0.5 + 0.25)
    assert expected(1.0, 3) == 4
    assert expected(0.0, 3) == 1


def test_drafts_are_as_long_as_they_are_right():
    lengths = []
    for right in (0, 2, 4):
        speculation = Speculation(Oracle(), batches(1, 0.010, 0.0005))
        for _ in range(50):
            speculation.verified(1, 4, right)
        lengths.append(speculation.length([1], 1))
    assert lengths[0] == 0
    assert 0 < lengths[1] < lengths[2] <= LONGEST


def test_drafts_are_longer_where_a_token_travels_long():
    def length(hop: float) -> int:
        speculation = Speculation(Oracle(), batches(3, 0.010, 0.004, hop))
        for _ in range(50):
            speculation.verified(1, 4, 3)
        return speculation.length([1], 1)

    assert length(0.0) < length(0.02)


def test_there_are_no_drafts_where_positions_cost_as_much_as_steps():
    speculation = Speculation(Oracle(), batches(1, 0.0, 0.010))
    assert speculation.length([1], 1) == 0


def test_many_streams_have_no_drafts():
    speculation = Speculation(Oracle(), batches(1, 0.010, 0.002))
    for _ in range(50):
        speculation.verified(1, 4, 3)
    assert speculation.length([1], 1)
    assert not speculation.length(list(range(64)), 1)


def test_a_drafter_that_takes_long_is_not_asked():
    assert Speculation(Oracle(seconds=0.1), batches(1, 0.010, 0.0005)).length([1], 1) == 0


def test_drafts_that_did_not_pay_are_tried_again_and_ever_more_rarely():
    speculation = Speculation(Oracle(wrong=1.0), batches(1, 0.010, 0.0005))
    spec = SequenceSpec(1, [1], 10**6, Sampling())
    tries = []
    for step in range(1000):
        length = speculation.length([1], 1)
        drafts = speculation.drafts([(spec, [])], length)
        if drafts:
            speculation.verified(1, len(drafts[0]), 0)
            tries.append(step)
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps[-1] > 200
    assert len(tries) < 30
