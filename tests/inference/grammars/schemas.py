"""Random JSON schemas of all kinds that are taken, met by texts of a bounded length."""

from typing import Any

from hypothesis import strategies as st

_WORDS = ["a", "b", "name", "wert", "ключ", "a b", 'q"t', "back\\slash", "ünï", ""]
_NAMES = st.sampled_from(_WORDS)
_INTEGERS = st.integers(-(2**53), 2**53)


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas, nested a few levels deep, and some that refer to a part of themselves."""
    whole = st.recursive(_leaves(), _nested, max_leaves=5)
    return st.one_of(whole, whole.map(lambda one: {"$defs": {"a/b": one}, "$ref": "#/$defs/a~1b"}))


def _leaves() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}]),
        st.builds(_string, st.integers(0, 4), st.integers(0, 8)),
        st.sampled_from(
            [
                {"type": "string", "pattern": "^[a-c]{1,5}$"},
                {"type": "string", "pattern": "x", "maxLength": 6},
                {"type": "string", "format": "date"},
                {"type": "string", "format": "ipv4"},
                {"type": "string", "format": "uuid"},
            ]
        ),
        st.builds(_integer, st.integers(-1000, 1000), st.integers(0, 500)),
        st.builds(
            lambda low, more: {"type": "number", "minimum": low, "maximum": low + more},
            st.integers(-10, 10),
            st.integers(1, 10),
        ),
        st.sampled_from([3, 7, 25]).map(
            lambda n: {"type": "integer", "minimum": 0, "maximum": 999, "multipleOf": n}
        ),
        st.lists(st.one_of(_NAMES, _INTEGERS, st.booleans(), st.none()), min_size=1).map(
            lambda values: {"enum": values}
        ),
        st.one_of(_NAMES, _INTEGERS, st.lists(_INTEGERS, max_size=2)).map(
            lambda value: {"const": value}
        ),
    )


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(_array, inner, st.integers(0, 2), st.integers(0, 2)),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda items: {"type": "array", "prefixItems": items, "items": False}
        ),
        st.builds(_object, st.dictionaries(_NAMES, inner, max_size=3), st.sets(_NAMES)),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    )


def _string(least: int, more: int) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": least + more}


def _integer(low: int, more: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": low + more}


def _array(items: dict[str, Any], least: int, more: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + more}


def _object(properties: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    required = [name for name in properties if name in wanted]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
