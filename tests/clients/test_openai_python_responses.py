"""The `openai` Python client: responses, in conversations, streamed, parsed, in the background."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import BaseModel, Field

from tests.e2e.daemon import Daemon

from .strictness import strictly

pytestmark = pytest.mark.e2e

MODEL = "exo-demo"
START = "How do I start exo?"
WEATHER = "What is the weather in Paris?"
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Returns the weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def ask(client: OpenAI, asked: Any, **fields: Any) -> Response:
    fields = {"temperature": 0, "max_output_tokens": 100, **fields}
    return client.responses.create(model=MODEL, input=asked, **fields)


BODIES: list[dict[str, Any]] = [
    {"input": START, "metadata": {"a": "b"}, "user": "me", "instructions": "Be brief."},
    {"input": START, "max_output_tokens": 3, "top_logprobs": 2, "reasoning": {"effort": None}},
    {"input": WEATHER, "tools": [TOOL], "include": ["message.output_text.logprobs"]},
    {
        "input": [{"role": "user", "content": START}],
        "tools": [TOOL, {"type": "function", "name": "f"}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "get_weather"}],
        },
    },
    {"input": START, "text": {"format": {"type": "json_object"}}, "truncation": "auto"},
]


@pytest.mark.parametrize("fields", BODIES, ids=lambda value: repr(value)[:40])
def test_every_answer_and_event_is_of_openais_types(shared: Daemon, fields: dict[str, Any]) -> None:
    body = {"model": MODEL, "temperature": 0, "max_output_tokens": 60, "seed": 1, **fields}
    whole = shared.post("/v1/responses", body)
    strictly(Response, whole)
    assert shared.get(f"/v1/responses/{whole['id']}") == whole
    strictly(ResponseItemList, shared.get(f"/v1/responses/{whole['id']}/input_items"))
    events: list[Any] = []
    request = {**body, "stream": True}
    with shared.http.stream("POST", "/v1/responses", json=request) as response:
        for line in response.iter_lines():
            if line.startswith("event: "):
                events.append(line.removeprefix("event: "))
            elif line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                assert event["type"] == events[-1]
                events[-1] = event
    for number, event in enumerate(events):
        strictly(ResponseStreamEvent, event)
        assert event["sequence_number"] == number
    streamed = events[-1]["response"]
    assert said(streamed) == said(whole)
    assert shared.get(f"/v1/responses/{streamed['id']}") == streamed


def said(response: Any) -> Any:
    """What was answered, but for ids."""
    ids = {"id", "call_id"}
    return [{k: v for k, v in item.items() if k not in ids} for item in response["output"]]


def test_a_conversation_goes_on_by_id(client: OpenAI) -> None:
    first = ask(client, WEATHER, tools=[TOOL])
    assert first.status == "completed"
    [call] = first.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    result = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": "sunny, 21 degrees",
    }
    second = ask(client, [result], previous_response_id=first.id)
    assert "21" in second.output_text
    # The same, as clients have it that keep everything themselves.
    kept = [{"role": "user", "content": WEATHER}, *first.output, result]
    assert ask(client, kept, store=False).output_text == second.output_text
    # Or only what the items are called.
    named = [
        {"role": "user", "content": WEATHER},
        {"type": "item_reference", "id": call.id},
        result,
    ]
    assert ask(client, named).output_text == second.output_text
    # It does not depend on the first one any more.
    client.responses.delete(first.id)
    items = client.responses.input_items.list(second.id, order="asc", limit=2)
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]


def test_a_stream(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=START, temperature=0) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(pieces) == final.output_text == ask(client, START).output_text
    assert len(pieces) > 3


def test_a_call_is_streamed(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=WEATHER, temperature=0, tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        [call] = stream.get_final_response().output
    assert kinds.count("response.function_call_arguments.delta") > 2
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Paris"}


class Person(BaseModel):
    age: int = Field(ge=0, le=150)
    clever: bool


def test_an_answer_is_parsed(client: OpenAI) -> None:
    found = client.responses.parse(
        model=MODEL, input="JSON of a person", text_format=Person, temperature=1.5
    )
    assert isinstance(found.output_parsed, Person)


def test_an_answer_that_is_cut(client: OpenAI) -> None:
    found = ask(client, START, max_output_tokens=3)
    assert found.status == "incomplete"
    assert found.incomplete_details
    assert found.incomplete_details.reason == "max_output_tokens"
    assert found.usage
    assert found.usage.output_tokens == 3


def test_tokens_are_counted(client: OpenAI) -> None:
    first = ask(client, START)
    counted = client.responses.input_tokens.count(
        model=MODEL, input="And then?", previous_response_id=first.id
    )
    second = ask(client, "And then?", previous_response_id=first.id)
    assert second.usage
    assert counted.input_tokens == second.usage.input_tokens


def test_turns_that_do_not_fit_are_left_out_if_they_may(client: OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "word " * 400} for _ in range(20)]
    asked.append({"role": "user", "content": START})
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, asked)
    assert caught.value.code == "context_length_exceeded"
    assert ask(client, asked, truncation="auto").output_text


def test_in_the_background(client: OpenAI) -> None:
    begun = client.responses.create(
        model=MODEL, input=START, temperature=0, background=True, stream=True
    )
    events = list(begun)
    assert events[-1].type == "response.completed"
    name = events[-1].response.id
    again = client.responses.retrieve(name, stream=True, starting_after=2)
    assert [event.type for event in again] == [event.type for event in events[3:]]
    assert client.responses.retrieve(name).output_text == ask(client, START).output_text
    assert client.responses.cancel(name).status == "completed"


def test_the_background_is_cancelled(client: OpenAI, shared: Daemon) -> None:
    begun = client.responses.create(model="tiny-endless", input="x", temperature=0, background=True)
    assert begun.status == "in_progress"
    assert client.responses.retrieve(begun.id).status == "in_progress"
    with pytest.raises(openai.BadRequestError, match="not complete"):
        ask(client, "y", previous_response_id=begun.id)
    assert client.responses.cancel(begun.id).status == "cancelled"
    assert client.responses.retrieve(begun.id).status == "cancelled"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_not_found", "previous_response_id"),
        ({"input": [{"id": "msg_1"}]}, "invalid_request", "input"),
        ({"model": "tiny", "tools": [TOOL]}, "invalid_request", "tools"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools"),
        ({"max_output_tokens": 10**6}, "context_length_exceeded", "input"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(
    client: OpenAI, fields: dict[str, Any], code: str, param: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": MODEL, "input": START, "stream": stream, **fields})
    assert (caught.value.code, caught.value.param) == (code, param)


def test_what_is_not_there(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.NotFoundError):
        client.responses.delete("resp_1")
    found = ask(client, START, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(found.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(ask(client, START).id)
