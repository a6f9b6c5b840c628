"""litellm, with exo as an OpenAI-compatible provider."""

import json
from typing import Any, Literal

import litellm
import pytest
from pydantic import BaseModel

MODEL = "openai/exo-demo"
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Returns the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Answer(BaseModel):
    city: Literal["Paris", "Rome"]
    sunny: bool


@pytest.fixture
def ask(base_url: str) -> Any:
    def call(messages: list[Any], **fields: Any) -> Any:
        given = {"temperature": 0, "max_tokens": 60, "api_base": base_url, "api_key": "none"}
        return litellm.completion(model=MODEL, messages=messages, **{**given, **fields})

    return call


def test_chat(ask: Any) -> None:
    answer = ask([{"role": "user", "content": "Hello"}])
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream(ask: Any) -> None:
    hello = [{"role": "user", "content": "Hello"}]
    chunks = list(ask(hello, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ask(hello).choices[0].message.content
    assert chunks[-1].usage.completion_tokens > 0


def test_tools(ask: Any) -> None:
    first = ask(ASK, tools=[WEATHER], tool_choice="required").choices[0].message
    (call,) = first.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}
    second = ask([*ASK, first, result], tools=[WEATHER]).choices[0]
    assert second.finish_reason == "stop"
    assert second.message.content


def test_structured_output(ask: Any) -> None:
    answer = ask(ASK, response_format=Answer)
    assert Answer.model_validate_json(answer.choices[0].message.content)


def test_an_error_is_the_library_s_own(ask: Any) -> None:
    with pytest.raises(litellm.BadRequestError) as caught:
        ask(ASK, temperature=9)
    assert "temperature" in str(caught.value)
