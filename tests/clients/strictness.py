"""Whether an answer is of one of OpenAI's own types."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

from openai._models import BaseModel
from pydantic import TypeAdapter

# exo's own, and what clients of other servers know.
OWN = {"reasoning_content", "generation_stats"}


def strictly(kind: Any, data: Any) -> None:
    """Validate without any conversion, and see that no field is unknown."""
    _adapter(kind).validate_json(json.dumps(data), strict=True)
    _known(kind, data)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _known(kind: Any, data: Any) -> None:
    if isinstance(data, list):
        for each in data:
            _known(kind, each)
        return
    if not isinstance(data, dict):
        return
    models = [model for model in _models(kind) if _is_typed(model, data)]
    if not models:
        return
    fields = {name: field for model in models for name, field in _fields(model)}
    for name, value in data.items():
        assert name in fields or name in OWN, f"{name} is no field of {models}"
        if name in fields:
            _known(fields[name].annotation, value)


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    elif get_origin(kind) is not dict:
        for part in get_args(kind):
            yield from _models(part)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def _is_typed(model: type[BaseModel], data: dict[str, Any]) -> bool:
    """Whether the type that the data claims is this model's."""
    field = model.model_fields.get("type")
    return field is None or "type" not in data or data["type"] in get_args(field.annotation)
