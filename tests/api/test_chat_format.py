"""What the fields that give an answer a form ask of the engine."""

import json
from typing import Any

import pytest

from exo.api.chat_format import MAX_TEXT, format_of
from exo.api.chat_schema import ChatRequest
from exo.api.routes import validate
from exo.api.unsupported import without_unsupported
from exo.errors import RequestError
from exo.inference.types import Format

SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}, "required": ["a"]}


def form(**fields: Any) -> Format | None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return format_of(validate(ChatRequest, without_unsupported(body)))


def schema_format(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", **fields}}


def test_text_has_no_form():
    assert form() is None
    assert form(response_format=None) is None
    assert form(response_format={"type": "text"}) is None


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_schema_holds_strict_or_not_and_keeps_its_order(strict: bool | None):
    found = form(response_format=schema_format(schema=SCHEMA, strict=strict))
    assert found is not None
    assert (found.kind, found.text) == ("json", json.dumps(SCHEMA))


def test_any_object():
    for wanted in ({"type": "json_object"}, schema_format()):
        found = form(response_format=wanted)
        assert found is not None
        assert json.loads(found.text) == {"type": "object"}


@pytest.mark.parametrize(
    ("wanted", "kind", "text"),
    [
        ({"json": SCHEMA}, "json", json.dumps(SCHEMA)),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["é", "b"]}, "choice", '["é", "b"]'),
        ({"grammar": 'start: "a"'}, "lark", 'start: "a"'),
        ({"grammar": "start: %json {} a"}, "lark", "start: %json {} a"),
    ],
)
def test_vllms_field(wanted: dict[str, Any], kind: str, text: str):
    found = form(structured_outputs=wanted)
    assert found is not None
    assert (found.kind, found.text) == (kind, text)
    assert found.param == f"structured_outputs.{next(iter(wanted))}"


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "xml"}},
        {"response_format": "json"},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        {"response_format": schema_format(schema=[])},
        {"response_format": schema_format(schema={"multipleOf": 10**9})},
        {"response_format": schema_format(schema={"$ref": "#"})},
        {"response_format": schema_format(schema={}, strict="yes")},
        {"response_format": schema_format(schema={}, more=1)},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
        {"response_format": {"type": "text", "schema": {}}},
        {"structured_outputs": {}},
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        {"structured_outputs": {"choice": []}},
        {"structured_outputs": {"choice": [""]}},
        {"structured_outputs": {"regex": ""}},
        {"structured_outputs": {"regex": "a" * (MAX_TEXT + 1)}},
        {"structured_outputs": {"json": {"minProperties": 3}}},
        {"structured_outputs": {"ebnf": "a"}},
        {"structured_outputs": {"grammar": 'start: %json {"multipleOf": 99999}'}},
        {"structured_outputs": {"grammar": "start: %json {'a': 1}"}},
    ],
    ids=lambda value: json.dumps(value)[:70],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any]):
    with pytest.raises(RequestError) as caught:
        form(**fields)
    assert (caught.value.param or "").split(".")[0] == next(iter(fields))


def test_two_forms_at_once_are_refused():
    with pytest.raises(RequestError, match="exclude each other"):
        form(response_format={"type": "json_object"}, structured_outputs={"regex": "a"})
    assert form(response_format={"type": "text"}, structured_outputs={"regex": "a"})
