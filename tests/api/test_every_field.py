"""Every field of OpenAI's chat request is honoured or refused, and is in the table that says so."""

import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from openai.types.chat import completion_create_params

from exo.api.chat_adapter import check, to_generate
from exo.api.chat_schema import ChatRequest
from exo.api.routes import validate
from exo.api.unsupported import without_unsupported
from exo.errors import RequestError
from tests.cluster.factory import card

PAGE = Path(__file__).parents[2] / "docs" / "openai.md"
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}

# What each field is asked for, with what else it needs, and what cannot be had of it. `None` for
# the first: it cannot be had at all.
HONOURED: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {
    "messages": ([{"role": "user", "content": "else"}], {}, ["hi", [], [{"role": "king"}]]),
    "frequency_penalty": (0.5, {}, [3, "0.5"]),
    "logit_bias": ({"5": 1.5}, {}, [{"100000": 1}, {"5": 101}, {"x": 1}]),
    "logprobs": (True, {}, [1]),
    "max_completion_tokens": (7, {}, [0, 1.5]),
    "max_tokens": (7, {}, [0, "7"]),
    "n": (2, {}, [0, 129]),
    "parallel_tool_calls": (False, {"tools": [TOOL]}, ["no"]),
    "presence_penalty": (0.5, {}, [-3]),
    "reasoning_effort": ("low", {}, ["much", 1]),
    "response_format": (SCHEMA, {}, [{"type": "xml"}, "json"]),
    "seed": (7, {}, ["dice", 2**64]),
    "stop": (["x"], {}, ["", 5, [str(n) for n in range(100)]]),
    "temperature": (0.5, {}, [-1, 2.5, "0"]),
    "tool_choice": ("required", {"tools": [TOOL]}, ["any", {"type": "function"}]),
    "tools": ([TOOL], {}, ["f", [{"type": "custom", "custom": {"name": "f"}}]]),
    "top_logprobs": (3, {"logprobs": True}, [21, -1]),
    "top_p": (0.5, {}, [0, 1.5]),
}
# They choose the model and the way of the answer, which tests of the API look at.
ELSEWHERE: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {
    "model": ("other", {}, ["", 5, None]),
    "stream": (True, {}, ["yes"]),
    "stream_options": (
        {"include_usage": True},
        {"stream": True},
        [{"include_obfuscation": True}, {"include_usage": "yes"}],
    ),
}
# They say something to whoever keeps requests, which exo does not: they change no answer.
LABELS: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {
    "metadata": ({"a": "b"}, {}, [{"a": 1}, {str(n): "x" for n in range(17)}, {"k": "x" * 513}]),
    "prompt_cache_key": ("k", {}, [5]),
    "safety_identifier": ("k", {}, [5, "x" * 513]),
    "user": ("me", {}, [5]),
}
# What asks for nothing is let through, everything else is refused.
REFUSED: dict[str, tuple[list[Any], list[Any]]] = {
    "audio": ([None], [{"voice": "alloy", "format": "wav"}]),
    "function_call": (["none", "auto"], [{"name": "f"}]),
    "functions": ([[]], [[{"name": "f"}]]),
    "modalities": ([["text"]], [["text", "audio"]]),
    "moderation": ([None], [{"model": "m"}]),
    "prediction": ([None], [{"type": "content", "content": "x"}]),
    "prompt_cache_options": ([None], [{"mode": "explicit"}]),
    "prompt_cache_retention": (["in_memory"], ["24h"]),
    "service_tier": (["auto", "default"], ["flex", "priority"]),
    "store": ([False], [True]),
    "verbosity": (["medium"], ["low", "high"]),
    "web_search_options": ([None], [{}]),
}
GIVEN = {**HONOURED, **ELSEWHERE, **LABELS}


def fields_of_openai() -> set[str]:
    return set(get_type_hints(completion_create_params.CompletionCreateParamsStreaming))


def dumped(**fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [USER], "seed": 1, **fields}
    parsed = validate(ChatRequest, without_unsupported(body))
    check(parsed)
    return to_generate(parsed, card(), "r").model_dump()


