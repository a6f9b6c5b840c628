"""The `openai` Python client: tools, in a loop, streamed, and required."""

import json
from typing import Any

import jsonschema_rs
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, Field

pytestmark = pytest.mark.e2e

MODEL = "exo-demo"


def tool(name: str, description: str, **properties: Any) -> Any:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", "Returns the weather in a city.", city={"type": "string"})
CALCULATE = tool("calculate", "Calculates an expression.", expression={"type": "string"})
TOOLS = [WEATHER, CALCULATE]
ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


def ask(client: OpenAI, messages: list[Any], **fields: Any) -> ChatCompletion:
    fields = {"temperature": 0, "max_tokens": 100, "tools": TOOLS, **fields}
    return client.chat.completions.create(model=MODEL, messages=messages, **fields)


def calls(completion: ChatCompletion, index: int = 0) -> list[tuple[str, Any]]:
    choice = completion.choices[index]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    found = choice.message.tool_calls or []
    assert all(call.id.startswith("call_") and call.type == "function" for call in found)
    assert len({call.id for call in found}) == len(found)
    return [(call.function.name, json.loads(call.function.arguments)) for call in found]


def test_a_loop_of_call_result_and_answer(client: OpenAI) -> None:
    messages = list(ASK)
    first = ask(client, messages)
    assert calls(first) == [("get_weather", {"city": "Paris"})]
    message = first.choices[0].message
    messages.append(message)
    assert message.tool_calls
    result = {"role": "tool", "content": "sunny, 21 degrees"}
    messages.append({**result, "tool_call_id": message.tool_calls[0].id})
    second = ask(client, messages)
    assert second.choices[0].finish_reason == "stop"
    assert "21" in (second.choices[0].message.content or "")
    assert second.choices[0].message.tool_calls is None


def test_a_model_may_also_just_answer(client: OpenAI) -> None:
    completion = ask(client, HELLO)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].message.content
    assert completion.choices[0].message.tool_calls is None


def stream(client: OpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    fields = {"temperature": 0, "max_tokens": 100, "tools": TOOLS, **fields}
    return list(client.chat.completions.create(model=MODEL, stream=True, **fields))


def test_a_stream_brings_the_id_once_and_the_arguments_in_pieces(client: OpenAI) -> None:
    chunks = stream(client, messages=ASK)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    pieces = [call for delta in deltas for call in delta.tool_calls or []]
    first, *rest = pieces
    assert first.function
    assert (first.index, first.type, first.function.name) == (0, "function", "get_weather")
    assert (first.id or "").startswith("call_")
    assert first.function.arguments == ""
    assert len(rest) > 2
    assert all((call.index, call.id, call.type) == (0, None, None) for call in rest)
    assert all(call.function and call.function.name is None for call in rest)
    arguments = "".join(call.function.arguments or "" for call in rest if call.function)
    assert json.loads(arguments) == {"city": "Paris"}
    assert not "".join(delta.content or "" for delta in deltas)
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert [reason for reason in reasons if reason] == ["tool_calls"]


@pytest.mark.parametrize("temperature", [0, 1.8])
def test_a_call_may_be_required(client: OpenAI, temperature: float) -> None:
    completion = ask(
        client, HELLO, tool_choice="required", n=3, seed=2, temperature=temperature, max_tokens=300
    )
    known = {each["function"]["name"]: each["function"]["parameters"] for each in TOOLS}
    for index in range(3):
        found = calls(completion, index)
        assert found
        for name, arguments in found:
            jsonschema_rs.validate(known[name], arguments)


def test_one_function_may_be_required(client: OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "calculate"}}
    [(name, arguments)] = calls(ask(client, ASK, tool_choice=choice))
    assert name == "calculate"
    assert set(arguments) == {"expression"}


def test_only_some_may_be_allowed(client: OpenAI) -> None:
    allowed = [{"type": "function", "function": {"name": "calculate"}}]
    choice: Any = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": allowed},
    }
    found = calls(ask(client, ASK, tool_choice=choice, parallel_tool_calls=False))
    assert [name for name, _ in found] == ["calculate"]


def test_none_is_called_where_none_may_be(client: OpenAI) -> None:
    completion = ask(client, ASK, tool_choice="none")
    assert completion.choices[0].message.tool_calls is None
    assert completion.choices[0].finish_reason == "stop"


class Weather(BaseModel):
    """Returns the weather in a city."""

    city: str = Field(max_length=20)


def test_strict_tools_come_parsed(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model=MODEL,
        messages=ASK,
        tools=[openai.pydantic_function_tool(Weather, name="get_weather")],
        temperature=0,
    )
    [call] = completion.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == Weather(city="Paris")


def test_an_answer_that_is_cut_has_the_beginning_of_its_arguments(client: OpenAI) -> None:
    whole = ask(client, ASK).usage
    assert whole is not None
    completion = ask(client, ASK, max_tokens=whole.completion_tokens - 6)
    [choice] = completion.choices
    assert choice.finish_reason == "length"
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert '{"city": "Paris"}'.startswith(call.function.arguments)


def test_a_model_without_tools_refuses_them(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO, tools=TOOLS)
    assert caught.value.param == "tools"


def test_the_result_of_no_call_is_refused(client: OpenAI) -> None:
    stray: list[Any] = [*ASK, {"role": "tool", "content": "x", "tool_call_id": "call_1"}]
    with pytest.raises(openai.BadRequestError, match="call_1") as caught:
        ask(client, stray)
    assert caught.value.param == "messages"
