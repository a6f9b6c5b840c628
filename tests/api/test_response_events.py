"""The events of a response, from what comes of a request: pure, and of OpenAI's own types."""

from itertools import count
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent

from exo.api.response_events import Answering, Event
from exo.api.response_ids import new_response_id
from exo.api.response_messages import decoded
from exo.api.response_views import ReasoningView, ResponseView, TextView
from exo.errors import ContextLengthExceeded, QueueFull, RunnerDied
from exo.inference.types import Delta, FinishReason, Stats, TokenLogprob, ToolCall
from tests.clients.strictness import strictly

from .said import SAID, delta

STATS = Stats(
    prompt_tokens=10,
    generation_tokens=5,
    cached_tokens=4,
    reasoning_tokens=2,
    queue_time=0,
    ttft=0,
    total_time=0,
    prompt_tps=0,
    generation_tps=0,
    peak_memory_usage=0,
)
STOP = delta(finish_reason=FinishReason.STOP)
CUT = delta(finish_reason=FinishReason.LENGTH)


def answering(**fields: Any) -> Answering:
    view = ResponseView(
        id=new_response_id("a"),
        created_at=1,
        status="in_progress",
        instructions=None,
        max_output_tokens=None,
        max_tool_calls=None,
        metadata={},
        model="m",
        output=[],
        parallel_tool_calls=True,
        previous_response_id=None,
        prompt_cache_key=None,
        reasoning=ReasoningView(),
        safety_identifier=None,
        temperature=1,
        text=TextView(format={"type": "text"}),
        tool_choice="auto",
        tools=[],
        top_logprobs=0,
        top_p=1,
        truncation="disabled",
        user=None,
    )
    return Answering(view, 3, **fields)


def told(made: Answering, *deltas: Delta) -> list[Event]:
    """All events, which are OpenAI's, in order, and say at the end what they said one by one."""
    events = made.begin()
    for each in deltas:
        events += made.take(each)
    events += made.end(STATS, 7)
    check(events)
    assert events[-1]["response"]["output"] == [
        event["item"] for event in events if event["type"] == "response.output_item.done"
    ]
    return events


def check(events: list[Event]) -> None:
    for number, event in zip(count(), events, strict=False):
        assert event["sequence_number"] == number
        strictly(ResponseStreamEvent, event)


def kinds(events: list[Event]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


TEXT = [
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
]
THOUGHT = [each.replace("output_text", "reasoning_text") for each in TEXT]
CALL = [
    "output_item.added",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_item.done",
]


def test_a_thought_and_an_answer():
    made = answering()
    events = told(made, delta(reasoning="Hm."), delta(text="Four."), STOP)
    assert kinds(events) == ["created", "in_progress", *THOUGHT, *TEXT, "completed"]
    thought, said = events[-1]["response"]["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert said["content"][0]["text"] == "Four."
    assert said["status"] == "completed"
    assert [event["output_index"] for event in events if "output_index" in event] == [0] * 6 + [
        1
    ] * 6
    assert {event["item_id"] for event in events if "item_id" in event} == {
        thought["id"],
        said["id"],
    }
    usage = events[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (10, 5, 15)
    assert usage["input_tokens_details"]["cached_tokens"] == 4
    assert usage["output_tokens_details"]["reasoning_tokens"] == 2
    assert (made.view.status, made.view.completed_at) == ("completed", 7)


def test_words_and_two_calls():
    events = told(answering(), *SAID)
    first = [*CALL[:2], *CALL[1:]]
    text = [*TEXT[:3], *TEXT[2:]]
    assert kinds(events) == ["created", "in_progress", *text, *first, *CALL, "completed"]
    said, one, two = events[-1]["response"]["output"]
    assert said["content"][0]["text"] == "I ask"
    assert (one["name"], one["arguments"]) == ("f", '{"a": 1}')
    assert (two["name"], two["arguments"]) == ("g", "{}")
    assert one["call_id"] != two["call_id"]
    assert one["call_id"].startswith("call_")


def test_what_is_said_behind_a_call_is_a_message_of_its_own():
    call = delta(calls=[ToolCall(index=0, name="f", arguments="{}")])
    events = told(answering(), delta(text="a"), call, delta(text="b"), STOP)
    assert [item["type"] for item in events[-1]["response"]["output"]] == [
        "message",
        "function_call",
        "message",
    ]


def test_an_answer_that_is_cut():
    events = told(answering(), delta(calls=[ToolCall(index=0, name="f", arguments='{"')]), CUT)
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["output"][0]["status"] == "incomplete"


def test_a_thought_that_is_cut_says_nothing():
    events = told(answering(), delta(reasoning="Hm"), CUT)
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning"]


@pytest.mark.parametrize("deltas", [[STOP], [delta(reasoning="Hm."), STOP]])
def test_an_answer_of_nothing_is_an_empty_message(deltas: list[Delta]):
    output = told(answering(), *deltas)[-1]["response"]["output"]
    assert output[-1]["content"][0]["text"] == ""


def test_log_probabilities_come_with_their_text():
    def token(text: str) -> TokenLogprob:
        top = [TokenLogprob(token=text, raw=text.encode(), logprob=-0.5)]
        return TokenLogprob(token=text, raw=text.encode(), logprob=-0.5, top=top)

    held = delta(logprobs=[token("a")])
    last = delta(logprobs=[token("!")], finish_reason=FinishReason.STOP)
    events = told(answering(), held, delta(text="ab", logprobs=[token("b")]), last)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [[each["token"] for each in event["logprobs"]] for event in deltas] == [
        ["a", "b"],
        ["!"],
    ]
    [said] = events[-1]["response"]["output"]
    assert [each["token"] for each in said["content"][0]["logprobs"]] == ["a", "b", "!"]
    assert said["content"][0]["logprobs"][0]["bytes"] == [97]


def test_a_thought_for_clients_that_keep_one_text():
    events = told(answering(encode=True), delta(reasoning="Hm."), delta(text="4"), STOP)
    thought = events[-1]["response"]["output"][0]
    assert decoded(thought["encrypted_content"]) == "Hm."
    assert thought in [event["item"] for event in events if "item" in event]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RunnerDied("It died."), "server_error"),
        (QueueFull("Full."), "rate_limit_exceeded"),
        (ContextLengthExceeded("Long."), "invalid_prompt"),
    ],
)
def test_an_error_is_the_last_event(error: Any, code: str):
    made = answering()
    events = [*made.begin(), *made.take(delta(text="We")), *made.fail(error)]
    check(events)
    assert events[-1]["type"] == "response.failed"
    response = events[-1]["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", code)
    assert response["output"][0]["status"] == "incomplete"
    strictly(Response, response)


def test_what_is_cancelled():
    made = answering()
    events = [*made.begin(), *made.take(delta(text="We")), *made.cancel()]
    check(events)
    assert events[-1]["type"] == "error"
    assert made.view.status == "cancelled"
    strictly(Response, made.view.model_dump(mode="json"))