def test_every_field_is_known_and_in_one_place():
    assert fields_of_openai() == {*GIVEN, *REFUSED}
    assert len(GIVEN) == len(HONOURED) + len(ELSEWHERE) + len(LABELS)


def test_the_page_tells_of_every_field():
    page = PAGE.read_text("utf-8")
    for name in [*fields_of_openai(), *ChatRequest.model_fields]:
        assert re.search(rf"^\| .*`{name}`.* \|", page, re.MULTILINE), name


@pytest.mark.parametrize("field", HONOURED)
def test_it_changes_what_the_engine_is_asked(field: str):
    value, needs, _ = HONOURED[field]
    assert dumped(**{**needs, field: value}) != dumped(**needs)


@pytest.mark.parametrize("field", LABELS)
def test_a_label_changes_nothing(field: str):
    assert dumped(**{field: LABELS[field][0]}) == dumped()


@pytest.mark.parametrize("field", ELSEWHERE)
def test_it_is_taken(field: str):
    value, needs, _ = ELSEWHERE[field]
    assert dumped(**{**needs, field: value})


@pytest.mark.parametrize(
    ("field", "value", "needs"),
    [
        *((name, bad, needs) for name, (_, needs, wrong) in GIVEN.items() for bad in wrong),
        *((name, bad, {}) for name, (_, wrong) in REFUSED.items() for bad in wrong),
        *((name, 5, {}) for name in ("metadata", "tools", "response_format", "stream_options")),
        ("tool_choice", "required", {}),
        ("top_logprobs", 2, {}),
        ("parallel_tool_calls", True, {}),
        ("stream_options", {"include_usage": True}, {}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_cannot_be_had_is_refused_by_name(field: str, value: Any, needs: dict[str, Any]):
    with pytest.raises(RequestError) as caught:
        dumped(**{**needs, field: value})
    assert (caught.value.param or "").split(".")[0] == field
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [(name, value) for name, (harmless, _) in REFUSED.items() for value in [None, *harmless]],
    ids=lambda value: repr(value)[:30],
)
def test_what_asks_for_nothing_is_let_through(field: str, value: Any):
    assert dumped(**{field: value}) == dumped()


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ([{"role": "tool", "content": "4", "tool_call_id": "c"}], "messages"),
        ([{"role": "assistant"}], "messages"),
        ([{"role": "assistant", "content": "x", "audio": {"id": "a"}}], "messages"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "messages"),
        ([{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}], "messages"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_messages_that_do_not_fit(more: list[Any], param: str):
    with pytest.raises(RequestError) as caught:
        dumped(messages=[USER, *more])
    assert (caught.value.param or "").split(".")[0] == param


def test_an_answer_comes_back_as_clients_keep_it():
    """All fields of OpenAI's message object, with what exo leaves empty."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "well",
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [call],
    }
    result = {"role": "tool", "content": [{"type": "text", "text": "4"}], "tool_call_id": "c"}
    said = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    messages = [USER, answer, result, {"role": "assistant", "content": said}, USER]
    found = dumped(messages=messages)["messages"]
    assert found[1]["reasoning_content"] == "well"
    assert found[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert found[3]["content"] == "ab"


def test_the_last_message_of_the_assistant_is_continued_unless_not_wanted():
    messages = [USER, {"role": "assistant", "content": "Well"}]
    assert dumped(messages=messages)["continues"]
    assert dumped(messages=messages, continue_final_message=True)["continues"]
    assert not dumped(messages=messages, continue_final_message=False)["continues"]
    assert not dumped()["continues"]
    with pytest.raises(RequestError, match="continued"):
        dumped(continue_final_message=True)


def test_thinking_is_asked_for_in_one_way():
    assert dumped(enable_thinking=False)["template"] == {"enable_thinking": False}
    assert dumped(chat_template_kwargs={"x": 1})["template"] == {"x": 1}
    for fields in (
        {"enable_thinking": True, "reasoning_effort": "low"},
        {"chat_template_kwargs": {"thinking": True}, "reasoning_effort": "low"},
        {"chat_template_kwargs": {"tools": []}},
    ):
        with pytest.raises(RequestError):
            dumped(**fields)
