"""What a client wants an answer to be, as the engine is asked for it: pure."""

import json
import re
from typing import Any

from exo.api.chat_schema import ChatRequest, SchemaFormat, StructuredOutputs
from exo.errors import RequestError
from exo.inference.grammars.schema import check_schema
from exo.inference.types import Format

MAX_TEXT = 64 * 1024
_EMBEDDED = re.compile(r"%json\s*")
_OBJECT: dict[str, Any] = {"type": "object"}


def format_of(body: ChatRequest) -> Format | None:
    """The form that `response_format` or `structured_outputs` asks for.

    Raises:
        RequestError: a schema or a grammar is none, too large or endless.
    """
    if body.structured_outputs is not None:
        return structured(body.structured_outputs)
    match body.response_format:
        case SchemaFormat(json_schema=wanted):
            schema = _OBJECT if wanted.schema_ is None else wanted.schema_
            return json_form(schema, "response_format.json_schema.schema")
        case None:
            return None
        case form:
            return json_form(_OBJECT, "response_format") if form.type == "json_object" else None


def structured(wanted: StructuredOutputs) -> Format:
    """The form that this field asks for.

    Raises:
        RequestError: a schema or a grammar is none, too large or endless.
    """
    if wanted.json_ is not None:
        return json_form(wanted.json_, "structured_outputs.json")
    if wanted.choice is not None:
        if not all(wanted.choice):
            raise RequestError("A choice must not be empty.", param="structured_outputs.choice")
        text = json.dumps(wanted.choice, ensure_ascii=False)
        return _limited("choice", text, "structured_outputs.choice")
    if wanted.regex is not None:
        return _limited("regex", wanted.regex, "structured_outputs.regex")
    found = _limited("lark", wanted.grammar or "", "structured_outputs.grammar")
    _check_embedded(found.text, found.param)
    return found


def _check_embedded(grammar: str, param: str) -> None:
    """Schemas within a grammar are held to the same limits."""
    for place in _EMBEDDED.finditer(grammar):
        try:
            schema, _ = json.JSONDecoder().raw_decode(grammar, place.end())
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"A %json in the grammar is no JSON: {error}.", param=param
            ) from error
        check_schema(schema, param)


def json_form(schema: dict[str, Any], param: str) -> Format:
    """JSON that this schema, the value of `param`, allows.

    Raises:
        RequestError: it cannot be enforced.
    """
    check_schema(schema, param)
    return Format(kind="json", text=json.dumps(schema), param=param)


def _limited(kind: str, text: str, param: str) -> Format:
    size = len(text.encode())
    if size > MAX_TEXT:
        raise RequestError(f"It has {size} bytes; {MAX_TEXT} are allowed.", param=param)
    return Format.model_validate({"kind": kind, "text": text, "param": param})
