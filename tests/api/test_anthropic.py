"""Anthropic's requests as the engine is asked, and answers as Anthropic's events: pure."""

from typing import Any, get_type_hints

import pytest
from anthropic.types import (
    message_count_tokens_params,
    message_create_params,
)

from exo.api.answers import Collected
from exo.api.anthropic_adapter import check, content_of, supported, to_count, to_generate
from exo.api.anthropic_schema import CountRequest, MessagesRequest
from exo.api.anthropic_stream import Blocks
from exo.api.error_shapes import error_json
from exo.api.routes import validate
from exo.errors import ModelNotFound, QueueFull, RequestError, Unavailable
from exo.inference.types import FinishReason, GenerateRequest, Stats
from tests.cluster.factory import card

from .said import SAID, delta

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "f", "description": "Does it.", "input_schema": {"type": "object"}}
STATS = Stats(
    prompt_tokens=10,
    generation_tokens=5,
    cached_tokens=4,
    queue_time=0,
    ttft=0,
    total_time=0,
    prompt_tps=0,
    generation_tps=0,
    peak_memory_usage=0,
)


def generate(**fields: Any) -> GenerateRequest:
    body = {"model": "m", "max_tokens": 5, "messages": [USER], **fields}
    parsed = validate(MessagesRequest, supported(body))
    check(parsed)
    return to_generate(parsed, card(), "r")


def dumped(**fields: Any) -> dict[str, Any]:
    found = generate(**fields).model_dump()
    found["sampling"]["seed"] = 0
    return found


# What each field is asked for, and what cannot be had of it.
HONOURED: dict[str, tuple[Any, list[Any]]] = {
    "max_tokens": (7, [0, None, "7"]),
    "messages": ([{"role": "user", "content": "else"}], ["hi", [], [{"role": "system"}]]),
    "output_config": (
        {"format": {"type": "json_schema", "schema": {"type": "array"}}, "effort": "low"},
        [{"effort": "much"}, {"format": {"type": "json_schema", "schema": {"$ref": "#"}}}],
    ),
    "stop_sequences": (["x"], ["x", [""], [str(n) for n in range(100)]]),
    "system": ([{"type": "text", "text": "Be brief."}], [5, [{"type": "image"}]]),
    "temperature": (0.5, [1.5, "0"]),
    "thinking": (
        {"type": "disabled"},
        [{"type": "enabled", "budget_tokens": 1024}, {"type": "between_tools"}],
    ),
    "tools": (
        [TOOL],
        [
            "f",
            [{**TOOL, "name": "a b"}],
            [TOOL, TOOL],
            [{**TOOL, "type": "bash_20250124"}],
            [{**TOOL, "defer_loading": True}],
            [{**TOOL, "strict": True, "input_schema": {"multipleOf": 0}}],
        ],
    ),
    "top_k": (5, [-1]),
    "top_p": (0.5, [0, 2]),
}
NEUTRAL: dict[str, tuple[list[Any], list[Any]]] = {
    "cache_control": ([{"type": "ephemeral", "ttl": "1h"}], [{"type": "lasting"}]),
    "container": ([None], ["c"]),
    "diagnostics": ([None], [{}]),
    "inference_geo": ([None], ["us"]),
    "metadata": ([{"user_id": "me"}, {}], [{"user_id": 5}, {"name": "x"}]),
    "service_tier": (["auto", "standard_only"], ["priority"]),
    "speed": (["standard"], ["fast"]),
    "stream": ([True, False], ["yes"]),
    "tool_choice": ([{"type": "none"}], [{"type": "auto"}, {"type": "tool", "name": "f"}, "any"]),
    "model": (["other"], ["", 5]),
}
# What the client sends as headers.
_HEADERS = {"user_profile_id", "workspace_id"}
# What clients of older models send.
_OLDER = {"temperature", "top_p", "top_k"}


def test_every_field_of_anthropics_is_known():
    asked = set(get_type_hints(message_create_params.MessageCreateParamsStreaming)) - _HEADERS
    assert asked | _OLDER == {*HONOURED, *NEUTRAL} == set(MessagesRequest.model_fields)
    counted = set(get_type_hints(message_count_tokens_params.MessageCountTokensParams)) - _HEADERS
    assert counted == set(CountRequest.model_fields)


@pytest.mark.parametrize("field", HONOURED)
def test_it_changes_what_the_engine_is_asked(field: str):
    assert dumped(**{field: HONOURED[field][0]}) != dumped()


@pytest.mark.parametrize(
    ("field", "value"),
    [(name, value) for name, (values, _) in NEUTRAL.items() for value in values],
    ids=lambda value: repr(value)[:40],
)
def test_it_changes_nothing(field: str, value: Any):
    assert dumped(**{field: value}) == dumped()


