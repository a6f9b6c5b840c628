"""Tools and thoughts in the words of each model family, on models with random weights."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exo.errors import RequestError
from exo.inference.engine import Prepared
from exo.inference.messages import Finished, Generate, RequestFailed, Tokens
from exo.inference.mlx.engine import MlxEngine
from exo.inference.runner.service import Service
from exo.inference.speech.speech import Called, Said
from exo.inference.speech.splitter import Splitter
from exo.inference.types import Delta, FinishReason, Format, GenerateRequest, Stats, ToolUse
from tests.inference.families import (
    ALWAYS_THINKING,
    FAMILIES,
    LEVELS,
    THINK_TOKENS,
    THINKING,
    Family,
    first_of,
    make_family,
)
from tests.inference.test_mlx_engine import load
from tests.models_maker import END_ID

Load = Callable[..., MlxEngine]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """An engine with this template and these tokens, loaded once."""
    folder = tmp_path_factory.mktemp("families")
    loaded: dict[str, MlxEngine] = {}

    def engine(template: str, tokens: tuple[str, ...]) -> MlxEngine:
        key = template + repr(tokens)
        if key not in loaded:
            path = make_family(folder / str(len(loaded)), template, tokens)
            loaded[key] = load(path)
        return loaded[key]

    return engine


def function(name: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


AB = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
F, G = function("f", AB), {"type": "function", "function": {"name": "g"}}


def request(**fields: Any) -> GenerateRequest:
    messages = [{"role": "user", "content": "Do it."}]
    return GenerateRequest.model_validate({"request_id": "r", "messages": messages, **fields})


class Outcome:
    """What became of answer 0 of a request."""

    def __init__(self, engine: MlxEngine, asked: GenerateRequest) -> None:
        assert engine._load is not None
        service = Service(engine, engine._load, lambda: 0.0)
        self.prepared: Prepared = engine.prepare(asked)
        said = service.handle(Generate(request=asked), self.prepared)
        while service.busy:
            said += service.step()
        assert not [each for each in said if isinstance(each, RequestFailed)]
        deltas = [d for m in said if isinstance(m, Tokens) for d in m.deltas]
        self.deltas: list[Delta] = [delta for delta in deltas if delta.index == 0]
        self.text = "".join(delta.text for delta in self.deltas)
        self.reasoning = "".join(delta.reasoning for delta in self.deltas)
        self.reason = self.deltas[-1].finish_reason
        [self.stats] = [m.stats for m in said if isinstance(m, Finished)]
        assert isinstance(self.stats, Stats)
        self.calls: list[list[str]] = []
        for call in (call for delta in self.deltas for call in delta.calls):
            if call.name is not None:
                assert call.index == len(self.calls)
                self.calls.append([call.name, ""])
            self.calls[call.index][1] += call.arguments


def family(kind: str) -> Family:
    return next(each for each in FAMILIES if each.kind == kind)


ALL = pytest.mark.parametrize("one", FAMILIES, ids=lambda each: each.kind)


@ALL
def test_calls_as_models_write_them_are_allowed_and_read(engines: Load, one: Family):
    engine = engines(one.template, one.tokens)
    for text, calls in [
        (one.one, [("f", {"a": 5, "b": "x y"})]),
        (one.two, [("f", {"a": 5}), ("g", {})]),
    ]:
        prepared = engine.prepare(request(tool_use={"tools": [F, G], "required": True}))
        assert engine._grammars is not None
        constraint = engine._grammars.open(prepared.grammar)
        tokens = engine._tokenizer.encode(text, add_special_tokens=False)
        for token in tokens:
            constraint.push(token)
        mask = constraint.mask()
        assert constraint.failure is None
        assert mask is not None
        assert mask[END_ID // 8] >> END_ID % 8 & 1, "it may end here"
        splitter = Splitter(prepared.speech)
        pieces = [*splitter.push(text), *splitter.finish()]
        found: list[list[str]] = []
        for piece in pieces:
            assert isinstance(piece, Called)
            if piece.name is not None:
                found.append([piece.name, ""])
            found[piece.index][1] += piece.arguments
        assert [(name, json.loads(arguments)) for name, arguments in found] == calls


_VALUES = st.sampled_from(
    [
        {"type": "integer", "minimum": -50, "maximum": 3000},
        {"type": "boolean"},
        {"enum": ["one", "two words", "ünï"]},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        {"const": "only"},
    ]
)
_PARAMETERS = st.builds(
    lambda properties, wanted: {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name in wanted],
        "additionalProperties": False,
    },
    st.dictionaries(st.sampled_from(["a", "b_c", "long_name"]), _VALUES, max_size=3),
    st.sets(st.sampled_from(["a", "b_c", "long_name"])),
)


@ALL
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tools=st.lists(_PARAMETERS, min_size=1, max_size=2), seed=st.integers(0, 99))
def test_calls_that_are_required_meet_their_schemas(
    engines: Load, one: Family, tools: list[dict[str, Any]], seed: int
):
    functions = [function(f"tool_{n}", each, strict=True) for n, each in enumerate(tools)]
    found = Outcome(
        engines(one.template, one.tokens),
        request(
            tool_use={"tools": functions, "required": True, "parallel": bool(seed % 2)},
            sampling={"seed": seed, "logit_bias": {END_ID: 20.0}},
            max_tokens=300,
        ),
    )
    assert found.reason is FinishReason.TOOL_CALLS
    assert found.text == ""
    assert found.calls
    assert seed % 2 or len(found.calls) == 1
    for name, arguments in found.calls:
        jsonschema_rs.validate(tools[int(name[-1])], json.loads(arguments))


@ALL
def test_strict_tools_hold_within_free_text(engines: Load, one: Family):
    """The model says what it wants; once it begins a call, that is one of those there are."""
    engine = engines(one.template, one.tokens)
    begin = first_of(one.tokens)
    parameters = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["n"],
        "additionalProperties": False,
    }
    found = Outcome(
        engine,
        request(
            tool_use={"tools": [function("only", parameters, strict=True)], "parallel": False},
            sampling={"seed": 4, "logit_bias": {begin: 3.0, END_ID: -100.0}},
            max_tokens=400,
        ),
    )
    [[name, arguments]] = found.calls
    assert name == "only"
    jsonschema_rs.validate(parameters, json.loads(arguments))
    assert found.reason is FinishReason.TOOL_CALLS
    assert found.text


def test_a_form_and_calls_are_the_choice(engines: Load):
    one = family("json_tools")
    engine = engines(one.template, one.tokens)
    form = Format(kind="json", text='{"enum": [1, 2]}').model_dump()
    reasons = set()
    for seed, bias in enumerate([-30.0, 30.0] * 3):
        found = Outcome(
            engine,
            request(
                tool_use={"tools": [G]},
                format=form,
                sampling={"seed": seed, "logit_bias": {first_of(one.tokens): bias}},
            ),
        )
        reasons.add(found.reason)
        if found.reason is FinishReason.STOP:
            assert found.text in {"1", "2"}
            assert not found.calls
        else:
            assert [name for name, _ in found.calls] == ["g"] * len(found.calls)
            assert not found.text
    assert reasons == {FinishReason.STOP, FinishReason.TOOL_CALLS}


def test_a_family_whose_calls_cannot_be_enforced_says_so(engines: Load):
    one = Family("function_gemma", "<start_function_call>", (), "", "")
    engine = engines(one.template, ())
    assert engine.prepare(request(tool_use={"tools": [F]})).grammar == ""
    for use in ({"tools": [F], "required": True}, {"tools": [function("f", AB, strict=True)]}):
        with pytest.raises(RequestError, match="cannot be enforced") as caught:
            engine.prepare(request(tool_use=use))
        assert caught.value.param == ("tool_choice" if "required" in use else "tools")


def test_what_a_text_in_a_call_cannot_be_held_to_is_refused_if_strict(engines: Load):
    one = family("qwen3_coder")
    engine = engines(one.template, one.tokens)
    parameters = {**AB, "properties": {"a": {"type": "string", "pattern": "^x+$"}}}
    loose, strict = function("f", parameters), function("f", parameters, strict=True)
    assert engine.prepare(request(tool_use={"tools": [loose], "required": True})).grammar
    with pytest.raises(RequestError, match=r"'f'.*pattern"):
        engine.prepare(request(tool_use={"tools": [strict], "required": True}))


def test_keywords_that_cannot_be_enforced_are_refused_if_strict(engines: Load):
    one = family("json_tools")
    engine = engines(one.template, one.tokens)
    parameters = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    loose, strict = function("f", parameters), function("f", parameters, strict=True)
    assert engine.prepare(request(tool_use={"tools": [loose], "required": True})).grammar
    with pytest.raises(RequestError, match="uniqueItems"):
        engine.prepare(request(tool_use={"tools": [strict], "required": True}))


def test_a_model_without_tools_says_so(engines: Load):
    engine = engines(THINKING, THINK_TOKENS)
    with pytest.raises(RequestError, match="call tools") as caught:
        engine.prepare(request(tool_use=ToolUse(tools=[F]).model_dump()))
    assert caught.value.param == "tools"


# Thoughts.

_OPEN = first_of(THINK_TOKENS)
_CLOSE = _OPEN + 1


def test_a_thought_is_told_apart_and_counted(engines: Load):
    sampling = {"seed": 1, "logit_bias": {_OPEN: 7.0, _CLOSE: 7.0, END_ID: -100.0}}
    found = Outcome(engines(THINKING, THINK_TOKENS), request(sampling=sampling, max_tokens=60))
    assert not found.prepared.speech.thinking
    assert found.reasoning
    assert found.text
    assert "</think>" not in found.reasoning
    assert "<think>" not in found.text
    assert 0 < found.stats.reasoning_tokens < found.stats.generation_tokens


def test_a_prompt_may_end_within_a_thought(engines: Load):
    engine = engines(ALWAYS_THINKING, THINK_TOKENS)
    found = Outcome(engine, request(sampling={"seed": 1}, max_tokens=20))
    assert found.prepared.speech.thinking
    assert found.reasoning
    assert not found.text
    assert found.stats.reasoning_tokens == 20


def test_marks_in_what_a_user_writes_mean_nothing(engines: Load):
    for template, thinking in ((THINKING, False), (ALWAYS_THINKING, True)):
        for text in ("<think>", "</think>", "a <think> b </think> c <think>"):
            messages = [{"role": "user", "content": text}]
            asked = request().model_copy(update={"messages": messages})
            prepared = engines(template, THINK_TOKENS).prepare(asked)
            assert prepared.speech.thinking is thinking


def test_a_thought_of_the_assistant_is_continued(engines: Load):
    said = {"role": "assistant", "content": "<think>Well, it"}
    asked = request(continues=True).model_copy(
        update={"messages": [{"role": "user", "content": "Hi"}, said]}
    )
    assert engines(THINKING, THINK_TOKENS).prepare(asked).speech.thinking


@pytest.mark.parametrize("template", [THINKING, ALWAYS_THINKING])
def test_a_form_holds_after_the_thought(engines: Load, template: str):
    form = Format(kind="choice", text='["red", "blue"]').model_dump()
    sampling = {"seed": 2, "logit_bias": {_OPEN: 30.0, _CLOSE: 4.0}}
    found = Outcome(
        engines(template, THINK_TOKENS), request(format=form, sampling=sampling, max_tokens=200)
    )
    assert found.reasoning
    assert found.text in {"red", "blue"}
    assert found.reason is FinishReason.STOP


def test_without_thoughts_a_form_begins_at_once(engines: Load):
    form = Format(kind="choice", text='["red", "blue"]').model_dump()
    for fields in ({"effort": "none"}, {"template": {"enable_thinking": False}}):
        sampling = {"seed": 2, "logit_bias": {_OPEN: 30.0}}
        asked = request(format=form, sampling=sampling, **fields)
        found = Outcome(engines(THINKING, THINK_TOKENS), asked)
        assert (found.text in {"red", "blue"}, found.reasoning) == (True, "")
        assert found.stats.reasoning_tokens == 0


def test_the_template_is_told_and_only_what_it_looks_at(engines: Load):
    thinking, always = engines(THINKING, THINK_TOKENS), engines(ALWAYS_THINKING, THINK_TOKENS)
    levels, plain = engines(LEVELS, THINK_TOKENS), engines(family("pythonic").template, ())
    off = thinking.prepare(request(effort="none")).prompt
    assert list(off) != list(thinking.prepare(request()).prompt)
    assert list(thinking.prepare(request(template={"enable_thinking": False})).prompt) == list(off)
    assert list(thinking.prepare(request(effort="high")).prompt) == list(
        thinking.prepare(request(template={"enable_thinking": True})).prompt
    )
    levels.prepare(request(effort="low"))
    levels.prepare(request(template={"reasoning_effort": "low"}))
    plain.prepare(request(effort="none"))
    refused: list[tuple[MlxEngine, dict[str, Any], str]] = [
        (plain, {"effort": "low"}, "reasoning_effort"),
        (always, {"effort": "none"}, "reasoning_effort"),
        (always, {"template": {"enable_thinking": False}}, "enable_thinking"),
        (thinking, {"template": {"colour": 1}}, "chat_template_kwargs"),
    ]
    for engine, fields, param in refused:
        with pytest.raises(RequestError) as caught:
            engine.prepare(request(**fields))
        assert caught.value.param == param


def test_the_same_text_without_marks_is_as_it_was(engines: Load):
    """What a plain model says is not touched, whatever it looks like."""
    found = Outcome(engines(family("pythonic").template, ()), request(max_tokens=30))
    splitter = Splitter(found.prepared.speech)
    assert splitter.push(f"  {found.text} <think>") == [Said(f"  {found.text} <think>")]
