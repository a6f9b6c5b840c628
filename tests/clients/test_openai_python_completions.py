"""The `openai` Python client: the older completions; and tokens, as vLLM's clients ask for them."""

import json
from typing import Any, get_type_hints

import openai
import pytest
from openai import OpenAI
from openai.types import Completion, completion_create_params

from exo.api.completion_schema import CompletionRequest
from tests.clients.strictness import strictly
from tests.e2e.daemon import DONE, Daemon, error_of

pytestmark = pytest.mark.e2e

MODEL = "exo-demo"
PROMPT = "<|im_start|>user\nHow do I start exo?<|im_end|>\n<|im_start|>assistant\n"
PATH = "/v1/completions"


def ask(client: OpenAI, prompt: Any = PROMPT, **fields: Any) -> Completion:
    fields = {"temperature": 0, "max_tokens": 40, **fields}
    return client.completions.create(model=MODEL, prompt=prompt, **fields)


def tokens_of(shared: Daemon, text: str, **fields: Any) -> list[int]:
    response = shared.http.post("/tokenize", json={"model": MODEL, "prompt": text, **fields})
    found = response.json()
    assert found["count"] == len(found["tokens"])
    assert found["max_model_len"] == 1024
    return found["tokens"]


def test_every_field_of_openais_is_known() -> None:
    known = set(get_type_hints(completion_create_params.CompletionCreateParamsStreaming))
    assert known <= set(CompletionRequest.model_fields)


def test_a_text_is_gone_on_with(client: OpenAI) -> None:
    completion = ask(client)
    assert completion.object == "text_completion"
    assert completion.id.startswith("cmpl-")
    [choice] = completion.choices
    assert "exo" in choice.text
    assert choice.finish_reason == "stop"
    assert completion.usage
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "How do I start exo?"}],
        temperature=0,
        max_tokens=40,
    )
    assert chat.choices[0].message.content == choice.text
    assert chat.usage
    assert chat.usage.prompt_tokens == completion.usage.prompt_tokens


def test_sixteen_tokens_unless_more_are_asked_for(client: OpenAI) -> None:
    completion = client.completions.create(model="tiny", prompt="a", logit_bias={"2": -100})
    assert completion.usage
    assert completion.usage.completion_tokens == 16
    assert completion.choices[0].finish_reason == "length"


def test_prompts_as_texts_and_as_tokens(client: OpenAI, shared: Daemon) -> None:
    other = PROMPT.replace("How do I start exo", "What is a tree")
    tokens = [tokens_of(shared, text) for text in (PROMPT, other)]
    alone = [ask(client, text).choices[0].text for text in (PROMPT, other)]
    for prompts in ([PROMPT, other], tokens):
        both = ask(client, prompts)
        assert [choice.index for choice in both.choices] == [0, 1]
        assert [choice.text for choice in both.choices] == alone
    assert ask(client, tokens[1]).choices[0].text == alone[1]
    assert both.usage
    assert both.usage.prompt_tokens == sum(map(len, tokens))


def test_several_answers_to_several_prompts(client: OpenAI) -> None:
    fields: dict[str, Any] = {"n": 2, "seed": 3, "temperature": 1.5, "max_tokens": 12}
    both = ask(client, ["Once", "Then"], **fields)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    for number, prompt in enumerate(["Once", "Then"]):
        alone = [choice.text for choice in ask(client, prompt, **fields).choices]
        assert [choice.text for choice in both.choices[2 * number :][:2]] == alone