@pytest.mark.parametrize(
    ("field", "value"),
    [(name, value) for name, (_, wrong) in {**HONOURED, **NEUTRAL}.items() for value in wrong]
    + [("colour", "blue")],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_had_is_refused_by_name(field: str, value: Any):
    with pytest.raises(RequestError) as caught:
        generate(**{field: value})
    assert (caught.value.param or "").split(".")[0] == field


@pytest.mark.parametrize(
    ("choice", "required", "parallel"),
    [
        (None, False, True),
        ({"type": "auto"}, False, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, False, False),
        ({"type": "any"}, True, True),
        ({"type": "tool", "name": "f"}, True, False),
    ],
)
def test_a_choice(choice: Any, required: bool, parallel: bool):
    use = generate(tools=[TOOL, {**TOOL, "name": "g"}], tool_choice=choice).tool_use
    assert use is not None
    assert (use.required, use.parallel) == (required, parallel)
    assert len(use.tools) == (1 if choice and choice["type"] == "tool" else 2)
    assert use.tools[0] == {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object"}, "description": "Does it."},
    }


def test_a_choice_of_a_tool_that_is_not_there():
    with pytest.raises(RequestError, match="'h'"):
        generate(tools=[TOOL], tool_choice={"type": "tool", "name": "h"})
    assert generate(tools=[TOOL], tool_choice={"type": "none"}).tool_use is None


def test_a_conversation_becomes_what_templates_know():
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1"}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Well.", "signature": ""},
                {"type": "text", "text": "I ask."},
                use,
            ],
        },
        {
            "role": "user",
            "content": [
                {**result, "content": [{"type": "text", "text": "4"}]},
                {"type": "text", "text": "And?"},
            ],
        },
        {"role": "assistant", "content": [{**use, "id": "t2"}]},
        {
            "role": "user",
            "content": [{**result, "tool_use_id": "t2", "content": "no", "is_error": True}],
        },
    ]
    found = generate(system="Be brief.", messages=messages).messages
    assert found == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": "I ask.",
            "reasoning_content": "Well.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "4"},
        {"role": "user", "content": "And?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "t2", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no"},
    ]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "tool_result", "tool_use_id": "t9", "content": "x"}],
        [{"type": "image", "source": {}}],
        [{"type": "document", "source": {}}],
        [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]}],
        [{"type": "riddle"}],
        [],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_content_that_does_not_fit(content: list[Any]):
    with pytest.raises(RequestError) as caught:
        generate(messages=[{"role": "user", "content": content}])
    assert (caught.value.param or "").split(".")[0] == "messages"


def test_a_last_turn_of_the_assistant_is_continued():
    messages = [USER, {"role": "assistant", "content": "Well"}]
    assert generate(messages=messages).continues
    assert not generate().continues
    assert not generate().dry
    counting = validate(CountRequest, {"model": "m", "messages": messages})
    assert to_count(counting, "r").dry


DELTAS = [delta(reasoning="We"), delta(reasoning="ll"), *SAID]


def test_a_stream_opens_and_closes_a_block_for_each_kind():
    blocks = Blocks()
    events = [event for each in DELTAS for event in blocks.events(each)] + blocks.ending(STATS)
    told = [
        (e["type"], e.get("index"), next(iter(e.get("delta", {}).values()), "")) for e in events
    ]
    start, more, stop = "content_block_start", "content_block_delta", "content_block_stop"
    assert told == [
        (start, 0, ""),
        (more, 0, "thinking_delta"),
        (more, 0, "thinking_delta"),
        (stop, 0, ""),
        (start, 1, ""),
        (more, 1, "text_delta"),
        (more, 1, "text_delta"),
        (stop, 1, ""),
        (start, 2, ""),
        (more, 2, "input_json_delta"),
        (more, 2, "input_json_delta"),
        (stop, 2, ""),
        (start, 3, ""),
        (more, 3, "input_json_delta"),
        (stop, 3, ""),
        ("message_delta", None, "tool_use"),
        ("message_stop", None, ""),
    ]
    assert events[-2]["usage"] == {
        "input_tokens": 6,
        "output_tokens": 5,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 0,
    }


def test_a_whole_answer_has_the_same_blocks():
    answer = Collected()
    for each in DELTAS:
        answer.add(each)
    thought, text, one, other = content_of(answer)
    assert (thought["thinking"], text["text"]) == ("Well", "I ask")
    assert (one["name"], one["input"], other["name"], other["input"]) == ("f", {"a": 1}, "g", {})
    assert one["id"].startswith("toolu_")


def test_a_stop_sequence_is_named():
    blocks = Blocks()
    blocks.events(delta(text="a"))
    blocks.events(delta(finish_reason=FinishReason.STOP, stop="###"))
    told = blocks.ending(STATS)[-2]["delta"]
    assert told == {"stop_reason": "stop_sequence", "stop_sequence": "###"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError("It is wrong."), "invalid_request_error"),
        (ModelNotFound("There is none."), "not_found_error"),
        (QueueFull("Too many."), "rate_limit_error"),
        (Unavailable("Not now."), "overloaded_error"),
    ],
)
def test_errors_have_anthropics_types(error: Any, kind: str):
    body = error_json(error, "/v1/messages")
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["error"]["message"] == error.message
