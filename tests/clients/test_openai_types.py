"""Every answer and every event of a stream is one of OpenAI's own types, and has no field that
these do not know but for those that the documentation names."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.e2e.daemon import DONE, Daemon

from .strictness import strictly

pytestmark = pytest.mark.e2e

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Returns the weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
BODIES: list[dict[str, Any]] = [
    {},
    {"n": 2, "logprobs": True, "top_logprobs": 2},
    {"max_tokens": 3},
    {"tools": TOOLS},
    {"tools": TOOLS, "tool_choice": "required", "n": 2, "temperature": 1.5, "logprobs": True},
    {"response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 20},
    {"stop": ["a"]},
]


def body(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"model": "exo-demo", "messages": ASK, "temperature": 0, "max_tokens": 60}
    return {**base, **fields, **more}


@pytest.mark.parametrize("fields", BODIES, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/bench/chat/completions"])
def test_whole_answers(shared: Daemon, fields: dict[str, Any], path: str) -> None:
    response = shared.http.post(path, json=body(fields))
    assert response.status_code == 200, response.text
    strictly(ChatCompletion, response.json())


@pytest.mark.parametrize("fields", BODIES, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("usage", [True, False])
def test_streams(shared: Daemon, fields: dict[str, Any], usage: bool) -> None:
    asked = body(fields, stream=True, stream_options={"include_usage": usage})
    lines: list[str] = []
    with shared.http.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line[:1] == "d"]
    assert lines.pop() == DONE
    chunks = [json.loads(line) for line in lines]
    for chunk in chunks:
        strictly(ChatCompletionChunk, chunk)
        assert ("usage" in chunk) == usage
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for index in range(fields.get("n", 1)):
        own = [choice for choice in choices if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert all("role" not in choice["delta"] for choice in own[1:])
        assert [bool(choice["finish_reason"]) for choice in own] == [False] * (len(own) - 1) + [
            True
        ]
