"""Errors as the `openai` Python client's own exceptions."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model(client: OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="exo-dmeo", messages=HELLO, stream=stream)
    error = caught.value
    assert error.status_code == 404
    assert (error.code, error.type, error.param) == (
        "model_not_found",
        "invalid_request_error",
        "model",
    )
    assert "exo-demo" in error.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("exo-dmeo")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"functions": [{"name": "clock"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"extra_body": {"colour": "blue"}}, "colour"),
    ],
)
def test_bad_request(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": HELLO, **fields})
    error = caught.value
    assert error.status_code == 400
    assert error.param == param
    assert param in error.message
    assert error.request_id


def test_context_that_does_not_fit(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=5000)
    assert caught.value.code == "context_length_exceeded"
    assert "2048" in caught.value.message


def test_body_over_the_limit(client: OpenAI) -> None:
    long: list[Any] = [{"role": "user", "content": "a" * (2 * 2**20)}]
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="tiny", messages=long)
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


def test_a_model_of_words_draws_nothing(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model="exo-demo", prompt="A cat")
    assert caught.value.param == "model"


def test_refused_host(base_url: str) -> None:
    with (
        OpenAI(
            base_url=base_url, api_key="none", default_headers={"Origin": "https://a.example"}
        ) as client,
        pytest.raises(openai.PermissionDeniedError),
    ):
        client.models.list()


def test_error_in_the_middle_of_a_stream(client: OpenAI, shared: Daemon) -> None:
    """An instance that is deleted while it answers: the client raises what the stream says."""
    instance = shared.create("tiny-endless", context_length=100_000)
    stream = client.chat.completions.create(
        model="tiny-endless", messages=HELLO, stream=True, logit_bias={"2": -100}
    )
    with stream:
        assert next(iter(stream))
        shared.delete(instance)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert caught.value.code == "runner_died"
    assert "deleted" in caught.value.message


def test_nobody_there(shared: Daemon) -> None:
    with (
        OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()
