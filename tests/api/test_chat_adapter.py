from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.api.chat_adapter import to_generate
from exo.api.chat_schema import ChatRequest
from exo.api.routes import validate
from exo.api.unsupported import without_unsupported
from exo.errors import RequestError, UnsupportedField
from exo.inference.types import GenerateRequest
from tests.cluster.factory import card

USER = {"role": "user", "content": "hi"}


def body(**fields: object) -> dict:
    return {"model": "m", "messages": [USER], **fields}


def parse(**fields: object) -> ChatRequest:
    return validate(ChatRequest, without_unsupported(body(**fields)))


def generate(**fields: object) -> GenerateRequest:
    model = card(sampling={"temperature": 0.3, "top_k": 5})
    return to_generate(parse(**fields), model, "r")


def test_the_models_defaults_hold_until_the_client_says_otherwise():
    assert generate().sampling.temperature == 0.3
    assert generate().sampling.top_k == 5
    assert generate(temperature=0).sampling.temperature == 0
    assert generate().sampling.top_p == 1


def test_without_a_seed_two_requests_differ():
    assert generate().sampling.seed != generate().sampling.seed
    assert generate(seed=-1).sampling.seed == -1


def test_max_completion_tokens_wins_over_its_older_name():
    assert generate(max_tokens=5).max_tokens == 5
    assert generate(max_tokens=5, max_completion_tokens=7).max_tokens == 7
    assert generate().max_tokens is None


def test_messages_become_what_chat_templates_know():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "7", "tool_call_id": "c"},
    ]
    system, user, assistant, tool = generate(messages=messages).messages
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": "ab"}
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert tool == {"role": "tool", "content": "7", "tool_call_id": "c"}


def test_logprobs_are_counted():
    assert generate().logprobs is None
    assert generate(logprobs=True).logprobs == 0
    assert generate(logprobs=True, top_logprobs=3).logprobs == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(fields: dict, param: str):
    with pytest.raises(UnsupportedField) as caught:
        parse(**fields)
    assert caught.value.param == param
    assert param in caught.value.message


def test_an_image_is_refused_because_the_model_cannot_see():
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    with pytest.raises(UnsupportedField, match="text only"):
        parse(messages=[{"role": "user", "content": [image]}])


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []},
        {"tools": None},
        {"tool_choice": "auto"},
        {"response_format": {"type": "text"}},
        {"store": False},
        {"service_tier": "auto"},
        {"user": "me", "metadata": {"a": "b"}},
    ],
)
def test_what_asks_for_nothing_is_let_through(fields: dict):
    assert parse(**fields).messages


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages.0"),
        ({"messages": [{"role": "user"}]}, "messages.0.user.content"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ],
)
def test_a_wrong_field_is_named(fields: dict, param: str):
    with pytest.raises(RequestError) as caught:
        parse(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"top_logprobs": 2}, "needs logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream is true"),
    ],
)
def test_fields_that_need_each_other(fields: dict, match: str):
    with pytest.raises(RequestError, match=match):
        parse(**fields)


@pytest.mark.parametrize("token", ["100", "-1", "x", "1.5", "²"])
def test_a_bias_must_be_for_a_token_of_the_model(token: str):
    with pytest.raises(RequestError, match="no token of m"):
        generate(logit_bias={token: 1})


def test_an_empty_stop_string_is_refused():
    with pytest.raises(RequestError, match="empty"):
        generate(stop=["a", ""])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
names = st.sampled_from([*ChatRequest.model_fields, "tools", "response_format", "other"])


@given(st.dictionaries(names, json_values, max_size=5))
def test_whatever_is_sent_is_understood_or_refused(fields: dict):
    with suppress(RequestError):
        assert generate(**fields).messages == [USER]
