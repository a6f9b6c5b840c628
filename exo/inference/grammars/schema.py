"""Which JSON schemas are taken: pure. What is refused here would cost too much, could never end, or
is not wholly enforced by the grammars that are made of schemas."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import unquote

from exo.errors import RequestError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_PROPERTIES = 5000
# A multiple is counted off digit by digit, in as many states as the divisor is large.
MAX_DIVISOR = 10_000
MAX_INTEGER = 2**53

Schema = Mapping[str, Any]
# What one schema holds by name, in a list, or alone.
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else")


def check_schema(schema: object, param: str) -> None:
    """Raises:
    RequestError: the schema is none, too large, too deep, can never be met by anything that
        ends, or says what cannot be enforced. It names `param`.
    """
    if not isinstance(schema, dict):
        raise RequestError("A JSON schema must be an object.", param=param)
    root = cast("dict[str, Any]", schema)
    # Depth first: writing it down would go as deep.
    if _deeper_than(root, MAX_DEPTH):
        raise RequestError(f"The schema is nested more than {MAX_DEPTH} levels deep.", param=param)
    size = len(json.dumps(root).encode())
    if size > MAX_BYTES:
        raise RequestError(f"The schema has {size} bytes; {MAX_BYTES} are allowed.", param=param)
    if any(isinstance(each, int) and abs(each) > MAX_INTEGER for each in _inner(root)):
        raise RequestError(
            "The schema cannot be enforced: it has integers beyond 2^53, which would be rounded.",
            param=param,
        )
    properties = 0
    for part in _parts(root):
        properties += len(_mapping(part.get("properties")))
        if reason := _obstacle(part):
            raise RequestError(f"The schema cannot be enforced: {reason}.", param=param)
    if properties > MAX_PROPERTIES:
        raise RequestError(
            f"The schema has {properties} properties; {MAX_PROPERTIES} are allowed.", param=param
        )
    if _together(root) > MAX_DIVISOR:
        raise RequestError(
            f"The schema cannot be enforced: multipleOf and allOf together count up to more than "
            f"{MAX_DIVISOR}.",
            param=param,
        )
    if not _ends(root):
        raise RequestError(
            "The schema refers to itself without an end: nothing finite can meet it.", param=param
        )


def _obstacle(schema: Schema) -> str | None:
    divisor = schema.get("multipleOf")
    if isinstance(divisor, int | float) and not 0 < divisor <= MAX_DIVISOR:
        return f"multipleOf must be above 0 and at most {MAX_DIVISOR}"
    # Other keys than those of `properties` may come twice, and then count once.
    least = schema.get("minProperties")
    known = len(_mapping(schema.get("properties")))
    if isinstance(least, int) and least > max(1, _required(schema, known)):
        return "minProperties over 1 holds only if as many properties are required"
    return None


def _together(root: Schema) -> float:
    """What all divisors make together, where schemas are combined with others; else 0."""
    divisors: set[float] = set()
    combined = False
    for part in _parts(root):
        divisor = part.get("multipleOf")
        if isinstance(divisor, int | float):
            divisors.add(abs(divisor))
        combined = combined or "allOf" in part or ("$ref" in part and len(part) > 1)
    return math.prod(divisors) if combined and len(divisors) > 1 else 0


def _required(schema: Schema, known: int) -> int:
    names = schema.get("required")
    return min(known, len(set(map(str, _list(names)))))


def _parts(schema: Schema) -> Iterator[Schema]:
    """A schema and all that are within it."""
    waiting: list[object] = [schema]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        found = cast("dict[str, Any]", part)
        yield found
        for key in _BY_NAME:
            waiting += _mapping(found.get(key)).values()
        for key in _LISTS:
            waiting += _list(found.get(key))
        waiting += [found[key] for key in _SINGLE if key in found]


class _Ending:
    """Which schemas something finite can meet: the least fixed point over their references."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._proven: set[str] = set()

    def __call__(self) -> bool:
        """Whether the root can."""
        references = {
            part["$ref"] for part in _parts(self._root) if isinstance(part.get("$ref"), str)
        }
        grown = True
        while grown:
            new = {
                each for each in references - self._proven if self.ends(_resolved(self._root, each))
            }
            self._proven |= new
            grown = bool(new)
        return self.ends(self._root)

    def ends(self, schema: object) -> bool:
        if not isinstance(schema, dict):
            return schema is not False
        part = cast("dict[str, Any]", schema)
        reference = part.get("$ref")
        if isinstance(reference, str) and reference not in self._proven:
            return False
        choices = [part[key] for key in ("anyOf", "oneOf") if _list(part.get(key))]
        if not all(any(self.ends(each) for each in _list(choice)) for choice in choices):
            return False
        if not all(self.ends(each) for each in _list(part.get("allOf"))):
            return False
        # Where other types may be, a number or nothing is an end.
        types = part.get("type")
        if types == "object":
            return self._object(part)
        return self._array(part) if types == "array" else True

    def _object(self, part: Schema) -> bool:
        properties = _mapping(part.get("properties"))
        rest = part.get("additionalProperties", True)
        required = [name for name in _list(part.get("required")) if isinstance(name, str)]
        return all(self.ends(properties.get(name, rest)) for name in required)

    def _array(self, part: Schema) -> bool:
        least = part.get("minItems", 0)
        first = _list(part.get("prefixItems"))
        if not isinstance(least, int):
            return True
        if not all(self.ends(each) for each in first[:least]):
            return False
        return least <= len(first) or self.ends(part.get("items", True))


def _ends(root: Schema) -> bool:
    return _Ending(root)()


def _resolved(root: Schema, reference: str) -> object:
    """What a reference within the schema points to; anything, if it is none of those."""
    if not reference.startswith("#"):
        return True
    place: Any = root
    for step in unquote(reference[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict):
            place = _mapping(cast("object", place)).get(key, True)
            continue
        items = _list(cast("object", place))
        if not key.isdigit() or int(key) >= len(items):
            return True
        place = items[int(key)]
    return place


def _inner(value: object) -> Iterator[object]:
    """Everything within a value."""
    waiting: list[object] = [value]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += [*_mapping(each).values(), *_list(each)]


def _deeper_than(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth + 1):
        level = [inner for each in level for inner in (*_mapping(each).values(), *_list(each))]
    return bool(level)


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
