"""The `anthropic` Python client: messages, streams, tools, and counted tokens."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e

MODEL = "exo-demo"
# A field that clients of older models send, and this one does not know.
GREEDY = {"temperature": 0}
START: list[Any] = [{"role": "user", "content": "How do I start exo?"}]
WEATHER: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL: Any = {
    "name": "get_weather",
    "description": "Returns the weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def claude(shared: Daemon) -> Iterator[Anthropic]:
    with Anthropic(base_url=shared.base_url, api_key="none", max_retries=0) as client:
        yield client


def ask(claude: Anthropic, messages: list[Any], **fields: Any) -> Message:
    fields = {"model": MODEL, "max_tokens": 100, "extra_body": GREEDY, **fields}
    return claude.messages.create(messages=messages, **fields)


def text(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message(claude: Anthropic) -> None:
    message = ask(claude, START)
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert "exo" in text(message)
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens > 3
    again = ask(claude, START)
    read = again.usage.cache_read_input_tokens or 0
    assert again.usage.input_tokens + read == message.usage.input_tokens + (
        message.usage.cache_read_input_tokens or 0
    )


def test_a_system_prompt_and_blocks(claude: Anthropic) -> None:
    blocks = [{"type": "text", "text": START[0]["content"], "cache_control": {"type": "ephemeral"}}]
    plain = ask(claude, [{"role": "user", "content": blocks}], system="Answer shortly.")
    told = ask(claude, START, system=[{"type": "text", "text": "Answer shortly."}])
    assert text(plain) == text(told)
    assert plain.usage.input_tokens + (plain.usage.cache_read_input_tokens or 0) > 10


def test_a_stream_tells_the_same(claude: Anthropic) -> None:
    with claude.messages.stream(
        model=MODEL, max_tokens=100, extra_body=GREEDY, messages=START
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    whole = ask(claude, START)
    assert "".join(pieces) == text(final) == text(whole)
    assert len(pieces) > 3
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_length_and_stop_sequences(claude: Anthropic) -> None:
    assert ask(claude, START, max_tokens=3).stop_reason == "max_tokens"
    stopped = ask(claude, START, stop_sequences=["exo"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "exo")
    assert "exo" not in text(stopped)


def test_a_beginning_is_continued(claude: Anthropic, shared: Daemon) -> None:
    messages = [*START, {"role": "assistant", "content": "Run `exo"}]
    body = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 100}
    chat = shared.http.post("/v1/chat/completions", json=body).json()
    assert text(ask(claude, messages)) == chat["choices"][0]["message"]["content"]


def test_a_loop_of_call_result_and_answer(claude: Anthropic) -> None:
    messages = list(WEATHER)
    first = ask(claude, messages, tools=[TOOL])
    assert first.stop_reason == "tool_use"
    [use] = [block for block in first.content if block.type == "tool_use"]
    assert (use.name, use.input) == ("get_weather", {"city": "Paris"})
    messages.append({"role": "assistant", "content": first.content})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny, 21 degrees"}
    messages.append({"role": "user", "content": [result]})
    second = ask(claude, messages, tools=[TOOL])
    assert second.stop_reason == "end_turn"
    assert "21" in text(second)


def test_a_call_is_streamed(claude: Anthropic) -> None:
    with claude.messages.stream(
        model=MODEL, max_tokens=100, extra_body=GREEDY, messages=WEATHER, tools=[TOOL]
    ) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert events.count("input_json") > 2
    [use] = [block for block in final.content if block.type == "tool_use"]
    assert use.input == {"city": "Paris"}
    assert final.stop_reason == "tool_use"


def test_a_call_may_be_required(claude: Anthropic) -> None:
    hello: list[Any] = [{"role": "user", "content": "Hello"}]
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        message = ask(claude, hello, tools=[TOOL], tool_choice=choice)
        assert {block.type for block in message.content} == {"tool_use"}
    none = ask(claude, WEATHER, tools=[TOOL], tool_choice={"type": "none"})
    assert {block.type for block in none.content} == {"text"}


def test_a_form(claude: Anthropic) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    wanted: Any = {"format": {"type": "json_schema", "schema": schema}}
    found = ask(claude, [{"role": "user", "content": "JSON with age 5"}], output_config=wanted)
    assert json.loads(text(found))["age"] >= 0


@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL]}], ids=["plain", "tools"])
def test_tokens_are_counted(claude: Anthropic, fields: dict[str, Any]) -> None:
    counted = claude.messages.count_tokens(model=MODEL, messages=WEATHER, **fields)
    message = ask(claude, WEATHER, max_tokens=1, **fields)
    read = message.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == message.usage.input_tokens + read


def test_events_are_of_anthropics_types(shared: Daemon) -> None:
    body = {"model": MODEL, "max_tokens": 60, "messages": WEATHER, "tools": [TOOL], "stream": True}
    names: list[str] = []
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    with shared.http.stream("POST", "/v1/messages", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
                assert adapter.validate_json(data, strict=True).type == names[-1]
    assert (names[0], names[-1]) == ("message_start", "message_stop")


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"max_tokens": 0}, 400, "invalid_request_error"),
        ({"extra_body": {"temperature": 2}}, 400, "invalid_request_error"),
        ({"model": "exo-dmeo"}, 404, "not_found_error"),
        ({"max_tokens": 5000}, 400, "invalid_request_error"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, 400, "invalid_request_error"),
        ({"model": "tiny", "tools": [TOOL]}, 400, "invalid_request_error"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_errors(
    claude: Anthropic, fields: dict[str, Any], status: int, kind: str, streamed: bool
) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        ask(claude, START, **{**fields, "stream": streamed})
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["error"]["message"]
