"""Every field of OpenAI's request for a response is honoured or refused, and items become the
messages that templates know: pure."""

import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from openai.types.responses import response_create_params

from exo.api.response_adapter import begun, check, to_generate
from exo.api.response_ids import item_id, new_response_id, response_of, tag_in, tag_of
from exo.api.response_items import Item
from exo.api.response_messages import (
    decoded,
    encoded,
    items_of,
    references,
    shortened,
    to_messages,
    turns,
)
from exo.api.response_schema import ResponseRequest
from exo.api.response_unsupported import supported
from exo.api.routes import validate
from exo.errors import RequestError
from tests.cluster.factory import card

PAGE = Path(__file__).parents[2] / "docs" / "responses.md"
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "array"}}
RESPONSE = new_response_id("a")

# What each field is asked for, with what else it needs, and what cannot be had of it.
Asked = dict[str, tuple[Any, dict[str, Any], list[Any]]]
HONOURED: Asked = {
    "input": ("else", {}, [5, [], [{"role": "king"}], [{"type": "computer_call"}]]),
    "instructions": ("Be brief.", {}, [5]),
    "max_output_tokens": (7, {}, [0, "7"]),
    "parallel_tool_calls": (False, {"tools": [TOOL]}, ["no"]),
    "reasoning": (
        {"effort": "low", "summary": "auto"},
        {},
        [{"effort": "much"}, {"summary": "detailed"}, {"mode": "pro"}, {"context": "all_turns"}],
    ),
    "temperature": (0.5, {}, [-1, 2.5, "0"]),
    "text": ({"format": SCHEMA}, {}, [{"format": {"type": "xml"}}, {"verbosity": "low"}]),
    "tool_choice": (
        "required",
        {"tools": [TOOL]},
        ["any", {"type": "function", "name": "g"}, {"type": "web_search_preview"}],
    ),
    "tools": (
        [TOOL],
        {},
        [
            "f",
            [TOOL, TOOL],
            [{"type": "web_search"}],
            [{"type": "custom", "name": "f"}],
            [{**TOOL, "strict": True, "parameters": {"multipleOf": 0}}],
            [{**TOOL, "defer_loading": True}],
            [{**TOOL, "output_schema": {}}],
        ],
    ),
    "top_logprobs": (3, {}, [21, -1]),
    "top_p": (0.5, {}, [0, 1.5]),
    "include": (["message.output_text.logprobs"], {}, ["all", ["everything"]]),
}
# They choose the model, the way of the answer and what becomes of it, which other tests look at.
ELSEWHERE: Asked = {
    "background": (True, {}, ["yes"]),
    "model": ("other", {}, ["", 5]),
    "previous_response_id": (RESPONSE, {}, [5]),
    "store": (False, {}, ["no"]),
    "stream": (True, {}, ["yes"]),
    "stream_options": (
        {"include_obfuscation": False},
        {"stream": True},
        [{"include_obfuscation": True}, {"include_usage": True}],
    ),
    "truncation": ("auto", {}, ["middle"]),
}
# What the response repeats, and is no matter of the engine.
REPEATED: Asked = {
    "max_tool_calls": (3, {}, [0]),
    "metadata": ({"a": "b"}, {}, [{"a": 1}, {str(n): "x" for n in range(17)}]),
    "prompt_cache_key": ("k", {}, [5]),
    "safety_identifier": ("k", {}, [5, "x" * 513]),
    "user": ("me", {}, [5]),
}
# What asks for nothing is let through, everything else is refused.
REFUSED: dict[str, tuple[list[Any], list[Any]]] = {
    "access_programs": ([None], [{"cyber": "standard"}]),
    "background_options": ([{"completion_window": "soonest"}], [{"completion_window": "2h"}]),
    "context_management": ([[]], [[{"type": "compaction"}]]),
    "conversation": ([None], ["conv_1", {"id": "conv_1"}]),
    "image": ([{}, {"context_compression": "auto"}], [{"context_compression": "enabled"}]),
    "moderation": ([None], [{"model": "m"}]),
    "prompt": ([None], [{"id": "p"}]),
    "prompt_cache_options": ([None], [{"mode": "explicit"}]),
    "prompt_cache_retention": (["in_memory"], ["24h"]),
    "service_tier": (["auto", "default"], ["flex", "priority"]),
}
GIVEN = {**HONOURED, **ELSEWHERE, **REPEATED}


