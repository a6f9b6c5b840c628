"""Vectors of texts with the `openai` and `ollama` clients, and models that ollama pulls."""

import base64
import json
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
from ollama import Client
from openai import OpenAI
from openai.types import CreateEmbeddingResponse

from tests.e2e.daemon import Daemon

from .strictness import strictly

pytestmark = pytest.mark.e2e

MODEL = "exo-demo"
ENCODER = "tiny-encoder"
ENCODERS = Path(__file__).parents[1] / "inference" / "encoders.json"
LONG_AND_SHORT = [list(range(5, 12)), [2, *range(20, 169)]]
TEXTS = ["How do I start exo?", "How can I start exo?", "What is 3 plus 4?"]


@pytest.fixture
def local(shared: Daemon) -> Iterator[Client]:
    client = Client(host=shared.base_url)
    yield client
    client._client.close()


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_like_texts_have_like_vectors(client: OpenAI) -> None:
    found = client.embeddings.create(model=MODEL, input=TEXTS)
    first, second, third = (each.embedding for each in found.data)
    assert [each.index for each in found.data] == [0, 1, 2]
    assert abs(dot(first, first) - 1) < 1e-5
    assert dot(first, second) > dot(first, third)
    assert found.model == MODEL
    assert found.usage.prompt_tokens == found.usage.total_tokens > 10


@pytest.mark.parametrize("form", ["float", "base64"])
def test_both_forms_are_openais(shared: Daemon, client: OpenAI, form: str) -> None:
    body = {"model": MODEL, "input": TEXTS[0], "encoding_format": form}
    data = shared.post("/v1/embeddings", body)
    [found] = data["data"]
    vector: Any = found["embedding"]
    if form == "base64":
        raw = base64.b64decode(vector)
        vector = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    else:
        strictly(CreateEmbeddingResponse, data)
    [parsed] = client.embeddings.create(model=MODEL, input=TEXTS[0]).data
    assert parsed.embedding == vector


def test_tokens_are_taken_as_they_are(shared: Daemon, client: OpenAI) -> None:
    told = [shared.post("/tokenize", {"model": MODEL, "prompt": text}) for text in TEXTS]
    tokens = [each["tokens"] for each in told]
    found = client.embeddings.create(model=MODEL, input=tokens)
    texts = client.embeddings.create(model=MODEL, input=TEXTS)
    assert found.usage.prompt_tokens == sum(map(len, tokens))
    for one, other in zip(found.data, texts.data, strict=True):
        assert all(
            math.isclose(a, b, abs_tol=1e-6)
            for a, b in zip(one.embedding, other.embedding, strict=True)
        )
    [alone] = client.embeddings.create(model=MODEL, input=tokens[2]).data
    assert dot(alone.embedding, found.data[2].embedding) > 1 - 1e-5


def test_vectors_are_made_beside_answers(shared: Daemon, client: OpenAI) -> None:
    with shared.stream(MODEL, TEXTS[0], temperature=0, max_tokens=100) as lines:
        next(lines)
        found = client.embeddings.create(model=MODEL, input=["word " * 300] * 8)
        assert len(found.data) == 8
        assert list(lines)[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": [10**6]}, "input"),
        ({"input": "word " * 9000}, "input"),
        ({"dimensions": 3}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**{"model": MODEL, "input": TEXTS[0], **fields})
    assert (caught.value.param or "").split(".")[0] == param


# Encoders.


def test_an_encoder_gives_the_vectors_of_transformers(client: OpenAI) -> None:
    """See `tests/inference/test_encoders.py` for where they are from."""
    right: list[list[float]] = json.loads(ENCODERS.read_text("utf-8"))["bert"]
    found = client.embeddings.create(model=ENCODER, input=[*LONG_AND_SHORT])
    for each, numbers in zip(found.data, right, strict=True):
        assert all(
            math.isclose(a, b, abs_tol=1e-5) for a, b in zip(each.embedding, numbers, strict=False)
        )
    assert found.usage.prompt_tokens == sum(map(len, LONG_AND_SHORT))


def test_special_tokens_are_put_around_texts(client: OpenAI, shared: Daemon) -> None:
    told = shared.post("/tokenize", {"model": ENCODER, "prompt": "w1 W2"})
    assert told["tokens"] == [2, 5, 6, 3]
    shown = shared.post("/detokenize", {"model": ENCODER, "tokens": told["tokens"]})
    assert shown["prompt"] == "[CLS] w1 w2 [SEP]"
    text, tokens = (
        client.embeddings.create(model=ENCODER, input=each).data[0].embedding
        for each in ("w1 W2", told["tokens"])
    )
    assert text == tokens


def test_a_text_that_an_encoder_was_not_made_for(client: OpenAI, local: Client) -> None:
    long = "w1 " * 179  # Two more than its context, with what is put around it.
    with pytest.raises(openai.BadRequestError, match="180 tokens") as caught:
        client.embeddings.create(model=ENCODER, input=long)
    assert caught.value.param == "input"
    assert caught.value.code == "context_length_exceeded"
    assert local.embed(model=ENCODER, input=long).prompt_eval_count == 180


def test_an_encoder_does_not_answer(client: OpenAI, local: Client) -> None:
    with pytest.raises(openai.BadRequestError, match="does not answer in words") as caught:
        client.chat.completions.create(model=ENCODER, messages=[{"role": "user", "content": "w1"}])
    assert caught.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="does not answer in words"):
        client.completions.create(model=ENCODER, prompt="w1")
    with pytest.raises(ollama.ResponseError, match="does not answer in words"):
        local.generate(model=ENCODER, prompt="w1")
    assert local.show(ENCODER).capabilities == ["embedding"]
    assert ENCODER in {each.model for each in local.list().models}


# Ollama.


def test_ollama_has_the_same(local: Client, client: OpenAI) -> None:
    right = [each.embedding for each in client.embeddings.create(model=MODEL, input=TEXTS).data]
    found = local.embed(model=MODEL, input=TEXTS)
    assert found.prompt_eval_count
    assert found.total_duration
    for one, other in zip(found.embeddings, right, strict=True):
        assert dot(one, other) > 1 - 1e-5
    assert dot(local.embed(model=MODEL, input=TEXTS[0]).embeddings[0], right[0]) > 1 - 1e-5
    assert dot(local.embeddings(model=MODEL, prompt=TEXTS[0]).embedding, right[0]) > 1 - 1e-5


def test_what_is_too_long_is_cut_or_refused(local: Client) -> None:
    long = "word " * 9000
    assert len(local.embed(model=MODEL, input=long).embeddings) == 1
    with pytest.raises(ollama.ResponseError, match="context"):
        local.embed(model=MODEL, input=long, truncate=False)
    with pytest.raises(ollama.ResponseError, match="num_ctx"):
        local.embed(model=MODEL, input="a", options={"num_ctx": 10**7})


def test_a_model_that_is_here_is_pulled(local: Client) -> None:
    assert local.pull(MODEL).status == "success"
    told = list(local.pull(f"{MODEL}:latest", stream=True))
    assert [told[0].status, told[-1].status] == ["pulling manifest", "success"]
    assert told[1].completed == told[1].total
    assert (told[1].total or 0) > 10**5


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_not_here(local: Client, shared: Daemon, stream: bool) -> None:
    with pytest.raises(ollama.ResponseError, match="models") as caught:
        list(local.pull("llama-3.2-1b", stream=stream))
    assert caught.value.status_code == 404
    assert "does not download" in caught.value.error
    with pytest.raises(ollama.ResponseError, match="no model") as caught:
        list(local.pull("nonsense-9000", stream=stream))
    assert caught.value.status_code == 404
