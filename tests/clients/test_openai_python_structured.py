"""The `openai` Python client: answers that are held to a form."""

import json
import re
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

pytestmark = pytest.mark.e2e

ASK: list[Any] = [{"role": "user", "content": "Give me JSON with name Anna and age 30."}]


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=130)
    mood: Literal["good", "bad"]


@pytest.mark.parametrize("model", ["exo-demo", "tiny"])
def test_parse_gives_what_the_class_describes(client: OpenAI, model: str) -> None:
    completion = client.chat.completions.parse(
        model=model, messages=ASK, response_format=Person, temperature=1, seed=1
    )
    [choice] = completion.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Person)
    if model == "exo-demo":
        assert (choice.message.parsed.name, choice.message.parsed.age) == ("Anna", 30)


def test_a_stream_is_held_to_it_as_well(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="exo-demo", messages=ASK, response_format=Person, temperature=0
    ) as stream:
        final = stream.get_final_completion()
    parsed = final.choices[0].message.parsed
    assert parsed is not None
    assert parsed.name == "Anna"


def test_any_json_object(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="exo-demo", messages=ASK, response_format={"type": "json_object"}, temperature=0
    )
    assert json.loads(completion.choices[0].message.content or "") == {"name": "Anna", "age": 30}


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": r"[a-c]{2,4}-\d{3}"}, r"[a-c]{2,4}-\d{3}"),
        ({"choice": ["yes", "no"]}, "yes|no"),
        ({"grammar": 'start: "<" /[xyz]{1,3}/ ">"'}, "<[xyz]{1,3}>"),
        ({"json": {"enum": [1, 2]}}, "[12]"),
    ],
)
def test_other_forms(client: OpenAI, wanted: dict[str, Any], pattern: str) -> None:
    completion = client.chat.completions.create(
        model="tiny",
        messages=ASK,
        n=3,
        seed=4,
        logprobs=True,
        top_logprobs=20,
        extra_body={"structured_outputs": wanted},
    )
    for choice in completion.choices:
        assert re.fullmatch(pattern, choice.message.content or "")
        assert choice.finish_reason == "stop"


def test_what_cannot_be_held_to_is_refused(client: OpenAI) -> None:
    for schema, reason in [({"uniqueItems": True}, "uniqueItems"), ({"$ref": "#"}, "end")]:
        with pytest.raises(openai.BadRequestError, match=reason) as caught:
            client.chat.completions.create(
                model="tiny",
                messages=ASK,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": schema},
                },
            )
        assert caught.value.param == "response_format.json_schema.schema"