def parsed(**fields: Any) -> ResponseRequest:
    body = validate(ResponseRequest, supported({"model": "m", "input": "hi", "seed": 1, **fields}))
    check(body)
    return body


def unknown(name: str) -> Item:
    raise RequestError(name, param="input")


def items(asked: Any) -> list[Item]:
    return items_of(parsed(input=asked).input, RESPONSE, 0, unknown)


def dumped(**fields: Any) -> dict[str, Any]:
    body = parsed(**fields)
    found = items_of(body.input, RESPONSE, 0, unknown)
    return to_generate(body, found, card(), RESPONSE).model_dump()


def test_every_field_is_known_and_in_one_place():
    known = set(get_type_hints(response_create_params.ResponseCreateParamsStreaming))
    assert known == {*GIVEN, *REFUSED}
    assert len(GIVEN) == len(HONOURED) + len(ELSEWHERE) + len(REPEATED)


def test_the_page_tells_of_every_field():
    page = PAGE.read_text("utf-8")
    for name in {*GIVEN, *REFUSED, *ResponseRequest.model_fields}:
        assert re.search(rf"^\| .*`{name}`.* \|", page, re.MULTILINE), name


@pytest.mark.parametrize("field", HONOURED)
def test_it_changes_what_the_engine_is_asked(field: str):
    value, needs, _ = HONOURED[field]
    assert dumped(**{**needs, field: value}) != dumped(**needs)


@pytest.mark.parametrize("field", REPEATED)
def test_it_is_repeated_and_changes_nothing(field: str):
    value = REPEATED[field][0]
    assert dumped(**{field: value}) == dumped()
    body = parsed(**{field: value})
    asked = to_generate(body, [], card(), RESPONSE)
    assert begun(body, asked, "m", 1).model_dump()[field] == value


@pytest.mark.parametrize("field", ELSEWHERE)
def test_it_is_taken(field: str):
    value, needs, _ = ELSEWHERE[field]
    assert dumped(**{**needs, field: value})


@pytest.mark.parametrize(
    ("field", "value", "needs"),
    [
        *((name, bad, needs) for name, (_, needs, wrong) in GIVEN.items() for bad in wrong),
        *((name, bad, {}) for name, (_, wrong) in REFUSED.items() for bad in wrong),
        ("tool_choice", "required", {}),
        ("stream_options", {"include_obfuscation": False}, {}),
        ("store", False, {"background": True}),
        ("input", None, {}),
        ("colour", "blue", {}),
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
    "part",
    [
        {"type": "input_image", "image_url": "data:"},
        {"type": "input_file", "file_id": "f"},
        {"type": "output_text", "text": "x"},
        {"type": "input_text"},
    ],
)
def test_parts_that_cannot_be_read(part: Any):
    with pytest.raises(RequestError) as caught:
        items([{"role": "user", "content": [part]}])
    assert (caught.value.param or "").split(".")[0] == "input"


# Tools and forms, as chats have them.


def test_tools_are_shown_as_templates_know_them():
    strict = {**TOOL, "description": "Does it.", "strict": True}
    use = dumped(tools=[strict, {**TOOL, "name": "g"}])["tool_use"]
    function = {name: value for name, value in strict.items() if name != "type"}
    assert use["tools"][0] == {"type": "function", "function": function}
    assert (use["required"], use["parallel"]) == (False, True)
    named = dumped(tools=[TOOL], tool_choice={"type": "function", "name": "f"})["tool_use"]
    assert (named["required"], named["parallel"]) == (True, False)
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "g"}],
    }
    use = dumped(tools=[TOOL, {**TOOL, "name": "g"}], tool_choice=allowed)["tool_use"]
    assert [tool["function"]["name"] for tool in use["tools"]] == ["g"]
    assert dumped(tools=[TOOL], tool_choice="none")["tool_use"] is None


def test_forms():
    assert dumped(text={"format": {"type": "text"}})["format"] is None
    assert dumped(text={"format": {"type": "json_object"}})["format"]["param"] == "text.format"
    found = dumped(text={"format": SCHEMA})["format"]
    assert (found["kind"], found["text"]) == ("json", '{"type": "array"}')
    with pytest.raises(RequestError) as caught:
        dumped(text={"format": {**SCHEMA, "schema": {"$ref": "#"}}})
    assert caught.value.param == "text.format.schema"


