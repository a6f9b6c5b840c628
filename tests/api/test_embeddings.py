"""Every field of requests for vectors is honoured or refused."""

import re
from pathlib import Path
from typing import Any, get_type_hints

import ollama._types
import pytest
from openai.types import embedding_create_params

from exo.api.embedding_schema import EmbeddingRequest
from exo.api.ollama_embed import OllamaEmbed, OllamaEmbeddings
from exo.api.ollama_pull import PullRequest
from exo.api.routes import validate
from exo.errors import RequestError

PAGE = Path(__file__).parents[2] / "docs" / "openai.md"
# What each field is asked for, and what cannot be had of it.
FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "input": (
        ["a", ["a", "b"], [1, 2], [[1], [2, 3]]],
        ["", [], [""], [[]], [-1], [1.5], ["a", 1], 5, ["x"] * 2049],
    ),
    "model": (["m"], ["", 5]),
    "dimensions": ([8, None], [0, "8"]),
    "encoding_format": (["float", "base64"], ["hex", 5]),
    "user": (["me"], [5]),
}


def parsed(**fields: Any) -> EmbeddingRequest:
    return validate(EmbeddingRequest, {"model": "m", "input": "a", **fields})


def test_every_field_of_openais_is_known():
    assert set(get_type_hints(embedding_create_params.EmbeddingCreateParams)) == set(FIELDS)
    assert set(EmbeddingRequest.model_fields) == set(FIELDS)


def test_every_field_of_ollamas_is_known():
    kinds = ollama._types
    for theirs, ours in (
        (kinds.EmbedRequest, OllamaEmbed),
        (kinds.EmbeddingsRequest, OllamaEmbeddings),
        (kinds.PullRequest, PullRequest),
    ):
        assert set(theirs.model_fields) <= set(ours.model_fields)


def test_the_page_tells_of_every_field():
    section = PAGE.read_text("utf-8").partition("## Embeddings")[2]
    for name in FIELDS:
        assert re.search(rf"^\| .*`{name}`.* \|", section, re.MULTILINE), name


@pytest.mark.parametrize(
    ("field", "value"),
    [(name, value) for name, (good, _) in FIELDS.items() for value in good],
    ids=lambda value: repr(value)[:30],
)
def test_what_may_be_asked_for(field: str, value: Any):
    assert getattr(parsed(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name, (_, bad) in FIELDS.items() for value in bad),
        ("truncate", True),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_cannot_be_had_is_refused_by_name(field: str, value: Any):
    with pytest.raises(RequestError) as caught:
        parsed(**{field: value})
    assert (caught.value.param or "").split(".")[0] == field


def test_inputs_are_one_or_several():
    assert parsed(input="a").inputs == ["a"]
    assert parsed(input=[1, 2]).inputs == [[1, 2]]
    assert parsed(input=[[1], [2, 3]]).inputs == [[1], [2, 3]]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [""]}, "input"),
        ({"keep_alive": "long"}, "keep_alive"),
        ({"options": {"temperature": 1}}, "options"),
        ({"truncate": "yes"}, "truncate"),
    ],
)
def test_what_ollama_cannot_have(fields: dict[str, Any], param: str):
    with pytest.raises(RequestError) as caught:
        validate(OllamaEmbed, {"model": "m", "input": "a", **fields})
    assert (caught.value.param or "").split(".")[0] == param


def test_an_input_of_no_form_is_one_error_of_its_field():
    with pytest.raises(RequestError) as caught:
        validate(EmbeddingRequest, {"model": "m", "input": []})
    assert caught.value.param == "input"
    assert "a list of texts" in str(caught.value)
