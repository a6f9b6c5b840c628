"""What OpenAI's chat API has and exo does not honour: refused by name, never dropped."""

from collections.abc import Mapping
from typing import Any, cast

from exo.errors import UnsupportedField

# The values that ask for nothing are let through: clients send them unasked.
Refused = Mapping[str, tuple[object, ...]]
_FIELDS: Refused = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
    "moderation": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": ("in_memory",),
}
_INSTEAD = {"functions": "Use 'tools'.", "function_call": "Use 'tool_choice'."}
_MEDIA = frozenset({"image_url", "input_audio", "file"})


def without_unsupported(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the fields that ask for nothing.

    Raises:
        UnsupportedField: a field or a kind of content asks for what exo does not do.
    """
    left = without(body, _FIELDS)
    for part in _content_parts(body):
        kind = part.get("type")
        if isinstance(kind, str) and kind in _MEDIA:
            raise UnsupportedField(
                f"This model reads text only, not '{kind}' parts.", param="messages"
            )
    return left


def without(body: dict[str, Any], refused: Refused) -> dict[str, Any]:
    """The body without these fields.

    Raises:
        UnsupportedField: one of them has another value than those that ask for nothing.
    """
    for name, harmless in refused.items():
        value = body.get(name)
        if value is not None and value not in harmless:
            raise UnsupportedField(
                f"The field '{name}' is not supported.",
                hint=_INSTEAD.get(name, "Leave it out."),
                param=name,
            )
    return {name: value for name, value in body.items() if name not in refused}


def _content_parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    parts: list[object] = []
    for message in dicts(body.get("messages")):
        parts += _list(message.get("content"))
    return dicts(parts)


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects in a list; none, if it is no list."""
    return [cast("dict[str, Any]", item) for item in _list(value) if isinstance(item, dict)]


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
