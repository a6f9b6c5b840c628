"""Which JSON schemas are taken, and what is said of the others."""

from typing import Any

import pytest
from hypothesis import given

from exo.errors import RequestError
from exo.inference.grammars.schema import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_DIVISOR,
    MAX_PROPERTIES,
    check_schema,
)
from tests.inference.grammars.schemas import schemas

LIST = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["next"],
}
TREE = {
    "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    "$ref": "#/$defs/node",
}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@given(schemas())
def test_what_has_an_end_is_taken(schema: dict[str, Any]):
    check_schema(schema, "here")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        LIST,
        TREE,
        {"properties": {"again": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "required": ["other"], "properties": {"a": {"$ref": "#"}}},
        {"type": "array", "prefixItems": [{"$ref": "#"}]},
        {"multipleOf": MAX_DIVISOR},
        {"properties": {"a": {"multipleOf": 9973}, "b": {"multipleOf": 9967}}},
        {"allOf": [{"multipleOf": 4}, {"multipleOf": 6}]},
        {"minProperties": 1},
        {"properties": {"a": {}, "b": {}}, "required": ["a", "b"], "minProperties": 2},
        nested(MAX_DEPTH),
    ],
    ids=repr,
)
def test_more_that_is_taken(schema: dict[str, Any]):
    check_schema(schema, "here")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ([], "must be an object"),
        (True, "must be an object"),
        ({"description": "x" * MAX_BYTES}, "bytes"),
        (nested(MAX_DEPTH + 1), "levels deep"),
        ({"items": {"properties": {str(n): {} for n in range(MAX_PROPERTIES + 1)}}}, "properties"),
        ({"anyOf": [{"multipleOf": MAX_DIVISOR + 1}]}, "multipleOf"),
        ({"multipleOf": 0}, "multipleOf"),
        ({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "together"),
        (
            {"$defs": {"a": {"multipleOf": 9973}}, "$ref": "#/$defs/a", "multipleOf": 9967},
            "together",
        ),
        ({"minProperties": 2}, "minProperties"),
        ({"enum": [[2**53 + 1]]}, "rounded"),
        ({"maximum": -(2**60)}, "rounded"),
        ({"$ref": "#"}, "without an end"),
        ({"anyOf": [{"$ref": "#"}]}, "without an end"),
        ({"allOf": [{}, {"$ref": "#"}]}, "without an end"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "without an end",
        ),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "without an end"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "without an end"),
        ({"type": "array", "prefixItems": [{"$ref": "#"}], "minItems": 1}, "without an end"),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"$ref": "#/$defs/b~1c"}, "b/c": {"$ref": "#/$defs/a"}},
            },
            "without an end",
        ),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_refused(schema: object, reason: str):
    with pytest.raises(RequestError, match=reason) as caught:
        check_schema(schema, "here")
    assert caught.value.param == "here"
