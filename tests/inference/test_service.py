"""The runner's service over the fake engine: no process, no socket, no real time."""

from dataclasses import replace
from pathlib import Path

import pytest

from exo.errors import EngineError
from exo.inference.engine import Sampled
from exo.inference.messages import (
    Accepted,
    Cancel,
    DraftStats,
    Finished,
    Generate,
    Load,
    LoadStats,
    RequestFailed,
    Tokens,
)
from exo.inference.runner.service import Service
from exo.inference.types import Delta, FinishReason, GenerateRequest
from tests.fakes.engine import FakeEngine

LOAD = Load(
    path=Path("model"),
    start_layer=0,
    end_layer=4,
    context_length=20,
    max_concurrency=2,
    max_queue=2,
    kv_tokens=100,
    kv_bytes_per_token=1,
    prefix_cache_bytes=0,
    cast_float32=False,
)


class Bench:
    """A service, its engine, a clock that is set by hand, and everything that it said."""

    def __init__(self) -> None:
        self.now = 100.0
        self.engine = FakeEngine()
        self.service = Service(self.engine, LOAD, lambda: self.now)
        self.said: list[object] = []

    def ask(self, text: str, request_id: str = "r", **fields: object) -> None:
        message = [{"role": "user", "content": text}]
        request = GenerateRequest.model_validate(
            {"request_id": request_id, "messages": message, **fields}
        )
        self.said += self.service.handle(Generate(request=request), self.engine.prepare(request))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 1
            self.said += self.service.step()

    def run(self) -> None:
        while self.service.busy:
            self.step()

    def deltas(self, request_id: str = "r", index: int = 0) -> list[Delta]:
        tokens = [m for m in self.said if isinstance(m, Tokens)]
        found = [d for m in tokens for d in m.deltas]
        return [d for d in found if (d.request_id, d.index) == (request_id, index)]

    def text(self, request_id: str = "r", index: int = 0) -> str:
        return "".join(delta.text for delta in self.deltas(request_id, index))

    def of(self, kind: type) -> list:
        return [message for message in self.said if isinstance(message, kind)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_answer_from_acceptance_to_statistics(bench: Bench):
    bench.ask("a b", max_tokens=3)
    bench.run()
    assert isinstance(bench.said[0], Accepted)
    assert bench.said[0].prompt_tokens == 2
    assert bench.text() == "a b a "
    assert bench.deltas()[-1].finish_reason is FinishReason.LENGTH
    stats = bench.of(Finished)[0].stats
    assert (stats.prompt_tokens, stats.generation_tokens) == (2, 3)
    # Accepted at 100, admitted at 101, tokens at 101, 102 and 103.
    assert (stats.queue_time, stats.ttft, stats.total_time) == (1, 1, 3)
    assert stats.generation_tps == pytest.approx(1.0)


def test_the_end_of_text_token_is_no_text(bench: Bench):
    bench.ask("a end")
    bench.run()
    assert bench.text() == "a "
    assert bench.deltas()[-1].finish_reason is FinishReason.STOP


def test_a_stop_string_over_two_tokens_ends_the_sequence_in_the_engine(bench: Bench):
    bench.ask("a b c d", stop=["b c"])
    bench.run()
    assert bench.text() == "a "
    assert bench.deltas()[-1].finish_reason is FinishReason.STOP
    assert bench.engine.removed == [0]


def test_answers_wait_for_a_slot_and_none_is_mixed_up(bench: Bench):
    for word in ("x", "y", "z"):
        bench.ask(word, request_id=word, max_tokens=4)
    bench.step()
    assert bench.engine.added == [0, 1]
    bench.run()
    assert [bench.text(word) for word in ("x", "y", "z")] == ["x " * 4, "y " * 4, "z " * 4]
    assert bench.of(Finished)[-1].stats.queue_time > 0


def test_n_answers_share_one_request(bench: Bench):
    bench.ask("a", n=2, max_tokens=2)
    bench.run()
    assert bench.text(index=0) == bench.text(index=1) == "a a "
    assert [message.stats.generation_tokens for message in bench.of(Finished)] == [4]


def test_a_full_queue_is_a_refusal(bench: Bench):
    for number in range(5):
        bench.ask("a", request_id=str(number))
    assert [m.error.code for m in bench.of(RequestFailed)] == ["queue_full"]


def test_a_context_that_does_not_fit_is_refused_with_the_numbers(bench: Bench):
    bench.ask("a " * 15, max_tokens=6)
    (failed,) = bench.of(RequestFailed)
    assert failed.error.code == "context_length_exceeded"
    assert "20 tokens" in failed.error.message
    assert "21 (15 of the messages, 6 for the answer)" in failed.error.message
    bench.ask("a " * 20, request_id="full")
    assert bench.of(RequestFailed)[-1].error.code == "context_length_exceeded"


def test_without_max_tokens_the_answer_may_fill_the_context(bench: Bench):
    bench.ask("a " * 15)
    bench.run()
    assert len(bench.deltas()) == 5


def test_a_cancelled_request_frees_its_slot_at_the_next_step(bench: Bench):
    bench.ask("a", request_id="one")
    bench.ask("b", request_id="two")
    bench.ask("c", request_id="three", max_tokens=2)
    bench.step()
    bench.said += bench.service.handle(Cancel(request_id="one"))
    bench.step()
    assert bench.engine.removed == [0]
    assert bench.text("three") == "c "


def test_cancelling_what_waits_or_is_unknown_does_not_disturb_the_engine(bench: Bench):
    bench.ask("a", n=2)
    bench.ask("b", request_id="waiting")
    bench.step()
    bench.service.handle(Cancel(request_id="waiting"))
    bench.service.handle(Cancel(request_id="unknown"))
    assert bench.engine.removed == []
    bench.run()
    assert bench.text("waiting") == ""


def test_a_request_whose_grammar_fails_is_told_why_and_others_go_on(bench: Bench):
    form = {"kind": "regex", "text": "a", "param": "structured_outputs.regex"}
    bench.ask("a astray", request_id="one", n=2, format=form, max_tokens=5)
    bench.ask("b end", request_id="other")
    bench.run()
    [failed] = bench.of(RequestFailed)
    assert (failed.request_id, failed.error.param) == ("one", "structured_outputs.regex")
    assert "it went astray" in failed.error.message
    assert [finished.request_id for finished in bench.of(Finished)] == ["other"]
    assert not bench.engine.sequences


def test_when_a_step_fails_every_request_is_told(bench: Bench):
    bench.ask("fail", request_id="one")
    bench.ask("a", request_id="two")
    with pytest.raises(RuntimeError):
        bench.step()
    failed = bench.service.fail_all(EngineError("It failed."))
    assert {each.request_id for each in failed[:-1]} == {"one", "two"}
    assert failed[-1] == LoadStats(running=0, waiting=0, kv_capacity=100)
    assert not bench.service.busy


def test_logprobs_are_given_for_each_token_when_asked_for(bench: Bench):
    bench.ask("a end", logprobs=2)
    bench.run()
    first, last = bench.deltas()
    assert first.logprobs[0].token == "a "
    assert len(first.logprobs[0].top) == 2
    assert last.logprobs == []


class DraftingEngine(FakeEngine):
    """Says of every step that it guessed a token more."""

    def step(self) -> list[Sampled]:
        self.guessed = getattr(self, "guessed", 0) + 1
        return super().step()

    @property
    def draft_stats(self) -> DraftStats:
        return DraftStats(guessed=getattr(self, "guessed", 0), accepted=1)


def test_what_became_of_drafts_is_told_every_second_and_at_the_end():
    bench = Bench()
    bench.engine = DraftingEngine()
    bench.service = Service(bench.engine, LOAD, lambda: bench.now)
    bench.ask("a b", max_tokens=10)
    for _ in range(9):
        bench.now += 0.3
        bench.said += bench.service.step()
    assert [stats.guessed for stats in bench.of(DraftStats)] == [1, 5, 9]
    bench.now += 0.1
    bench.said += bench.service.step()
    assert [stats.guessed for stats in bench.of(DraftStats)] == [1, 5, 9, 10]


def test_a_prompt_without_a_token_is_refused(bench: Bench):
    bench.ask("")
    assert bench.of(RequestFailed)[0].error.param == "messages"
    assert not bench.service.busy


def test_what_there_is_to_do_is_told_every_second_and_at_the_end(bench: Bench):
    for name in ("one", "two", "three"):
        bench.ask("a b", request_id=name, max_tokens=3)
    bench.run()
    full = LoadStats(running=2, waiting=1, kv_reserved=10, kv_capacity=100)
    last = LoadStats(running=1, waiting=0, kv_reserved=5, kv_capacity=100)
    idle = LoadStats(running=0, waiting=0, kv_capacity=100)
    assert bench.of(LoadStats) == [full, last, idle]


def test_a_request_that_was_the_last_one_leaves_nothing_to_do(bench: Bench):
    bench.ask("a b")
    bench.step()
    assert bench.of(LoadStats)[-1].running == 1
    bench.said += bench.service.handle(Cancel(request_id="r"))
    assert bench.of(LoadStats)[-1] == LoadStats(running=0, waiting=0, kv_capacity=100)


class TimedEngine(FakeEngine):
    """Its steps take 1 s in the first stage and 2 s in the second, prompts ten times that; with
    every token comes another one of the same step."""

    def step(self) -> list[Sampled]:
        self.number = getattr(self, "number", 0) + 1
        spent = {"step": self.number, "seconds": (1.0, 2.0)}
        found: list[Sampled] = []
        for _ in range(2):
            for each in super().step():
                known = self.sequences.get(each.sequence_id)
                first = known is not None and known[1] == 1
                prompt = (10.0, 20.0) if first else ()
                found.append(replace(each, **spent, prompt_seconds=prompt))
        return found


def test_how_long_each_stage_computed_for_a_request_is_told(bench: Bench):
    """A step counts once, however many of its tokens and answers are the request's."""
    bench.engine = TimedEngine()
    bench.service = Service(bench.engine, LOAD, lambda: bench.now)
    bench.ask("a b", max_tokens=6, n=2)
    bench.run()
    (finished,) = bench.of(Finished)
    assert finished.stats.prefill_stages == (20.0, 40.0), "each answer has a prompt of its own"
    assert finished.stats.decode_stages == (3.0, 6.0)
