"""What OpenAI's chat API has and exo does not honour: refused by name, never dropped."""

from typing import Any, cast

from exo.errors import UnsupportedField

# The values that ask for nothing are let through: clients send them unasked.
_FIELDS: dict[str, tuple[object, ...]] = {
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
    for name, harmless in _FIELDS.items():
        value = body.get(name)
        if value is not None and value not in harmless:
            raise UnsupportedField(
                f"The field '{name}' is not supported.",
                hint=_INSTEAD.get(name, "Leave it out."),
                param=name,
            )
    for part in _content_parts(body):
        kind = part.get("type")
        if isinstance(kind, str) and kind in _MEDIA:
            raise UnsupportedField(
                f"This model reads text only, not '{kind}' parts.", param="messages"
            )
    return {name: value for name, value in body.items() if name not in _FIELDS}


def _content_parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    parts: list[object] = []
    for message in _dicts(body.get("messages")):
        parts += _list(message.get("content"))
    return _dicts(parts)


def _dicts(value: object) -> list[dict[str, Any]]:
    return [cast("dict[str, Any]", item) for item in _list(value) if isinstance(item, dict)]


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