def test_the_prompt_comes_back_before_the_answer(client: OpenAI, shared: Daemon) -> None:
    answer = ask(client, "One two", max_tokens=5).choices[0].text
    for prompt in ("One two", tokens_of(shared, "One two")):
        assert ask(client, prompt, max_tokens=5, echo=True).choices[0].text == f"One two{answer}"
    chunks = client.completions.create(
        model=MODEL, prompt="One two", max_tokens=5, echo=True, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == f"One two{answer}"


def test_logprobs(client: OpenAI) -> None:
    [choice] = ask(client, logprobs=2).choices
    found = choice.logprobs
    assert found is not None
    assert found.tokens
    assert found.text_offset
    assert found.token_logprobs
    assert found.top_logprobs
    assert "".join(found.tokens) == choice.text
    for token, place, logprob, top in zip(
        found.tokens, found.text_offset, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert choice.text[place:].startswith(token)
        assert top[token] == logprob == max(top.values())
        assert len(top) == 2


@pytest.mark.parametrize("usage", [True, False])
def test_streams_are_of_openais_types(shared: Daemon, usage: bool) -> None:
    body = {"model": MODEL, "prompt": [PROMPT, "a"], "temperature": 0, "n": 2, "logprobs": 1}
    strictly(Completion, shared.http.post(PATH, json=body).json())
    asked = {**body, "stream": True, "stream_options": {"include_usage": usage}}
    with shared.http.stream("POST", PATH, json=asked) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == DONE
    whole = shared.http.post(PATH, json=body).json()
    texts = [""] * 4
    reasons = [0] * 4
    for line in lines[:-1]:
        chunk = json.loads(line)
        assert ("usage" in chunk) == usage
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
            reasons[choice["index"]] += choice["finish_reason"] is not None
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert reasons == [1] * 4


def test_a_form_holds_here_as_well(client: OpenAI) -> None:
    wanted = {"structured_outputs": {"regex": "[ab]{3}"}}
    for choice in ask(client, n=2, temperature=1, extra_body=wanted).choices:
        assert len(choice.text) == 3
        assert set(choice.text) <= set("ab")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": [10**6]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"logit_bias": {"10000000": 1}}, "logit_bias"),
        ({"stop": [""]}, "stop"),
        ({"stream_options": {}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"extra_body": {"structured_outputs": {"regex": "("}}}, "structured_outputs"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_wrong_is_refused_by_name(
    client: OpenAI, shared: Daemon, fields: dict[str, Any], param: str
) -> None:
    more = fields.pop("extra_body", {})
    body = {"model": MODEL, "prompt": "a", **fields, **more}
    response = shared.http.post(PATH, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].split(".")[0] == param


def test_unknown_models(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="exo-dmeo", prompt="a")


@pytest.mark.parametrize("text", ["Hello there, ünï ☃", " two  spaces\n", PROMPT, ""])
def test_tokens_and_back(shared: Daemon, text: str) -> None:
    tokens = tokens_of(shared, text)
    response = shared.http.post("/detokenize", json={"model": MODEL, "tokens": tokens})
    assert response.json() == {"prompt": text}


def test_the_tokens_of_messages_are_those_of_a_chat(client: OpenAI, shared: Daemon) -> None:
    messages: list[Any] = [{"role": "user", "content": "How do I start exo?"}]
    found = shared.http.post("/tokenize", json={"model": MODEL, "messages": messages}).json()
    assert found["tokens"] == tokens_of(shared, PROMPT)
    tool = {"type": "function", "function": {"name": "f", "description": "Does it."}}
    more = {"model": MODEL, "messages": messages, "tools": [tool]}
    assert shared.http.post("/tokenize", json=more).json()["count"] > found["count"]
    chat = client.chat.completions.create(
        model=MODEL,
        messages=messages,
        tools=[tool],
        max_tokens=1,
    )
    assert chat.usage
    assert chat.usage.prompt_tokens == shared.http.post("/tokenize", json=more).json()["count"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/tokenize", {"prompt": "a", "tools": []}, "messages"),
        (
            "/tokenize",
            {"messages": [{"role": "tool", "content": "", "tool_call_id": "x"}]},
            "messages",
        ),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens"),
    ],
)
def test_tokens_of_nothing(shared: Daemon, path: str, body: dict[str, Any], param: str) -> None:
    response = shared.http.post(path, json={"model": MODEL, **body})
    error = error_of(response, 400, "invalid_request")
    assert (error["param"] or "").split(".")[0] == param
