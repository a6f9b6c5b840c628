"""The `ollama` Python client: chats, prompts, tools, streams, and what it asks of models."""

import json
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from ollama import Client
from pydantic import BaseModel

from exo import __version__
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e

MODEL = "exo-demo"
START = [{"role": "user", "content": "How do I start exo?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY = {"temperature": 0}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Returns the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def client(shared: Daemon) -> Iterator[Client]:
    client = Client(host=shared.base_url)
    yield client
    client._client.close()


def test_a_chat(client: Client) -> None:
    found = client.chat(model=MODEL, messages=START, options=GREEDY)
    assert "exo" in (found.message.content or "")
    assert (found.model, found.done, found.done_reason) == (MODEL, True, "stop")
    assert found.message.role == "assistant"
    assert found.prompt_eval_count
    assert found.eval_count
    assert found.total_duration
    assert found.total_duration >= (found.eval_duration or 0) > 0
    tagged = client.chat(model=f"{MODEL}:latest", messages=START, options=GREEDY)
    assert tagged.message.content == found.message.content


def test_a_stream_tells_the_same(client: Client) -> None:
    whole = client.chat(model=MODEL, messages=START, options=GREEDY)
    lines = list(client.chat(model=MODEL, messages=START, options=GREEDY, stream=True))
    assert "".join(line.message.content or "" for line in lines) == whole.message.content
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].eval_count == whole.eval_count
    assert len(lines) > 3


def test_a_prompt_with_and_without_the_template(client: Client) -> None:
    prompt = START[0]["content"]
    found = client.generate(model=MODEL, prompt=prompt, options=GREEDY)
    chat = client.chat(model=MODEL, messages=START, options=GREEDY)
    assert found.response == chat.message.content
    raw = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    assert client.generate(model=MODEL, prompt=raw, raw=True, options=GREEDY).response == (
        found.response
    )
    lines = list(client.generate(model=MODEL, prompt=prompt, options=GREEDY, stream=True))
    assert "".join(line.response or "" for line in lines) == found.response


def test_nothing_to_say_loads_the_model(client: Client) -> None:
    assert client.generate(model=MODEL).done_reason == "load"
    assert client.chat(model=MODEL).done_reason == "load"


def test_options(client: Client) -> None:
    cut = client.chat(model=MODEL, messages=START, options={**GREEDY, "num_predict": 3})
    assert (cut.eval_count, cut.done_reason) == (3, "length")
    stopped = client.chat(model=MODEL, messages=START, options={**GREEDY, "stop": ["exo"]})
    assert "exo" not in (stopped.message.content or "")
    drawn = [
        client.chat(
            model="tiny", messages=START, options={"seed": seed, "num_predict": 8, "num_ctx": 100}
        ).message.content
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_of_call_result_and_answer(client: Client, stream: bool) -> None:
    messages: list[Any] = list(WEATHER)
    lines = client.chat(
        model=MODEL,
        messages=messages,
        tools=[TOOL],
        options=GREEDY,
        stream=stream,
    )
    told = [line.message for line in (lines if stream else [lines])]
    [call] = [call for message in told for call in message.tool_calls or []]
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    messages += [message for message in told if message.tool_calls]
    messages.append({"role": "tool", "tool_name": "get_weather", "content": "sunny, 21 degrees"})
    answer = client.chat(model=MODEL, messages=messages, tools=[TOOL], options=GREEDY)
    assert "21" in (answer.message.content or "")


class Person(BaseModel):
    name: str
    age: int


def test_a_form(client: Client) -> None:
    ask = [{"role": "user", "content": "Give me JSON with name Anna and age 30."}]
    schema = Person.model_json_schema()
    found = client.chat(model=MODEL, messages=ask, format=schema, options=GREEDY)
    assert Person.model_validate_json(found.message.content or "") == Person(name="Anna", age=30)
    any_object = client.chat(model=MODEL, messages=ask, format="json", options=GREEDY)
    assert json.loads(any_object.message.content or "")["name"] == "Anna"


def test_logprobs(client: Client) -> None:
    found = client.chat(model=MODEL, messages=START, options=GREEDY, logprobs=True, top_logprobs=2)
    assert found.logprobs
    assert "".join(each.token for each in found.logprobs) == found.message.content
    assert all(len(each.top_logprobs or []) == 2 for each in found.logprobs)


def test_models(client: Client) -> None:
    listed = {model.model: model for model in client.list().models}
    assert {MODEL, "tiny", "tiny-4bit"} <= set(listed)
    assert listed[MODEL].size
    assert listed[MODEL].details
    assert listed[MODEL].details.family == "exo-demo"
    shown = client.show(MODEL)
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo
    assert shown.modelinfo["llama.context_length"] == 1024
    assert "tool_call" in (shown.template or "")
    client.chat(model=MODEL)
    ready = {model.model: model for model in client.ps().models}
    assert ready[MODEL].context_length == 1024
    assert ready[MODEL].digest == listed[MODEL].digest


def test_the_version(shared: Daemon) -> None:
    assert shared.http.get("/api/version").json() == {"version": __version__}


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"model": "exo-dmeo"}, 404, "exo-dmeo"),
        ({"options": {"temperature": 3}}, 400, "options.temperature"),
        ({"options": {"mirostat": 1}}, 400, "options.mirostat"),
        ({"options": {"num_ctx": 10**6}}, 400, "num_ctx"),
        ({"options": {"num_predict": 0}}, 400, "num_predict"),
        ({"options": {"stop": [""]}}, 400, "options.stop"),
        ({"format": {"$ref": "#"}}, 400, "format"),
        ({"format": "xml"}, 400, "format"),
        ({"keep_alive": "soon"}, 400, "keep_alive"),
        ({"think": True}, 400, "think"),
        ({"messages": [{"role": "king"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "a", "images": ["AAAA"]}]}, 400, "images"),
        ({"top_logprobs": 3}, 400, "top_logprobs"),
        ({"model": "tiny", "tools": [TOOL]}, 400, "tools"),
        ({"colour": "blue"}, 400, "colour"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors_name_the_field(
    shared: Daemon, fields: dict[str, Any], status: int, said: str
) -> None:
    body = {"model": MODEL, "messages": START, **fields}
    response = shared.http.post("/api/chat", json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert isinstance(error, str)
    assert said in error


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"raw": True, "system": "x"}, "raw"),
        ({"suffix": "x"}, "suffix"),
        ({"template": "x"}, "template"),
        ({"context": [1]}, "context"),
        ({"images": ["AAAA"]}, "images"),
    ],
)
def test_prompts_that_cannot_be(client: Client, fields: dict[str, Any], said: str) -> None:
    body = {"model": MODEL, "prompt": "a", **fields}
    with pytest.raises(ollama.ResponseError, match=said) as caught:
        client._request_raw("POST", "/api/generate", json=body)
    assert caught.value.status_code == 400
