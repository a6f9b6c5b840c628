"""What OpenAI's responses have and exo does not honour: refused by name, never dropped."""

from typing import Any

from exo.api.unsupported import Refused, dicts, without
from exo.errors import UnsupportedField

# With the values that ask for nothing.
_FIELDS: Refused = {
    "access_programs": (),
    "background_options": ({}, {"completion_window": "soonest"}),
    "context_management": ([],),
    "conversation": (),
    "image": ({}, {"context_compression": "auto"}),
    "moderation": (),
    "prompt": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": ("in_memory",),
    "service_tier": ("auto", "default"),
}
_ITEMS = frozenset(
    {"message", "function_call", "function_call_output", "reasoning", "item_reference"}
)
_MEDIA = frozenset({"input_image", "input_file", "input_audio"})


def supported(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the fields that ask for nothing.

    Raises:
        UnsupportedField: a field, a tool, an item or a kind of content asks for what exo does not
            do.
    """
    left = without(body, _FIELDS)
    for tool in dicts(body.get("tools")):
        kind = tool.get("type", "function")
        if kind != "function":
            raise UnsupportedField(
                f"There are no tools of type '{kind}' here.",
                hint="Functions are the tools that the client runs.",
                param="tools",
            )
    for item in dicts(body.get("input")):
        _check_item(item)
    return left


def _check_item(item: dict[str, Any]) -> None:
    kind = item.get("type") or "message"
    if isinstance(kind, str) and kind not in _ITEMS:
        raise UnsupportedField(f"Items of type '{kind}' are not supported.", param="input")
    for part in [*dicts(item.get("content")), *dicts(item.get("output"))]:
        media = part.get("type")
        if isinstance(media, str) and media in _MEDIA:
            raise UnsupportedField(
                f"This model reads text only, not '{media}' parts.", param="input"
            )