def test_log_probabilities_are_asked_for_in_two_ways():
    assert dumped()["logprobs"] is None
    assert dumped(include=["message.output_text.logprobs"])["logprobs"] == 0
    assert dumped(top_logprobs=2)["logprobs"] == 2
    assert dumped(top_logprobs=0)["logprobs"] is None


# Items.

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "4"}


def test_a_conversation_becomes_what_templates_know():
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Well."}]}
    said = {"type": "output_text", "text": "I ask.", "annotations": [], "logprobs": []}
    conversation = items(
        [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {**thought, "id": "rs_1", "summary": []},
            {"role": "assistant", "content": [said], "type": "message", "id": "msg_1"},
            CALL,
            {**CALL, "call_id": "c2", "arguments": "none"},
            {**RESULT, "output": [{"type": "input_text", "text": "four"}], "name": "f"},
            {**RESULT, "call_id": "c2"},
            {"role": "assistant", "content": "It is four.", "phase": "final_answer"},
            {"role": "user", "content": "thanks"},
        ]
    )
    system, user, assistant, first, second, answer, thanks = to_messages("Be brief.", conversation)
    assert system == {"role": "system", "content": "Be brief.\n\nBe kind."}
    assert user == {"role": "user", "content": "hi"}
    assert (assistant["content"], assistant["reasoning_content"]) == ("I ask.", "Well.")
    assert [call["function"]["arguments"] for call in assistant["tool_calls"]] == [{"a": 1}, "none"]
    assert first == {"role": "tool", "tool_call_id": "c1", "content": "four", "name": "f"}
    assert second == {"role": "tool", "tool_call_id": "c2", "content": "4"}
    assert (answer["content"], "tool_calls" in answer) == ("It is four.", False)
    assert thanks["content"] == "thanks"


def test_calls_one_after_the_other_are_messages_of_their_own():
    roles = [m["role"] for m in to_messages(None, items([CALL, RESULT, CALL, RESULT]))]
    assert roles == ["assistant", "tool", "assistant", "tool"]


@pytest.mark.parametrize(
    "asked",
    [[RESULT], [CALL, {"role": "user", "content": "no"}, RESULT], [{**RESULT, "call_id": "c9"}]],
)
def test_the_result_of_no_call(asked: Any):
    with pytest.raises(RequestError, match="result of the call") as caught:
        to_messages(None, items(asked))
    assert caught.value.param == "input"


def test_items_keep_their_ids_or_get_one():
    first, second, third = items([{"role": "user", "content": "a", "id": "mine"}, CALL, RESULT])
    assert first.id == "mine"
    assert second.id == item_id("fc", RESPONSE, 1)
    assert response_of(third.id) == RESPONSE
    assert response_of("mine") is None


def test_references_are_what_they_refer_to():
    known = items([CALL])[0]
    asked = parsed(input=[{"id": known.id}, {"type": "item_reference", "id": "x"}, RESULT]).input
    assert references(asked) == [known.id, "x"]
    found = items_of(asked, RESPONSE, 4, lambda _: known)
    assert found[:2] == [known, known]
    assert found[2].id == item_id("fco", RESPONSE, 6)


def test_thoughts_come_back_as_clients_keep_them():
    text = "Täglich 5 ½"
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": encoded(text)}
    [message] = to_messages(None, items([item]))
    assert message["reasoning_content"] == text == decoded(encoded(text))
    for bad in ("gAAAAAB", "exo1:?", "exo1:/w=="):
        with pytest.raises(RequestError) as caught:
            items([{**item, "encrypted_content": bad}])
        assert caught.value.param == "input"


def test_the_first_turns_are_left_out_first():
    conversation = items(
        [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "1"},
            CALL,
            RESULT,
            {"role": "user", "content": "2"},
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": "3"},
        ]
    )
    assert turns(conversation) == 3
    said = [[m["content"] for m in to_messages(None, shortened(conversation, n))] for n in range(3)]
    assert said == [["s", "1", "", "4", "2", "x", "3"], ["s", "2", "x", "3"], ["s", "3"]]


# Ids.


def test_an_id_says_who_keeps_the_response():
    name = new_response_id("node")
    assert tag_in(name) == tag_of("node") != tag_of("other")
    assert new_response_id("node") != name
    for bad in ("", "resp_", "resp_../../x", name + "0", name.upper()):
        assert tag_in(bad) is None
