"""Ollama's requests as the engine is asked, and answers as Ollama's lines: pure."""

from typing import Any

import ollama
import pytest
from ollama._types import ChatRequest, GenerateRequest

from exo.api.ollama_adapter import Speaker, check, model_name, running_of, tag_of, to_generate
from exo.api.ollama_schema import OllamaChat, OllamaGenerate, Options, seconds_of
from exo.api.routes import validate
from exo.errors import RequestError, UnsupportedField
from exo.inference.types import FinishReason, Stats
from tests.cluster.factory import card

from .said import SAID, delta

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
STATS = Stats(
    prompt_tokens=10,
    generation_tokens=5,
    queue_time=1.0,
    ttft=3.0,
    total_time=7.0,
    prompt_tps=0,
    generation_tps=0,
    peak_memory_usage=0,
)
# Fields of Ollama's that are for what exo's models cannot do, or a computer is told of elsewhere.
REFUSED = {"width", "height", "steps"}
REFUSED_OPTIONS = {
    *("numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all"),
    *("vocab_only", "use_mmap", "use_mlock", "embedding_only", "num_thread", "num_keep"),
    *("tfs_z", "typical_p", "mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline"),
}


def chat(**fields: Any) -> dict[str, Any]:
    body = validate(OllamaChat, {"model": "m", "messages": [USER], **fields})
    check(body)
    found = to_generate(body, card(), "r").model_dump()
    if "seed" not in fields.get("options", {}):
        found["sampling"]["seed"] = 0
    return found


def generate(**fields: Any) -> dict[str, Any]:
    body = validate(OllamaGenerate, {"model": "m", "prompt": "hi", **fields})
    check(body)
    found = to_generate(body, card(), "r").model_dump()
    found["sampling"]["seed"] = 0
    return found


def test_every_field_of_ollamas_is_known_or_refused():
    assert set(ChatRequest.model_fields) <= set(OllamaChat.model_fields)
    assert set(GenerateRequest.model_fields) - REFUSED <= set(OllamaGenerate.model_fields)
    assert set(ollama.Options.model_fields) - REFUSED_OPTIONS <= set(Options.model_fields)
    for name in REFUSED:
        with pytest.raises(UnsupportedField, match=name):
            generate(**{name: 1})
    for name in REFUSED_OPTIONS:
        with pytest.raises(UnsupportedField, match=f"options.{name}"):
            chat(options={name: 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", [USER, {"role": "assistant", "content": "Well"}]),
        ("messages", [{"role": "system", "content": "Be brief."}, USER]),
        ("tools", [TOOL]),
        ("format", "json"),
        ("format", {"type": "array"}),
        ("think", False),
        ("think", True),
        ("think", "high"),
        ("logprobs", True),
        *(
            ("options", {name: value})
            for name, value in {
                "seed": 7,
                "num_predict": 5,
                "temperature": 0.5,
                "top_p": 0.5,
                "top_k": 7,
                "min_p": 0.1,
                "repeat_penalty": 1.2,
                "presence_penalty": 0.5,
                "frequency_penalty": 0.5,
                "stop": "x",
            }.items()
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_it_changes_what_the_engine_is_asked(field: str, value: Any):
    assert chat(**{field: value}) != chat()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", ""),
        ("keep_alive", "5m"),
        ("keep_alive", -1),
        ("stream", False),
        ("options", {"num_ctx": 5, "num_predict": -1, "repeat_last_n": -1}),
        ("options", {}),
        ("tools", []),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_it_changes_nothing(field: str, value: Any):
    assert chat(**{field: value}) == chat()


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (0, 0),
        ("0", 0),
        ("0s", 0),
        (-1, -1),
        ("-1", -1),
        ("-1m", -60),
        (90, 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("300ms", 0.3),
        ("", None),
        ("m", None),
        ("soon", None),
        ("5 m", None),
        ("-", None),
        ("--1m", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_durations(told: float | str, seconds: float | None):
    assert seconds_of(told) == (None if seconds is None else pytest.approx(seconds))


def test_a_prompt_is_a_message_unless_it_is_raw():
    assert generate()["messages"] == [USER]
    told = generate(system="Be brief.")["messages"]
    assert told == [{"role": "system", "content": "Be brief."}, USER]
    assert (generate(raw=True)["prompt"], generate(raw=True)["messages"]) == ("hi", [])


def test_messages_become_what_templates_know():
    call = {"function": {"name": "f", "arguments": {"a": 1}, "index": 0}}
    messages = [
        USER,
        {"role": "assistant", "content": "", "thinking": "Well.", "tool_calls": [call]},
        {"role": "tool", "tool_name": "f", "content": "4"},
    ]
    assert chat(messages=messages)["messages"] == [
        USER,
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Well.",
            "tool_calls": [
                {"id": "", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "content": "4", "name": "f"},
    ]


def test_a_context_beyond_the_models_is_refused():
    with pytest.raises(RequestError) as caught:
        chat(options={"num_ctx": 10**7})
    assert caught.value.param == "options.num_ctx"


DELTAS = [delta(reasoning="Well"), *SAID]


def test_calls_are_told_when_they_have_ended():
    speaker = Speaker("m", chat=True)
    lines = [line for each in DELTAS if (line := speaker.say(each))] + [speaker.end(STATS)]
    told = [line.message for line in lines]
    assert all(message is not None for message in told)
    assert [m.thinking for m in told if m and m.thinking] == ["Well"]
    assert [m.content for m in told if m and m.content] == ["I ", "ask"]
    calls = [[c.function.name for c in m.tool_calls] for m in told if m and m.tool_calls]
    assert calls == [["f"], ["g"]]
    assert [line.done for line in lines] == [False] * 5 + [True]


def test_the_end_has_the_counts():
    end = Speaker("m", chat=True).whole(DELTAS, STATS)
    assert end.message is not None
    assert (end.message.content, end.message.thinking) == ("I ask", "Well")
    assert [c.function.arguments for c in end.message.tool_calls or []] == [{"a": 1}, {}]
    assert (end.prompt_eval_count, end.eval_count) == (10, 5)
    assert (end.total_duration, end.prompt_eval_duration, end.eval_duration) == (
        7 * 10**9,
        2 * 10**9,
        4 * 10**9,
    )
    cut = Speaker("m", chat=False).whole([delta(finish_reason=FinishReason.LENGTH)], STATS)
    assert (cut.done_reason, cut.response, cut.message) == ("length", "", None)


def test_models_are_told_as_ollama_tells_them():
    one, copy = card(), card()
    assert tag_of(one).digest == tag_of(copy).digest == running_of(one, None).digest
    assert tag_of(one).digest != tag_of(card(n_layers=one.n_layers + 1)).digest
    assert ollama.ListResponse.model_validate({"models": [tag_of(one).model_dump()]})
    assert ollama.ProcessResponse.model_validate({"models": [running_of(one, 60).model_dump()]})
    assert model_name("m:latest") == model_name("m") == "m"
